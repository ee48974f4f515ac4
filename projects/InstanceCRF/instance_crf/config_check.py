"""Everything in a config that would be refused late, refused before anything is written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)

from .config import check_datasets, leaves
from .crf.engine import BACKENDS
from .crf.factored_instance_crf import POTENTIALS
from .crf.gaussian_filter import NORMALIZATIONS
from .crf.potentials import CUES, SCORE_TRANSFORMS
from .data.augmentation import COLOR_CHOICES
from .evaluation.protocols import PROTOCOLS
from .evaluation.toolkit.formats import WRITERS
from .losses.matching import MATCHINGS, UNMATCHED
from .modeling import IDENTITY_HEADS_REGISTRY, INSTANCE_CRF_HEADS_REGISTRY
from .modeling.evidence import EVIDENCE_SOURCES
from .modeling.identity_head import VOTES
from .modeling.instance_crf_head import FORMS
from .modeling.meta_arch import DETECTION_SOURCES, FREEZABLE, PART_SOURCES
from .modeling.rule_head import RULES
from .solver import OPTIMIZERS
from .structures import SCORE_NAMES

__all__ = ["CHOICES", "check_config", "check_run"]

_CRF = "MODEL.INSTANCE_CRF"
_SAMPLERS = ("", "RepeatFactor", "RandomSubset", "Weighted", "WeightedCategory")

CHOICES: dict[str, Collection[str]] = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
    "MODEL.IDENTITY_HEAD.NAME": IDENTITY_HEADS_REGISTRY,
    "MODEL.IDENTITY_HEAD.VOTE": VOTES,
    "MODEL.FREEZE": FREEZABLE,
    f"{_CRF}.NAME": INSTANCE_CRF_HEADS_REGISTRY,
    f"{_CRF}.RULE": RULES,
    f"{_CRF}.FORM": FORMS,
    f"{_CRF}.SCORE_TRANSFORM": SCORE_TRANSFORMS,
    f"{_CRF}.NORMALIZATION": NORMALIZATIONS,
    f"{_CRF}.BACKEND": BACKENDS,
    f"{_CRF}.IDENTITY.POTENTIAL": POTENTIALS,
    f"{_CRF}.IDENTITY.CUES": CUES,
    f"{_CRF}.IDENTITY.EVIDENCE": EVIDENCE_SOURCES,
    f"{_CRF}.DETECTIONS.SOURCE": DETECTION_SOURCES,
    f"{_CRF}.PARTS.SOURCE": PART_SOURCES,
    f"{_CRF}.MATCHING": MATCHINGS,
    f"{_CRF}.UNMATCHED": UNMATCHED,
    f"{_CRF}.SCORE": SCORE_NAMES,
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.PART_AUG.COLOR": COLOR_CHOICES,
    "DATALOADER.SAMPLER_TRAIN": [f"{name}TrainingSampler" for name in _SAMPLERS],
    "SOLVER.OPTIMIZER": OPTIMIZERS,
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupMultiStepLR",
        "WarmupCosineLR",
        "WarmupStepWithFixedGammaLR",
    ),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "TEST.PROTOCOLS": PROTOCOLS,
    "TEST.EXPORT": WRITERS,
}
"""What a key, or each entry of its list, may be."""

_DEVICE_OF = {"numba": "cpu", "triton": "cuda"}
_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


def check_config(cfg: CfgNode) -> None:
    """Check every key that has a choice, the files that are named, and the data sets' keys.

    Raises:
        FileNotFoundError, ValueError: names the key, its value and the choice.
    """
    for key, value in leaves(cfg):
        choices = _NORMS if key.endswith(".NORM") else CHOICES.get(key)
        for name in () if choices is None else [value] if isinstance(value, str) else value:
            if name not in choices:
                known = ", ".join(repr(c) if c == "" else c for c in _names(choices))
                raise ValueError(f"{key} has {name!r}; it is one of {known}.")
    if not cfg.TEST.PROTOCOLS:
        raise ValueError("TEST.PROTOCOLS is empty: name one at least, e.g. ['sds'].")
    for key in ("TRAIN", "TEST"):
        files, names = cfg.DATASETS[f"DETECTIONS_{key}"], cfg.DATASETS[key]
        if files and len(files) != len(names):
            raise ValueError(
                f"DATASETS.DETECTIONS_{key} has {len(files)} files for the {len(names)} data sets "
                f"of DATASETS.{key}; give one each."
            )
        for file in files:
            if not Path(file).expanduser().is_file():
                raise FileNotFoundError(f"DATASETS.DETECTIONS_{key}: {file} does not exist.")
    device, backend = cfg.MODEL.DEVICE.partition(":")[0], cfg.MODEL.INSTANCE_CRF.BACKEND
    if _DEVICE_OF.get(backend, device) != device:
        raise ValueError(
            f"{_CRF}.BACKEND is {backend!r}, which is for {_DEVICE_OF[backend]}, but MODEL.DEVICE "
            f"is {cfg.MODEL.DEVICE!r}: take 'auto'."
        )
    check_datasets(cfg)


def check_run(cfg: CfgNode, *, num_processes: int, eval_only: bool) -> None:
    """Check what a training, or an evaluation of data sets, needs beside :func:`check_config`.

    Raises:
        ValueError: names the key and its value.
    """
    if not cfg.OUTPUT_DIR:
        raise ValueError("OUTPUT_DIR is empty: name a folder for what the run leaves.")
    if eval_only and not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty: there is nothing to evaluate.")
    if len(cfg.TEST.EXPECTED_RESULTS) and len(cfg.DATASETS.TEST) > 1:
        raise ValueError(
            f"TEST.EXPECTED_RESULTS is about one data set, but DATASETS.TEST has "
            f"{list(cfg.DATASETS.TEST)}: evaluate each by itself."
        )
    if eval_only:
        return
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: there is nothing to train on.")
    for key in ("MAX_ITER", "IMS_PER_BATCH", "CHECKPOINT_PERIOD"):
        if cfg.SOLVER[key] < 1:
            raise ValueError(f"SOLVER.{key} is {cfg.SOLVER[key]}; it must be at least 1.")
    # Detectron2 makes the batch follow the number of processes where it is told for how many it is.
    shares = cfg.SOLVER.REFERENCE_WORLD_SIZE or num_processes
    if cfg.SOLVER.IMS_PER_BATCH % shares:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {shares} processes cannot "
            "share evenly."
        )
    if cfg.SOLVER.AMP.ENABLED and not cfg.MODEL.DEVICE.startswith("cuda"):
        raise ValueError(f"SOLVER.AMP.ENABLED needs a GPU, but MODEL.DEVICE is {cfg.MODEL.DEVICE}.")


def _names(choices: Collection[str]) -> list[str]:
    """The names of a tuple, a dict or a registry."""
    return [c if isinstance(c, str) else c[0] for c in choices]
