"""Registration: a data set in the canonical layout becomes a name in Detectron2's catalogs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path

from ...taxonomies.schema import IGNORE_LABEL, PartTaxonomy, distinct_colors
from .canonical import load_canonical

__all__ = [
    "add_import_argument",
    "dataset_root",
    "import_modules",
    "register_canonical",
    "register_parts",
    "taxonomy_of",
]


def dataset_root() -> str:
    """The folder of all data sets: ``$DETECTRON2_DATASETS`` (with ``~``), else ``./datasets``."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def import_modules(names: Iterable[str]) -> None:
    """Import modules of one's own, which register data sets (docs/DATASETS.md).

    Args:
        names: as in ``import NAME``; nothing else is run.

    Raises:
        ImportError: there is no such module, or one that it needs; names it.
    """
    for name in names:
        try:
            import_module(name)
        except (ImportError, TypeError, ValueError, AttributeError, SyntaxError) as error:
            hint = " Is its folder in PYTHONPATH?" * isinstance(error, ModuleNotFoundError)
            if str(name).endswith(".py"):
                hint = " Name it as in `import`: without .py, its folder in PYTHONPATH."
            raise ImportError(
                f"The module {name!r} (DATASETS.MODULES) cannot be imported: {error}.{hint}"
            ) from error


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """``--import MODULE``, which may be repeated, as ``modules`` for `import_modules`."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module that registers data sets (docs/DATASETS.md)",
    )


def register_canonical(
    name: str, root: str | Path, split: str, taxonomy: PartTaxonomy, **metadata: object
) -> None:
    """Register ``split`` of the canonical folder ``root`` as ``name``. No file is touched yet.

    Registering a name again replaces it, so a notebook cell may run twice.

    Args:
        name, root, split, taxonomy: see `load_canonical`.
        **metadata: more for the MetadataCatalog, e.g. ``merged_from`` (part -> finer parts).
    """
    loader = partial(load_canonical, root, split, taxonomy)
    where = {"root": str(root), "split": split, "layout": "canonical"}
    register_parts(name, loader, taxonomy, **where, **metadata)


def register_parts(
    name: str, loader: Callable[[], list[dict]], taxonomy: PartTaxonomy, **metadata: object
) -> None:
    """Register ``loader`` (-> records) as ``name``, with the metadata read downstream."""
    # Here, so that the taxonomies beside the registrations can be had without Detectron2.
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, loader)
    MetadataCatalog.get(name).set(
        taxonomy=taxonomy,
        thing_classes=list(taxonomy.object_names),
        thing_colors=[list(rgb) for rgb in distinct_colors(taxonomy.num_objects)],
        stuff_classes=["background", *taxonomy.part_names],
        stuff_colors=[[0, 0, 0], *(list(rgb) for rgb in taxonomy.part_colors)],
        ignore_label=IGNORE_LABEL,
        evaluator_type="part_instance",
        **metadata,
    )


def taxonomy_of(dataset_name: str) -> PartTaxonomy:
    """The taxonomy of a registered data set.

    Raises:
        ValueError: there is no such data set, or it has none; says which have.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if dataset_name not in DatasetCatalog:
        known = [n for n in DatasetCatalog if "taxonomy" in MetadataCatalog.get(n).as_dict()]
        raise ValueError(
            f"There is no data set {dataset_name!r}. Known: "
            f"{', '.join(sorted(known)) or 'none: call instance_crf.register() first'}."
        )
    taxonomy = MetadataCatalog.get(dataset_name).get("taxonomy")
    if taxonomy is None:
        raise ValueError(
            f"{dataset_name!r} has no part taxonomy: register it with "
            "instance_crf.data.datasets.register.register_parts."
        )
    return taxonomy
