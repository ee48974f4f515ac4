"""Joint angles and the 3-D skeleton of a synthetic person.

Body frame: x to the picture's right when the person faces the viewer, y down, z towards the
viewer; lengths are fractions of the standing height; angles are radians. Side -1 is the picture's
left, +1 its right, for a person who faces the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .materials import pick

SIDES = (-1, 1)
HEAD_LENGTH, NECK, TORSO = 0.145, 0.035, 0.29
UPPER_ARM, LOWER_ARM, HAND = 0.175, 0.145, 0.045
UPPER_LEG, LOWER_LEG, FOOT = 0.245, 0.235, 0.095
SHOULDER, HIP = 0.112, 0.058
_DOWN = np.array([0.0, 1.0, 0.0])


@dataclass
class Limb:
    """Angles of an arm or a leg: root flexion (forward), abduction (outward), twist (inward), and
    the bend of the elbow or knee."""

    flexion: float
    abduction: float
    twist: float
    bend: float


@dataclass
class Pose:
    """Angles of a whole person; `yaw` 0 faces the viewer, `roll` turns in the picture plane."""

    yaw: float
    roll: float
    bow: float
    tilt: float
    head_bow: float
    head_tilt: float
    head_yaw: float
    arms: dict[int, Limb] = field(default_factory=dict)
    legs: dict[int, Limb] = field(default_factory=dict)


def sample_pose(rng: np.random.Generator) -> Pose:
    """A random pose: standing, walking, sitting, crouching, leaning, or none of these."""
    legs_kind = pick(rng, ("stand", "walk", "sit", "crouch", "free"), (0.5, 0.32, 0.06, 0.03, 0.09))
    leaning = rng.random() < 0.12
    degrees = np.deg2rad
    pose = Pose(
        yaw=_sample_yaw(rng, sideways=legs_kind in ("walk", "sit")),
        roll=degrees(rng.normal(0, 20 if leaning else 5)),
        bow=degrees(rng.uniform(10, 70) if leaning else rng.normal(2, 7)),
        tilt=degrees(rng.normal(0, 14 if leaning else 5)),
        head_bow=degrees(rng.normal(6, 14)),
        head_tilt=degrees(rng.normal(0, 12)),
        head_yaw=degrees(rng.normal(0, 28)),
    )
    stride = degrees(rng.uniform(15, 42)) * pick(rng, SIDES)
    for side in SIDES:
        pose.legs[side] = _sample_leg(rng, legs_kind, side * stride)
        pose.arms[side] = _sample_arm(rng, -side * stride if legs_kind == "walk" else 0.0)
    return pose


def _sample_yaw(rng: np.random.Generator, sideways: bool) -> float:
    odds = (0.36, 0.12, 0.34, 0.18) if sideways else (0.54, 0.18, 0.1, 0.18)
    view = pick(rng, ("front", "back", "side", "any"), odds)
    if view == "any":
        return float(rng.uniform(-np.pi, np.pi))
    centre = {"front": 0.0, "back": np.pi, "side": np.pi / 2 * pick(rng, SIDES)}[view]
    return float(centre + np.deg2rad(rng.normal(0, 14)))


def _sample_leg(rng: np.random.Generator, kind: str, stride: float) -> Limb:
    flexion, abduction, bend = {
        "stand": (rng.normal(0, 5), rng.normal(5, 5), abs(rng.normal(0, 7))),
        "walk": (np.rad2deg(stride) + rng.normal(0, 6), rng.normal(2, 3), rng.uniform(0, 55)),
        "sit": (rng.uniform(65, 105), rng.uniform(0, 28), rng.uniform(50, 110)),
        "crouch": (rng.uniform(50, 120), rng.uniform(0, 35), rng.uniform(80, 140)),
        "free": (rng.uniform(-35, 95), rng.uniform(-8, 50), rng.uniform(0, 110)),
    }[kind]
    if kind == "walk" and stride > 0:
        bend *= 0.4
    return Limb(*np.deg2rad([flexion, abduction, rng.normal(0, 12), bend]).tolist())


def _sample_arm(rng: np.random.Generator, swing: float) -> Limb:
    kind = pick(
        rng,
        ("hang", "bent", "hip", "crossed", "raised", "forward", "free"),
        (0.36, 0.18, 0.1, 0.05, 0.15, 0.06, 0.1),
    )
    draw = rng.uniform
    flexion, abduction, twist, bend = {
        "hang": (rng.normal(0, 12), abs(rng.normal(10, 8)), rng.normal(10, 20), draw(0, 30)),
        "bent": (rng.normal(5, 20), draw(2, 30), draw(-20, 60), draw(40, 130)),
        "hip": (draw(-20, 5), draw(35, 55), draw(70, 100), draw(75, 105)),
        "crossed": (draw(10, 40), draw(0, 20), draw(55, 90), draw(80, 120)),
        "raised": (draw(-20, 60), draw(85, 175), draw(-60, 60), draw(0, 110)),
        "forward": (draw(40, 140), draw(-10, 35), draw(-30, 50), draw(0, 70)),
        "free": (draw(-45, 150), draw(0, 130), draw(-60, 100), draw(0, 140)),
    }[kind]
    return Limb(
        float(np.deg2rad(flexion) + swing * 0.7),
        *np.deg2rad([abduction, twist, bend]).tolist(),
    )


def skeleton(pose: Pose) -> dict[str, np.ndarray]:
    """Joints (3,) by name, hips' middle at the origin; paired ones end in `-1` or `+1`.

    Also `facing` and `head_facing`: unit vectors, where body and face look.
    """
    turn = _about_z(pose.roll) @ _about_y(pose.yaw)
    trunk = turn @ _about_z(pose.tilt) @ _about_x(-pose.bow)
    head = trunk @ _about_z(pose.head_tilt) @ _about_y(pose.head_yaw) @ _about_x(-pose.head_bow)
    chest = trunk @ (-TORSO * _DOWN)
    joints = {
        "hip": np.zeros(3),
        "chest": chest,
        "chin": chest + trunk @ (-NECK * _DOWN),
        "facing": trunk @ np.array([0.0, 0.0, 1.0]),
        "head_facing": head @ np.array([0.0, 0.0, 1.0]),
    }
    joints["crown"] = joints["chin"] + head @ (-HEAD_LENGTH * _DOWN)
    for side in SIDES:
        shoulder = chest + trunk @ np.array([side * SHOULDER, 0.012, 0.0])
        arm, forearm = _limb_frames(trunk, pose.arms[side], side, bend_sign=1)
        elbow = shoulder + arm @ (UPPER_ARM * _DOWN)
        wrist = elbow + forearm @ (LOWER_ARM * _DOWN)
        hip = turn @ np.array([side * HIP, 0.0, 0.0])
        thigh, shin = _limb_frames(turn, pose.legs[side], side, bend_sign=-1)
        knee = hip + thigh @ (UPPER_LEG * _DOWN)
        ankle = knee + shin @ (LOWER_LEG * _DOWN)
        foot = shin @ np.array([side * 0.25, 0.3, 0.95])
        joints |= {
            f"shoulder{side:+d}": shoulder,
            f"elbow{side:+d}": elbow,
            f"wrist{side:+d}": wrist,
            f"fingers{side:+d}": wrist + forearm @ (HAND * _DOWN),
            f"hip{side:+d}": hip,
            f"knee{side:+d}": knee,
            f"ankle{side:+d}": ankle,
            f"toes{side:+d}": ankle + FOOT * foot / np.linalg.norm(foot),
        }
    return joints


def _limb_frames(
    root: np.ndarray, limb: Limb, side: int, bend_sign: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (3, 3) of the upper and the lower half of a limb."""
    upper = root @ _about_z(side * limb.abduction) @ _about_x(limb.flexion)
    upper = upper @ _about_y(-side * limb.twist * (bend_sign > 0))
    return upper, upper @ _about_x(bend_sign * limb.bend)


def _about_x(angle: float) -> np.ndarray:
    """Rotation that swings 'down' forward."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> np.ndarray:
    """Rotation that turns 'forward' to +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> np.ndarray:
    """Rotation that swings 'down' to +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
