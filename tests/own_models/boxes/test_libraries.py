"""What real models of torchvision, transformers and Detectron2 give, and supervision."""

import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances, ROIMasks, RotatedBoxes
from torchvision.models import detection

from instance_crf.own_models.boxes import read_detections

SIZE = (60, 80)
TINY = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96}
TABLE = ["__background__", "person", "dog"]


def run_torchvision(builder, **options):
    torch.manual_seed(0)
    model = builder(**TINY, **options, box_detections_per_img=4, box_nms_thresh=0.9).eval()
    with torch.inference_mode():
        return model([torch.rand(3, *SIZE)])


def test_torchvision_masks():
    output = run_torchvision(detection.maskrcnn_resnet50_fpn, num_classes=3)
    found = read_detections(output, size=SIZE, class_names=TABLE)
    output = output[0]
    rows = found.index if found.index is not None else torch.arange(len(output["boxes"]))
    assert len(found) > 1 and torch.equal(found.boxes, output["boxes"][rows])
    assert found.class_names == tuple(TABLE[i] for i in output["labels"][rows].tolist())
    assert torch.equal(found.scores, output["scores"][rows])
    assert output["masks"].shape[1:] == (1, *SIZE)
    assert torch.equal(found.masks, output["masks"][rows, 0])
    assert 0 < float(found.masks.max()) < 1  # soft
    with pytest.raises(ValueError, match="person is 0 in YOLO's table, 1 in torchvision's"):
        read_detections(output, size=SIZE)


def test_torchvision_keypoints():
    output = run_torchvision(detection.keypointrcnn_resnet50_fpn, num_classes=2, num_keypoints=5)[0]
    found = read_detections(output, size=SIZE, class_names=TABLE[:2])
    rows = found.index if found.index is not None else torch.arange(len(output["boxes"]))
    assert len(found) > 0 and found.keypoints.shape[1:] == (5, 3)
    assert torch.equal(found.keypoints[..., :2], output["keypoints"][rows, :, :2])
    logits = output["keypoints_scores"][rows]
    assert torch.allclose(found.keypoints[..., 2], 1 / (1 + torch.exp(-logits)))
    assert not (found.keypoints[..., 2] == 1).all()


def detr_outputs():
    from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

    torch.manual_seed(0)
    return DetrObjectDetectionOutput(
        logits=torch.randn(1, 6, 4) * 3, pred_boxes=torch.rand(1, 6, 4) * 0.3 + 0.3
    )


def test_transformers_boxes():
    from transformers import DetrImageProcessor

    outputs, processor = detr_outputs(), DetrImageProcessor()
    post = processor.post_process_object_detection(outputs, threshold=0.6, target_sizes=[SIZE])
    id2label = {0: "person", 1: "dog", 2: "cat"}
    found = read_detections(post, size=SIZE, class_names=id2label)
    scores, labels = outputs.logits[0].softmax(1)[:, :3].max(1)
    kept = scores > 0.6
    x, y, w, h = outputs.pred_boxes[0][kept].unbind(1)
    expected = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    expected = expected * torch.tensor([80, 60, 80, 60])
    assert 1 < len(found) < 6 and torch.allclose(found.boxes, expected, atol=1e-4)
    assert torch.equal(found.scores, scores[kept])
    assert found.class_names == tuple(id2label[i] for i in labels[kept].tolist())

    relative = processor.post_process_object_detection(outputs, threshold=0.6)
    with pytest.raises(ValueError, match=r"target_sizes=\[\(60, 80\)\]"):
        read_detections(relative[0], size=SIZE, class_names=id2label)
    with pytest.raises(ValueError, match="raw outputs .*post_process_object_detection"):
        read_detections(outputs, size=SIZE, class_names=id2label)
    with pytest.raises(ValueError, match="class_names="):
        read_detections(post, size=SIZE)


def segmentation_outputs():
    """Two queries with known masks at a quarter of the size, and one that is nothing."""
    from transformers.models.mask2former.modeling_mask2former import (
        Mask2FormerForUniversalSegmentationOutput,
    )

    masks = torch.full((1, 3, 15, 20), -20.0)
    masks[0, 0, 2:10, 3:9] = 20
    masks[0, 1, 5:15, 12:20] = 20
    classes = torch.full((1, 3, 3), -9.0)
    classes[0, 0, 1], classes[0, 1, 0], classes[0, 2, 2] = 9, 9, 9
    return Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=classes, masks_queries_logits=masks
    )


