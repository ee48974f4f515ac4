"""A person: a pose, a build and an outfit, turned into shapes with part ids.

Part ids are Pascal-Person-Part's: hands belong to the lower arms, feet to the lower legs, the
neck to the torso, hair and hat to the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .materials import (
    Material,
    hair_color,
    pick,
    plain_material,
    random_color,
    random_material,
    similar_material,
    skin_color,
    to_color,
)
from .pose import SIDES, sample_pose, skeleton
from .shapes import FLAT, ROUND, SOFT, Layer, Shape

HEAD, TORSO, UPPER_ARMS, LOWER_ARMS, UPPER_LEGS, LOWER_LEGS = range(1, 7)
COPY_CLOTHES = 0.4
"""The chance that a person's shirt, and apart from it the trousers, looks like another person's."""


@dataclass
class Outfit:
    """What a person wears. A sleeve or leg ends at a fraction of the limb: 0 none, 1 the elbow or
    knee, 2 the wrist or ankle."""

    skin: Material
    hair: Material
    shirt: Material
    trousers: Material
    shoes: Material
    hat: Material | None
    sleeve: float
    trouser_leg: float
    skirt: bool
    long_hair: bool
    bald: bool


def sample_outfit(rng: np.random.Generator, height: float, others: list[Outfit]) -> Outfit:
    """A random outfit for a person of `height` pixels, with colours often copied from `others`."""
    shirt, trousers = (random_material(rng, height) for _ in range(2))
    skin = skin_color(rng)
    if others and rng.random() < COPY_CLOTHES:
        shirt = similar_material(rng, pick(rng, others).shirt, height)
    elif rng.random() < 0.08:
        shirt = random_material(rng, height, base=to_color(skin + rng.normal(0, 8, 3)))
    if others and rng.random() < COPY_CLOTHES:
        trousers = similar_material(rng, pick(rng, others).trousers, height)
    elif rng.random() < 0.14:
        trousers = similar_material(rng, shirt, height)
    if others and rng.random() < 0.3:
        skin = to_color(pick(rng, others).skin.base + rng.normal(0, 5, 3))
    return Outfit(
        skin=plain_material(rng, skin),
        hair=plain_material(rng, hair_color(rng)),
        shirt=shirt,
        trousers=trousers,
        shoes=plain_material(rng, random_color(rng) * np.float32(rng.uniform(0.3, 1))),
        hat=random_material(rng, height) if rng.random() < 0.15 else None,
        sleeve=pick(
            rng, (0.0, rng.uniform(0.3, 0.9), rng.uniform(1.2, 1.7), 1.95), (0.14, 0.34, 0.12, 0.4)
        ),
        trouser_leg=pick(
            rng, (rng.uniform(0.25, 0.9), rng.uniform(1.1, 1.6), 1.95), (0.28, 0.14, 0.58)
        ),
        skirt=bool(rng.random() < 0.1),
        long_hair=bool(rng.random() < 0.35),
        bald=bool(rng.random() < 0.08),
    )


class Figure:
    """A posed, dressed person, `height` pixels tall when standing, around the origin."""

    def __init__(self, rng: np.random.Generator, height: float, others: list[Outfit]) -> None:
        self.height = height
        self.outfit = sample_outfit(rng, height, others)
        self._joints = skeleton(sample_pose(rng))
        self._girth = float(rng.uniform(0.88, 1.32))
        self._arm_girth, self._leg_girth = rng.uniform(0.95, 1.25, 2) * self._girth**0.5
        self._light = float(rng.uniform(-0.2, 0.2))
        self.extent = self._extent()

    def _extent(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1 of the joints in pixels, about the hips' middle."""
        points = (
            np.array(
                [joint[:2] for name, joint in self._joints.items() if not name.endswith("facing")]
            )
            * self.height
        )
        return np.concatenate([points.min(axis=0), points.max(axis=0)])

    def layer(self, x: float, y: float) -> Layer:
        """The drawing with the hips' middle at (x, y)."""
        origin = np.array([x, y])
        shapes = [*self._trunk(origin), *self._head(origin)]
        for side in SIDES:
            shapes += [*self._arm(origin, side), *self._leg(origin, side)]
        return Layer(shapes)

    def _shape(
        self,
        origin: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
        widths: tuple[float, ...],
        part: int,
        material: Material,
        bias: float = 0.0,
        **options,
    ) -> Shape:
        """A shape between two points of the body; widths and `bias` are fractions of the height."""
        start, end = ends
        return Shape(
            start=origin + start[:2] * self.height,
            end=origin + end[:2] * self.height,
            widths=tuple(max(width * self.height, 0.8) for width in widths),
            part=part,
            material=material,
            depth=float((start[2] + end[2]) / 2 + bias),
            light=self._light,
            **options,
        )

    def _trunk(self, origin: np.ndarray) -> list[Shape]:
        joints, outfit = self._joints, self.outfit
        frontal = abs(joints["facing"][2])
        widths = [
            self._girth * np.hypot(front * frontal, side * (1 - frontal))
            for front, side in ((0.098, 0.05), (0.108, 0.07), (0.088, 0.066), (0.094, 0.07))
        ]
        hem = joints["hip"] + 0.06 * (joints["hip"] - joints["chest"])
        neck = (joints["chest"], joints["chin"] + 0.1 * (joints["crown"] - joints["chin"]))
        shapes = [
            self._shape(
                origin,
                (joints["chest"], hem),
                tuple(widths),
                TORSO,
                outfit.shirt,
                0.015,
                start_cap=SOFT,
                end_cap=4.0,
            ),
            self._shape(origin, neck, (0.042, 0.034), TORSO, outfit.skin, 0.01),
        ]
        if outfit.skirt:
            knees = (joints["knee-1"] + joints["knee+1"]) / 2
            shapes.append(
                self._shape(
                    origin,
                    (joints["hip"], 0.75 * knees),
                    (widths[-1] * 0.95, widths[-1] * 1.15, widths[-1] * 1.3),
                    UPPER_LEGS,
                    outfit.trousers,
                    0.012,
                    start_cap=4.0,
                    end_cap=8.0,
                )
            )
        return shapes

    def _head(self, origin: np.ndarray) -> list[Shape]:
        joints, outfit = self._joints, self.outfit
        chin, crown, facing = joints["chin"], joints["crown"], joints["head_facing"]
        up = crown - chin
        radius = 0.054 * float(np.clip(self._girth, 0.95, 1.12))
        ends = (crown - 0.4 * up, chin + 0.34 * up)
        shapes = [
            self._shape(
                origin,
                ends,
                (radius * 1.06, radius * 0.9),
                HEAD,
                outfit.skin,
                0.02,
                paint=self._face_painter(facing),
            )
        ]
        behind = -0.03 * facing
        if outfit.long_hair and not outfit.bald:
            shapes.append(
                self._shape(
                    origin,
                    (crown - 0.35 * up + behind, chin - 0.35 * up + behind),
                    (radius * 1.12, radius * 1.0),
                    HEAD,
                    outfit.hair,
                    -0.03 * facing[2],
                    end_cap=SOFT,
                )
            )
        if outfit.hat is not None:
            brim = crown - 0.3 * up
            shapes.append(
                self._shape(
                    origin,
                    (crown, brim),
                    (radius * 0.9, radius * 1.2),
                    HEAD,
                    outfit.hat,
                    0.03,
                    start_cap=SOFT,
                    end_cap=FLAT,
                )
            )
        return shapes

    def _face_painter(self, facing: np.ndarray):
        """Hair, eyes: what tells the front of a head from its side and back."""
        radius = 0.054 * self.height
        hair = self.outfit.hair.base
        sideways, towards = float(facing[0]), float(facing[2])
        bald = self.outfit.bald

        def paint(colors: np.ndarray, along: np.ndarray, across: np.ndarray, length: float) -> None:
            # `across` grows to the picture's left for an upright head: its axis points down.
            look = -np.float32(sideways * radius)
            if not bald:
                line = np.float32(-0.45 * radius + (radius * 3 if towards < -0.35 else 0))
                covered = along + np.float32(0.9 * sideways) * across < line
                colors[:, covered] = hair[:, None]
            if towards > -0.2:
                eye = np.float32(0.1 * radius)
                for offset in (-0.4, 0.4):
                    place = look * np.float32(0.7) + np.float32(offset * radius * max(towards, 0.2))
                    near = (along - eye) ** 2 + (across - place) ** 2
                    colors[:, near < np.float32((0.17 * radius) ** 2)] *= 0.3

        return paint

    def _arm(self, origin: np.ndarray, side: int) -> list[Shape]:
        joints, outfit, girth = self._joints, self.outfit, self._arm_girth
        shoulder, elbow, wrist, fingers = (
            joints[f"{name}{side:+d}"] for name in ("shoulder", "elbow", "wrist", "fingers")
        )
        limb = self._limb(
            origin,
            (shoulder, elbow, wrist),
            (0.046, 0.04, 0.032),
            girth,
            (UPPER_ARMS, LOWER_ARMS),
            (outfit.shirt, outfit.skin),
            outfit.sleeve,
            bias=0.02,
        )
        hand = self._shape(origin, (wrist, fingers), (0.033, 0.027), LOWER_ARMS, outfit.skin, 0.018)
        return [hand, *limb]

    def _leg(self, origin: np.ndarray, side: int) -> list[Shape]:
        joints, outfit, girth = self._joints, self.outfit, self._leg_girth
        hip, knee, ankle, toes = (
            joints[f"{name}{side:+d}"] for name in ("hip", "knee", "ankle", "toes")
        )
        reach = 0.3 if outfit.skirt else outfit.trouser_leg
        limb = self._limb(
            origin,
            (hip, knee, ankle),
            (0.066, 0.052, 0.036),
            girth,
            (UPPER_LEGS, LOWER_LEGS),
            (outfit.trousers, outfit.skin),
            reach,
            bias=0.0,
        )
        heel = ankle - 0.2 * (toes - ankle)
        foot = self._shape(origin, (heel, toes), (0.035, 0.028), LOWER_LEGS, outfit.shoes, 0.005)
        return [foot, *limb]

    def _limb(
        self,
        origin: np.ndarray,
        joints: tuple[np.ndarray, np.ndarray, np.ndarray],
        widths: tuple[float, float, float],
        girth: float,
        parts: tuple[int, int],
        materials: tuple[Material, Material],
        reach: float,
        bias: float,
    ) -> list[Shape]:
        """The two halves of a limb, the cloth of `materials` up to `reach`, then skin.

        The half in front ends straight at the middle joint and the one behind is rounded, so the
        two parts meet at the joint however the limb bends.
        """
        cloth, skin = materials
        root, middle, tip = joints
        root_width, middle_width, tip_width = (width * girth for width in widths)
        upper = self._shape(
            origin,
            (root, middle),
            (root_width, middle_width),
            parts[0],
            cloth if reach > 0 else skin,
            bias,
            cut=reach if 0 < reach < 1 else None,
            cut_material=skin,
        )
        lower = self._shape(
            origin,
            (middle, tip),
            (middle_width, tip_width),
            parts[1],
            cloth if reach > 1 else skin,
            bias,
            cut=reach - 1 if 1 < reach < 2 else None,
            cut_material=skin,
        )
        if lower.depth > upper.depth:
            lower.start_cap, upper.end_cap = FLAT, ROUND
        else:
            lower.start_cap, upper.end_cap = ROUND, FLAT
        return [upper, lower]
