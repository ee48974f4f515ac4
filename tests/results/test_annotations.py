"""supervision, COCO and COCO panoptic: read again by the libraries themselves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import supervision as sv
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from instance_crf.evaluation.parsing import parsing_of_result
from instance_crf.evaluation.toolkit.formats.panoptic import PanopticPredictions, coco_categories

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def areas_of(photo):
    """(object, part) -> mask, in order."""
    return {
        (k, part): (photo.object_map == k) & (photo.part_map == part)
        for k in (1, 2, 3)
        for part in range(1, 7)
        if ((photo.object_map == k) & (photo.part_map == part)).any()
    }


@pytest.mark.parametrize("device", DEVICES)
def test_supervision_people(photo, people, device):
    found = people.to(device).to_supervision()
    assert isinstance(found, sv.Detections) and len(found) == 3
    assert found.mask.dtype == bool
    assert np.array_equal(found.mask, photo.object_map == np.arange(1, 4)[:, None, None])
    assert found.area.tolist() == [(photo.object_map == k).sum() for k in (1, 2, 3)]
    # supervision's own boxes of masks end at the last pixel, ours at its edge.
    assert np.array_equal(found.xyxy, sv.mask_to_xyxy(found.mask) + [0, 0, 1, 1])
    assert found.confidence.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert found.class_id.tolist() == [0, 0, 0]
    assert found["class_name"].tolist() == ["person"] * 3
    assert found["person_id"].tolist() == [1, 2, 3]
    assert found[found.confidence < 0.4]["person_id"].tolist() == [2, 3]


def test_supervision_segments(photo, people):
    found, areas = people.to_supervision(segments=True), areas_of(photo)
    assert list(zip(found["person_id"], found["part_id"], strict=True)) == list(areas)
    assert np.array_equal(found.mask, np.stack(list(areas.values())))
    assert np.array_equal(found.xyxy, sv.mask_to_xyxy(found.mask) + [0, 0, 1, 1])
    names = people.taxonomy.part_names
    assert found["class_name"].tolist() == [names[part - 1] for _, part in areas]
    assert found.class_id.tolist() == [part - 1 for _, part in areas]
    assert found.confidence.tolist() == pytest.approx([1 / (k + 1) for k, _ in areas])


def test_supervision_draws_it(photo, people):
    found = people.to_supervision(segments=True)
    drawn = sv.MaskAnnotator().annotate(photo.image.copy(), found)
    changed = (drawn != photo.image).any(-1)
    assert not changed[photo.part_map == 0].any() and changed[photo.part_map > 0].mean() > 0.9
    labelled = sv.LabelAnnotator().annotate(photo.image.copy(), people.to_supervision())
    assert (labelled != photo.image).any()


def test_supervision_classes_by_hand(small):
    assert small.to_supervision()["class_name"].tolist() == ["person", "bicycle"]
    found = replace(small, taxonomy=None)
    assert found.to_supervision()["class_name"].tolist() == ["class 0", "class 1"]
    found = found.to_supervision(segments=True)
    assert found["class_name"].tolist() == ["part 1", "part 2", "part 3"]
    assert found.xyxy.tolist() == [[0, 0, 2, 1], [0, 1, 1, 2], [1, 1, 3, 3]]


@pytest.mark.parametrize("segments", [False, True])
def test_nobody(nobody, segments):
    found = nobody.to_supervision(segments=segments)
    assert found.is_empty() and found.mask.shape == (0, 6, 8)
    merged = sv.Detections.merge([found, found])
    assert len(merged) == 0
    assert nobody.to_coco(1, segments=segments) == []


def coco_truth(photo):
    """A data set of one photo, and no annotations."""
    truth = COCO()
    height, width = photo.part_map.shape
    truth.dataset = {
        "images": [{"id": 7, "height": height, "width": width}],
        "categories": [{"id": i, "name": str(i)} for i in range(1, 7)],
        "annotations": [],
    }
    truth.createIndex()
    return truth


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("segments", [False, True])
def test_coco_loads_the_results(photo, people, segments, device, tmp_path):
    rows = people.to(device).to_coco(7, segments=segments)
    expected = areas_of(photo) if segments else {k: photo.object_map == k for k in (1, 2, 3)}
    (tmp_path / "results.json").write_text(json.dumps(rows))
    loaded = coco_truth(photo).loadRes(str(tmp_path / "results.json"))
    annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[7]))
    assert len(annotations) == len(rows) == len(expected)
    for row, annotation, (key, mask) in zip(rows, annotations, expected.items(), strict=True):
        assert np.array_equal(loaded.annToMask(annotation), mask)
        assert row["area"] == mask.sum()
        y, x = np.nonzero(mask)
        assert row["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert row["category_id"] == (key[1] if segments else 1)
        assert row["score"] == pytest.approx(1 / (1 + (key[0] if segments else key)))


def test_coco_categories_and_one_pixel_objects(small, crowd):
    assert [row["category_id"] for row in small.to_coco("a")] == [1, 2]
    assert [row["category_id"] for row in small.to_coco("a", segments=True)] == [1, 2, 3]
    assert {row["image_id"] for row in small.to_coco("a")} == {"a"}
    rows = crowd.to_coco(1)
    assert len(rows) == 300 and {row["area"] for row in rows} == {1.0}
    assert coco_masks.decode(rows[21]["segmentation"])[2, 3] == 1


def ids_of(colors):
    """As panopticapi reads its PNGs."""
    colors = colors.astype(np.uint32)
    return colors[..., 0] + 256 * colors[..., 1] + 256**2 * colors[..., 2]


@pytest.mark.parametrize("device", DEVICES)
def test_panoptic_segments(photo, people, device, tmp_path):
    colors, annotation = people.to(device).to_coco_panoptic("0007.png", image_id=7)
    assert colors.dtype == np.uint8 and colors.shape == photo.image.shape
    assert (annotation["image_id"], annotation["file_name"]) == (7, "0007.png")
    Image.fromarray(colors).save(tmp_path / "0007.png")
    ids = ids_of(np.array(Image.open(tmp_path / "0007.png")))
    *segments, background = json.loads(json.dumps(annotation["segments_info"]))
    areas = areas_of(photo)
    for segment, ((k, part), mask) in zip(segments, areas.items(), strict=True):
        assert np.array_equal(ids == segment["id"], mask)
        assert segment["category_id"] == part and segment["instance_id"] == k
        y, x = np.nonzero(mask)
        assert segment["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert segment["area"] == mask.sum() and segment["iscrowd"] == 0
    assert background["category_id"] == 7 and background["area"] == (photo.part_map == 0).sum()
    assert np.array_equal(ids == background["id"], photo.part_map == 0)


def test_panoptic_files_are_read_by_the_evaluation(people, tmp_path):
    colors, annotation = people.to_coco_panoptic("a.png")
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(colors).save(tmp_path / "panoptic" / "a.png")
    content = {"annotations": [annotation], "categories": coco_categories(people.taxonomy)}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    read = PanopticPredictions(tmp_path, people.taxonomy).read("a")
    expected = parsing_of_result(people)
    assert np.array_equal(read.part_map, expected.part_map)
    assert np.array_equal(read.object_map, expected.object_map)
    assert read.object_scores.tolist() == expected.object_scores.tolist()


def test_panoptic_void(small, nobody):
    # Part 1 of nobody at the upper right.
    ids = ids_of(small.to_coco_panoptic("a.png")[0])
    assert ids.tolist() == [[1, 1, 4, 4, 0], [2, 3, 3, 4, 4], [4, 3, 3, 4, 4]]
    colors, annotation = replace(small, taxonomy=None).to_coco_panoptic("a.png")
    assert ids_of(colors).tolist() == [[1, 1, 0, 0, 0], [2, 3, 3, 0, 0], [0, 3, 3, 0, 0]]
    assert [segment["category_id"] for segment in annotation["segments_info"]] == [1, 2, 3]
    colors, annotation = nobody.to_coco_panoptic("a.png")
    assert not colors.any() and annotation["segments_info"] == []


def test_panoptic_ids_need_two_bytes(crowd):
    colors, annotation = crowd.to_coco_panoptic("a.png")
    assert ids_of(colors).max() == 300 and colors[..., 1].max() == 1
    assert annotation["segments_info"][299]["id"] == 300