@pytest.mark.parametrize("binary", [False, True])
def test_transformers_instances(binary):
    from transformers import Mask2FormerImageProcessor

    processor = Mask2FormerImageProcessor()
    post = processor.post_process_instance_segmentation(
        segmentation_outputs(), target_sizes=[SIZE], return_binary_maps=binary
    )
    found = read_detections(post, size=SIZE, class_names={0: "person", 1: "dog"})
    by_name = dict(zip(found.class_names, range(2), strict=True))
    dog, person = by_name["dog"], by_name["person"]
    assert found.masks.dtype == torch.bool and found.masks.shape == (2, *SIZE)
    truth = torch.zeros(2, *SIZE, dtype=torch.bool)
    truth[dog, 8:40, 12:36] = truth[person, 20:60, 48:80] = True
    assert ((found.masks & truth).sum((1, 2)) / (found.masks | truth).sum((1, 2)) > 0.9).all()
    assert torch.equal(found.boxes[person], torchvision.ops.masks_to_boxes(
        found.masks[person, None]
    )[0] + torch.tensor([0, 0, 1, 1]))  # fmt: skip
    assert (found.scores > 0.9).all()


def test_transformers_panoptic_and_empty():
    from transformers import Mask2FormerImageProcessor

    processor, outputs = Mask2FormerImageProcessor(), segmentation_outputs()
    post = processor.post_process_panoptic_segmentation(
        outputs, target_sizes=[SIZE], label_ids_to_fuse=set()
    )
    found = read_detections(post[0], size=SIZE, class_names={0: "person", 1: "dog"})
    assert sorted(found.class_names) == ["dog", "person"]

    nothing = processor.post_process_instance_segmentation(
        outputs, threshold=1.0, target_sizes=[SIZE]
    )
    assert nothing[0]["segments_info"] == []
    found = read_detections(nothing[0], size=SIZE, class_names={0: "person", 1: "dog"})
    assert len(found) == 0 and found.masks.shape == (0, *SIZE)


def test_transformers_segmentation_of_another_size():
    from transformers import Mask2FormerImageProcessor

    processor, outputs = Mask2FormerImageProcessor(), segmentation_outputs()
    table = {0: "person", 1: "dog"}
    post = processor.post_process_instance_segmentation(outputs)[0]
    with pytest.raises(ValueError, match=r"384x384 .* 80x60: .* target_sizes=\[\(60, 80\)\]"):
        read_detections(post, size=SIZE, class_names=table)
    post = processor.post_process_instance_segmentation(
        outputs, target_sizes=[SIZE], return_coco_annotation=True
    )[0]
    with pytest.raises(ValueError, match="return_coco_annotation"):
        read_detections(post, size=SIZE, class_names=table)
    post = {"segmentation": torch.zeros(3, *SIZE), "segments_info": post["segments_info"]}
    with pytest.raises(ValueError, match=r"shape \(3, 60, 80\) for 2 segments"):
        read_detections(post, size=SIZE, class_names=table)
    post = {"segmentation": torch.zeros(SIZE), "segments_info": [{"id": 1, "score": 0.9}]}
    with pytest.raises(ValueError, match="lack a label_id"):
        read_detections(post, size=SIZE, class_names=table)


