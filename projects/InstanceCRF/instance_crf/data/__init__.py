"""Data: what labels mean, how they are read, the data sets, and the mapper.

Importing this package touches no file and registers nothing. `mapper`, `transforms` and what they
use need Detectron2; `schema`, `label_io` and `image_io` need NumPy and Pillow alone.
"""

from ..taxonomies.schema import BACKGROUND, IGNORE_LABEL, PartTaxonomy

__all__ = ["BACKGROUND", "IGNORE_LABEL", "PartTaxonomy"]
