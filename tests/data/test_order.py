"""What a seed makes of training's order: the same, begun anywhere, with any number of workers."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, build_detection_train_loader

from instance_crf.data.order import build_train_loader, seed_generators, start_at

BATCH = 3


@pytest.fixture
def cfg():
    """Seven records, four of them wide; as many as no batch divides."""
    sizes = [(9, 5), (5, 9), (9, 5), (5, 9), (9, 5), (5, 9), (9, 5)]
    records = [{"image_id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    DatasetCatalog.register("order_train", lambda: records)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("order_train",)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = BATCH
    cfg.SEED = 5
    yield cfg
    DatasetCatalog.remove("order_train")


def draw(record):
    """A mapper with a random number of each generator."""
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    return {**record, "drawn": drawn}


def batches(cfg, count, start=0):
    """[[(image id, its random numbers), ...], ...] of a loader that begins after ``start``."""
    loader = build_train_loader(cfg, draw)
    start_at(loader, start * BATCH)
    return [[(r["image_id"], r["drawn"]) for r in batch] for batch in islice(loader, count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_begun_later_it_goes_on_as_it_would_have(cfg, workers):
    expected = batches(cfg, 8)
    random.random(), np.random.rand(), torch.rand(1)  # whatever was drawn before
    cfg.DATALOADER.NUM_WORKERS = workers
    assert batches(cfg, 8) == expected
    assert batches(cfg, 5, start=3) == expected[3:]


def test_every_picture_comes_once_an_epoch_and_is_another_every_time(cfg):
    seen = [sample for batch in batches(cfg, 7) for sample in batch]
    for epoch in range(3):
        assert {i for i, _ in seen[7 * epoch : 7 * epoch + 7]} == set(range(7))
    assert len({drawn for _, drawn in seen}) == 21
    assert [i for i, _ in seen[:7]] != [i for i, _ in seen[7:14]]


def test_another_seed_is_another_order(cfg):
    expected = batches(cfg, 4)
    cfg.SEED = 6
    assert batches(cfg, 4) != expected


def test_loading_leaves_the_trainings_random_numbers_alone(cfg):
    seed_generators(1, 2)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    seed_generators(1, 2)
    batches(cfg, 2)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_without_a_seed_it_is_detectron2s(cfg):
    cfg.SEED = -1
    np.random.seed(3)
    expected = [[r["image_id"] for r in b] for b in
                islice(build_detection_train_loader(cfg, mapper=draw), 4)]  # fmt: skip
    np.random.seed(3)
    assert [[i for i, _ in batch] for batch in batches(cfg, 4, start=2)] == expected


def test_batches_of_like_shapes(cfg):
    """Detectron2 groups them after loading: nothing is seen before its place."""
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    for batch in batches(cfg, 6, start=2):
        assert len({i % 2 for i, _ in batch}) == 1
