"""The Instance CRF: tensors in, tensors out.

Needs torch and NumPy only; knows nothing of Detectron2, configs or files.
"""

from instance_crf.crf.dense_instance_crf import DenseInstanceCRF
from instance_crf.crf.label_space import LabelSpace, build_label_space
from instance_crf.crf.labelling import Labelling

__all__ = ["DenseInstanceCRF", "LabelSpace", "Labelling", "build_label_space"]
