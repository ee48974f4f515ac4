"""Packages that a light installation does not have, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which comes with the extra ``extra`` of this package (see setup.py).

    Raises:
        ImportError: it cannot be imported; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here and cannot be imported ({error}): "
            f"pip install 'instance-crf[{extra}]'"
        ) from error
