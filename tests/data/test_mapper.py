import json

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T

from instance_crf.config import add_instance_crf_config
from instance_crf.data.augmentation import COLOR_CHOICES, build_augmentations
from instance_crf.data.datasets.register import register_canonical
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.evaluation.evaluators import parsing_of_record
from instance_crf.hooks import count_places_of_records
from instance_crf.taxonomies.schema import PartTaxonomy

SIDES = PartTaxonomy(("left side", "right side"), flip_pairs=((1, 2),))
NAME = "mapper_test_train"


@pytest.fixture
def records(tmp_path, scene, write_canonical):
    image, parts, objects = scene(60, 100, 3)
    parts[50:] = 255
    objects[50:] = 255
    write_canonical(tmp_path, "train", {"1": (image, parts, objects), "2": scene(40, 50, 0)})
    register_canonical(NAME, tmp_path, "train", SIDES)
    return DatasetCatalog.get(NAME)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_instance_crf_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (NAME,)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (0,), 0
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def mapper(augmentations=(), **arguments):
    arguments = {"is_train": True, "image_format": "BGR", "flip_lut": SIDES.flip_lut()} | arguments
    return PartInstanceMapper(augmentations=list(augmentations), **arguments)


def test_without_augmentation_everything_is_as_on_disk(records):
    from PIL import Image

    result = mapper()(records[0])
    photo = np.asarray(Image.open(records[0]["file_name"]))
    assert np.array_equal(result["image"].numpy(), photo[..., ::-1].transpose(2, 0, 1))
    parts = np.asarray(Image.open(records[0]["part_file_name"]))
    assert result["part_seg"].dtype == torch.uint8 and result["object_seg"].dtype == torch.int32
    assert np.array_equal(result["part_seg"].numpy(), parts)
    assert (result["object_seg"][50:] == -1).all() and result["object_seg"].max() == 3
    instances = result["instances"]
    assert instances.gt_object_ids.tolist() == [1, 2, 3]
    assert instances.gt_boxes.tensor.tolist() == [a["bbox"] for a in records[0]["annotations"]]
    assert instances.gt_classes.tolist() == [0, 0, 0]
    assert (result["height"], result["width"], result["image_id"]) == (60, 100, "1")


def test_flip_swaps_sides_and_keeps_objects(records):
    plain, flipped = mapper()(records[0]), mapper([T.RandomFlip(1.0)])(records[0])
    swap = torch.from_numpy(SIDES.flip_lut()).long()
    assert torch.equal(flipped["image"], plain["image"].flip(2))
    assert torch.equal(flipped["part_seg"].long(), swap[plain["part_seg"].long().flip(1)])
    assert torch.equal(flipped["object_seg"], plain["object_seg"].flip(1))
    twice = mapper([T.RandomFlip(1.0), T.RandomFlip(1.0)])(records[0])
    assert torch.equal(twice["part_seg"], plain["part_seg"])


def test_boxes_come_from_what_is_left_of_the_object(tmp_path, write_canonical):
    """A triangle: the box of the cropped mask is smaller than the cropped box."""
    objects = np.tril(np.ones((40, 40), np.int32))
    image = np.zeros((40, 40, 3), np.uint8)
    write_canonical(tmp_path, "train", {"1": (image, objects.astype(np.uint8), objects)})
    register_canonical(NAME, tmp_path, "train", SIDES)
    record = DatasetCatalog.get(NAME)[0]
    crop = T.CropTransform(20, 0, 20, 30)  # columns 20..39, rows 0..29
    result = mapper([crop])(record)
    assert result["instances"].gt_boxes.tensor.tolist() == [[0, 20, 10, 30]]


def test_vanished_objects_are_removed(records):
    result = mapper([T.CropTransform(0, 0, 34, 60)])(records[0])
    assert result["instances"].gt_object_ids.tolist() == [1]
    nobody = mapper([T.CropTransform(0, 0, 34, 4)])(records[0])["instances"]
    assert len(nobody) == 0 and nobody.gt_boxes.tensor.shape == (0, 4)


