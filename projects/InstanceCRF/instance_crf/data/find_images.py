"""Which photos a command is given, and whether the results of one would replace another's."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "check_result_names", "find_images"]

#: Of the files that count as images in a folder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """The files that the arguments name, each once: files, folders and patterns, in order.

    Of a folder, its visible files that end in one of :data:`IMAGE_SUFFIXES`, sorted.

    Raises:
        FileNotFoundError: an argument names nothing.
    """
    files: dict[Path, Path] = {}
    for argument in inputs:
        found = _expand(Path(argument).expanduser())
        if not found:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise FileNotFoundError(f"{argument} names no image (in folders: {kinds})")
        for path in found:
            files.setdefault(path.resolve(), path)
    return list(files.values())


def check_result_names(files: Sequence[Path], output: Path, endings: Sequence[str]) -> None:
    """Whether every photo's results, the stem of its name + ``endings``, have names of their own.

    Raises:
        ValueError: two photos with one result, or one that lies in the folder of the results.
    """
    owners: dict[str, Path] = {}
    for path in files:
        for name in (path.stem + ending for ending in endings):
            other = owners.setdefault(name, path)
            if other != path:
                raise ValueError(
                    f"a result of {other} and one of {path} would both be named {name!r}: run "
                    "them one after the other, with two --output folders"
                )
        if path.parent.resolve() == output.resolve():
            raise ValueError(f"{path} lies in the --output folder: name another for the results")


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        # Hidden files: what macOS leaves on foreign disks is called like photos and is none.
        return sorted(
            p
            for p in path.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
        )
    if path.exists():
        return [path]
    found = (Path(p) for p in sorted(glob.glob(str(path), recursive=True)))
    return [p for p in found if p.is_file()]
