"""A folder of results: which photos are done in it, and how all of them were made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.find_images import check_result_names
from ..files import read_json, remove_temporaries, write_text
from ..program import first_of

__all__ = ["RESULT_ENDINGS", "SETTINGS_FILE", "BatchFolder", "differences"]

#: What a photo's results are called behind its NAME; the first is written last.
RESULT_ENDINGS = (".json", ".png", "_parts.png", "_picture.jpg")
SETTINGS_FILE = "settings.json"
_REMEDY = "Name another --output, or --overwrite to make the results anew."


class BatchFolder:
    """The folder ``path`` of the results of photos, known by the stems of their names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, photos: Sequence[Path], settings: Mapping[str, Any], *, resume: bool) -> None:
        """Write settings.json, once the results that are here agree with it.

        Args:
            photos: whose results there will be.
            settings: plain values for JSON.
            resume: keep what is done; False removes the photos' results, and disowns those of
                other photos.

        Raises:
            ValueError: results that would have one name; results that are here, made with other
                settings, of other photos, or unknown how.
        """
        check_result_names(photos, self.path, RESULT_ENDINGS)
        for photo in photos:
            if photo.stem + RESULT_ENDINGS[0] == SETTINGS_FILE:
                raise ValueError(
                    f"The result of {photo} would be named {SETTINGS_FILE}, which is that of the "
                    "settings: give the photo another name."
                )
        settings = json.loads(json.dumps({"instance_crf": __version__, **settings}))
        now = {photo.stem: _fingerprint(photo) for photo in photos}
        known = self._known_photos(settings, resume)
        if resume:
            self._check_photos(known, now)
        else:
            self._remove_results(photos)
        remove_temporaries(self.path, below=False)
        content = {**settings, "photos": known | now}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_text(self.path / SETTINGS_FILE, text + "\n")

    def has(self, photo: Path) -> bool:
        """Whether the photo's results are complete."""
        return (self.path / (photo.stem + RESULT_ENDINGS[0])).is_file()

    def _known_photos(self, settings: Mapping[str, Any], resume: bool) -> dict[str, Any]:
        """The photos that settings.json lists, if its settings are these; none if they need not
        be."""
        path = self.path / SETTINGS_FILE
        if not path.is_file():
            return {}
        try:
            content = read_json(path, dict)
            known = dict(content.pop("photos"))
        except (ValueError, AttributeError, KeyError, TypeError):
            content, known = None, {}
        found = list(differences(content, settings)) if content is not None else []
        if content is not None and not found:
            return known
        if not resume:
            return {}
        if content is None:
            raise ValueError(f"{path} does not say how results were made. {_REMEDY}")
        raise ValueError(
            f"The results in {self.path} were made with other settings: "
            f"{first_of(found)}. {_REMEDY}"
        )

    def _check_photos(self, known: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for stem, photo in now.items():
            there = [self.path / (stem + ending) for ending in RESULT_ENDINGS]
            there = [path for path in there if path.exists()]
            if there and stem not in known:
                raise ValueError(
                    f"{there[0]} is there already, and no {SETTINGS_FILE} says how it was made. "
                    f"{_REMEDY}"
                )
            # One that is not complete may have been mended since.
            complete = there and there[0].name == stem + RESULT_ENDINGS[0]
            if complete and known[stem] != photo:
                raise ValueError(
                    f"{there[0]} was made of {_describe(known[stem])}; now that name stands for "
                    f"{_describe(photo)}. {_REMEDY}"
                )

    def _remove_results(self, photos: Sequence[Path]) -> None:
        # Before the settings change, so that no old result is ever taken for one of the new.
        for photo in photos:
            for ending in RESULT_ENDINGS:
                (self.path / (photo.stem + ending)).unlink(missing_ok=True)


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Where two JSON contents disagree, as "name: was X, now Y"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            inner = f"{name}.{key}" if name else key
            yield from differences(before.get(key), now.get(key), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif before != now:
        yield f"{name}: was {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= 80:
        return text
    entries = f" ({len(value)} entries)" if isinstance(value, dict | list) else ""
    return f"{text[:60]} ...{entries}"


def _fingerprint(photo: Path) -> dict[str, Any]:
    try:
        size = photo.stat().st_size
    except OSError:
        size = None  # reading it will say why
    return {"path": str(photo.resolve()), "bytes": size}


def _describe(photo: Mapping[str, Any]) -> str:
    return f"{photo['path']} ({photo['bytes']} bytes)"
