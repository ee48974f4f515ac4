"""Your own data: two folders of PNGs, one of photos, and a small YAML that says what they mean.

    name: my_people                      # registers my_people_train and my_people_val
    parts: [head, torso, left arm, right arm]          # part ids 1, 2, 3, 4
    flip_pairs: [[left arm, right arm]]                # swap in a mirrored picture
    objects: [person]                    # optional; with several, also
    owners: {head: person, wheel: car}   #   which of them owns each part
    splits:
      train: {images: photos, parts: parts, objects: people, list: train.txt}
      val: {images: photos, parts: parts, objects: people, list: val.txt}

Paths are relative to the YAML. A list holds one file name a line, without suffix; without a list,
all photos of the folder are taken. docs/DATASETS.md has an example from end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from detectron2.config import CfgNode

from ...taxonomies.schema import PartTaxonomy
from .canonical import IMAGE_SUFFIXES, files_by_stem, list_files, read_id_list
from .index import ImageFiles, load_index
from .register import register_parts

__all__ = ["OwnDataset", "apply_part_yaml", "own_files", "read_part_yaml", "register_part_yaml"]

_KEYS = {"name", "parts", "splits", "objects", "owners", "flip_pairs", "colors"}
_SPLIT_KEYS = {"images", "parts", "objects", "list"}


@dataclass(frozen=True)
class OwnDataset:
    """A part YAML, checked: ``splits`` maps a split to its (images, parts, objects, list) paths."""

    name: str
    taxonomy: PartTaxonomy
    splits: dict[str, dict[str, Path]]


def read_part_yaml(path: str | Path) -> OwnDataset:
    """Read and check a part YAML.

    Raises:
        FileNotFoundError, ValueError: no such file; unknown or missing keys; contradictory names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"DATASETS.PART_YAML: the file {path} does not exist.")
    try:
        content = yaml.safe_load(path.read_text())
        _check_keys(content, _KEYS, {"name", "parts", "splits"}, "the file")
        splits = {
            str(split): _split_paths(path.parent, split, node)
            for split, node in dict(content["splits"]).items()
        }
        return OwnDataset(str(content["name"]), _taxonomy(content), splits)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def register_part_yaml(path: str | Path) -> list[str]:
    """Register every split of a part YAML as ``<name>_<split>``; returns these names."""
    own = read_part_yaml(path)
    names = []
    root = Path(path).expanduser().parent
    for split, paths in own.splits.items():
        name = f"{own.name}_{split}"
        loader = partial(_load, paths, own.taxonomy, root / f".{name}_index.json")
        register_parts(name, loader, own.taxonomy, root=str(root), split=split)
        names.append(name)
    return names


def apply_part_yaml(cfg: CfgNode, keys: Sequence[str] = ("TRAIN", "TEST")) -> None:
    """If ``cfg.DATASETS.PART_YAML`` is set: register it, and set DATASETS.TRAIN and TEST.

    They are the splits ``train`` and ``val``; TEST stays empty without ``val``.

    Args:
        cfg: is changed in place.
        keys: which of the two to set.
    """
    if not cfg.DATASETS.PART_YAML:
        return
    own = read_part_yaml(cfg.DATASETS.PART_YAML)
    register_part_yaml(cfg.DATASETS.PART_YAML)
    for key in keys:
        split = {"TRAIN": "train", "TEST": "val"}[key]
        cfg.DATASETS[key] = (f"{own.name}_{split}",) if split in own.splits else ()


def own_files(paths: dict[str, Path]) -> list[ImageFiles]:
    """The files of one split of a part YAML.

    Raises:
        FileNotFoundError: a folder or a listed file is missing.
    """
    for key in ("parts", "objects"):
        if not paths[key].is_dir():
            raise FileNotFoundError(f"The folder of {key} {paths[key]} does not exist.")
    photos = files_by_stem(paths["images"], IMAGE_SUFFIXES)
    ids = read_id_list(paths["list"]) if "list" in paths else sorted(photos)
    ids = [i if i in photos else Path(i).stem for i in ids]  # "0001.jpg" is allowed as well
    if not ids:
        raise FileNotFoundError(f"No photo ({', '.join(IMAGE_SUFFIXES)}) in {paths['images']}.")
    return list_files(paths["images"], paths["parts"], paths["objects"], ids)


def _load(paths: dict[str, Path], taxonomy: PartTaxonomy, cache: Path) -> list[dict]:
    return load_index(own_files(paths), taxonomy, cache=cache)


def _taxonomy(content: dict) -> PartTaxonomy:
    parts = tuple(content["parts"])
    objects = tuple(content.get("objects", ("person",)))
    owners = content.get("owners")
    if owners is None and len(objects) > 1:
        raise ValueError(f"several objects {list(objects)} need 'owners': {{part: object}}.")
    owner = dict.fromkeys(parts, objects[0]) if owners is None else dict(owners)
    strangers = [p for p in owner if p not in parts]
    strangers += [o for o in owner.values() if o not in objects]
    if strangers:
        raise ValueError(f"'owners' names {strangers[0]!r}, which is in neither parts nor objects.")
    missing = [p for p in parts if p not in owner]
    if missing:
        raise ValueError(f"'owners' does not say what {missing[0]!r} belongs to.")
    pairs = [tuple(pair) for pair in content.get("flip_pairs", ())]
    strangers = [p for pair in pairs for p in pair if p not in parts]
    if strangers:
        raise ValueError(f"'flip_pairs' names {strangers[0]!r}, which is not in 'parts'.")
    return PartTaxonomy(
        part_names=parts,
        object_names=objects,
        part_owner=tuple(objects.index(owner[p]) for p in parts),
        flip_pairs=tuple(tuple(parts.index(p) + 1 for p in pair) for pair in pairs),
        part_colors=tuple(tuple(c) for c in content.get("colors", ())),
    )


def _split_paths(folder: Path, split: str, node: dict) -> dict[str, Path]:
    _check_keys(node, _SPLIT_KEYS, _SPLIT_KEYS - {"list"}, f"split {split!r}")
    return {key: folder / Path(value).expanduser() for key, value in node.items()}


def _check_keys(node, known: set[str], needed: set[str], where: str) -> None:
    if not isinstance(node, dict):
        raise ValueError(f"{where} must hold {', '.join(sorted(needed))}; it holds {node!r}.")
    unknown, missing = sorted(set(node) - known), sorted(needed - set(node))
    if unknown:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}; known: {sorted(known)}.")
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}.")
