"""InstanceCRF: every pixel gets a part and the person (or object) it belongs to.

Importing the package registers the models and the datasets with Detectron2. Where Detectron2 is
not installed, the parts that do not need it still work: ``instance_crf.crf``,
``instance_crf.losses``, ``instance_crf.structures`` and
``instance_crf.evaluation.average_precision``.
"""

from importlib.util import find_spec

__all__ = ["__version__"]
__version__ = "0.1.0"

if find_spec("detectron2") is not None:
    from . import modeling as _modeling  # noqa: F401  registers models
    from .config import add_instance_crf_config
    from .data.datasets import builtin as _builtin  # noqa: F401  registers data sets
    from .data.mapper import PartInstanceMapper

    __all__ += ["PartInstanceMapper", "add_instance_crf_config"]
