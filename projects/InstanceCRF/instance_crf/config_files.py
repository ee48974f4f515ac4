"""Config files, read safely and layer by layer: what a file says itself, over its bases.

Detectron2's reading of them would run Python that a file names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from .files import read_yaml

__all__ = ["merge_checked", "read_layers"]

_BASE = "_BASE_"


def read_layers(file: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    """(file, what it says itself) of a config file, after those of its ``_BASE_``.

    Args:
        file: a YAML file; ``_BASE_`` names one or several, relative to it.
        above: the files whose base it is.

    Raises:
        OSError, ValueError: a file is missing, is no YAML of plain values, or is its own base;
            names it.
    """
    file = os.path.expanduser(file)
    if file in above:
        raise ValueError(f"{file}: {_BASE} leads back to it through {above[-1]}.")
    content = read_yaml(PathManager.get_local_path(file))
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold KEY: value, but holds {content!r:.80}.")
    bases = content.pop(_BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{file}: {_BASE} names a file or a list of files, got {bases!r:.80}.")
    for base in bases:
        if not os.path.isabs(os.path.expanduser(base)) and "://" not in base:
            base = os.path.normpath(os.path.join(os.path.dirname(file), base))
        yield from read_layers(base, (*above, file))
    yield file, content


def merge_checked(cfg: CfgNode, source: str, values: dict | list) -> None:
    """Merge a layer, or keys and values of a command line, in place.

    Raises:
        ValueError: unknown keys, values of another type; names the source.
    """
    try:
        if isinstance(values, list):
            if len(values) % 2:
                raise ValueError(f"{values[-1]} has no value")
            cfg.merge_from_list(values)
            return
        if values.get("VERSION", cfg.VERSION) != cfg.VERSION:
            raise ValueError(f"VERSION is {values['VERSION']}, but must be {cfg.VERSION}")
        cfg.merge_from_other_cfg(CfgNode(values))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise ValueError(f"{source}: {reason}.") from None
