"""Every data set that InstanceCRF knows by name."""

from __future__ import annotations

from pathlib import Path

from .pascal_person_part import register_pascal_person_part
from .register import dataset_root
from .synthetic import register_synthetic

__all__ = ["register_all"]


def register_all(root: str | Path | None = None) -> None:
    """Register all built-in data sets under ``root`` (default `dataset_root()`); reads no file."""
    root = dataset_root() if root is None else root
    register_synthetic(root)
    register_pascal_person_part(root)


register_all()
