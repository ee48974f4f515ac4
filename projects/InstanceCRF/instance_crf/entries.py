"""Values out of files: of the kind that they must be, or an error that says where.

``where`` opens every message: the file, whose value it is, and its key.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "KINDS",
    "MAX_ID",
    "as_finite",
    "as_kind",
    "as_name",
    "as_whole",
    "is_crowd",
    "refuse_repeated",
    "require_keys",
]

MAX_ID = 2**31 - 1
"""The largest id of an object: what maps in memory hold, int32."""

KINDS = {dict: "an object {...}", list: "a list [...]", str: "a text"}
"""What JSON calls them."""


def as_whole(value: object, where: str, low: int = 1, high: int = MAX_ID) -> int:
    """A whole number in ``low``..``high``.

    Raises:
        ValueError: it is not; true and false are no numbers, nor is text.
    """
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if known and low <= value <= high and value == int(value):
        return int(value)
    raise ValueError(f"{where} must be a whole number in {low}..{high}, got {value!r:.60}.")


def as_finite(value: object, where: str) -> float:
    """A number that is neither NaN nor infinite.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{where} must be a number, got {value!r:.60}.")
    if not -1e300 < value < 1e300:  # an int may be too large for isfinite
        raise ValueError(f"{where} must be finite, got {value!r:.60}.")
    return float(value)


def is_crowd(annotation: Mapping, source: object) -> bool:
    """Whether an annotation is of a crowd, by its ``iscrowd``, which may be left out.

    Raises:
        ValueError: it is neither 0 nor 1; begins with ``source``.
    """
    value = annotation.get("iscrowd", 0)
    if value not in (0, 1):  # which texts are not, and numbers of NumPy are
        raise ValueError(f"{source}: iscrowd must be 0 or 1, got {value!r:.60}.")
    return bool(value)


def as_name(value: object, where: str) -> str:
    """A text or a whole number, as a text: the id of an image.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise ValueError(f"{where} must be a text or a whole number, got {value!r:.60}.")
    return str(value)


def as_kind(value: object, kind: type, where: str) -> Any:
    """The value, if it is a ``dict``, a ``list`` or a ``str``, as ``kind`` says.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{where} must be {KINDS[kind]}, got {value!r:.60}.")
    return value


def require_keys(row: object, keys: Sequence[str], where: str) -> None:
    """Refuse what is no JSON object with ``keys``.

    Raises:
        ValueError: no object, or a key is missing.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object with {', '.join(keys)}; got {row!r:.60}.")
    missing = [key for key in keys if key not in row]
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}.")


def refuse_repeated(values: Iterable[Hashable], where: str) -> None:
    """Refuse a value that comes twice.

    Raises:
        ValueError: ``where``, the value, "twice".
    """
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{where} {value!r} twice.")
        seen.add(value)
