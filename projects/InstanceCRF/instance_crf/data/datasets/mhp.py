"""MHP (Multi-Human Parsing) v1 with 18 parts and v2 with 58 parts."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies.mhp import MHP_V1_TAXONOMY, MHP_V2_TAXONOMY
from .register import register_canonical

__all__ = ["MHP_V1_TAXONOMY", "MHP_V2_TAXONOMY", "register_mhp"]


def register_mhp(root: str | Path) -> None:
    """Register ``mhp_v1_{train,val,test}`` and ``mhp_v2_{train,val,test}``."""
    for name, taxonomy in (("mhp_v1", MHP_V1_TAXONOMY), ("mhp_v2", MHP_V2_TAXONOMY)):
        for split in ("train", "val", "test"):
            register_canonical(f"{name}_{split}", Path(root) / name, split, taxonomy)
