"""Every data set that InstanceCRF knows by name."""

from __future__ import annotations

from pathlib import Path

from .cihp import register_cihp, register_lip
from .mhp import register_mhp
from .pascal_part import register_pascal_part
from .pascal_person_part import register_pascal_person_part
from .register import dataset_root
from .synthetic import register_synthetic
from .voc import register_voc

__all__ = ["register_all"]


def register_all(root: str | Path | None = None) -> None:
    """Register all built-in data sets under ``root`` (default `dataset_root()`); reads no file."""
    root = dataset_root() if root is None else root
    register_synthetic(root)
    register_pascal_person_part(root)
    register_cihp(root)
    register_lip(root)
    register_mhp(root)
    register_pascal_part(root)
    register_voc(root)
