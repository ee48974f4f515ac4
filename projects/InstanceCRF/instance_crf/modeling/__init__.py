"""What Detectron2 builds from a config: backbone, part head, CRF head, meta-architecture."""

from .backbone import build_slim_resnet_fpn_backbone
from .instance_crf_head import (
    INSTANCE_CRF_HEADS_REGISTRY,
    InstanceCRFHead,
    build_instance_crf_head,
)
from .meta_arch import InstanceCRF
from .part_head import PartFPNHead, PartLoss, PartPSPHead

__all__ = [
    "INSTANCE_CRF_HEADS_REGISTRY",
    "InstanceCRF",
    "InstanceCRFHead",
    "PartFPNHead",
    "PartLoss",
    "PartPSPHead",
    "build_instance_crf_head",
    "build_slim_resnet_fpn_backbone",
]
