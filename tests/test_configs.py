"""Every YAML in configs/ runs, in training and in inference; keys follow from the data set."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from PIL import Image

import instance_crf
from instance_crf.config import add_instance_crf_config, check_datasets, load_config
from instance_crf.data.datasets import builtin
from instance_crf.data.datasets.register import register_parts
from instance_crf.data.datasets.voc import VOC_TAXONOMY
from instance_crf.solver import build_optimizer

instance_crf.register()

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
FILES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml"))
TABLES = sorted(path.stem for path in CONFIGS.glob("tables/*.yaml"))
TINY = ["models/tiny_fpn.yaml", "datasets/synthetic_people.yaml", "schedules/instance_crf.yaml"]
PAPER = ["models/r101_psp.yaml", "datasets/pascal_person_part.yaml", "schedules/piecewise.yaml"]
DEMO = str(CONFIGS / "SyntheticPeople/instance_crf.yaml")
SMALL = """
    MODEL.DEVICE cpu MODEL.WEIGHTS '' INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64
    SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0 MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH 0.0
    MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 2
""".split()

spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools/train_net.py")
train_net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_net)


def complete(name, below=TINY):
    """The files of a whole config: ``name`` beside a model and a data set where it has none.

    Args:
        below: what a row of ``tables`` comes after.
    """
    parts = {
        "models": [name, "datasets/pascal_person_part.yaml"],
        "datasets": ["models/tiny_fpn.yaml", name],
        "detections": ["models/tiny_fpn.yaml", "datasets/pascal_person_part.yaml", name],
        "schedules": ["models/tiny_fpn.yaml", "datasets/pascal_person_part.yaml", name],
        "SyntheticPeople": [name],
        "tables": [*below, name],
        "baselines": ["models/tiny_fpn.yaml", "datasets/pascal_person_part.yaml", name],
    }
    folder = name.split("/")[0] if "/" in name else "models"
    return [str(CONFIGS / file) for file in parts[folder]]


def write_record(folder, taxonomy):
    """A picture of 66x81 pixels with two objects, of the first and the last class, side by side."""
    parts, objects = np.zeros((66, 81), np.uint8), np.zeros((66, 81), np.uint8)
    found = []
    for index, category in enumerate((taxonomy.part_owner[0], taxonomy.part_owner[-1])):
        columns = slice(4 + 40 * index, 36 + 40 * index)
        for part, top in zip(taxonomy.parts_of(category), range(4, 60, 14), strict=False):
            parts[top : top + 14, columns] = part
        objects[:, columns] = (parts[:, columns] > 0) * (index + 1)
        bottom = int(np.nonzero(objects == index + 1)[0].max()) + 1
        box = {"bbox": [columns.start, 4, columns.stop, bottom], "bbox_mode": BoxMode.XYXY_ABS}
        found.append({**box, "category_id": category, "object_id": index + 1, "iscrowd": 0})
    arrays = {
        "file_name": np.random.randint(0, 256, (66, 81, 3), dtype=np.uint8),
        "part_file_name": parts,
        "object_file_name": objects,
    }
    for key, array in arrays.items():
        Image.fromarray(array).save(folder / f"{key}.png")
    return {
        **{key: str(folder / f"{key}.png") for key in arrays},
        **{"height": 66, "width": 81, "image_id": "1", "annotations": found},
        "detections": [{**annotation, "score": 0.9} for annotation in found],
    }


@pytest.fixture
def small(tmp_path):
    """A function (files) -> config for 64 pixels, its data sets replaced by one picture each."""

    def make(files, *options):
        cfg = load_config(files[0], [*files[1:], *SMALL, *options]).clone()
        cfg.defrost()
        cfg.DATASETS.DETECTIONS_TRAIN = cfg.DATASETS.DETECTIONS_TEST = ()  # the record has some
        if cfg.INPUT.PART_AUG.CROP_SIZE:
            cfg.INPUT.PART_AUG.CROP_SIZE = [60, 60]
        for name in {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}:
            taxonomy = MetadataCatalog.get(name).taxonomy
            record = write_record(tmp_path, taxonomy)
            register_parts(name, lambda record=record: [record], taxonomy)
        return cfg

    yield make
    builtin.register_all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "below"),
    [
        *((name, TINY) for name in FILES),
        *((f"tables/{row}.yaml", PAPER) for row in ("piecewise_box", "factored")),
    ],
)
def test_one_inference_and_one_iteration(small, name, below):
    cfg = small(complete(name, below))
    check_datasets(cfg)
    model = train_net.Trainer.build_model(cfg)
    of_regions = cfg.MODEL.META_ARCHITECTURE != "InstanceCRF"
    if not of_regions:
        assert cfg.MODEL.INSTANCE_CRF.ENABLED == (model.crf_head is not None)
        assert (model.identity_head is None) == (cfg.MODEL.INSTANCE_CRF.FORM == "joint")
    for dataset in cfg.DATASETS.TEST:
        inputs = next(iter(train_net.Trainer.build_test_loader(cfg, dataset)))
        output = model.eval()(inputs)[0]
        assert output["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 66, 81)
        assert output["part_instances"].image_size == (66, 81)

    optimizer = train_net.Trainer.build_optimizer(cfg, model)
    batch = next(iter(train_net.Trainer.build_train_loader(cfg)))
    with EventStorage():
        losses = model.train()(batch)
    expected = {
        "loss_parts": "part_head" not in cfg.MODEL.FREEZE,
        "loss_identity": cfg.MODEL.IDENTITY_HEAD.ENABLED
        and "identity_head" not in cfg.MODEL.FREEZE,
        "loss_crf": cfg.MODEL.INSTANCE_CRF.ENABLED
        and cfg.MODEL.INSTANCE_CRF.NAME == "InstanceCRFHead",
        "loss_cls": cfg.MODEL.DETECTOR.ENABLED and not {"detector", "boxes"} & {*cfg.MODEL.FREEZE},
        "loss_mask": cfg.MODEL.MASK_ON and "detector" not in cfg.MODEL.FREEZE,
    }
    if of_regions:
        top_down = cfg.MODEL.META_ARCHITECTURE == "TopDownRCNN"
        expected |= {"loss_parts": top_down, "loss_mask": not top_down}
        expected["loss_crf"] = False
    assert {key: key in losses for key in expected} == expected
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    optimizer.step()


def test_network_of_the_paper():
    """Sec. 3.1: ResNet-101 with frozen BN, dilated res5, five resolutions; boxes are given."""
    files = complete("models/r101_psp.yaml")
    cfg = load_config(files[0], [*files[1:], "MODEL.DEVICE", "cpu"])
    assert cfg.INPUT.PART_AUG.CROP_SIZE == [521, 521]
    assert cfg.MODEL.INSTANCE_CRF.OHEM_TOP_K == cfg.MODEL.SEM_SEG_HEAD.OHEM_TOP_K == 2**15
    model = build_model(cfg)
    assert len(model.backbone.res4) == 23 and model.part_head.in_feature == "res5"
    assert model.backbone.output_shape()["res5"].stride == 16
    assert len(model.part_head.branches) == 5
    assert not any("norm" in name for name, _ in model.backbone.named_parameters())
    assert model.identity_head is None
    assert model.roi_heads is None and model.detection_source == "record"


@pytest.mark.parametrize("below", [TINY, PAPER], ids=["tiny", "paper"])
@pytest.mark.parametrize("name", [name for name in TABLES if name != "ohem"])
def test_rows_of_the_tables_say_all_that_they_are(name, below):
    """Whatever model, data set and schedule are below them."""
    files = complete(f"tables/{name}.yaml", below)
    cfg = load_config(files[0], [*files[1:], "MODEL.DEVICE", "cpu"])
    crf = cfg.MODEL.INSTANCE_CRF
    ours, detector = name in ("factored", "full"), name in ("full", "joint_detector")
    assert crf.FORM == ("factored" if ours else "joint") and crf.ENABLED
    assert cfg.MODEL.IDENTITY_HEAD.ENABLED == ours and cfg.MODEL.DETECTOR.ENABLED == detector
    assert crf.DETECTIONS.SOURCE == ("detector" if detector else "record")
    assert (crf.DETECTIONS.SCORE_THRESH, crf.MIN_SHARE) == ((0.15, 0.05) if ours else (0.5, 0.0))
    assert ours or crf.REFERENCE_SIZE == 0
    hardest = 0.12 if ours or detector or name.endswith("_ohem") else 0.0
    assert (crf.OHEM_TOP_K, cfg.MODEL.SEM_SEG_HEAD.OHEM_TOP_K) == (hardest, 0.0)
    box_only = "box" in name
    assert (crf.BOX_TERM, crf.GLOBAL_TERM, crf.PAIRWISE_TERM) == (True, not box_only, True)
    assert crf.BACKGROUND_BOX_TERM == box_only
    if name != "joint":
        frozen = ["backbone", "part_head"] if name.startswith("piecewise") else []
        assert frozen == cfg.MODEL.FREEZE
        dataset = "synthetic_people" if below is TINY else "pascal_person_part"
        assert f"output/{dataset}/tables/{name}" == cfg.OUTPUT_DIR
        assert f"output/{dataset}/parts/model_final.pth" == cfg.MODEL.WEIGHTS


@pytest.mark.parametrize("name", ["piecewise_box_ohem", "piecewise_ohem"])
def test_piecewise_only_the_crf_learns(name):
    files = complete(f"tables/{name}.yaml")
    model = build_model(load_config(files[0], [*files[1:], "MODEL.DEVICE", "cpu"]))
    learning = {key for key, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {key for key, _ in model.named_parameters() if key.startswith("crf_head.")}
    assert model.roi_heads is None and model.identity_head is None


def test_later_files_win_and_options_win_over_files(tmp_path):
    for name, decay in (("a", 0.1), ("b", 0.2)):
        (tmp_path / f"{name}.yaml").write_text(f"VERSION: 2\nSOLVER: {{WEIGHT_DECAY: {decay}}}\n")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert load_config(DEMO, files).SOLVER.WEIGHT_DECAY == 0.2
    assert load_config(DEMO, [*files, "SOLVER.WEIGHT_DECAY", 0.3]).SOLVER.WEIGHT_DECAY == 0.3
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config(DEMO, ["nowhere.yaml", "SOLVER.WEIGHT_DECAY", 0.3])
    with pytest.raises(ValueError, match="--eval-only.*before the files"):
        load_config(DEMO, [*files, "--eval-only", "SOLVER.WEIGHT_DECAY", 0.3])


@pytest.mark.parametrize("key", ["MODEL.SEM_SEG_HEAD.OHEM_TOP_K", "MODEL.INSTANCE_CRF.OHEM_TOP_K"])
def test_hardest_pixels_are_a_number_or_a_fraction(key, tmp_path):
    model, section, name = key.split(".")

    def value(cfg):
        return cfg[model][section][name]

    for text, expected in (("0.3", 0.3), ("100", 100), ("100.0", 100), ("0", 0)):
        file = tmp_path / "file.yaml"
        file.write_text(f"VERSION: 2\n{model}: {{{section}: {{{name}: {text}}}}}\n")
        assert value(load_config(DEMO, [str(file)])) == expected
        # As train_net.py hands them on, and as a script writes them, over either type.
        other = tmp_path / "other.yaml"
        for before, given in itertools.product(("0.2", "7"), (text, yaml.safe_load(text))):
            other.write_text(f"VERSION: 2\n{model}: {{{section}: {{{name}: {before}}}}}\n")
            cfg = load_config(DEMO, [str(file), str(other), key, given])
            assert value(cfg) == expected and type(value(cfg)) is float
        # What a run saves can be read again, also by Detectron2 alone.
        file.write_text(cfg.dump())
        assert value(load_config(str(file))) == expected
        plain = get_cfg()
        add_instance_crf_config(plain)
        plain.merge_from_file(str(file))
        assert value(plain) == expected
    assert load_config(DEMO, [key, "all"]).MODEL[section][name] == "all"  # its loss refuses it


def test_missing_config_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config("nowhere.yaml")


def test_configs_of_runs_that_dropped_labels_still_load(tmp_path):
    removed = "VERSION: 2\nMODEL: {INSTANCE_CRF: {DROP_THRESHOLD: {TEST: 0.1}}}\n"
    (tmp_path / "old.yaml").write_text(removed)
    cfg = load_config(DEMO, [str(tmp_path / "old.yaml")])
    assert "DROP_THRESHOLD" not in cfg.MODEL.INSTANCE_CRF


def test_schedules_keep_data_sets_apart():
    model, schedule = CONFIGS / "models/small_fpn.yaml", CONFIGS / "schedules/instance_crf.yaml"
    for name in ("cihp", "lip"):
        files = [str(CONFIGS / f"datasets/{name}.yaml"), str(schedule)]
        cfg = load_config(str(model), files)
        assert cfg.OUTPUT_DIR == f"output/{name}/instance_crf"
        assert cfg.MODEL.WEIGHTS == f"output/{name}/parts/model_final.pth"


def test_home_is_known_in_files(tmp_path, monkeypatch):
    """Where no shell puts it in."""
    monkeypatch.setenv("HOME", "/home/me")
    base = ROOT / "configs/SyntheticPeople/parts.yaml"
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"_BASE_: {base}\nOUTPUT_DIR: ~/run\nMODEL: {{WEIGHTS: ~/x.pth, DEVICE: cpu}}\n"
    )
    cfg = load_config(str(file))
    assert cfg.OUTPUT_DIR == "/home/me/run" and cfg.MODEL.WEIGHTS == "/home/me/x.pth"


def test_classes_and_owners_follow_from_the_data_set():
    model = str(CONFIGS / "models/small_fpn.yaml")
    cfg = load_config(model, [str(CONFIGS / "datasets/voc2012.yaml")])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 21 and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 20
    assert cfg.MODEL.INSTANCE_CRF.PART_OWNER == list(range(20))
    check_datasets(cfg)
    cfg = load_config(model, ["DATASETS.TRAIN", (), "DATASETS.TEST", ("cihp_val",)])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 20 and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    with pytest.raises(ValueError, match="DATASETS.TRAIN and TEST are empty"):
        load_config(model)
    with pytest.raises(ValueError, match="There is no data set 'no_such_set'"):
        load_config(model, ["DATASETS.TRAIN", ("no_such_set",)])


def test_what_is_typed_is_compared_with_the_data_set():
    for key, wrong, message in [
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 20, "NUM_CLASSES is 20.*synthetic_people_train.*7"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 80, "NUM_CLASSES is 80.*synthetic_people_train.*1"),
        ("MODEL.INSTANCE_CRF.PART_OWNER", [1] * 6, "PART_OWNER"),
        ("MODEL.DETECTOR.CLASS_IDS", [4], "CLASS_IDS is .4..*synthetic_people_train"),
        ("MODEL.DETECTOR.CLASSES", ["dog"], "without 'person'.*synthetic_people_train"),
        ("DATASETS.TEST", ("no_such_set",), "no_such_set"),
        ("DATASETS.TEST", ("cihp_val",), "7 by 'synthetic_people_train', but 20 by 'cihp_val'"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_datasets(load_config(DEMO, [key, wrong]))


def test_detector_may_know_more_classes_than_own_parts(small):
    """Ground truth goes to it, and its detections come back, by the classes' names."""
    cfg = small([DEMO, str(CONFIGS / "detections/voc_classes.yaml")])
    assert cfg.MODEL.DETECTOR.CLASSES == list(VOC_TAXONOMY.object_names)
    check_datasets(cfg)
    person = VOC_TAXONOMY.object_names.index("person")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 20 and cfg.MODEL.DETECTOR.CLASS_IDS == [person]
    model = build_model(cfg)
    inputs = next(iter(train_net.Trainer.build_train_loader(cfg)))
    taught = []
    model.roi_heads.register_forward_pre_hook(
        lambda _, given: taught.extend(c for x in given[3] or () for c in x.gt_classes.tolist())
    )
    with EventStorage():
        losses = model.train()(inputs)
    assert set(taught) == {person} and torch.isfinite(losses["loss_cls"])
    model.score_thresh = 0.5
    for certain, kept in ((person, True), (person + 1, False)):
        with torch.no_grad():
            model.roi_heads.box_predictor.cls_score.bias.zero_()[certain] = 20.0
            detections = model.eval()(inputs)[0]["detections"]
        assert bool(len(detections)) == kept and not detections.pred_classes.any()


@pytest.mark.parametrize("optimizer", ["SGD", "ADAMW"])
def test_crf_weights_learn_faster_and_do_not_decay(optimizer):
    options = ["SOLVER.OPTIMIZER", optimizer, "SOLVER.CRF_LR_FACTOR", 7.0, "MODEL.DEVICE", "cpu"]
    cfg = load_config(DEMO, [*options, "SOLVER.LR_FACTOR", 0.5])
    model = build_model(cfg)
    groups = build_optimizer(cfg, model).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    seen = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(seen) == sorted(names.values())
    for group in groups:
        for parameter in group["params"]:
            is_crf = names[id(parameter)].startswith("crf_head.")
            rate = cfg.SOLVER.BASE_LR * 0.5 * (7.0 if is_crf else 1.0)
            assert group["lr"] == pytest.approx(rate)
            assert not is_crf or group["weight_decay"] == 0


def test_unknown_optimizer_is_named():
    cfg = load_config(DEMO, ["SOLVER.OPTIMIZER", "LION", "MODEL.DEVICE", "cpu"])
    with pytest.raises(ValueError, match="'LION'"):
        build_optimizer(cfg, build_model(cfg))