def test_image_without_people(records):
    result = mapper()(records[1])
    assert len(result["instances"]) == 0 and not result["object_seg"].any()


def test_resize_keeps_the_maps_together(records):
    """Wherever there is an object there is its part: same pixels taken from both maps."""
    for size in ((33, 71), (120, 200), (61, 99)):
        result = mapper([T.Resize(size)])(records[0])
        parts, objects = result["part_seg"], result["object_seg"]
        assert parts.shape == result["image"].shape[1:]
        assert torch.equal((parts > 0) & (parts < 255), objects > 0)
        assert torch.equal(parts == 255, objects == -1)


def test_16_bit_object_ids_survive_resizing(tmp_path, scene, write_canonical):
    image, parts, objects = scene(people=3)
    objects[objects == 2], objects[objects == 3] = 513, 40000
    write_canonical(tmp_path, "train", {"1": (image, parts, objects)})
    register_canonical(NAME, tmp_path, "train", SIDES)
    result = mapper([T.Resize((77, 55))])(DatasetCatalog.get(NAME)[0])
    assert result["instances"].gt_object_ids.tolist() == [1, 513, 40000]


def test_crowds_are_ignored(records):
    records[0]["annotations"][1]["iscrowd"] = 1
    result = mapper()(records[0])
    assert result["instances"].gt_object_ids.tolist() == [1, 3]
    crowd = result["object_seg"][:50] == -1
    assert crowd.sum() == 45 * 28 and (result["part_seg"][:50][crowd] == 255).all()


@pytest.mark.parametrize("value", [0, 1, False, True, np.int64(1)])
def test_what_says_crowd(records, value):
    records[0]["annotations"][1]["iscrowd"] = value
    assert len(mapper()(records[0])["instances"]) == 3 - int(value)


@pytest.mark.parametrize("value", ["0", "1", "false", None, 2, [], -1, 0.5])
def test_what_does_not_say_whether_it_is_a_crowd(records, value):
    records[0]["annotations"][1]["iscrowd"] = value
    with pytest.raises(ValueError, match="1.png: iscrowd must be 0 or 1, got "):
        mapper()(records[0])
    with pytest.raises(ValueError, match="iscrowd must be 0 or 1, got "):
        parsing_of_record(records[0], SIDES)
    with pytest.raises(ValueError, match="iscrowd must be 0 or 1, got "):
        count_places_of_records([records[0]], 2, torch.from_numpy(SIDES.flip_lut()))
    bare = {k: v for k, v in records[0].items() if k not in ("part_file_name", "object_file_name")}
    with pytest.raises(ValueError, match="iscrowd must be 0 or 1, got "):
        mapper()(bare)


def test_what_may_be_anybody(records):
    """Ignored people, crowds and void; not a person of unknown parts, nor the background."""
    from PIL import Image

    assert torch.equal(mapper()(records[0])["ignored"], mapper()(records[0])["object_seg"] == -1)
    assert "ignored" not in mapper()(records[1])
    parts = np.asarray(Image.open(records[0]["part_file_name"])).copy()
    objects = np.asarray(Image.open(records[0]["object_file_name"]))
    parts[objects == 3], parts[:4, :4] = 255, 255
    Image.fromarray(parts).save(records[0]["part_file_name"])
    records[0]["annotations"][1]["iscrowd"] = 1
    expected = (objects == 255) | (objects == 2)
    expected[:4, :4] = True
    assert np.array_equal(mapper()(records[0])["ignored"].numpy(), expected)
    flipped = mapper([T.RandomFlip(1.0)])(records[0])
    assert np.array_equal(flipped["ignored"].numpy(), expected[:, ::-1])


def test_crowds_of_a_record_with_boxes_only(records):
    bare = {k: v for k, v in records[0].items() if not k.endswith("_file_name")}
    bare["file_name"] = records[0]["file_name"]
    assert "ignored" not in mapper()(bare)
    bare["annotations"][1] |= {"iscrowd": 1, "bbox": [10, 20, 30, 50], "bbox_mode": 1}  # XYWH
    result = mapper([T.RandomFlip(1.0)])(bare)
    expected = np.zeros((60, 100), bool)
    expected[20:60, 60:90] = True
    assert np.array_equal(result["ignored"].numpy(), expected)
    assert (result["object_seg"] == -1).all() and len(result["instances"]) == 2


