"""What Detectron2 builds from a config: backbone, heads, meta-architecture."""

from .backbone import build_slim_resnet_fpn_backbone
from .identity_head import IDENTITY_HEADS_REGISTRY, IdentityHead, build_identity_head
from .instance_crf_head import (
    INSTANCE_CRF_HEADS_REGISTRY,
    InstanceCRFHead,
    build_instance_crf_head,
)
from .meta_arch import InstanceCRF
from .part_head import PartFPNHead, PartLoss, PartPSPHead
from .part_mask_rcnn import PartMaskRCNN
from .rule_head import RuleHead
from .top_down import RoIPartHead, TopDownRCNN

__all__ = [
    "IDENTITY_HEADS_REGISTRY",
    "INSTANCE_CRF_HEADS_REGISTRY",
    "IdentityHead",
    "InstanceCRF",
    "InstanceCRFHead",
    "PartFPNHead",
    "PartLoss",
    "PartMaskRCNN",
    "PartPSPHead",
    "RuleHead",
    "RoIPartHead",
    "TopDownRCNN",
    "build_identity_head",
    "build_instance_crf_head",
    "build_slim_resnet_fpn_backbone",
]
