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

import logging
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode

from ...files import read_yaml
from ...taxonomies.names import has_side, is_background, mirror_pairs, name_key, plain_name
from ...taxonomies.schema import PartTaxonomy
from .canonical import (
    IMAGE_SUFFIXES,
    TAXONOMY_FILE,
    check_taxonomy_file,
    files_by_stem,
    list_files,
    read_id_list,
)
from .index import ImageFiles, load_index
from .register import register_parts

__all__ = ["OwnDataset", "apply_part_yaml", "own_files", "read_part_yaml", "register_part_yaml"]

logger = logging.getLogger(__name__)

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
        FileNotFoundError, ValueError: no such file; unknown or missing keys; contradictory names;
            maps of a prepared data set whose ``taxonomy.json`` says otherwise.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"DATASETS.PART_YAML: the file {path} does not exist.")
    content = read_yaml(path)
    try:
        _check_keys(content, _KEYS, {"name", "parts", "splits"}, "the file")
        name, taxonomy = _plain_word("'name'", content["name"]), _taxonomy(content)
        if not isinstance(content["splits"], dict):
            raise ValueError(f"'splits' is {content['splits']!r}; it must be a table of splits.")
        splits = {
            _plain_word("a split", split): _split_paths(path.parent, split, node)
            for split, node in content["splits"].items()
        }
        own = OwnDataset(name, taxonomy, splits)
        _check_prepared(own)
        return own
    except (TypeError, ValueError) as error:
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
    ids = _listed(paths["list"], photos) if "list" in paths else sorted(photos)
    lone = sorted(files_by_stem(paths["parts"], (".png",)).keys() - photos.keys())
    if lone and "list" not in paths:
        logger.warning(
            "%d label maps of %s have no photo (%s) in %s and are left out; the first: %s.png",
            *(len(lone), paths["parts"], ", ".join(IMAGE_SUFFIXES), paths["images"], lone[0]),
        )
    if not ids:
        raise FileNotFoundError(f"No photo ({', '.join(IMAGE_SUFFIXES)}) in {paths['images']}.")
    return list_files(paths["images"], paths["parts"], paths["objects"], ids)


def _listed(path: Path, photos: Container[str]) -> list[str]:
    """The ids of a list whose lines are ids or names of photos."""
    lines: dict[str, str] = {}
    for line in read_id_list(path):
        name, image_id = Path(line), line
        if line not in photos and name.suffix.lower() in IMAGE_SUFFIXES:  # not the .c of "a.c"
            image_id = name.stem
        if image_id in lines:
            raise ValueError(f"{path} has {lines[image_id]!r} and {line!r}: the same photo twice.")
        lines[image_id] = line
    return list(lines)


def _load(paths: dict[str, Path], taxonomy: PartTaxonomy, cache: Path) -> list[dict]:
    return load_index(own_files(paths), taxonomy, cache=cache)


def _check_prepared(own: OwnDataset) -> None:
    """ValueError, if maps in the canonical layout were prepared with another meaning."""
    for paths in own.splits.values():
        folder = paths["parts"].resolve()
        if folder.name == "Category_ids":
            check_taxonomy_file(folder.parent.parent / TAXONOMY_FILE, own.taxonomy)


def _taxonomy(content: dict) -> PartTaxonomy:
    parts = content["parts"]
    parts = _names("parts", _by_id(parts) if isinstance(parts, dict) else parts)
    objects = _names("objects", content.get("objects", ["person"]))
    return PartTaxonomy(
        part_names=parts,
        object_names=objects,
        part_owner=_owners(content.get("owners"), parts, objects),
        flip_pairs=_flip_pairs(content.get("flip_pairs"), parts),
        part_colors=_colors(content.get("colors", [])),
    )


def _names(key: str, value) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{key!r} is {value!r}; it must be a list of names: {key}: [{value}].")
    for number, name in enumerate(value, 1):
        if not isinstance(name, str):
            raise ValueError(f"{key!r} has {name!r}, which is no text; put names in quotes.")
        if is_background(name) or name_key(name) in ("ignore", "ignored"):
            raise ValueError(
                f"{key!r} has {name!r} in place {number}. Leave it out: 0 is background and 255 "
                "ignored without being listed, and what follows would get other numbers."
            )
    return value


def _by_id(table: dict) -> list:
    """The names in order, from a table of names and ids 1..P, either way round."""
    ids, names = list(table), list(table.values())
    if any(type(i) is not int for i in ids):
        ids, names = names, ids
    wanted = list(range(1, len(table) + 1))
    if any(type(i) is not int for i in ids) or sorted(ids) != wanted:
        raise ValueError(
            f"'parts' is a table with the ids {ids}; they must be 1..{len(table)}, each once. 0 is "
            "background and 255 ignored without being listed."
        )
    return [name for _, name in sorted(zip(ids, names, strict=True), key=lambda row: row[0])]


