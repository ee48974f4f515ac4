"""Training that a seed makes: pictures in their order, and every random number, by their place.

A run that was killed and resumed sees the pictures, and draws the numbers, of one that was not,
with any number of loading workers; nothing of it needs to be saved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.data.common import ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from .parallel import end_loading_with_parent

__all__ = ["build_train_loader", "seed_generators", "seed_step", "start_at"]

_PICTURES, _STEPS, _ORDER = range(3)
"""What random numbers are for: they are not the same for the same place."""


def build_train_loader(cfg: CfgNode, mapper: Callable[[dict], dict]) -> Any:
    """Detectron2's loader. With ``cfg.SEED`` >= 0, its order and the random numbers that ``mapper``
    draws follow from the seed and the place in the order alone.
    """
    build = build_detection_train_loader if cfg.SEED < 0 else _build_seeded
    loader = build(cfg, mapper=mapper)
    for layer in _layers(loader):
        if isinstance(layer, DataLoader):
            end_loading_with_parent(layer)
    return loader


def _build_seeded(cfg: CfgNode, mapper: Callable[[dict], dict]) -> Any:
    with _generators_kept():
        seed_generators(cfg.SEED, _ORDER)  # the sampler draws its own seed
        loader = build_detection_train_loader(cfg, mapper=mapper)
    for layer in _layers(loader):
        if isinstance(layer, DataLoader):
            layer.generator = torch.Generator()  # beginning to load draws none of the step's
        if isinstance(layer, ToIterableDataset):
            layer.sampler = _Places(layer.sampler)
            layer.dataset = _Seeded(layer.dataset, cfg.SEED)
    return loader


def start_at(loader: Any, place: int) -> None:
    """Have a loader that has not begun leave out the first ``place`` pictures of this process.

    Without a seed it begins another order anyway.
    """
    for layer in _layers(loader):
        if isinstance(sampler := getattr(layer, "sampler", None), _Places):
            sampler.start = place


def seed_generators(*key: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, each from all the numbers of ``key``."""
    words = [int(word) for word in np.random.SeedSequence(key).generate_state(6)]
    random.seed(words[0] << 32 | words[1])
    np.random.seed(words[2:4])
    torch.manual_seed(words[4] << 32 | words[5])


def seed_step(seed: int, iteration: int) -> None:
    """Seed the generators for an iteration of training in this process."""
    seed_generators(seed, _STEPS, comm.get_rank(), iteration)


class _Places(Sampler):
    """The samples of another sampler with their places: (place, index), from ``start`` on."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return islice(enumerate(self.sampler), self.start, None)


class _Seeded(Dataset):
    """Samples of another data set, made with random numbers of their places."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.key = seed, _PICTURES, comm.get_rank()

    def __getitem__(self, placed: tuple[int, int]) -> Any:
        place, index = placed
        with _generators_kept():
            seed_generators(*self.key, place)
            return self.dataset[index]


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Leave the generators as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _layers(loader: Any) -> list[Any]:
    """A loader, and what it takes its samples from, down to the stream of single ones."""
    layers = [loader]
    while not isinstance(layers[-1], ToIterableDataset) and hasattr(layers[-1], "dataset"):
        layers.append(layers[-1].dataset)
    return layers
