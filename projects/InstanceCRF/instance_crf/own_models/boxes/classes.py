"""From a model's numbers to names, and from names to the objects of a taxonomy.

Letters: D detections; C object classes of the taxonomy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...taxonomies import PartTaxonomy
from ..inputs import Detections
from ..tensors import as_tensor

__all__ = ["SAME_NAMES", "class_table", "name_classes", "select_classes"]

SAME_NAMES = (
    ("person", "persons", "people", "human", "humans", "pedestrian", "pedestrians"),
    ("aeroplane", "airplane"),
    ("motorbike", "motorcycle"),
    ("pottedplant", "potted plant", "potted_plant"),
    ("sofa", "couch"),
    ("table", "dining table", "diningtable"),
    ("tvmonitor", "tv", "tv monitor"),
)
"""Names that detectors have for the same object (COCO, VOC, CrowdHuman, VisDrone). "man", "woman",
"rider" are not among them: models that know these give them beside the person."""

#: Fill-ins of torchvision's tables, for numbers that mean nothing.
_NO_CLASS = ("__background__", "n/a", "")


def class_table(class_names) -> dict[int, str] | None:
    """Number -> name of a model's own table.

    Args:
        class_names: names in the order of the numbers, from 0; or a mapping from numbers (as int
            or str) to names; or None.

    Raises:
        ValueError: neither.
    """
    if class_names is None:
        return None
    if isinstance(class_names, Mapping):
        try:
            table = {int(number): name for number, name in class_names.items()}
        except (TypeError, ValueError):
            raise ValueError(
                f"class_names is a mapping with the key {next(iter(class_names))!r}; its keys must "
                "be the model's numbers, its values the names (transformers: config.id2label)."
            ) from None
    elif isinstance(class_names, (Sequence, np.ndarray)) and not isinstance(class_names, str):
        table = dict(enumerate(class_names))
    else:
        raise ValueError(
            f"class_names is {class_names!r}; it must be a list of names, or a mapping from "
            "numbers to names."
        )
    wrong = [name for name in table.values() if not isinstance(name, str)]
    if wrong or not table:
        shown = repr(wrong[0]) if wrong else "nothing"
        raise ValueError(f"class_names holds {shown}; it must hold names of classes.")
    return {number: str(name) for number, name in table.items()}


def name_classes(
    labels, count: int, class_names
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Names of the detections, and all names that the model knows.

    Args:
        labels: (D,) names, or numbers of the model's own table; None where the model has no
            classes.
        count: D.
        class_names: the table, see :func:`class_table`.

    Returns:
        ``class_names, known_classes`` of :class:`Detections`.

    Raises:
        ValueError: numbers without a table, a number that is not in it, a table of several names
            without labels, other than D labels.
    """
    table = class_table(class_names)
    known = None if table is None else tuple(table.values())
    if labels is None:
        return _all_alike(known, count)
    names = _as_names(labels)
    if names is None:
        names = _look_up(as_tensor(labels, "labels"), count, table)
    if len(names) != count:
        raise ValueError(f"There are {count} boxes, but {len(names)} labels.")
    return names, known


def select_classes(detections: Detections, taxonomy: PartTaxonomy) -> tuple[Detections, Tensor]:
    """The detections of the taxonomy's objects, by name; those of all other classes are left out.

    Names are compared without regard to case, and names of the same thing (:data:`SAME_NAMES`) are
    the same: "Pedestrian" is a "person". Detections without names are all of the taxonomy's only
    object class.

    Args:
        detections: as :func:`read_detections` gives them.
        taxonomy: of the parts.

    Returns:
        The D' detections that stay (``index`` says which), and their (D',) int64 object classes.
        Where the model's table is not known and no name is an object's, ``notes`` says so.

    Raises:
        ValueError: no name of the model's table is an object of the taxonomy; several object
            classes, and detections without names. The message lists the names.
    """
    names, known = detections.class_names, detections.known_classes
    if names is None:
        if taxonomy.num_objects > 1 and len(detections):
            raise ValueError(
                f"The detections have no classes, but the taxonomy has {taxonomy.num_objects} "
                f"objects: {_listed(taxonomy.object_names)}. Give the name, or the number and "
                "class_names=, of each."
            )
        return detections, torch.zeros(len(detections), dtype=torch.int64)
    classes = _object_classes(names, taxonomy)
    if known is not None and max(_object_classes((*known, *names), taxonomy), default=-1) < 0:
        raise ValueError(
            "No class of the detector is an object of the taxonomy. The detector's are "
            f"{_listed([n for n in known if n.lower() not in _NO_CLASS])}; the taxonomy's are "
            f"{_listed(taxonomy.object_names)}. Give the detector's own table as class_names=, "
            "with the taxonomy's names."
        )
    classes = torch.tensor(classes, dtype=torch.int64)
    kept = classes >= 0
    if known is None and len(names) and not bool(kept.any()):
        note = (
            f"No detection is a {' or '.join(taxonomy.object_names)}; there are "
            f"{', '.join(f'{n} {name}' for name, n in Counter(names).most_common(5))}."
        )
        detections = replace(detections, notes=(*detections.notes, note))
    return (detections if bool(kept.all()) else detections.take(kept)), classes[kept]


def _all_alike(known: tuple[str, ...] | None, count: int):
    """Without labels: the names are known only if there is one."""
    if known is None:
        return None, None
    if count == 0:
        return (), known
    real = tuple(name for name in known if name.lower() not in _NO_CLASS)
    if len(real) != 1:
        raise ValueError(
            f"class_names has {len(known)} names, but the detections have no labels: give the "
            "number of each detection's class, too, or no class_names if all are of one class."
        )
    return real * count, real


def _as_names(labels) -> tuple[str, ...] | None:
    """Labels that are names already; None if they are numbers, or there are none."""
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values):
        return tuple(map(str, values))
    return None


def _look_up(labels: Tensor, count: int, table: dict[int, str] | None) -> tuple[str, ...]:
    if labels.numel() == 0:
        return ()
    if labels.dim() != 1:
        raise ValueError(
            f"The labels have shape {tuple(labels.shape)}; it must be ({count},), one of each box."
        )
    if table is None:
        found = _listed(f"{v:g}" for v in sorted(set(labels.tolist())))
        raise ValueError(
            f"The labels are numbers ({found}), and numbers mean different classes in "
            "different models (a person is 0 in YOLO's table, 1 in torchvision's): give the "
            "model's table as class_names=, a list or a mapping from numbers to names."
        )
    values = labels.tolist()
    unknown = [n for n in values if n not in table]
    if unknown:
        raise ValueError(
            f"There is a label {unknown[0]:g}, but class_names has {min(table)}..{max(table)} "
            f"({len(table)} names). It is not this model's table (torchvision's counts the "
            "background as 0)."
        )
    return tuple(table[int(n)] for n in values)


def _object_classes(names, taxonomy: PartTaxonomy) -> list[int]:
    """The object class of each name, -1 for none; the very name goes before another for it."""
    objects = [name.strip().lower() for name in taxonomy.object_names]
    by_name = {name: c for c, name in reversed([*enumerate(objects)])}
    by_meaning = {_meaning(name): c for c, name in reversed([*enumerate(objects)])}
    keys = [name.strip().lower() for name in names]
    return [by_name.get(key, by_meaning.get(_meaning(key), -1)) for key in keys]


def _meaning(name: str) -> str:
    return next((same[0] for same in SAME_NAMES if name in same), name)


def _listed(values, most: int = 12) -> str:
    values = [str(value) for value in values]
    more = f", ... ({len(values)} in all)" if len(values) > most else ""
    return ", ".join(values[:most]) + more
