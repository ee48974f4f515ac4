"""A folder of exported predictions: all of one export, also where the export of another is killed.

A new export is written into a hidden folder inside, and takes the place of the one that was there
at its end. ``instance_crf_export.json`` lists what belongs to it; while places are changed, it
says that the folder is not complete. Folders of others do not have that file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...files import inside, lock_folder, read_json, write_json

__all__ = ["MANIFEST", "ExportFolder", "check_images", "read_manifest"]

MANIFEST = "instance_crf_export.json"


class ExportFolder:
    """Replaces the export in a folder by a new one, all at once; other files there stay.

    A context manager, or :meth:`begin` and :meth:`end`.

    Args:
        root: the folder; made if need be.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self._work = self.root / ".tmp_export"
        self.new = self._work / "new"
        """Where the files of the new export are to be written."""
        self._stack = ExitStack()

    def begin(self) -> None:
        """Make :attr:`new`, empty, and keep other processes from exporting to this folder.

        Raises:
            InUseError: another process exports to it.
            ValueError: the list of what belongs to the old export is broken.
        """
        self.end()
        with ExitStack() as stack:
            stack.enter_context(lock_folder(self.root, "exporting predictions"))
            _entries(self.root)
            shutil.rmtree(self._work, ignore_errors=True)  # of an export that was killed
            self.new.mkdir(parents=True)
            stack.callback(shutil.rmtree, self._work, ignore_errors=True)
            self._stack = stack.pop_all()

    def publish(self, image_ids: Iterable[str]) -> None:
        """Put the new export in the place of the old one.

        Args:
            image_ids: the images that it has predictions of.

        Raises:
            ValueError: an image twice.
            OSError: of the file system.
        """
        images = sorted(image_ids)
        twice = [one for one, other in zip(images, images[1:], strict=False) if one == other]
        if twice:
            raise ValueError(f"Image {twice[0]!r} has two predictions; nothing was exported.")
        entries = sorted(os.listdir(self.new))
        replaced = sorted({*_entries(self.root), *entries})
        old = self._work / "old"
        old.mkdir()
        self._write({"complete": False, "entries": replaced})
        for name in replaced:
            if (self.root / name).exists():
                os.replace(self.root / name, old / name)
        for name in entries:
            os.replace(self.new / name, self.root / name)
        self._write({"complete": True, "entries": entries, "images": images})

    def end(self) -> None:
        """Forget what was not published, and let others export to the folder."""
        self._stack.close()

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self.root / MANIFEST, content, indent=0)

    def __enter__(self) -> ExportFolder:
        self.begin()
        return self

    def __exit__(self, *_) -> None:
        self.end()


def read_manifest(root: str | Path) -> dict[str, Any] | None:
    """What a folder says of the export in it, and since when; None where it is of somebody else.

    Raises:
        ValueError: an export that was not finished; a broken file.
    """
    root = Path(root).expanduser()
    if not (root / MANIFEST).is_file():
        return None
    content = read_json(root / MANIFEST, dict)
    if content.get("complete") is not True:
        raise ValueError(
            f"{root} holds no whole export: one was ended while it took the place of another. "
            "Export again."
        )
    if not isinstance(content.get("images"), list):
        raise ValueError(f"{root / MANIFEST} has no list of 'images'. Export again.")
    return content | {"since": (root / MANIFEST).stat().st_mtime_ns}


def check_images(manifest: Mapping[str, Any], found: Sequence[str], root: str | Path) -> None:
    """Refuse a folder that has lost images since it was exported, or got others.

    Raises:
        ValueError: names the folder and an image.
    """
    listed, there = set(map(str, manifest["images"])), set(found)
    for odd, text in (
        (listed - there, "has no prediction of"),
        (there - listed, "also has one of"),
    ):
        if odd:
            raise ValueError(
                f"{root} is not as it was exported: its {MANIFEST} lists {len(listed)} images, "
                f"but the folder {text} {min(odd)!r} ({len(odd)} such). Export or copy it again, "
                "or remove that file to evaluate what is there."
            )


def _entries(root: Path) -> list[str]:
    """The files and folders in ``root`` that belong to the export there, whole or not."""
    if not (root / MANIFEST).is_file():
        return []
    names = read_json(root / MANIFEST, dict).get("entries", [])
    return [inside(root, name, f"an entry of {root / MANIFEST}").name for name in names]
