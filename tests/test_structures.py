"""PartInstances against numbers counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instance_crf.crf.potentials import box_masks
from instance_crf.structures import SCORE_NAMES, PartInstances
from instance_crf.taxonomies import PartTaxonomy

TAXONOMY = PartTaxonomy(("head", "wheel"), ("person", "bicycle"), (0, 1))


def build(**changes):
    """Three detections, the second of which wins no pixel; P = 2."""
    part_prob = torch.zeros(3, 2, 4)
    part_prob[1, 0] = torch.tensor([0.9, 0.7, 0.1, 0.1])
    part_prob[2, 1] = 0.5
    arguments = {
        "object_map": torch.tensor([[1, 1, 0, 0], [1, 3, 3, 0]]),
        "part_map": torch.tensor([[1, 1, 0, 0], [2, 2, 2, 0]]),
        "boxes": torch.tensor([[0.0, 0, 2, 2], [3, 0, 4, 1], [1, 1, 3, 2]]),
        "scores": torch.tensor([0.9, 0.8, 0.6]),
        "classes": torch.tensor([0, 0, 1]),
        "part_prob": part_prob,
        "confidence": torch.full((2, 4), 0.25),
    }
    return PartInstances.from_label_maps(**{**arguments, **changes})


def test_objects_and_segments_by_hand():
    result = build()
    assert len(result) == 2 and result.image_size == (2, 4)
    assert result.object_map.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert result.boxes.tolist() == [[0, 0, 2, 2], [1, 1, 3, 2]]
    assert result.classes.tolist() == [0, 1]
    assert result.segment_object.tolist() == [1, 1, 2]
    assert result.segment_part.tolist() == [1, 2, 2]
    assert result.segment_area.tolist() == [2, 1, 2]


def test_detections_that_became_no_object_are_kept():
    result = build()
    assert result.detection_index.tolist() == [0, 2]
    assert result.left_out_boxes.tolist() == [[3, 0, 4, 1]]
    assert result.left_out_scores.tolist() == pytest.approx([0.8])
    # Object 1 has three of four pixels of its box, object 3 both of its own.
    result = build(min_share=0.8)
    assert result.detection_index.tolist() == [2]
    assert result.left_out_boxes.tolist() == [[0, 0, 2, 2], [3, 0, 4, 1]]
    assert result.left_out_scores.tolist() == pytest.approx([0.9, 0.8])


def test_what_may_be_left_out():
    result = build()
    fields = {name: value for name, value in vars(result).items() if "left_out" not in name}
    fields.pop("detection_index")
    made = PartInstances(**fields)
    assert made.detection_index.tolist() == [0, 1]
    assert made.left_out_boxes.shape == (0, 4) and made.left_out_scores.shape == (0,)
    assert made.taxonomy is None and made.image is None and made.notes == ()


def test_everything_moves_but_the_picture():
    image = np.zeros((2, 4, 3), np.uint8)
    result = replace(build(taxonomy=TAXONOMY), image=image, notes=("a",))
    moved = result.to("cpu")
    assert moved.image is image and moved.taxonomy is TAXONOMY and moved.notes == ("a",)
    for name in ("detection_index", "left_out_boxes", "left_out_scores", "part_map"):
        assert torch.equal(getattr(moved, name), getattr(result, name))
    # A device without memory: where every tensor would be.
    there = replace(result, taxonomy=None).to("meta")
    tensors = [value for value in vars(there).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 10 and {tensor.device.type for tensor in tensors} == {"meta"}
    assert there.image is image


@pytest.mark.parametrize(
    "taxonomy, message",
    [
        (PartTaxonomy(("head",), ("person", "bicycle"), (0,)), "part 2, but the taxonomy has 1"),
        (PartTaxonomy(("head", "torso")), r"classes has 1.*1 object classes \(0..0\)"),
    ],
)
def test_a_taxonomy_that_does_not_fit(taxonomy, message):
    for call in (lambda: build(taxonomy=taxonomy), lambda: replace(build(), taxonomy=taxonomy)):
        with pytest.raises(ValueError, match=message):
            call()


def test_parts_of_nobody_must_be_in_the_taxonomy_too():
    with pytest.raises(ValueError, match="part 3, but the taxonomy has 2"):
        build(
            part_map=torch.tensor([[1, 1, 3, 0], [2, 2, 2, 0]]), part_prob=None, taxonomy=TAXONOMY
        )


def test_a_score_that_there_is_not():
    with pytest.raises(ValueError, match="Unknown score 'shares'; it is one of mean_q"):
        replace(build(), score_name="shares")


def test_an_image_that_does_not_fit():
    with pytest.raises(ValueError, match=r"image is \(4, 2, 3\).*maps are \(2, 4\)"):
        replace(build(), image=np.zeros((4, 2, 3), np.uint8))


def test_scores_by_hand():
    result = build()
    assert set(result.segment_scores) == set(result.object_scores) == set(SCORE_NAMES)
    assert result.segment_scores["mean_q"].tolist() == pytest.approx([0.8, 0.5, 0.5])
    assert result.segment_scores["mean_marginal"].tolist() == pytest.approx([0.25] * 3)
    assert result.segment_scores["detection"].tolist() == pytest.approx([0.9, 0.9, 0.6])
    assert result.segment_scores["product"].tolist() == pytest.approx([0.18, 0.1125, 0.075])
    # The first object: (0.9 + 0.7 + 0.5) / 3.
    assert result.object_scores["mean_q"].tolist() == pytest.approx([0.7, 0.5])
    assert build(score_name="detection").scores.tolist() == pytest.approx([0.9, 0.6])


def test_shares_by_hand():
    # Box 1 has the pixels (0, 0) .. (1, 1), 2 and 3 lie in it, too; object 3 has a pixel outside.
    result = build(
        object_map=torch.tensor([[1, 0, 0, 0], [1, 3, 3, 2]]),
        part_map=torch.tensor([[1, 2, 0, 0], [2, 2, 2, 1]]),
        boxes=torch.tensor([[0.0, 0, 2, 2], [3, 0, 4, 1], [0.6, 0.4, 2.4, 1.6]]),
    )
    # Object 1: 2 of 4 pixels. Object 2: its box is background. Object 3: its box has the centre
    # (1.5, 0.5), nobody's, and (1.5, 1.5), its own; its other one, (2.5, 1.5), lies outside.
    share = torch.tensor([0.5, 0.0, 0.5])
    detection = torch.tensor([0.9, 0.8, 0.6])
    torch.testing.assert_close(result.object_scores["share"], detection * share)
    torch.testing.assert_close(
        result.object_scores["product_share"], result.object_scores["product"] * share
    )
    assert result.segment_object.tolist() == [1, 1, 2, 3]
    of_segments = share[result.segment_object - 1]
    torch.testing.assert_close(
        result.segment_scores["share"], result.segment_scores["detection"] * of_segments
    )
    torch.testing.assert_close(
        result.segment_scores["product_share"], result.segment_scores["product"] * of_segments
    )


def test_shares_count_the_pixels_that_the_crf_takes_for_the_boxs():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(*shape, generator=generator)

    height, width, count = 11, 13, 6
    part_map = (random(height, width) * 3).long()
    object_map = torch.where(part_map > 0, (random(height, width) * (count + 1)).long(), 0)
    # Also beyond the picture, without a pixel, with corners at centres, and turned round.
    boxes = torch.cat([random(3, 2) * 6 - 2, random(3, 2) * 12 + 2], dim=1)
    boxes = torch.cat(
        [boxes, torch.tensor([[0.5, 2.5, 4.5, 7.5], [-9.0, -9, -2, -2], [9.0, 9, 3, 3]])]
    )
    result = PartInstances.from_label_maps(
        object_map,
        part_map,
        boxes=boxes,
        scores=torch.ones(count),
        classes=torch.zeros(count, dtype=torch.int64),
    )
    in_box = box_masks(boxes, height, width).permute(2, 0, 1)
    own = in_box & (object_map == torch.arange(1, count + 1)[:, None, None])
    expected = own.sum((1, 2)) / (in_box & (part_map > 0)).sum((1, 2)).clamp(min=1)
    assert len(result) == count
    torch.testing.assert_close(result.object_scores["share"], expected)


def test_objects_with_too_small_a_share_become_nobodys():
    arguments = {
        "object_map": torch.tensor([[1, 1, 1, 0], [2, 1, 3, 3]]),
        "part_map": torch.tensor([[1, 1, 1, 0], [2, 2, 2, 2]]),
        "boxes": torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 4, 2]]),
    }
    # Shares 3/4, 1/4 and 2/7.
    for min_share, kept in ((0.0, [0, 1, 2]), (0.25, [0, 1, 2]), (0.26, [0, 2]), (0.3, [0])):
        result = build(**arguments, min_share=min_share)
        reference = build(**arguments)
        assert result.boxes.tolist() == reference.boxes[kept].tolist()
        assert torch.equal(result.part_map, reference.part_map)
        wanted = torch.zeros(2, 4, dtype=torch.int32)
        for number, old in enumerate(kept, start=1):
            wanted[reference.object_map == old + 1] = number
        assert torch.equal(result.object_map, wanted)
        # What the others lose does not change the share of those that stay.
        for name in SCORE_NAMES:
            assert torch.equal(result.object_scores[name], reference.object_scores[name][kept])
    nobody = build(**arguments, min_share=1.0)
    assert len(nobody) == 0 and torch.equal(nobody.part_map, reference.part_map)


def test_panoptic_view():
    id_map, segments = build().panoptic()
    assert id_map.dtype == torch.int32
    assert id_map.tolist() == [[1, 1, 0, 0], [2, 3, 3, 0]]
    assert [s["id"] for s in segments] == [1, 2, 3]
    assert [s["category_id"] for s in segments] == [0, 1, 1]
    assert [s["instance_id"] for s in segments] == [1, 1, 2]
    assert [s["object_category_id"] for s in segments] == [0, 0, 1]
    for segment in segments:
        # Detectron2's panoptic evaluator tests `is True`, and checkpoints hold plain numbers only.
        assert segment["isthing"] is True
        assert {type(v) for v in segment.values()} <= {bool, int, float}


def test_masks_are_disjoint_and_agree():
    result = build()
    objects, segments = result.object_masks(), result.segment_masks()
    assert objects.sum(0).max() == 1 and segments.sum(0).max() == 1
    assert segments.flatten(1).sum(1).tolist() == result.segment_area.tolist()
    assert torch.equal(objects[0], segments[0] | segments[1])


@pytest.mark.parametrize("num_detections", [0, 2])
def test_nothing_labelled(num_detections):
    zeros = torch.zeros(3, 5, dtype=torch.int64)
    result = PartInstances.from_label_maps(
        zeros,
        zeros,
        boxes=torch.zeros(num_detections, 4),
        scores=torch.ones(num_detections),
        classes=torch.zeros(num_detections, dtype=torch.int64),
    )
    id_map, segments = result.panoptic()
    assert len(result) == 0 and segments == [] and id_map.sum() == 0
    assert result.object_masks().shape == (0, 3, 5)
    assert result.segment_masks().shape == (0, 3, 5)


def test_a_part_of_nobody_is_a_part_and_no_object():
    # Column 3: part 2 of nobody above, background below; no object has a part beyond 1.
    result = build(
        object_map=torch.tensor([[1, 1, 0, 0], [1, 3, 3, 0]]),
        part_map=torch.tensor([[1, 1, 0, 2], [1, 1, 1, 0]]),
    )
    assert result.part_map.tolist() == [[1, 1, 0, 2], [1, 1, 1, 0]]
    assert result.object_map.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert result.segment_object.tolist() == [1, 2]
    assert result.segment_part.tolist() == [1, 1]
    assert result.segment_area.tolist() == [3, 2]
    assert result.object_masks().sum().item() == 5
    assert not result.segment_masks()[:, 0, 3].any()
    id_map, segments = result.panoptic()
    assert id_map.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert [s["area"] for s in segments] == [3, 2]


def test_everything_may_be_nobodys():
    result = build(
        object_map=torch.zeros(2, 4, dtype=torch.int64),
        part_map=torch.tensor([[0, 1, 2, 0], [0, 2, 2, 0]]),
    )
    assert len(result) == 0 and result.panoptic()[0].sum() == 0 and result.panoptic()[1] == []
    assert result.part_map.sum() == 7


def test_non_contiguous_maps_give_the_same():
    reference = build()
    strided = build(
        object_map=torch.tensor([[1, 1], [1, 3], [0, 3], [0, 0]]).t(),
        part_map=torch.tensor([[1, 2], [1, 2], [0, 2], [0, 0]]).t(),
    )
    assert torch.equal(reference.object_map, strided.object_map)
    assert reference.segment_scores["mean_q"].tolist() == strided.segment_scores["mean_q"].tolist()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"score_name": "iou"}, "'iou'"),
        ({"min_share": 1.5}, r"min_share is 1.5.*0 \(every object\)"),
        ({"min_share": -0.1}, "min_share is -0.1"),
        ({"part_map": torch.zeros(2, 5, dtype=torch.int64)}, r"\(2, 4\) and \(2, 5\)"),
        ({"scores": torch.ones(2)}, "3, 2 and 3"),
        ({"object_map": torch.full((2, 4), 4)}, "ids 4..4.*3 detections"),
        ({"part_map": torch.full((2, 4), 3)}, "part 3.*2 parts"),
        ({"part_map": torch.zeros(2, 4, dtype=torch.int64)}, "5 pixels.*object without a part"),
        ({"part_prob": torch.zeros(3, 2, 5)}, r"\(3, 2, 5\)"),
        ({"confidence": torch.zeros(4, 2)}, r"confidence is \(4, 2\), the maps are \(2, 4\)"),
        ({"boxes": torch.zeros(3, 5)}, r"boxes must be \(D, 4\), got \(3, 5\)"),
        ({"part_map": torch.full((2, 4), -1)}, "part -1"),
        ({"part_map": torch.ones(2, 4)}, "hold ids, but are torch.int64 and torch.float32"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
