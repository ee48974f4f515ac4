"""BodyPix 2.0, its MobileNets in TensorFlow.js' format: parts, people, and votes for whose.

Letters: H, W size of the image; H', W' of the network's input; h, w of its outputs; D detections.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...taxonomies import get_taxonomy
from ..inputs import PartScores, Source
from ..resources import choose_device
from .bodypix_tfjs import GraphModel
from .votes import follow_offsets, keypoint_vote_evidence

__all__ = ["BodyPix", "load_bodypix"]

_PERSON, _PARTS, _OFFSETS = "float_segments", "float_part_heatmaps", "float_long_offsets"
_CHANNELS = {_PERSON: 1, _PARTS: 24, _OFFSETS: 34}
#: Side of an input to try the network on: as many strides of up to 32, plus 1.
_TRIAL = 2 * 32 + 1


def load_bodypix(
    folder: str | os.PathLike,
    *,
    longer_side: int = 769,
    stride: int = 8,
    device: torch.device | str = "cpu",
) -> BodyPix:
    """BodyPix in a folder, as TensorFlow.js loads it: a JSON and its shards.

    The versions of 8 bits (``quant1``) are refused: they lose most of the foreground. So are the
    ResNets.

    Args:
        folder: with ``model-stride8.json`` or ``model-stride16.json``, as ``stride`` says, or
            ``model.json``; or one such file.
        longer_side: of the picture that the network sees, in pixels, a multiple of the stride
            plus 1; other numbers are rounded to such.
        stride: of the network. 8 sees the most.
        device: where it runs, and where its outputs are.

    Raises:
        FileNotFoundError: no such folder or file, or a shard is missing.
        ValueError: not BodyPix, or another stride, or weights of 8 bits, or a ``longer_side``
            of less than a stride.
    """
    file = _find_file(Path(folder).expanduser(), stride)
    device = choose_device(device)
    network = GraphModel(file, tuple(_CHANNELS), device=device)
    _check(network, stride, device)
    if longer_side <= stride:
        raise ValueError(f"longer_side is {longer_side}; it must be above the stride, {stride}.")
    return BodyPix(network, longer_side=longer_side, stride=stride, device=device)


class BodyPix(Source):
    """See :func:`load_bodypix`."""

    def __init__(
        self,
        network: GraphModel,
        *,
        longer_side: int,
        stride: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network
        self.longer_side = longer_side
        self.stride = stride
        self.device = device
        self.taxonomy = get_taxonomy("bodypix")

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> PartScores:
        """Logits of 24 parts and of a person, (24, h, w) and (1, h, w), corners aligned, and votes.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            path: not used.

        Raises:
            ValueError: pixels of another shape or type.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"BodyPix takes (H, W, 3) uint8 RGB pixels, not {pixels.shape} {pixels.dtype}."
            )
        outputs = self.network(self._input(pixels))
        person, parts, offsets = (outputs[name][0].contiguous() for name in _CHANNELS)
        return PartScores(
            values=parts,
            kind="logits",
            background="none",
            align_corners=True,
            person_logit=person,
            taxonomy=self.taxonomy,
            votes=partial(
                _votes, offsets=offsets, person=person, stride=self.stride, size=pixels.shape[:2]
            ),
        )

    def _input(self, pixels: np.ndarray) -> Tensor:
        """(H, W, 3) -> (1, 3, H', W') in [-1, 1]."""
        longest = max(pixels.shape[:2])
        lengths = (self.longer_side * n / longest for n in pixels.shape[:2])
        size = [_round_to_stride(length, self.stride) for length in lengths]
        image = torch.tensor(pixels, device=self.device).permute(2, 0, 1)[None].float()
        # A sample of a much larger photo must not be one pixel of it. torch's own antialiasing
        # shifts the picture when corners are aligned.
        block = longest // self.longer_side
        if block > 1:
            image = F.avg_pool2d(image, block, ceil_mode=True)
        image = F.interpolate(image, size, mode="bilinear", align_corners=True) / 127.5 - 1
        return image.contiguous(memory_format=torch.channels_last)  # a third faster


def _votes(
    boxes: Tensor, *, offsets: Tensor, person: Tensor, stride: int, size: tuple[int, int]
) -> Tensor:
    """(D, 4) boxes in pixels of the image -> (D, h, w) in [0, 1], see `keypoint_vote_evidence`."""
    keypoints = follow_offsets(offsets, stride)
    scale = [(n - 1) / (stride * (m - 1)) for n, m in zip(size, person.shape[1:], strict=True)]
    keypoints = keypoints * keypoints.new_tensor(scale[::-1])[:, None, None] + 0.5
    boxes = boxes.to(keypoints)
    return keypoint_vote_evidence(keypoints, boxes, person[0].sigmoid(), size)


def _round_to_stride(length: float, stride: int) -> int:
    """A multiple of the stride, at least one, plus 1."""
    return max(1, round(length / stride)) * stride + 1


def _find_file(folder: Path, stride: int) -> Path:
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of BodyPix {folder}.")
    names = (f"model-stride{stride}.json", "model.json")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has neither {names[0]} nor {names[1]}.")


def _check(network: GraphModel, stride: int, device: torch.device | str) -> None:
    """Runs it once, on next to nothing."""
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, _TRIAL, _TRIAL, device=device))
    for name, channels in _CHANNELS.items():
        if outputs[name].shape[1] != channels:
            raise ValueError(
                f"{network.file}: {name} has {outputs[name].shape[1]} channels; BodyPix has "
                f"{channels}."
            )
    found = (_TRIAL - 1) / (outputs[_PARTS].shape[2] - 1)
    if found != stride:
        raise ValueError(f"{network.file} has a stride of {found:g}, not {stride}: say stride=.")