def test_transformers_pipeline_list():
    entry = {"score": 0.9, "label": "person", "box": {"xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}}
    found = read_detections([entry, {**entry, "label": "dog"}], size=SIZE)
    assert found.boxes.tolist() == [[1, 2, 30, 40]] * 2 and found.class_names == ("person", "dog")
    assert found.scores.tolist() == pytest.approx([0.9, 0.9])
    assert len(read_detections([entry], size=SIZE)) == 1  # not taken as a list of outputs
    for box in (None, [1, 2, 30, 40], {"xmin": 1, "ymin": 2}):
        with pytest.raises(ValueError, match="There is the box .* xmin, ymin, xmax, ymax"):
            read_detections([{**entry, "box": box}], size=SIZE)


def test_transformers_text_labels():
    value = {"boxes": [[1, 2, 30, 40]], "scores": [0.5], "labels": [0], "text_labels": ["person"]}
    assert read_detections(value, size=SIZE).class_names == ("person",)


class TestSupervision:
    sv = pytest.importorskip("supervision")
    boxes = np.array([[10, 20, 29, 39], [0, 0, 79, 59]], dtype=np.float32)

    def masks(self):
        masks = np.zeros((2, *SIZE), dtype=bool)
        masks[0, 25:35, 12:20] = masks[1, :50] = True
        return masks

    def build(self, **fields):
        scores = np.array([0.5, 0.25])
        return self.sv.Detections(xyxy=self.boxes, confidence=scores, **fields)

    def test_numbers_and_names(self):
        found = read_detections(
            self.build(class_id=np.array([0, 2])), size=SIZE, class_names=["person", "a", "dog"]
        )
        assert found.boxes.tolist() == self.boxes.tolist() and found.scores.tolist() == [0.5, 0.25]
        assert found.class_names == ("person", "dog") and found.masks is None
        named = self.build(
            class_id=np.array([5, 6]), data={"class_name": np.array(["person", "dog"])}
        )
        assert read_detections(named, size=SIZE).class_names == ("person", "dog")
        found = read_detections(named, size=SIZE, class_names={5: "human", 6: "cat"})
        assert found.class_names == ("human", "cat")
        with pytest.raises(ValueError, match="class_names="):
            read_detections(self.build(class_id=np.array([0, 2])), size=SIZE)
        assert read_detections(self.build(), size=SIZE).class_names is None

    def test_masks(self):
        masks = self.masks()
        found = read_detections(self.build(mask=masks), size=SIZE)
        assert found.masks.dtype == torch.bool and (found.masks.numpy() == masks).all()
        with pytest.raises(ValueError, match="masks are 80x60 pixels, but the image is 60x80"):
            read_detections(self.build(mask=masks), size=SIZE[::-1])

    def test_compact_masks(self):
        compact = pytest.importorskip("supervision.detection.compact_mask").CompactMask
        masks = self.masks()
        given = self.build(mask=compact.from_dense(masks, self.boxes, image_shape=SIZE))
        assert type(given.mask) is compact
        found = read_detections(given, size=SIZE)
        assert (found.masks.numpy() == masks).all()

    def test_without_scores_and_empty(self):
        found = read_detections(self.sv.Detections(xyxy=self.boxes), size=SIZE)
        assert found.scores.tolist() == [1, 1]
        assert len(read_detections(self.sv.Detections.empty(), size=SIZE)) == 0

    def test_made_from_transformers(self):
        from transformers import DetrImageProcessor

        post = DetrImageProcessor().post_process_object_detection(
            detr_outputs(), threshold=0.6, target_sizes=[SIZE]
        )[0]
        table = {0: "person", 1: "dog", 2: "cat"}
        through = read_detections(self.sv.Detections.from_transformers(post, table), size=SIZE)
        straight = read_detections(post, size=SIZE, class_names=table)
        assert through.class_names == straight.class_names
        assert torch.equal(through.boxes, straight.boxes)


class TestDetectron2:
    def build(self, size=SIZE, **fields):
        boxes = Boxes(torch.tensor([[10.0, 20, 30, 40], [0, 0, 80, 60]]))
        known = {"pred_boxes": boxes, "scores": torch.tensor([0.5, 0.25]), **fields}
        return Instances(size, **known, pred_classes=torch.tensor([0, 2]))

    def test_fields(self):
        keypoints = torch.rand(2, 17, 3)
        masks = torch.rand(2, *SIZE) > 0.5
        instances = self.build(pred_masks=masks, pred_keypoints=keypoints)
        for value in (instances, {"instances": instances}, [{"instances": instances}]):
            found = read_detections(value, size=SIZE, class_names=["person", "a", "dog"])
            assert found.boxes.tolist() == instances.pred_boxes.tensor.tolist()
            assert found.scores.tolist() == [0.5, 0.25]
            assert found.class_names == ("person", "dog")
            assert torch.equal(found.masks, masks) and torch.equal(found.keypoints, keypoints)
        instances = self.build(pred_masks=BitMasks(masks))
        found = read_detections(instances, size=SIZE, class_names=["person", "a", "dog"])
        assert torch.equal(found.masks, masks)
        with pytest.raises(ValueError, match="class_names="):
            read_detections(instances, size=SIZE)

    def test_masks_over_boxes_are_pasted(self):
        torch.manual_seed(0)
        small = torch.rand(2, 1, 28, 28)
        table = ["person", "a", "dog"]
        found = read_detections(self.build(pred_masks=small), size=SIZE, class_names=table)
        assert found.masks.shape == (2, *SIZE) and found.masks[0, :19].max() == 0
        expected = detector_postprocess(self.build(pred_masks=small), *SIZE).pred_masks
        assert ((found.masks >= 0.5) == expected).float().mean() > 0.99
        regions = self.build(pred_masks=ROIMasks(small[:, 0]))
        same = read_detections(regions, size=SIZE, class_names=table)
        assert torch.equal(same.masks, found.masks)

    def test_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"160x120 .* 80x60: .*detector_postprocess"):
            read_detections(self.build((120, 160)), size=SIZE, class_names=["person"])

    def test_other_instances(self):
        truth = Instances(SIZE, gt_boxes=Boxes(torch.rand(2, 4)))
        with pytest.raises(ValueError, match="no pred_boxes; their fields are gt_boxes"):
            read_detections(truth, size=SIZE)
        turned = Instances(SIZE, pred_boxes=RotatedBoxes(torch.rand(2, 5)))
        with pytest.raises(ValueError, match=r"boxes have shape \(2, 5\)"):
            read_detections(turned, size=SIZE)


class TestCoco:
    mask = pytest.importorskip("pycocotools.mask")

    def entry(self, **fields):
        return {"image_id": 7, "category_id": 1, "bbox": [10, 20, 20, 15.5], "score": 0.5, **fields}

    def rle(self, array):
        return self.mask.encode(np.asfortranarray(array))

    def test_boxes(self):
        value = [self.entry(), self.entry(category_id=18, score=0.25)]
        found = read_detections(value, size=SIZE, class_names={1: "person", 18: "dog"})
        assert found.boxes.tolist() == [[10, 20, 30, 35.5]] * 2
        assert found.scores.tolist() == [0.5, 0.25] and found.class_names == ("person", "dog")
        with pytest.raises(ValueError, match="class_names="):
            read_detections(value, size=SIZE)
        without = [{"bbox": [10, 20, 20, 15.5]}]
        assert read_detections(without, size=SIZE).class_names is None

    def test_masks(self):
        array = np.zeros(SIZE, dtype=np.uint8)
        array[20:30, 10:25] = 1
        rle = self.rle(array)
        text = {"size": rle["size"], "counts": rle["counts"].decode()}
        runs = [10 * 60 + 20] + [10, 50] * 14 + [10, 60 * 55 + 30]
        polygon = [[10, 20, 25, 20, 25, 30, 10, 30]]
        for segmentation in (rle, text, {"size": [60, 80], "counts": runs}, polygon):
            value = [self.entry(segmentation=segmentation)]
            found = read_detections(value, size=SIZE, class_names={1: "person"})
            assert (found.masks[0].numpy() == array).all() and found.masks.dtype == torch.bool
            del value[0]["bbox"]
            found = read_detections(value, size=SIZE, class_names={1: "person"})
            assert found.boxes.tolist() == [[10, 20, 25, 30]]

    def test_keypoints(self):
        value = [self.entry(keypoints=[1, 2, 0.5, 3, 4, 1])]
        found = read_detections(value, size=SIZE, class_names={1: "person"})
        assert found.keypoints.tolist() == [[[1, 2, 0.5], [3, 4, 1]]]

    @pytest.mark.parametrize(
        "changes, words",
        [
            ({"image_id": 8}, r"2 images \(7, 8, \.\.\.\)"),
            ({"bbox": [10, 20, -5, 5]}, "Result 1 .*negative size"),
            ({"bbox": [10, 20, 5]}, r"Result 1 has the bbox \[10, 20, 5\]"),
            ({"bbox": None}, "1 of 2 results have a bbox"),
            ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "1 of 2 results have a segmentation"),
            ({"score": "high"}, "scores cannot be read"),
            ({"keypoints": [1, 2, 1]}, "1 of 2 results have a keypoints"),
        ],
    )
    def test_what_is_refused(self, changes, words):
        value = [self.entry(), self.entry(**changes)]
        with pytest.raises(ValueError, match=words):
            read_detections(value, size=SIZE, class_names={1: "person"})

    @pytest.mark.parametrize(
        "segmentation, words",
        [
            ({"size": [60, 80], "counts": [5]}, "its runs are 5 pixels, but the image has 4800"),
            ({"size": [30, 40], "counts": [1200]}, "mask is 40x30 pixels, but the image is 80x60"),
            ({"size": [60, 80]}, "neither polygons nor"),
            ("abc", "neither polygons nor"),
            ([[1, "a", 3]], "its mask: a polygon is not x, y"),
            ([1, 2, 3, 4, 5, 6], "its mask: a polygon is not x, y"),
        ],
    )
    def test_broken_masks(self, segmentation, words):
        with pytest.raises(ValueError, match=words):
            read_detections(
                [self.entry(segmentation=segmentation)], size=SIZE, class_names={1: "person"}
            )

    @pytest.mark.parametrize("changes", [{"bbox": None}, {"bbox": None, "segmentation": None}])
    def test_neither_boxes_nor_masks(self, changes):
        with pytest.raises(ValueError, match="neither a bbox nor a segmentation"):
            read_detections([self.entry(**changes)], size=SIZE, class_names={1: "person"})

    def test_keypoints_that_are_not_triples(self):
        with pytest.raises(ValueError, match=r"keypoints have \[4\] numbers"):
            read_detections(
                [self.entry(keypoints=[1, 2, 3, 4])], size=SIZE, class_names={1: "person"}
            )
