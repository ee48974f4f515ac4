"""Data: what labels mean, how they are read, the data sets, and the mapper.

Importing this package touches no file and needs no Detectron2; `mapper`, `augmentation` and
`datasets.builtin` do need it.
"""

from .schema import BACKGROUND, IGNORE_LABEL, PartTaxonomy

__all__ = ["BACKGROUND", "IGNORE_LABEL", "PartTaxonomy"]
