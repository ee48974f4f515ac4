"""Files, weights and devices, as the loaders of all models need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..extras import require
from ..weights_file import read_weights_file

__all__ = [
    "choose_device",
    "existing_file",
    "fill",
    "first_line",
    "from_pretrained",
    "open_onnx",
    "public_torchvision",
    "read_arrays",
    "read_state_dict",
]


def existing_file(name: str | Path, what: str) -> Path:
    """The path, if it is a file; FileNotFoundError says ``what`` is missing."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist.")
    return path


def read_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """What a .npy, or a .npz, holds.

    Raises:
        ValueError: a broken file, or other things than numbers; names it.
    """
    try:
        with path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else dict(content)
    except Exception as error:  # at broken files numpy and zipfile raise whatever they meet
        raise ValueError(f"Cannot read the arrays of {path}: {first_line(error)}") from error


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device that is asked for, or else the GPU if there is one.

    Raises:
        ValueError: torch cannot use it here.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {str(chosen)!r}, which torch cannot use here ({first_line(error)})."
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, after the error's type."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def read_state_dict(name: str | Path) -> dict[str, Tensor]:
    """The weights in a file: a state dict, or a checkpoint that has one as ``model``; of a model
    that was trained on several devices, too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see :func:`..weights_file.read_weights_file`.
    """
    path = existing_file(name, "The file of weights")
    try:
        content = read_weights_file(path)
    except ValueError as error:
        raise ValueError(f"{error} What is wanted is what model.state_dict() gives.") from None
    if isinstance(content.get("model"), Mapping):
        content = content["model"]
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def fill(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights into a model; ValueError says that ``what`` does not fit, and why."""
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:  # the latter if the values are no tensors
        raise ValueError(f"{what}: {' '.join(str(error).split()):.400}") from error


def public_torchvision(name: str, weights: Any, options: Mapping[str, Any]) -> nn.Module:
    """A model of torchvision with its own weights.

    Raises:
        FileNotFoundError: they are not here and cannot be downloaded.
    """
    models = require("torchvision.models", "models")
    try:
        return models.get_model(name, weights=weights, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of torchvision's {name} are neither on this machine nor could they be "
            f"downloaded from {weights.url} ({first_line(error)}). Download the file elsewhere and "
            f"give it: torchvision:{name}:FILE."
        ) from error


def from_pretrained(factory: Any, name: str, **options: Any) -> Any:
    """What a class of transformers makes of a folder, or of a name on the hub.

    Raises:
        FileNotFoundError: no such folder or name, or no connection to the hub.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~"))):
        raise FileNotFoundError(f"The folder of a model {folder} does not exist.")
    try:
        return factory.from_pretrained(str(folder) if folder.is_dir() else name, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"transformers cannot load {name} ({first_line(error)}). Without a connection to the "
            "hub, give a folder, hf:FOLDER, that model.save_pretrained(FOLDER) and "
            "processor.save_pretrained(FOLDER) have written."
        ) from error


def open_onnx(model: Path | bytes, path: Path) -> Any:
    """A session of ONNX Runtime, on the GPU if it can.

    Args:
        model: the file, or its content.
        path: for messages.

    Raises:
        ValueError: ONNX Runtime refuses it.
    """
    runtime = require("onnxruntime", "models")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    available = runtime.get_available_providers()
    try:
        return runtime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=[provider for provider in wanted if provider in available],
        )
    except Exception as error:  # ONNX Runtime has a type of its own for every failure
        raise ValueError(f"{path}: ONNX Runtime refuses it: {error}") from error
