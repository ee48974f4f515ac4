"""Results to try the views and the exports on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instance_crf.data.synthetic import TAXONOMY, SyntheticPeople
from instance_crf.structures import PartInstances
from instance_crf.taxonomies import PartTaxonomy

ZOO = PartTaxonomy(
    part_names=("head", "legs", "wheel"), object_names=("person", "bicycle"), part_owner=(0, 0, 1)
)


def make_result(object_map, part_map, *, classes=None, boxes=None, **others):
    """The result of two maps; detection i has the score 1 / (i + 1)."""
    object_map, part_map = torch.as_tensor(object_map), torch.as_tensor(part_map)
    count = int(object_map.max()) if classes is None else len(classes)
    return PartInstances.from_label_maps(
        object_map.long(),
        part_map.long(),
        boxes=torch.zeros(count, 4) if boxes is None else boxes,
        scores=1 / torch.arange(2, count + 2),
        classes=torch.zeros(count, dtype=torch.int64) if classes is None else classes,
        **{"score_name": "detection", **others},
    )


@pytest.fixture
def make():
    return make_result


@pytest.fixture
def small():
    """A person and a bicycle, a head of nobody; detection 1 (of 0..2) won nothing."""
    return make_result(
        [[1, 1, 0, 0, 0], [1, 3, 3, 0, 0], [0, 3, 3, 0, 0]],
        [[1, 1, 0, 0, 1], [2, 3, 3, 0, 0], [0, 3, 3, 0, 0]],
        classes=torch.tensor([0, 0, 1]),
        boxes=torch.tensor([[0, 0, 2, 2], [3, 0, 5, 3], [1.25, 1, 3, 3]]),
        taxonomy=ZOO,
    )


@pytest.fixture(scope="session")
def photo():
    """A crowded synthetic picture with its truth."""
    return SyntheticPeople("hard", size=(120, 160))[3]


@pytest.fixture
def people(photo):
    """That truth as a result that knows its picture; three people."""
    result = make_result(photo.object_map.astype(int), photo.part_map.astype(int))
    assert len(result) == 3
    return replace(result, taxonomy=TAXONOMY, image=photo.image)


@pytest.fixture(params=["no detection", "nothing won", "all nobody's"])
def nobody(request):
    """Results without an object."""
    part_map = torch.zeros(6, 8, dtype=torch.int64)
    if request.param == "all nobody's":
        part_map[1:4, 2:5] = 2
    count = 0 if request.param == "no detection" else 2
    classes = torch.zeros(count, dtype=torch.int64)
    result = make_result(torch.zeros_like(part_map), part_map, classes=classes)
    return replace(result, image=np.zeros((6, 8, 3), np.uint8))


@pytest.fixture
def crowd():
    """300 objects of a single pixel each, in rows with gaps."""
    object_map = np.zeros((30, 41), int)
    object_map[::2, 1::2] = np.arange(1, 301).reshape(15, 20)
    return make_result(object_map, (object_map > 0).astype(int))
