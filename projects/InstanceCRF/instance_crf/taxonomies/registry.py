"""Taxonomies by name, or from a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..entries import as_kind, as_whole
from ..files import read_json
from .atr import ATR_TAXONOMY
from .bodypix import BODYPIX_TAXONOMY
from .densepose import DENSEPOSE_TAXONOMY
from .fashn import FASHN_TAXONOMY
from .lip import CIHP_TAXONOMY, LIP_TAXONOMY
from .mhp import MHP_V1_TAXONOMY, MHP_V2_TAXONOMY
from .names import is_background
from .pascal_part import COARSE_TAXONOMY, FINE_TAXONOMY, PERSON_24_TAXONOMY
from .pascal_person_part import PERSON_PART_TAXONOMY
from .sapiens import SAPIENS2_TAXONOMY, SAPIENS_TAXONOMY
from .schema import PartTaxonomy
from .voc import VOC_TAXONOMY

__all__ = [
    "KNOWN",
    "TAXONOMY_NAMES",
    "KnownTaxonomy",
    "get_taxonomy",
    "is_taxonomy_name",
    "known_taxonomy",
    "read_taxonomy",
]


@dataclass(frozen=True)
class KnownTaxonomy:
    """A taxonomy that has a name.

    Attributes:
        used_by: the models and data sets that it comes from, in words.
        background: where the background's channel is in the outputs of these models, one of
            BACKGROUNDS.
        aliases: more names.
    """

    taxonomy: PartTaxonomy
    used_by: str
    background: str = "first"
    aliases: tuple[str, ...] = ()


#: By name; names are in lower case, with underscores.
KNOWN: dict[str, KnownTaxonomy] = {
    "pascal_person_part": KnownTaxonomy(
        PERSON_PART_TAXONOMY,
        "Pascal-Person-Part, SCHP-Pascal, the synthetic people",
        aliases=("schp_pascal", "person_part", "synthetic_people", "synthetic_crowd"),
    ),
    "lip": KnownTaxonomy(LIP_TAXONOMY, "LIP, SCHP-LIP", aliases=("schp_lip",)),
    "cihp": KnownTaxonomy(CIHP_TAXONOMY, "CIHP, PGN, Graphonomy, M2FP"),
    "atr": KnownTaxonomy(ATR_TAXONOMY, "ATR, SCHP-ATR", aliases=("schp_atr",)),
    "segformer_clothes": KnownTaxonomy(
        ATR_TAXONOMY,
        "segformer_b2_clothes; the parts of atr",
        aliases=("segformer_b0_clothes", "segformer_b2_clothes", "segformer_b3_clothes"),
    ),
    "fashn": KnownTaxonomy(FASHN_TAXONOMY, "FASHN human parser", aliases=("fashn_human_parser",)),
    "sapiens": KnownTaxonomy(SAPIENS_TAXONOMY, "Sapiens", aliases=("goliath", "sapiens_28")),
    "sapiens2": KnownTaxonomy(SAPIENS2_TAXONOMY, "Sapiens2", aliases=("sapiens_29", "dome_29")),
    "mhp_v1": KnownTaxonomy(MHP_V1_TAXONOMY, "MHP v1"),
    "mhp_v2": KnownTaxonomy(MHP_V2_TAXONOMY, "MHP v2"),
    "bodypix": KnownTaxonomy(BODYPIX_TAXONOMY, "BodyPix 2.0", "none", ("body_pix",)),
    "densepose": KnownTaxonomy(DENSEPOSE_TAXONOMY, "DensePose, the I of I, U, V"),
    "pascal_part_person": KnownTaxonomy(PERSON_24_TAXONOMY, "PASCAL-Part, people alone"),
    "pascal_part": KnownTaxonomy(COARSE_TAXONOMY, "PASCAL-Part, all classes"),
    "pascal_part_fine": KnownTaxonomy(FINE_TAXONOMY, "PASCAL-Part, all that is annotated"),
    "voc": KnownTaxonomy(
        VOC_TAXONOMY, "PASCAL VOC, torchvision; a class is one part", aliases=("pascal_voc",)
    ),
}
TAXONOMY_NAMES = tuple(KNOWN)
_BY_ANY_NAME = KNOWN | {alias: known for known in KNOWN.values() for alias in known.aliases}


def get_taxonomy(
    name: PartTaxonomy | str | os.PathLike,
    *,
    merge: Mapping[str, Sequence[str]] | None = None,
) -> PartTaxonomy:
    """The taxonomy of this name, or in this file; one that is given stays what it is.

    Args:
        name: one of :data:`TAXONOMY_NAMES` or their aliases; upper case, hyphens and spaces do not
            matter ("SCHP-ATR"). Or a JSON file, see :func:`read_taxonomy`.
        merge: new part -> names of the parts that it is made of, all of them, for the coarser
            taxonomy of :meth:`PartTaxonomy.merge` (which has the table of ids as well).

    Raises:
        FileNotFoundError, ValueError: an unknown name, no such file, or a broken one; groups that
            `merge` refuses.
    """
    if isinstance(name, PartTaxonomy):
        taxonomy = name
    elif not is_taxonomy_name(name) and _is_file_name(name):
        taxonomy = read_taxonomy(name)
    else:
        taxonomy = known_taxonomy(name).taxonomy
    return taxonomy if merge is None else taxonomy.merge(merge)[0]


def _is_file_name(name: object) -> bool:
    if not isinstance(name, str | os.PathLike):
        return False
    return Path(name).suffix.lower() == ".json" or Path(name).is_file()


def known_taxonomy(name: str) -> KnownTaxonomy:
    """What is known of the taxonomy of this name; see :func:`get_taxonomy`."""
    if not is_taxonomy_name(name):
        raise ValueError(
            f"There is no taxonomy {name!r}{_did_you_mean(name)} There are "
            f"{', '.join(TAXONOMY_NAMES)}."
        )
    return _BY_ANY_NAME[_normal(name)]


def is_taxonomy_name(name: str) -> bool:
    """Whether :func:`get_taxonomy` knows the name."""
    return isinstance(name, str) and _normal(name) in _BY_ANY_NAME


def read_taxonomy(path: str | os.PathLike) -> PartTaxonomy:
    """The taxonomy in a JSON of :meth:`PartTaxonomy.to_dict`'s keys.

    Raises:
        FileNotFoundError, ValueError: no such file; not a taxonomy.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"The taxonomy {path} is neither a file nor one of {', '.join(TAXONOMY_NAMES)}"
            f"{_did_you_mean(path.name)}"
        )
    content = read_json(path)
    if not isinstance(content, dict) or "part_names" not in content:
        raise ValueError(f"{path} is not a taxonomy: it has no part_names.")
    known = {key: value for key, value in content.items() if key in _VALUES}
    for key, values in known.items():
        for value in as_kind(values, list, f"{path}: {key}"):
            _VALUES[key](value, f"{path}: a value of {key}")
    try:
        taxonomy = PartTaxonomy(**known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name in taxonomy.part_names:
        if is_background(name):
            raise ValueError(
                f"{path}: part_names has {name!r}. Leave it out: part 1 is the first name, and 0 "
                "is background without being listed."
            )
    return taxonomy


def _as_text(value: object, where: str) -> None:
    as_kind(value, str, where)


def _as_class(value: object, where: str) -> None:
    as_whole(value, where, 0)


def _as_numbers(value: object, where: str) -> None:
    for number in as_kind(value, list, where):
        as_whole(number, where, 0)


#: The keys of a taxonomy's file, and what checks each of their values.
_VALUES = {
    "part_names": _as_text,
    "object_names": _as_text,
    "part_owner": _as_class,
    "flip_pairs": _as_numbers,
    "part_colors": _as_numbers,
    "part_regions": _as_text,
}


def _normal(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _did_you_mean(name: object) -> str:
    """The end of a sentence about a name that is unknown."""
    close = get_close_matches(_normal(str(name)), _BY_ANY_NAME, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
