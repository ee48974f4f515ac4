"""Data: what labels mean, how they are read, the data sets, and the mapper.

Importing this package touches no file. Where Detectron2 is installed, the built-in data sets are
registered and `PartInstanceMapper` is here; without it, `schema`, `label_io` and the drawing of
synthetic people still work.
"""

from importlib.util import find_spec

from .schema import BACKGROUND, IGNORE_LABEL, PartTaxonomy

__all__ = ["BACKGROUND", "IGNORE_LABEL", "PartTaxonomy"]

if find_spec("detectron2") is not None:
    from .datasets import builtin as _builtin  # noqa: F401  registers the data sets
    from .mapper import PartInstanceMapper

    __all__ += ["PartInstanceMapper"]
