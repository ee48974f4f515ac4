"""Data: what the labels mean (`schema`), reading and writing them (`label_io`), the data sets, the mapper.

Importing this package touches no file.
"""

from .schema import BACKGROUND, IGNORE_LABEL, PartTaxonomy

__all__ = ["BACKGROUND", "IGNORE_LABEL", "PartTaxonomy"]