def _owners(owners, parts: list[str], objects: list[str]) -> tuple[int, ...]:
    if owners is None:
        if len(objects) > 1:
            raise ValueError(f"several objects {objects} need 'owners': {{part: object}}.")
        return (0,) * len(parts)
    if not isinstance(owners, dict):
        raise ValueError(f"'owners' is {owners!r}; it must be a table {{part: object}}.")
    strangers = [p for p in owners if p not in parts]
    strangers += [o for o in owners.values() if o not in objects]
    if strangers:
        raise ValueError(f"'owners' names {strangers[0]!r}, which is in neither parts nor objects.")
    missing = [p for p in parts if p not in owners]
    if missing:
        raise ValueError(f"'owners' does not say what {missing[0]!r} belongs to.")
    return tuple(objects.index(owners[p]) for p in parts)


def _flip_pairs(pairs, parts: list[str]) -> tuple[tuple[int, int], ...]:
    """The ids of the pairs of names; they must agree with what the names say of left and right."""
    by_name = [tuple(parts[i - 1] for i in pair) for pair in mirror_pairs(parts)]
    if pairs is None:
        sided = [name for name in parts if has_side(name)] or [n for pair in by_name for n in pair]
        if sided:
            raise ValueError(
                f"'parts' has {sided[0]!r}, but there is no 'flip_pairs': in a mirrored picture it "
                f"would be learned on the wrong side. Add {_line(by_name)}"
                + (", or flip_pairs: [] if it is to stay so." if by_name else ".")
            )
        return ()
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise ValueError(
            f"'flip_pairs' is {pairs!r}; it must be a list of pairs of names: [[name, name], ...]."
        )
    for name in (name for pair in pairs for name in pair):
        if name not in parts:
            raise ValueError(f"'flip_pairs' names {name!r}, which is not in 'parts'.")
    if not any(map(_in_first_letter, pairs)):  # "lock" and "rock" are no sides where others are
        by_name = [pair for pair in by_name if not _in_first_letter(pair)]
    given = [frozenset(pair) for pair in pairs]
    missing = [pair for pair in by_name if frozenset(pair) not in given]
    if pairs and missing:
        paired = {name for pair in by_name for name in pair}
        others = [pair for pair in pairs if paired.isdisjoint(pair)]
        raise ValueError(
            f"'flip_pairs' does not pair {missing[0][0]!r} with {missing[0][1]!r}: in a mirrored "
            f"picture they would be learned on the wrong side. Write {_line([*by_name, *others])}."
        )
    return tuple((parts.index(one) + 1, parts.index(other) + 1) for one, other in pairs)


def _in_first_letter(pair: Sequence[str]) -> bool:
    """Whether two names differ in their first letter alone, as larm and rarm."""
    one, other = map(plain_name, pair)
    return one[1:] == other[1:] and one[1:2] != " "


def _line(pairs: Iterable[Sequence[str]]) -> str:
    """As it is written in the YAML."""
    return f"flip_pairs: [{', '.join(f'[{one}, {other}]' for one, other in pairs)}]"


def _colors(colors) -> tuple[tuple[int, ...], ...]:
    if not isinstance(colors, list) or not all(
        isinstance(rgb, list) and all(type(v) is int for v in rgb) for rgb in colors
    ):
        raise ValueError(f"'colors' is {colors!r}; it must be a list of [red, green, blue], 0-255.")
    return tuple(map(tuple, colors))


def _split_paths(folder: Path, split: str, node: dict) -> dict[str, Path]:
    _check_keys(node, _SPLIT_KEYS, _SPLIT_KEYS - {"list"}, f"split {split!r}")
    for key, value in node.items():
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError(f"split {split!r}: {key!r} is {value!r}, which is no path.")
    paths = {key: folder / Path(value).expanduser() for key, value in node.items()}
    if paths["parts"] == paths["objects"]:
        raise ValueError(
            f"split {split!r} takes parts and objects from {node['parts']!r}: part ids are not "
            "object ids, give a folder each."
        )
    return paths


def _plain_word(key: str, value) -> str:
    """Of a name that becomes a part of file names."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{key} is {value!r}; it must be a name.")
    if set(str(value)) & set("/\\\0"):
        raise ValueError(f"{key} is {value!r}; it must be a name, not a path.")
    return str(value)


def _check_keys(node, known: set[str], needed: set[str], where: str) -> None:
    if not isinstance(node, dict):
        raise ValueError(f"{where} must hold {', '.join(sorted(needed))}; it holds {node!r}.")
    unknown, missing = sorted(set(node) - known, key=str), sorted(needed - set(node))
    if unknown:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}; known: {sorted(known)}.")
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}.")
