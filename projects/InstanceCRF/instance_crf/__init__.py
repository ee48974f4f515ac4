"""InstanceCRF: every pixel gets a part and the person (or object) it belongs to.

:func:`parse` joins the outputs of one's own models. Importing the package imports nothing else.
:func:`register` makes its models and data sets known to Detectron2; what needs no Detectron2
(``parse``, ``crf``, ``losses``, ``structures`` and the evaluation of saved files) needs no
registration either.
"""

import warnings
from functools import cache
from importlib import import_module

__all__ = ["PartInstances", "__version__", "parse", "register"]
__version__ = "0.1.0"

# Detectron2's own, which it gives when it is imported (after this package) and when it is used.
warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
warnings.filterwarnings("ignore", r"torch\.meshgrid: in an upcoming release", UserWarning)

_LAZY = {"parse": "own_models.parse", "PartInstances": "structures"}


def __getattr__(name: str):
    """What is imported when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


@cache
def register() -> None:
    """Register the models and the built-in data sets with Detectron2.

    Reads no file. Later calls do nothing: what has been registered since stays as it is.

    Raises:
        ImportError: Detectron2 is not installed, or cannot be imported; the cause is chained.
    """
    try:
        import detectron2.modeling  # noqa: F401
    except Exception as error:  # a broken installation raises whatever it likes
        raise ImportError(
            f"Detectron2 cannot be imported ({type(error).__name__}: {error}). Models and data "
            "sets need it: pip install 'instance-crf[train]', then python "
            "tools/install_detectron2.py (of this project's repository), or your own build of it."
        ) from error
    from . import modeling as _modeling  # noqa: F401  its modules register what they define
    from .data.datasets.builtin import register_all

    register_all()
