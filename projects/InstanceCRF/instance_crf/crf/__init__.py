"""Dense CRFs: tensors in, tensors out. Knows nothing of Detectron2, configs or files.

`DenseCRF` takes any logits and any image, `DenseInstanceCRF` is the paper's model, joint over whose
and what, `FactoredInstanceCRF` ours: first what, then whose. All make unaries and Gaussian kernels,
and hand them to `engine.infer`. Needs torch, NumPy and, for the fast inference on the CPU, numba.
"""

from .dense_crf import DenseCRF, Gaussian
from .factored_instance_crf import FactoredInstanceCRF
from .instance_crf import DenseInstanceCRF
from .label_space import LabelSpace, build_label_space
from .labelling import FactoredLabelling, JointLabelling, Labelling

__all__ = [
    "DenseCRF",
    "DenseInstanceCRF",
    "FactoredInstanceCRF",
    "FactoredLabelling",
    "Gaussian",
    "JointLabelling",
    "LabelSpace",
    "Labelling",
    "build_label_space",
]