def test_given_detections_move_with_the_image(records):
    records[0]["detections"] = [
        {"bbox": [10, 10, 20, 30], "bbox_mode": 1, "category_id": 0, "score": 0.9},  # XYWH
        {"bbox": [80, 0, 100, 60], "bbox_mode": 0, "category_id": 0, "score": 0.5},
    ]
    found = mapper([T.RandomFlip(1.0)])(records[0])["detections"]
    assert found.pred_boxes.tensor.tolist() == [[70, 10, 90, 40], [0, 0, 20, 60]]
    assert torch.allclose(found.scores, torch.tensor([0.9, 0.5]))
    cropped = mapper([T.CropTransform(0, 0, 25, 60)])(records[0])["detections"]
    assert cropped.pred_boxes.tensor.tolist() == [[10, 10, 25, 40]]


def run_lengths(mask, compressed=True):
    """COCO's, of a (H, W) mask; uncompressed they start with the zeros of the first column."""
    if compressed:
        found = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": list(mask.shape), "counts": found["counts"].decode()}
    flat = np.concatenate([[0], mask.T.flatten(), [1 - mask.T.flatten()[-1]]])
    turns = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff([0, *turns]).tolist()}


@pytest.mark.parametrize("compressed", [True, False])
def test_given_masks_move_with_the_image(records, compressed):
    mask = np.zeros((60, 100), bool)
    mask[12:30, 10:20], mask[30:40, 16:30] = True, True
    box = {"bbox": [10, 10, 20, 30], "bbox_mode": 1, "category_id": 0, "score": 0.9}  # XYWH
    other = {"bbox": [80, 0, 100, 60], "bbox_mode": 0, "category_id": 0, "score": 0.5}
    records[0]["detections"] = [{**box, "segmentation": run_lengths(mask, compressed)}, other]

    found = mapper()(records[0])["detections"]
    assert found.pred_masks.dtype == torch.bool
    assert np.array_equal(found.pred_masks[0].numpy(), mask)
    its_box = np.zeros((60, 100), bool)
    its_box[:, 80:] = True
    assert np.array_equal(found.pred_masks[1].numpy(), its_box)  # it has none

    flipped = mapper([T.RandomFlip(1.0)])(records[0])["detections"]
    assert np.array_equal(flipped.pred_masks.numpy(), np.stack([mask, its_box])[..., ::-1])
    larger = mapper([T.Resize((120, 200))])(records[0])["detections"]
    assert np.array_equal(larger.pred_masks[0, ::2, ::2].numpy(), mask)
    assert larger.pred_masks.shape == (2, 120, 200)
    # The second detection leaves the image, its mask with it; padding is no one's.
    cropped = mapper([T.CropTransform(5, 0, 30, 60), T.PadTransform(0, 0, 9, 0, seg_pad_value=255)])
    cropped = cropped(records[0])["detections"]
    expected = np.zeros((60, 39), bool)
    expected[:, :30] = mask[:, 5:35]
    assert np.array_equal(cropped.pred_masks.numpy(), expected[None])


def test_masks_only_where_there_are_some(records):
    box = {"bbox": [10, 10, 20, 30], "bbox_mode": 1, "category_id": 0, "score": 0.9}
    records[0]["detections"] = [box]
    assert not mapper()(records[0])["detections"].has("pred_masks")
    records[0]["detections"] = []
    assert not mapper()(records[0])["detections"].has("pred_masks")


