"""A folder of results as a reproduction writes it, with made-up numbers."""

import json

import numpy as np
import pytest

from instance_crf.experiments.results import read_results

ROWS = ("box only", "+ global", "joint", "factored", "masks", "true boxes")
CONDITIONS = ("as found", "boxes x 0.75", "50 % false boxes")
SPLITS = ("synthetic_people_val", "synthetic_crowd_val")


def _tasks(level, rng):
    def noisy(value):
        return float(max(value + rng.normal(0, 0.4), 0))

    thresholds = range(10, 100, 10)
    curve = {f"APr{t}": noisy(level * 1.7 * (1 - (t / 100) ** 1.5)) for t in thresholds}
    objects = {f"APr{t}": noisy(level * 2 * (1 - (t / 100) ** 3)) for t in thresholds if t > 40}
    return {
        "part_apr": curve | {"APr_vol": float(np.mean(list(curve.values())))},
        "object_apr": objects | {"APr_vol": float(np.mean(list(objects.values())))},
        "person_ap": {"APp_vol": noisy(level), "APp50": noisy(level + 8)},
        "part_seg": {"mIoU": noisy(level + 22)},
        "q_seg": {"mIoU": noisy(level + 21)},
        "outside": {"recall": noisy(level + 30)},
    }


def _rows(rng):
    of_condition = dict(zip(CONDITIONS, (0, -8, -3), strict=True))
    of_split = dict(zip(SPLITS, (0, -9), strict=True))
    return {
        row: {
            split: {
                condition: _tasks(34 + gain + hard + drop * (1 - 0.15 * gain), rng)
                for condition, drop in of_condition.items()
            }
            for split, hard in of_split.items()
        }
        for row, gain in zip(ROWS, (0, 0.6, 1.1, 4, 2.5, 9), strict=True)
    }


def _curve(rng):
    ends = {"end to end": 37, "Mask R-CNN over parts": 31, "top-down": 30.6, "piecewise": 34}
    return {
        system: [
            {"minutes": m + float(rng.random() / 10)}
            | {split: _tasks(end * (1 - 0.6 ** (m / 4)), rng) for split in SPLITS}
            for m in (7.5, 15.0, 22.5, 30.0)
        ]
        for system, end in ends.items()
    }


@pytest.fixture
def folder(tmp_path):
    """Three seeds; the last one has not got to "masks", nor to the end of its curves."""
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        versions = {"torch": "2.14.1", "instance_crf": "0123456789"}
        content = {
            "seed": seed,
            "budget": 30.0,
            "dataset": "synthetic_people",
            "made": [{"date": "2026-11-26", "versions": versions, "machine": "2 x AMD EPYC"}],
            "hours": 2.5,
            "minutes": {"base": 30.0},
            "minutes_by_clock": {"base": 30.0 + seed / 10},
            "iterations": {"base": 6500, "full": 560},
            "rows": _rows(rng),
            "curve": _curve(rng),
        }
        content["made"][0]["threads"] = 1
        if seed == 3:
            del content["rows"]["masks"]
            content["curve"]["top-down"].pop()
        path = tmp_path / f"seed_{seed}" / "results.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def results(folder):
    return read_results(folder)
