"""Convolutional networks in TensorFlow.js' format ("graph-model"), run by torch.

A JSON holds the graph and a list of tensors; shards beside it hold the tensors, one after the other
in the list's order. What BodyPix consists of is known: convolutions, depthwise ones, biases, ReLU6.

Letters: C channels, H, W size of the input, h, w of an output.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from graphlib import TopologicalSorter
from math import ceil, prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...files import inside, read_json
from ..resources import existing_file

__all__ = ["GraphModel", "read_weights"]

_MOST = 64
"""Of a stride or a dilation; more would only fill the memory."""
_STORED = {"uint16": "<u2", "float16": "<f2", "float32": "<f4"}


class GraphModel:
    """What some nodes of a graph need, ready to run.

    Args:
        file: the JSON.
        outputs: names of nodes.
        device: where it runs.

    Raises:
        FileNotFoundError: no such file, or a shard of it is missing.
        ValueError: it is no graph model, or has other operations than those known, or its shards
            have too few or too many bytes, or its weights have 8 bits only.
    """

    def __init__(
        self, file: Path, outputs: Sequence[str], *, device: torch.device | str = "cpu"
    ) -> None:
        self.file = file
        self.outputs = tuple(outputs)
        content = read_json(existing_file(file, "The network"))
        try:
            nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
            weights = read_weights(file, content["weightsManifest"])
            weights = {name: tensor.to(device) for name, tensor in weights.items()}
            self._input, order = self._sort(nodes, weights)
            self._steps = self._build([nodes[name] for name in order], weights)
            self(torch.zeros(1, 3, 8, 8, device=device))  # what does not fit together is met here
        except OSError:
            raise
        except Exception as error:  # of a broken file, whatever reading it meets
            if isinstance(error, ValueError) and str(file) in str(error):
                raise
            raise ValueError(
                f"{file} is not a graph model of TensorFlow.js as BodyPix is one: {error!r}."
            ) from error

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """(1, C, H, W) -> each output, (1, C', h, w).

        Raises:
            ValueError: a kernel or a bias is for another number of channels than it meets.
        """
        values = {self._input: image}
        for name, operation, source, is_last in self._steps:
            values[name] = operation(values[source])
            if is_last:  # or hundreds of megabytes pile up
                del values[source]
        return {name: values[name] for name in self.outputs}

    def _sort(
        self, nodes: Mapping[str, dict], weights: Mapping[str, Tensor]
    ) -> tuple[str, list[str]]:
        """The input, and the operations that the outputs need, each after those it needs."""
        inputs, todo = {}, list(self.outputs)
        while todo:
            name = todo.pop()
            if name not in nodes:
                raise ValueError(f"{self.file} has no node {name!r}, which is needed.")
            if name not in inputs:
                inputs[name] = nodes[name].get("input", [])
                todo += inputs[name]
        images = [name for name in inputs if nodes[name]["op"] == "Placeholder"]
        constants = [name for name in inputs if nodes[name]["op"] == "Const"]
        order = [name for name in TopologicalSorter(inputs).static_order() if inputs[name]]
        unknown = {nodes[name]["op"] for name in {*inputs} - {*images, *constants}} - {*_OPERATIONS}
        if unknown:
            raise ValueError(
                f"{self.file} has operations that are not known here: {', '.join(sorted(unknown))}."
                f" Known are {', '.join(_OPERATIONS)}, of which BodyPix' MobileNets consist."
            )
        if len(images) != 1:
            raise ValueError(f"{self.file} has {len(images)} inputs; it must have one.")
        for name in constants:
            if name not in weights:
                raise ValueError(f"{self.file} lists no weights for its constant {name!r}.")
        return images[0], order

    def _build(
        self, nodes: Sequence[dict], weights: Mapping[str, Tensor]
    ) -> list[tuple[str, Callable[[Tensor], Tensor], str, bool]]:
        """Of each node: name, operation, its input, whether no other node needs that after it."""
        last_user = {node["input"][0]: node["name"] for node in nodes}
        steps = []
        for node in nodes:
            name, source = node["name"], node["input"][0]
            operation = _OPERATIONS[node["op"]](node, weights, f"{self.file}: {name}")
            is_last = last_user[source] == name and source not in self.outputs
            steps.append((name, operation, source, is_last))
        return steps


def _convolution(
    node: Mapping, weights: Mapping[str, Tensor], where: str, *, depthwise: bool = False
) -> Callable[[Tensor], Tensor]:
    attributes = node["attr"]
    padding, layout = (
        base64.b64decode(attributes[key]["s"]).decode() for key in ("padding", "data_format")
    )
    if (padding, layout) != ("SAME", "NHWC"):
        raise ValueError(
            f"{where} has padding {padding} and layout {layout}; SAME and NHWC are known."
        )
    stride, dilation = (
        [int(number) for number in attributes[key]["list"]["i"]] for key in ("strides", "dilations")
    )
    # BodyPix' files have the dilations first; elsewhere the batch comes first, which has none.
    dilation = dilation[:2] if dilation[0] > 1 else dilation[1:3]
    if not all(1 <= number <= _MOST for number in (*stride, *dilation)):
        raise ValueError(f"{where} has strides {stride} and dilations {dilation}, not 1..{_MOST}.")
    kernel = weights[node["input"][1]]  # height, width, channels in, out
    if depthwise:
        kernel = kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None]
    else:
        kernel = kernel.permute(3, 2, 0, 1)
    return partial(
        _convolve,
        kernel=kernel.contiguous(),
        stride=stride[1:3],
        dilation=dilation,
        depthwise=depthwise,
        where=where,
    )


def _bias(node: Mapping, weights: Mapping[str, Tensor], where: str) -> Callable[[Tensor], Tensor]:
    return partial(_add_bias, bias=weights[node["input"][1]], where=where)


def _relu6(node: Mapping, weights: Mapping[str, Tensor], where: str) -> Callable[[Tensor], Tensor]:
    return F.relu6


_OPERATIONS = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": partial(_convolution, depthwise=True),
    "BiasAdd": _bias,
    "Relu6": _relu6,
}
"""How each operation is made of its node."""


def _convolve(
    x: Tensor,
    *,
    kernel: Tensor,
    stride: Sequence[int],
    dilation: Sequence[int],
    depthwise: bool,
    where: str,
) -> Tensor:
    """TensorFlow's "SAME": ceil(length / stride) samples; of an odd padding, more at the end."""
    groups = x.shape[1] if depthwise else 1
    if depthwise and len(kernel) % groups or x.shape[1] != groups * kernel.shape[1]:
        shape = len(kernel) if depthwise else kernel.shape[1]
        raise ValueError(f"{where}: a kernel for {shape} channels meets {x.shape[1]} of them.")
    before, after = [], []
    for length, taps, step, spread in zip(
        x.shape[2:], kernel.shape[2:], stride, dilation, strict=True
    ):
        total = max(0, (ceil(length / step) - 1) * step + (taps - 1) * spread + 1 - length)
        before.append(total // 2)
        after.append(total - total // 2)
    if before != after:
        x = F.pad(x, (before[1], after[1], before[0], after[0]))
        before = [0, 0]
    return F.conv2d(x, kernel, stride=stride, padding=before, dilation=dilation, groups=groups)


def _add_bias(x: Tensor, *, bias: Tensor, where: str) -> Tensor:
    if bias.shape != x.shape[1:2]:
        raise ValueError(
            f"{where}: a bias of shape {tuple(bias.shape)} meets {x.shape[1]} channels."
        )
    return x + bias[:, None, None]


def read_weights(file: Path, manifest: Sequence[Mapping]) -> dict[str, Tensor]:
    """The tensors of a ``weightsManifest``, float32, by name; shards lie beside ``file``.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: the shards' bytes are not as many as the tensors'; numbers of 8 bits, or of a
            type that is not known.
    """
    return dict(pair for group in manifest for pair in _read_group(file, group))


def _read_group(file: Path, group: Mapping) -> Iterator[tuple[str, Tensor]]:
    types = [_stored_type(file, entry) for entry in group["weights"]]
    counts = [prod(entry["shape"]) for entry in group["weights"]]
    needed = sum(count * of.itemsize for count, of in zip(counts, types, strict=True))
    data = b"".join(_read_shard(file, path) for path in group["paths"])
    if len(data) != needed:
        raise ValueError(
            f"{', '.join(group['paths'])} beside {file}: {len(data)} bytes, but the tensors listed "
            f"have {needed}. Copy the folder again."
        )
    offset = 0
    for entry, of, count in zip(group["weights"], types, counts, strict=True):
        values = np.frombuffer(data, of, count, offset).astype(np.float32)
        offset += count * of.itemsize
        quantization = entry.get("quantization", {})
        if "scale" in quantization:
            values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        yield entry["name"], torch.from_numpy(values.reshape(entry["shape"]))


def _stored_type(file: Path, entry: Mapping) -> np.dtype:
    name = entry.get("quantization", {}).get("dtype", entry["dtype"])
    if name == "uint8":
        raise ValueError(
            f"{file} has weights of 8 bits (quantBytes 1), with which BodyPix loses most of the "
            "foreground. Take the version of 16 bits (quantBytes 2) or of floats."
        )
    if entry["dtype"] != "float32" or name not in _STORED:
        raise ValueError(
            f"{file}: {entry['name']!r} is {entry['dtype']}, stored as {name}; known is float32, "
            f"stored as {', '.join(_STORED)}."
        )
    return np.dtype(_STORED[name])


def _read_shard(file: Path, path: str) -> bytes:
    shard = inside(file.parent, path, f"{file}, paths of weights")
    if not shard.is_file():
        raise FileNotFoundError(f"{shard} does not exist; {file.name} says that weights are there.")
    return shard.read_bytes()