def test_broken_given_masks(records, cfg, tmp_path):
    path = tmp_path / "results.json"
    cfg.DATASETS.DETECTIONS_TEST = (str(path),)

    def read(segmentation):
        box = {"image_id": "1", "category_id": 1, "bbox": [10, 10, 20, 30], "score": 0.9}
        path.write_text(json.dumps([{**box, "segmentation": segmentation}]))
        return PartInstanceMapper(cfg, False)(records[0])["detections"]

    mask = np.zeros((60, 100), bool)
    mask[12:30, 10:20] = True
    assert np.array_equal(read(run_lengths(mask)).pred_masks[0].numpy(), mask)
    with pytest.raises(ValueError, match=r"results.json, image 1: .* 60x100 pixels.* is 100x60"):
        read(run_lengths(mask.T))
    records[0]["detections"] = [
        {"bbox": [10, 10, 20, 30], "bbox_mode": 1, "category_id": 0, "score": 0.9}
        | {"segmentation": run_lengths(mask.T)}
    ]
    with pytest.raises(ValueError, match="1.png: .* 60x100 pixels"):
        mapper()(records[0])
    del records[0]["detections"]
    for polygon in ([[10, 10, 20, 10, 20, 40]], {"counts": "x"}, {"size": 3, "counts": [3]}):
        with pytest.raises(ValueError, match="entry 0: its segmentation is not"):
            read(polygon)
    for runs in ([3, 4], run_lengths(np.ones((600, 1000)))["counts"]):
        with pytest.raises(ValueError, match="1.png: a detection's mask: its runs are"):
            read({"size": [60, 100], "counts": runs})


def test_masks_of_the_objects(records):
    found = mapper([T.RandomFlip(1.0)], with_masks=True)(records[0])
    masks = found["instances"].gt_masks.tensor
    expected = found["object_seg"] == found["instances"].gt_object_ids[:, None, None]
    assert len(masks) == 3 and torch.equal(masks, expected)
    assert not mapper()(records[0])["instances"].has("gt_masks")
    empty = mapper(with_masks=True)(records[1])["instances"]
    assert len(empty) == 0 and empty.gt_masks.tensor.shape == (0, 40, 50)


def test_boxes_alone_have_no_masks(records):
    del records[0]["object_file_name"], records[0]["part_file_name"]
    with pytest.raises(ValueError, match="MASK_ON is True.*boxes only"):
        mapper(with_masks=True)(records[0])


