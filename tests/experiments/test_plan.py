"""The plan: every stage and row is a config that loads, all systems train for the same minutes."""

from functools import cache
from pathlib import Path

import pytest

import instance_crf
from instance_crf.config import load_config
from instance_crf.config_check import check_config
from instance_crf.experiments.plan import CURVES, TABLE_1, make_rows, make_stages, recipe_of
from instance_crf.experiments.tables import BASELINES, SYSTEMS
from instance_crf.modeling import build_instance_crf_head

instance_crf.register()

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = recipe_of("synthetic_people", "", ["synthetic_people_train"], [])
PHOTOS = recipe_of(
    "pascal_person_part",
    "r101_fpn",
    ["pascal_person_part_train"],
    ["pascal_person_part_val"],
)
STAGES = {stage.name: stage for stage in make_stages(SYNTHETIC)}
ROWS = make_rows()


def config_of(stage, *opts):
    files = [str(ROOT / "configs" / f"{name}.yaml") for name in stage.files]
    return load_config(files[0], [*files[1:], *map(str, stage.opts), *map(str, opts)])


@pytest.mark.parametrize("recipe", [SYNTHETIC, PHOTOS], ids=["synthetic", "photos"])
def test_every_stage_is_a_config_and_comes_after_the_one_that_it_starts_from(recipe):
    before = {""}
    for stage in make_stages(recipe):
        check_config(config_of(stage))
        assert stage.start in before and stage.name not in before
        before.add(stage.name)


@pytest.mark.parametrize("recipe", [SYNTHETIC, PHOTOS], ids=["synthetic", "photos"])
def test_all_that_is_compared_has_trained_for_the_same_minutes(recipe):
    total = {"": 0.0}
    for stage in make_stages(recipe):
        total[stage.name] = total[stage.start] + stage.share
    assert total["base"] == pytest.approx(1)
    compared = {row.stage for row in ROWS if row.name in SYSTEMS} - {"base"}
    assert {name: total[name] for name in compared} == pytest.approx(dict.fromkeys(compared, 1.2))


def test_what_trains_on_given_boxes_has_no_detector_and_the_others_have():
    for stage in STAGES.values():
        cfg = config_of(stage)
        source = cfg.MODEL.INSTANCE_CRF.DETECTIONS.SOURCE
        assert (source == "record") == stage.given_boxes == (not cfg.MODEL.DETECTOR.ENABLED) or (
            stage.name in ("pretrain", "parts")  # they need no boxes
        )


def test_rows_have_names_of_their_own_and_stages_that_exist():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row.stage for row in ROWS} | set(CURVES) <= set(STAGES)
    assert set(SYSTEMS) <= set(names) and {*TABLE_1, *BASELINES} <= set(SYSTEMS)
    assert all(row.disturbed for row in ROWS if row.name in SYSTEMS)


@cache
def seen(row):
    """What a row's head is like, and what it is without the row's overrides."""
    cfg = config_of(STAGES[row.stage], "MODEL.INSTANCE_CRF.ENABLED", True, *row.model).clone()
    cfg.defrost()
    found = []
    for opts in ((), row.head):
        cfg.merge_from_list(list(opts))
        head = build_instance_crf_head(cfg)
        hidden = [getattr(head.crf, name, None) for name in ("normalization", "score_transform")]
        found.append(repr([head, head.score_name, head.num_iterations_test, hidden]))
    return found


@pytest.mark.parametrize("row", [r for r in ROWS if r.head], ids=lambda row: row.name)
def test_every_head_of_a_row_is_another(row):
    plain, own = seen(row)
    trained = config_of(STAGES[row.stage]).MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST
    # One of the numbers of iterations is what was trained.
    assert (own != plain) != row.name.startswith(f"{trained} iteration")
    others = [r for r in ROWS if (r.stage, r.model) == (row.stage, row.model) and r != row]
    assert own not in [seen(other)[1] for other in others if other.head]


def test_table_1_is_the_papers():
    """Box term alone, both, end to end; without OHEM, with it."""
    for name, stage in TABLE_1.items():
        cfg = config_of(STAGES[stage])
        crf = cfg.MODEL.INSTANCE_CRF
        assert crf.FORM == "joint" and crf.PAIRWISE_TERM and crf.BOX_TERM
        assert crf.GLOBAL_TERM == ("box term only" not in name)
        assert bool(crf.OHEM_TOP_K) == ("OHEM" in name)
        assert ("part_head" in cfg.MODEL.FREEZE) == ("end to end" not in name)
        assert crf.DETECTIONS.SOURCE == "record"
