"""Outputs of libraries: real models with random weights, against the libraries' own results."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packaging.version import Version

from instance_crf.own_models.parts import read_part_scores, to_q

transformers = pytest.importorskip("transformers")
SIZE = (30, 40)
# Before, there are no segmentation_scores, and tiny models with random weights see one label.
newer_transformers = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.14"), reason="transformers is older than 5.14"
)


def refused(value, kind, *words, **options):
    with pytest.raises(ValueError) as error:
        read_part_scores(value, kind, **options)
    missing = [word for word in words if word not in str(error.value)]
    assert not missing, (missing, str(error.value))


@pytest.fixture(scope="module")
def segformer(tiny_segformer):
    """Output and processor."""
    model = tiny_segformer(5)
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64))
    return output, transformers.SegformerImageProcessor()


@pytest.fixture(scope="module")
def maskformer():
    return mask_output(5), transformers.MaskFormerImageProcessor()


def mask_output(num_labels, images=1):
    """Of the class that its processor takes, with numbers as a trained model has them."""
    generator = torch.Generator().manual_seed(0)
    module = transformers.models.maskformer.modeling_maskformer
    return module.MaskFormerForInstanceSegmentationOutput(
        class_queries_logits=2 * torch.randn(images, 7, num_labels + 1, generator=generator),
        masks_queries_logits=4 * torch.randn(images, 7, 15, 20, generator=generator),
    )


def test_logits_of_transformers(segformer):
    output, processor = segformer
    scores = read_part_scores(output, "logits")
    assert scores.kind == "logits" and not scores.align_corners
    torch.testing.assert_close(scores.values, output.logits[0])
    q = to_q(scores, SIZE, 4)
    own = processor.post_process_semantic_segmentation(output, target_sizes=[SIZE])[0]
    assert torch.equal(q.argmax(0), own)
    assert len(own.unique()) > 2


@newer_transformers
def test_scores_and_map_of_transformers(segformer):
    output, processor = segformer
    element = processor.post_process_semantic_segmentation(
        output, target_sizes=[SIZE], return_segmentation_scores=True
    )[0]
    scores = read_part_scores(element, "logits")
    assert scores.kind == "logits" and scores.values.shape == (5, *SIZE)
    torch.testing.assert_close(
        to_q(scores, SIZE, 4), to_q(read_part_scores(output, "logits"), SIZE, 4)
    )
    assert torch.equal(read_part_scores(element, "map").values, element.segmentation)
    # Elements without scores are maps, which arrays are, too.
    labels = processor.post_process_semantic_segmentation(output, target_sizes=[SIZE])
    assert torch.equal(read_part_scores(labels, "map").values, element.segmentation)
    refused(element, "prob", "look like logits")
    refused({"segmentation": labels[0]}, "logits", "return_segmentation_scores=True", "part_map")


@newer_transformers
def test_a_mask_classifier(maskformer):
    output, processor = maskformer
    element = processor.post_process_semantic_segmentation(output, return_segmentation_scores=True)[
        0
    ]
    for kind in ("prob", "logits"):
        scores = read_part_scores(output, kind)
        assert scores.kind == "prob"
        torch.testing.assert_close(scores.values, element.segmentation_scores)
    enlarged = processor.post_process_semantic_segmentation(output, target_sizes=[SIZE])[0]
    q = to_q(scores, SIZE, 4)
    assert torch.equal(q.argmax(0), enlarged) and len(enlarged.unique()) > 2
    sums = F.interpolate(element.segmentation_scores[None], size=SIZE, mode="bilinear")[0]
    torch.testing.assert_close(q, sums / sums.sum(0))


@newer_transformers
def test_scores_of_a_mask_classifier_are_no_logits(maskformer):
    output, processor = maskformer
    element = processor.post_process_semantic_segmentation(
        output, target_sizes=[SIZE], return_segmentation_scores=True
    )[0]
    assert float(element.segmentation_scores.sum(0).max()) > 1.1
    torch.testing.assert_close(
        to_q(read_part_scores(element, "prob"), SIZE, 4),
        to_q(read_part_scores(output, "prob"), SIZE, 4),
    )
    refused(element, "logits", "sums of probabilities", "part_prob")


@newer_transformers
def test_mask2former_itself(tiny_mask2former):
    with torch.no_grad():
        output = tiny_mask2former(4)(torch.randn(1, 3, 64, 96))
    scores = read_part_scores(output, "logits")
    classes = output.class_queries_logits[0].softmax(-1)[:, :-1]
    masks = output.masks_queries_logits[0].sigmoid()
    expected = sum(c[:, None, None] * m[None] for c, m in zip(classes, masks, strict=True))
    torch.testing.assert_close(scores.values, expected)
    # MaskFormer's processor enlarges these sums, Mask2Former's the masks before.
    processor = transformers.MaskFormerImageProcessor()
    own = processor.post_process_semantic_segmentation(output, target_sizes=[(64, 96)])[0]
    assert torch.equal(to_q(scores, (64, 96), 3).argmax(0), own) and len(own.unique()) > 2


def test_outputs_of_another_kind(segformer, maskformer):
    refused(
        segformer[0], "prob", "SemanticSegmenterOutput holds logits", "part_logits", "part_prob"
    )
    refused(segformer[0], "map", "part_logits", "part_map")
    refused(maskformer[0], "map", "mask classifier", "part_prob or part_logits")
    refused({"out": torch.zeros(1, 3, 4, 4)}, "prob", "torchvision", "part_logits")
    refused(mask_output(3, images=2), "prob", "2 images")
    refused({"out": torch.zeros(2, 3, 4, 4)}, "logits", "2 images")
    refused({"out": torch.zeros(3, 4, 4)}, "logits", "(3, 4, 4)", "(1, C, h, w)")


def test_outputs_that_are_no_semantic_segmentation(maskformer):
    detr = transformers.models.detr.modeling_detr.DetrSegmentationOutput(
        logits=torch.zeros(1, 10, 5),
        pred_masks=torch.zeros(1, 10, 8, 8),
    )
    refused(detr, "logits", "of boxes", "return_segmentation_scores=True")
    output, processor = maskformer
    panoptic = processor.post_process_panoptic_segmentation(output, target_sizes=[SIZE])[0]
    refused(panoptic, "map", "segments", "post_process_semantic_segmentation")
    classes = transformers.modeling_outputs.ImageClassifierOutput(logits=torch.zeros(1, 5))
    refused(classes, "logits", "(1, 5)", "(1, C, h, w)")
    patches = SimpleNamespace(
        class_queries_logits=torch.zeros(1, 2, 3),
        masks_queries_logits=torch.zeros(1, 2, 4, 4),
        patch_offsets=[(0, 0, 4)],
    )
    refused(patches, "prob", "patches")


def test_torchvision():
    segmentation = pytest.importorskip("torchvision").models.segmentation
    torch.manual_seed(0)
    model = segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64))
    scores = read_part_scores(output, "logits")
    assert torch.equal(scores.values, output["out"][0])


def test_ids_of_ultralytics():
    """By the attributes of its results: semantic_mask with data, names."""
    ids = torch.randint(0, 3, (6, 8), dtype=torch.uint8)

    def results(names, data=ids):
        return SimpleNamespace(semantic_mask=SimpleNamespace(data=data), boxes=None, names=names)

    first = read_part_scores([results({0: "background", 1: "head", 2: "arms"})], "map")
    assert torch.equal(first.values, ids) and first.background == "first"
    last = read_part_scores(results({0: "head", 1: "arms", 2: "Background"}), "map")
    assert last.background == "last"
    unnamed = results({0: "head", 1: "arms"})
    refused(unnamed, "map", "names have no background", "'first'", "'last'")
    assert read_part_scores(unnamed, "map", background="last").background == "last"
    refused(results({0: "head", 1: "background", 2: "arms"}), "map", "id 1 (background) of 0..2")
    refused(unnamed, "prob", "ids of parts", "part_map")
    array = SimpleNamespace(semantic_mask=ids.numpy(), names=["background", "head"])
    np.testing.assert_array_equal(read_part_scores(array, "map").values, ids)
