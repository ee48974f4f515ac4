"""The paper's three stages (Sec. 4.1), VOC -> parts -> instances, typed as docs/MODEL_ZOO.md has
them: what each takes over from the one before, and what starts anew."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from instance_crf.data.datasets import builtin

ROOT = Path(__file__).parents[2]
IDS = {"train": ("2008_000001", "2008_000002"), "val": ("2008_000003",)}
XML = """<annotation><size><width>64</width><height>48</height></size>
<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>
</object></annotation>"""
# Of the real networks, the depth and the widths are others. Frozen norms without ImageNet's weights
# let numbers grow, so the input is small.
TOY = """
    MODEL.DEVICE cpu MODEL.PIXEL_STD [9e3,9e3,9e3]
    MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.STEM_OUT_CHANNELS 4
    MODEL.RESNETS.RES2_OUT_CHANNELS 8 MODEL.RESNETS.WIDTH_PER_GROUP 4 MODEL.FPN.OUT_CHANNELS 8
    MODEL.RPN.POST_NMS_TOPK_TRAIN 20 MODEL.RPN.POST_NMS_TOPK_TEST 10 MODEL.ROI_BOX_HEAD.FC_DIM 8
    MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.NORM '' MODEL.IDENTITY_HEAD.CONVS_DIM 32
    INPUT.PART_AUG.CROP_SIZE [64,64] INPUT.MIN_SIZE_TEST 0 DATALOADER.NUM_WORKERS 0
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 0 SOLVER.REFERENCE_WORLD_SIZE 1
    TEST.PICTURES 0
""".split()
ROW = ["datasets/pascal_person_part_boxes", "schedules/instance_crf", "tables/end_to_end_ohem"]
PSP = ("r101_psp", "voc2012_parts", ROW)
FPN = ("r101_fpn", "voc2012", ["datasets/pascal_person_part", "schedules/instance_crf"])
PART_CLASSES = ["part_head.predictor"]
BOX_CLASSES = ["roi_heads.box_predictor.bbox_pred", "roi_heads.box_predictor.cls_score"]


@pytest.fixture
def releases(tmp_path, monkeypatch, photo, png, mask, mat, script):
    """VOC 2012 and Pascal-Person-Part, a few pictures each, prepared; boxes of the latter."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_person_part(tmp_path, photo, mask, mat)
    script("prepare_pascal_person_part").main([])
    write_voc(tmp_path / "VOC2012", photo, png, mask)
    script("prepare_voc").main([])
    for split, ids in IDS.items():
        box = {"category_id": 15, "bbox": [4, 2, 20, 43], "score": 0.9}
        found = [{"image_id": image_id, **box} for image_id in ids]
        folder = tmp_path / "output/voc2012/detector"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"pascal_person_part_{split}.json").write_text(json.dumps(found))
    builtin.register_all()
    yield tmp_path
    monkeypatch.undo()
    builtin.register_all()


def write_person_part(root, photo, mask, mat):
    lists = [root / "pascal_person_part/pascal_person_part_trainval_list/{}_id.txt"]
    lists.append(root / "VOC2010/ImageSets/Main/{}.txt")
    for split, ids in IDS.items():
        for path in lists:
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(str(path).format(split)).write_text("\n".join(ids) + "\n")
        for image_id in ids:
            photo(root / f"VOC2010/JPEGImages/{image_id}.jpg")
            parts = [("head", mask(2, 4, 15, 24)), ("torso", mask(15, 4, 45, 24))]
            mat(root / f"Annotations_Part/{image_id}.mat", [("person", mask(2, 4, 45, 24), parts)])


def write_voc(root, photo, png, mask):
    lists = {"Segmentation/train": "ab", "Segmentation/val": "c", "Main/trainval": "abcd"}
    for name, ids in lists.items():
        path = root / f"ImageSets/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids) + "\n")
    (root / "Annotations").mkdir()
    for image_id in "abcd":
        photo(root / f"JPEGImages/{image_id}.jpg")
        (root / f"Annotations/{image_id}.xml").write_text(XML.format(name="dog"))
        if image_id != "d":
            png(root / f"SegmentationClass/{image_id}.png", mask(0, 0, 20, 30) * 12, "P")
            png(root / f"SegmentationObject/{image_id}.png", mask(0, 0, 20, 30), "P")


@pytest.fixture
def train(releases, monkeypatch, caplog):
    """A function (folder below output, config files, options) that trains as the command does;
    gives the weights that are there then, and what it says that starts anew."""
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools/train_net.py")
    train_net = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train_net)
    monkeypatch.chdir(releases)
    logger = logging.getLogger("instance_crf.checkpoint")  # no longer heard by the root's
    logger.addHandler(caplog.handler)

    def run(folder, files, *options):
        files = [str(ROOT / f"configs/{file}.yaml") for file in files]
        train_net.invoke_main(["--config-file", *files, *TOY, *options])
        output = releases / "output" / folder
        for line in (output / "metrics.json").read_text().splitlines():
            assert all(np.isfinite(v) for k, v in json.loads(line).items() if "loss" in k)
        told = "\n".join(line for line in caplog.messages if "start anew" in line)
        caplog.clear()
        return torch.load(output / "model_final.pth", weights_only=True)["model"], told

    yield run
    logger.removeHandler(caplog.handler)


def compare(before, after):
    """(re-shaped, new, lost) layers; all other weights must be the same."""
    common = before.keys() & after.keys()
    reshaped = {key for key in common if before[key].shape != after[key].shape}
    assert all(torch.equal(before[key], after[key]) for key in common - reshaped)
    layers = (reshaped, after.keys() - before.keys(), before.keys() - after.keys())
    return tuple(sorted({key.rpartition(".")[0] for key in keys}) for keys in layers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "classes", "width"),
    [
        (PSP, PART_CLASSES, "MODEL.SEM_SEG_HEAD.CONVS_DIM"),
        (FPN, PART_CLASSES + BOX_CLASSES, "MODEL.ROI_BOX_HEAD.FC_DIM"),
    ],
    ids=["psp", "fpn"],
)
def test_three_stages(train, files, classes, width):
    model, voc, last = f"models/{files[0]}", f"datasets/{files[1]}", files[2]
    first, _ = train("voc2012/parts", [model, voc, "schedules/parts"], "MODEL.WEIGHTS", "")
    assert first["part_head.predictor.weight"].shape[0] == 21

    # A stage that learns nothing leaves what it has started from.
    still = ["SOLVER.LR_FACTOR", "0.0"]
    second = [model, "datasets/pascal_person_part", "schedules/parts_from_voc"]
    with pytest.raises(ValueError, match="voc2012/parts/model_final.pth is of .* other layers"):
        train("pascal_person_part/parts", second, width, "64")
    parts, told = train("pascal_person_part/parts", second, *still)
    assert compare(first, parts) == (classes, [], [])
    assert all(f"{name}.{kind}: (" in told for name in classes for kind in ("weight", "bias"))

    row = last[-1].removeprefix("schedules/")
    whole, told = train(f"pascal_person_part/{row}", [model, *last], *still)
    reshaped, new, lost = compare(parts, whole)
    assert reshaped == lost == [] and new and all(name.startswith("crf_head") for name in new)
    assert "Not in the file, so they start anew: crf_head." in told
