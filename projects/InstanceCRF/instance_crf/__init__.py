"""InstanceCRF: every pixel gets a part and the person (or object) it belongs to.

Importing the package imports nothing else. :func:`register` makes its models and data sets known
to Detectron2; what needs no Detectron2 (``crf``, ``losses``, ``structures`` and the evaluation of
saved files) needs no registration either.
"""

from functools import cache

__all__ = ["__version__", "register"]
__version__ = "0.1.0"


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
