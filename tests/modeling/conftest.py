"""A network of a few thousand weights, and images of two people standing side by side."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

import instance_crf
from instance_crf.config import load_config

instance_crf.register()

ROOT = Path(__file__).resolve().parents[2]
TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [8,10,12,14]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 8 MODEL.SEM_SEG_HEAD.CONVS_DIM 8
    MODEL.IDENTITY_HEAD.CONVS_DIM 8
    MODEL.RPN.CONV_DIMS [8] MODEL.ROI_BOX_HEAD.FC_DIM 8 MODEL.DEVICE cpu
    MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 3 MODEL.INSTANCE_CRF.NUM_ITERATIONS.TRAIN 2
    MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST 2
""".split()


@pytest.fixture
def make_cfg():
    """A function: files below configs/, overrides -> frozen config of the tiny network."""

    def make(*opts):
        config = ROOT / "configs/SyntheticPeople/instance_crf.yaml"
        files = [str(x) for x in opts if str(x).endswith(".yaml")]
        layers = [str(ROOT / "configs" / x) for x in files]
        return load_config(str(config), [*layers, *TINY, *map(str, opts[len(files) :])])

    return make


@pytest.fixture
def make_model(make_cfg):
    """A function: overrides -> the tiny network."""
    return lambda *opts: build_model(make_cfg(*opts))


@pytest.fixture
def people():
    """A function: size -> model input with two people of three parts each, boxes apart."""

    def make(height=48, width=64):
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        parts = torch.zeros(height, width, dtype=torch.int64)
        objects = torch.zeros_like(parts)
        middle = width // 2
        for index, (left, right) in enumerate([(2, middle - 2), (middle + 2, width - 2)], start=1):
            for part, (top, bottom) in enumerate([(2, 14), (14, 30), (30, height - 2)], start=1):
                parts[top:bottom, left:right] = part
            objects[2 : height - 2, left:right] = index
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(
            torch.tensor(
                [[2, 2, middle - 2, height - 2], [middle + 2, 2, width - 2, height - 2]]
            ).float()
        )
        instances.gt_classes = torch.zeros(2, dtype=torch.int64)
        instances.gt_object_ids = torch.tensor([1, 2])
        return {
            "file_name": "people.png",
            "image": image,
            "height": height,
            "width": width,
            "instances": instances,
            "part_seg": parts,
            "object_seg": objects,
        }

    return make


@pytest.fixture
def masked_people(people):
    """The same, with ``gt_masks``."""

    def make(*size):
        inputs = people(*size)
        instances = inputs["instances"]
        masks = inputs["object_seg"] == instances.gt_object_ids[:, None, None]
        instances.gt_masks = BitMasks(masks)
        return inputs

    return make


@pytest.fixture
def with_detections():
    """A function: (model input, D) -> the same with D random given detections."""

    def add(inputs, count):
        _, height, width = inputs["image"].shape
        corner = torch.rand(count, 2) * torch.tensor([width / 2, height / 2])
        extent = torch.rand(count, 2) * torch.tensor([width / 2, height / 2]) + 1
        detections = Instances((height, width))
        detections.pred_boxes = Boxes(torch.cat([corner, corner + extent], dim=1))
        detections.scores = torch.rand(count)
        detections.pred_classes = torch.zeros(count, dtype=torch.int64)
        return {**inputs, "detections": detections}

    return add
