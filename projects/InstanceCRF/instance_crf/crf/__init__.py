"""Dense CRFs: tensors in, tensors out. Knows nothing of Detectron2, configs or files.

`DenseCRF` takes any logits and any image, `DenseInstanceCRF` is the paper's model. Both make
unaries and Gaussian kernels, and hand them to `engine.infer`. Needs torch, NumPy and, for the fast
inference on the CPU, numba.
"""

from .dense_crf import DenseCRF, Gaussian
from .instance_crf import DenseInstanceCRF
from .label_space import LabelSpace, build_label_space
from .labelling import Labelling

__all__ = [
    "DenseCRF",
    "DenseInstanceCRF",
    "Gaussian",
    "LabelSpace",
    "Labelling",
    "build_label_space",
]