def test_detections_from_a_results_file(records, cfg, tmp_path):
    path = tmp_path / "results.json"
    detections = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 30], "score": 0.75},
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9], "score": 0.9},
    ]
    path.write_text(json.dumps(detections))
    cfg.DATASETS.DETECTIONS_TEST = (str(path),)
    test_mapper = PartInstanceMapper(cfg, False)
    found = test_mapper(records[0])["detections"]
    assert found.pred_boxes.tensor.tolist() == [[10, 10, 30, 40]] and found.scores.tolist() == [
        0.75
    ]
    assert len(test_mapper(records[1])["detections"]) == 0
    cfg.DATASETS.DETECTION_CATEGORY_IDS = [7]
    assert PartInstanceMapper(cfg, False)(records[0])["detections"].scores[0] == pytest.approx(0.9)
    cfg.DATASETS.DETECTION_CATEGORY_IDS, cfg.MODEL.DETECTOR.CLASS_IDS = [], [6]
    assert PartInstanceMapper(cfg, False)(records[0])["detections"].scores[0] == pytest.approx(0.9)
    for key, value, words in (
        ("DETECTION_CATEGORY_IDS", [1, 2], "2 entries"),
        ("DETECTIONS_TEST", (str(path), str(path)), "2 files for the 1"),
        ("DETECTIONS_TEST", (str(path) + "x",), "does not exist"),
    ):
        other = cfg.clone()
        other.DATASETS[key] = value
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            PartInstanceMapper(other, False)
    path.write_text(json.dumps([detections[0] | {"image_id": "stranger"}]))
    with pytest.raises(ValueError, match="'stranger'"):
        PartInstanceMapper(cfg, False)
    endless = json.dumps([detections[0] | {"score": float("nan")}])
    for text, words in (
        ("{", "not JSON"),
        ("{}", "holds a dict"),
        ('[{"bbox": [1]}]', "entry 0"),
        (endless, "entry 0: score must be finite"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            PartInstanceMapper(cfg, False)


def test_test_time_needs_no_ground_truth(records, cfg):
    bare = {
        k: v for k, v in records[0].items() if k in ("file_name", "image_id", "height", "width")
    }
    result = PartInstanceMapper(cfg, False)(bare)
    assert set(result) == {"file_name", "image_id", "height", "width", "image"}
    cfg.MODEL.INSTANCE_CRF.DETECTIONS.SOURCE = "ground_truth"
    with_truth = PartInstanceMapper(cfg, False)
    assert len(with_truth(records[0])["instances"]) == 3
    with pytest.raises(ValueError, match="no annotations"):
        with_truth(bare)


def test_record_with_boxes_only(records):
    """As VOC's images without masks: boxes for the detector, every pixel ignored."""
    bare = {k: v for k, v in records[0].items() if not k.endswith("_file_name")}
    result = mapper([T.RandomFlip(1.0)])(bare)
    assert (result["part_seg"] == 255).all() and (result["object_seg"] == -1).all()
    assert result["instances"].gt_boxes.tensor.tolist() == [
        [100 - b[2], b[1], 100 - b[0], b[3]] for b in (a["bbox"] for a in records[0]["annotations"])
    ]


@pytest.mark.parametrize("color", COLOR_CHOICES)
def test_config_to_everything(records, cfg, color):
    aug = cfg.INPUT.PART_AUG
    aug.SCALE_RANGE, aug.CROP_SIZE, aug.ROTATION = [0.5, 1.5], [64, 80], 15.0
    aug.COLOR, aug.BLUR = color, 1.0
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    full = PartInstanceMapper(cfg, True)
    for _ in range(10):
        result = full(records[0])
        assert result["image"].shape == (3, 64, 80) and result["image"].dtype == torch.uint8
        parts, objects = result["part_seg"], result["object_seg"]
        assert torch.equal(parts == 255, objects == -1)
        assert torch.equal((parts > 0) & (parts < 255), objects > 0)
        assert len(result["instances"]) == len(objects[objects > 0].unique())


def test_detectron2_keys_alone(records, cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (30,), "horizontal"
    cfg.INPUT.PART_AUG.ROTATION = 10.0
    result = PartInstanceMapper(cfg, True)(records[0])
    assert result["image"].shape == (3, 30, 50)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"COLOR": "sepia"}, "'sepia'"),
        ({"CROP_SIZE": [5]}, "CROP_SIZE"),
        ({"SCALE_RANGE": [1.0]}, "SCALE_RANGE"),
    ],
)
def test_bad_keys(cfg, keys, words):
    for key, value in keys.items():
        cfg.INPUT.PART_AUG[key] = value
    with pytest.raises(ValueError, match=words):
        build_augmentations(cfg, True)


def test_vertical_flip_with_crop_is_refused(cfg):
    cfg.INPUT.PART_AUG.CROP_SIZE = [5, 5]
    cfg.INPUT.RANDOM_FLIP = "vertical"
    with pytest.raises(ValueError, match="'vertical'"):
        build_augmentations(cfg, True)


def test_data_sets_with_other_sides_cannot_be_mixed(records, cfg, tmp_path):
    register_canonical("mapper_test_other", tmp_path, "train", PartTaxonomy(("a", "b")))
    cfg.DATASETS.TRAIN = (NAME, "mapper_test_other")
    with pytest.raises(ValueError, match="mapper_test_other"):
        PartInstanceMapper(cfg, True)


def test_wrong_size_and_unknown_object(records):
    from PIL import Image

    path = records[0]["object_file_name"]
    objects = np.asarray(Image.open(path)).copy()
    Image.fromarray(np.where(objects == 2, 9, objects).astype(np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"object 9.*\[1, 2, 3\]"):
        mapper()(records[0])
    Image.fromarray(objects[:-1]).save(path)
    with pytest.raises(ValueError, match="100x59 pixels.*100x60"):
        mapper()(records[0])


def test_record_is_left_as_it_was(records):
    import copy

    before = copy.deepcopy(records[0])
    mapper([T.RandomFlip(1.0)])(records[0])
    assert records[0] == before
