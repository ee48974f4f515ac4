"""Many photos, one folder of results: what is done stays done, and nothing is there by half.

A photo's results are complete once its NAME.json is there, which is written last. The folder's
settings.json says how they were made; results of other settings never mix with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.find_images import find_images
from ..data.parallel import progress_bar
from ..taxonomies import PartTaxonomy, get_taxonomy
from .batch_folder import BatchFolder
from .join import Join

__all__ = ["BatchReport", "describe_error", "parse_folder"]


@dataclass(frozen=True)
class BatchReport:
    """What became of the photos.

    Attributes:
        done: parsed now.
        skipped: done before.
        failed: not done, each with the reason.
    """

    done: list[Path]
    skipped: list[Path]
    failed: list[tuple[Path, str]]


def parse_folder(
    photos: str | os.PathLike | Iterable[str | os.PathLike],
    output: str | os.PathLike,
    parts: Callable,
    detector: Callable,
    *,
    taxonomy: PartTaxonomy | str | None = None,
    pictures: bool = True,
    settings: Mapping[str, Any] | None = None,
    resume: bool = True,
    on_error: Callable[[Path, Exception], object] | None = None,
    **options: Any,
) -> BatchReport:
    """:func:`parse` every photo, and save what is found: see :meth:`PartInstances.save`.

    An exception at one photo (unreadable, no prediction for it, too large) leaves it out; the
    others go on. One run at a time may write to a folder.

    Args:
        photos: files, folders and patterns.
        output: folder of the results, made if need be; not that of the photos.
        parts, detector: a :class:`Source`, or any function of the (H, W, 3) uint8 RGB image. What
            a function gives as parts are probabilities, unless it says otherwise.
        taxonomy: of the parts, its name or file; default: the part model's own.
        pictures: also the pictures.
        settings: what else makes the results what they are, e.g. which weights, in plain values
            for JSON. Functions and models given are known by their names only.
        resume: skip photos that are done; False makes all results anew.
        on_error: called with every photo left out and its exception. May raise it.
        options: more of :func:`parse`'s arguments, for all photos: ``merge, class_names,
            background, align_corners, smoothing, least_score, min_share, working_size, crf``.

    Raises:
        FileNotFoundError: an argument names no photo.
        ValueError: options that parse refuses; results that would replace one another, or those
            of other photos, or that were made with other settings.
        ImportError: a library that the models need.
        OSError: results that cannot be written.
    """
    given = [photos] if isinstance(photos, str | os.PathLike) else photos
    files, folder = find_images(given), BatchFolder(Path(output))
    taxonomy = getattr(parts, "taxonomy", None) if taxonomy is None else taxonomy
    taxonomy = None if taxonomy is None else get_taxonomy(taxonomy)
    join = Join(kind="prob", parts=taxonomy, **options)
    if join.merge is not None and taxonomy is not None:
        taxonomy.merge(join.merge, rest="background")  # a wrong group is wrong for all photos
    made_by = vars(join) | {"parts": parts, "detector": detector, "taxonomy": taxonomy}
    made_by = {name: _plain(value) for name, value in made_by.items()} | dict(settings or {})
    folder.open(files, made_by | {"pictures": pictures}, resume=resume)
    report = BatchReport([], [path for path in files if folder.has(path)], [])
    waiting = [path for path in files if not folder.has(path)]
    with progress_bar(len(waiting), "Parsing", least=2) as advance:
        for path in waiting:
            result = None
            try:
                result = join(path, parts, detector)
                result.save(folder.path, path.stem, picture=pictures)
            except Exception as error:  # models and functions of others raise what they like
                unwritable = result is not None and isinstance(error, OSError)
                if unwritable or isinstance(error, ImportError):
                    raise  # the disk or a library: would be the same for all photos
                report.failed.append((path, describe_error(path, error)))
                if on_error is not None:
                    on_error(path, error)
            else:
                report.done.append(path)
            advance(1)
    return report


def _plain(value: Any) -> Any:
    """As settings.json has it: what is no plain value by the name of its function or class."""
    if isinstance(value, PartTaxonomy):
        return value.to_dict()
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    return value


def describe_error(path: Path, error: Exception) -> str:
    """One line with the photo's name, and the kind of an exception that is no plain message."""
    text = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError) or not text:
        text = f"{type(error).__name__}: {text}"
    return text if str(path) in text else f"{path}: {text}"
