"""Every key that this project adds to Detectron2's config, with the paper's symbol and its unit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import takewhile
from os.path import expanduser

import torch
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from .config_files import merge_checked, read_layers
from .data.datasets.register import taxonomy_of

__all__ = ["add_instance_crf_config", "check_datasets", "follow_datasets", "leaves", "load_config"]

logger = logging.getLogger(__name__)

_NUMBERS_OR_FRACTIONS = ("MODEL.SEM_SEG_HEAD.OHEM_TOP_K", "MODEL.INSTANCE_CRF.OHEM_TOP_K")
"""Keys that are floats and take whole numbers, too, which Detectron2's config refuses."""
_DATASETS = ("DATASETS.TRAIN", "DATASETS.TEST")
_MAY_BE_NONE = ("SOLVER.WEIGHT_DECAY_BIAS",)


def add_instance_crf_config(cfg: CN) -> None:
    """Add the keys of InstanceCRF to ``cfg``, in place."""
    _add_model_config(cfg)
    _add_part_head_config(cfg)
    _add_slim_resnet_config(cfg)
    _add_identity_head_config(cfg)
    _add_instance_crf_config(cfg)
    _add_solver_config(cfg)
    _add_data_config(cfg)


def load_config(config_file: str, opts: Sequence[str] = ()) -> CN:
    """The frozen config of YAML files and ``KEY VALUE`` overrides.

    Files are plain data: a YAML tag that makes Python objects is refused. The modules that
    DATASETS.MODULES names are imported; DATASETS.PART_YAML, if given, names the data; see also
    :func:`follow_datasets`. Where there is no GPU, MODEL.DEVICE becomes "cpu" (with a warning).

    Args:
        config_file: a YAML file.
        opts: more YAML files, each merged over those before it, then keys and values. So a command
            line reads ``--config-file model.yaml dataset.yaml schedule.yaml KEY VALUE``.

    Raises:
        FileNotFoundError: no such config file.
        ImportError: a module of DATASETS.MODULES cannot be imported.
        ValueError: a broken file, an unknown key, a value of another type, an unknown device; a
            flag among the keys; see also :func:`follow_datasets`. Names the file.
    """
    from .data.datasets.own import apply_part_yaml
    from .data.datasets.register import import_modules

    files = [config_file, *takewhile(_is_yaml, opts)]
    overrides = list(opts)[len(files) - 1 :]
    for key in overrides[::2]:
        if str(key).startswith("--"):
            raise ValueError(f"{key} stands among the config's keys: put flags before the files.")
    cfg = get_cfg()
    add_instance_crf_config(cfg)
    for file in files:
        for source, values in read_layers(file):
            _merge(cfg, source, values)
    _merge(cfg, "the keys given", overrides)
    import_modules(cfg.DATASETS.MODULES)
    open_keys = [key for key in ("TRAIN", "TEST") if cfg.DATASETS[key] is None]
    for key in open_keys:
        cfg.DATASETS[key] = ()
    apply_part_yaml(cfg, open_keys)
    follow_datasets(cfg)
    _name_folders(cfg)
    _choose_device(cfg)
    cfg.freeze()
    return cfg


def _merge(cfg: CN, source: str, values: dict | list) -> None:
    """Merge a file or overrides, in place.

    ``OHEM_TOP_K: 100`` is as good as ``100.0``. A PART_YAML takes the place of the data sets before
    it, but not of those that are named beside or after it: ``None`` until it is read.
    """
    free = (*_NUMBERS_OR_FRACTIONS, *_DATASETS, "DATASETS.PART_YAML")
    before = {key: _value(cfg, key) for key in free}
    for key in before:
        _set(cfg, key, None)  # over None, a value of any type is merged
    merge_checked(cfg, source, values)
    given = {key: _value(cfg, key) for key in free}
    for key in free:
        value = before[key] if given[key] is None else given[key]
        if key in _DATASETS and given[key] is None and given["DATASETS.PART_YAML"]:
            value = None
        elif key in _DATASETS and given[key] is not None:
            value = _names(source, key, value)
        _set(cfg, key, float(value) if type(value) is int else value)
    if not isinstance(cfg.DATASETS.PART_YAML, str):
        raise ValueError(f"{source}: DATASETS.PART_YAML is no file: {cfg.DATASETS.PART_YAML!r}.")
    for key, value in leaves(cfg):
        if value is None and key not in (*_DATASETS, *_MAY_BE_NONE):
            raise ValueError(f"{source}: {key} has no value.")


def _names(source: str, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"{source}: {key} is {value!r}; it lists names of data sets, e.g. \"('{value}',)\"."
        )
    return tuple(value)


def _choose_device(cfg: CN) -> None:
    """Set MODEL.DEVICE to one that is here.

    Raises:
        ValueError: there is no such device.
    """
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"MODEL.DEVICE is {name!r}; it is cpu, cuda or, say, cuda:1.") from None
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        logger.warning("There is no GPU here: MODEL.DEVICE %s becomes cpu.", name)
        cfg.MODEL.DEVICE = "cpu"
    elif (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(f"MODEL.DEVICE is {name!r}, but the number of GPUs is {found}.")


def _name_folders(cfg: CN) -> None:
    """Put the data set's name, without its split, for {dataset} in OUTPUT_DIR and MODEL.WEIGHTS,
    and the home folder for ``~``, which no shell does in a file.

    So one schedule serves all data sets, and no run starts from another data set's weights.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    name = names[0].rpartition("_")[0] or names[0] if names else "no_data"
    cfg.OUTPUT_DIR = expanduser(cfg.OUTPUT_DIR.replace("{dataset}", name))
    cfg.MODEL.WEIGHTS = expanduser(cfg.MODEL.WEIGHTS.replace("{dataset}", name))


def _is_yaml(opt: object) -> bool:
    return str(opt).endswith((".yaml", ".yml"))


def _add_model_config(cfg: CN) -> None:
    # Follow from the data set: parts and background; object classes, or MODEL.DETECTOR.CLASSES.
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 0
    # Parts of the model that do not learn: any of "backbone", "part_head", "identity_head",
    # "detector", "boxes" (all of the detector but its mask head), "crf_head". Frozen parts stay in
    # evaluation mode and have no loss; with everything but "crf_head" in the list, training is
    # piecewise.
    cfg.MODEL.FREEZE = []
    # Convolutions in channels-last memory order: faster on CPUs and on tensor cores.
    cfg.MODEL.CHANNELS_LAST = False
    cfg.MODEL.DETECTOR = CN()
    # Whether the model has a detector of its own (RPN and ROI heads). Without one, boxes come
    # with the record or from the ground truth.
    cfg.MODEL.DETECTOR.ENABLED = True
    # Names of the detector's classes, where it knows others than the data set's object classes;
    # these must be among them. Detections of the others are left out. [] = the data set's.
    cfg.MODEL.DETECTOR.CLASSES = []
    # Follows from CLASSES: the detector's class of each object class of the data set.
    cfg.MODEL.DETECTOR.CLASS_IDS = []


def _add_part_head_config(cfg: CN) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    # Weights of the classes (background first, then the parts) in the part loss; [] = all 1.
    head.CLASS_WEIGHTS = []
    # Part loss over the K hardest pixels of each image: see MODEL.INSTANCE_CRF.OHEM_TOP_K.
    head.OHEM_TOP_K = 0.0
    # The predictor's sub-pixel factor: logits are predicted at COMMON_STRIDE / SUBPIXEL.
    head.SUBPIXEL = 1
    # Grids that PartPSPHead pools the deepest feature to (Sec. 3.1: five resolutions).
    head.POOL_SIZES = [1, 2, 3, 6, 9]


def _add_slim_resnet_config(cfg: CN) -> None:
    # A narrow ResNet of basic blocks, for small pictures and CPUs.
    slim = cfg.MODEL.SLIM_RESNET = CN()
    slim.STEM_CHANNELS = 32
    # Channels and blocks of res2 .. res5, strides 4 .. 32.
    slim.CHANNELS = [48, 96, 160, 256]
    slim.BLOCKS = [2, 2, 2, 2]
    slim.NORM = "BN"


def _add_identity_head_config(cfg: CN) -> None:
    # Every pixel votes for its object's box; what fits a detection is evidence for the CRF.
    head = cfg.MODEL.IDENTITY_HEAD = CN()
    head.NAME = "IdentityHead"
    head.ENABLED = False
    # "box" (distances to its four sides, in pixels) or "offset" (to its centre, in pixels).
    head.VOTE = "box"
    # 3x3 convolutions on the part head's feature before the predictor: how many, their channels,
    # their normalisation.
    head.NUM_CONVS = 2
    head.CONVS_DIM = 128
    head.NORM = "GN"
    head.LOSS_WEIGHT = 1.0
    # Evidence of a voted box: IoU(voted box, B_i) ** POWER, at least 1.
    head.POWER = 2.0
    # Evidence of a voted centre: a Gaussian around the centre of B_i, whose standard deviation is
    # this fraction of the root of the area of B_i.
    head.SIGMA = 0.25


def _add_instance_crf_config(cfg: CN) -> None:
    crf = cfg.MODEL.INSTANCE_CRF = CN()
    # Labels are no longer dropped; the config.yaml of older runs still says whether they were.
    cfg.register_deprecated_key("MODEL.INSTANCE_CRF.DROP_THRESHOLD")
    # The CRF, or "RuleHead", what one would do without: a pixel goes to the "best_box", the
    # "nearest_centre" or the "smallest_box" of those around it, or to the best of the "masks" on it
    # ("masks_then_centre": where there is none, the nearest centre; "whole_masks": what they cover
    # is never background).
    crf.NAME = "InstanceCRFHead"
    crf.RULE = "nearest_centre"
    # Off: the model learns parts and boxes only (the paper's pre-training).
    crf.ENABLED = True
    # "joint", the paper's: one CRF over all (person i, part j). "factored", ours: first what, then
    # whose, a CRF each. Keys of one form only say so.
    crf.FORM = "factored"

    # Mean-field iterations T.
    crf.NUM_ITERATIONS = CN({"TRAIN": 5, "TEST": 5})
    # Joint: psi_Box (Eq. 2) and psi_Global (Eq. 3), each can be left out.
    crf.BOX_TERM = True
    crf.GLOBAL_TERM = True
    # psi_Pairwise (Eq. 1), of either form, can be left out.
    crf.PAIRWISE_TERM = True
    # Joint: the background as "0-th detection" gets a box term as well: the whole image, score 1.
    # Without the global term it is needed, or the background's unary would be -ln(EPSILON).
    crf.BACKGROUND_BOX_TERM = False
    # Initial w1, w2 and, joint, the constant epsilon of Eq. 1.
    crf.BOX_WEIGHT = 1.0
    crf.GLOBAL_WEIGHT = 1.0
    crf.EPSILON = 1e-8
    # Joint: what happens to a detection's score before Eq. 2: "identity" as in the paper, or "tvg",
    # sigmoid(2s - 1), as in the code that its authors released.
    crf.SCORE_TRANSFORM = "identity"
    # Bilateral kernel: theta_alpha in pixels of the network's input, theta_beta in colour steps
    # of 0-255; initial weight (factored: for whose).
    crf.BILATERAL = CN({"THETA_ALPHA": 49.0, "THETA_BETA": 5.0, "WEIGHT": 4.0})
    # Spatial kernel: theta_gamma in pixels of the network's input; initial weight.
    crf.SPATIAL = CN({"THETA_GAMMA": 3.0, "WEIGHT": 3.0})
    # theta_alpha and theta_gamma are meant for a picture whose longer side has so many pixels, and
    # follow the size of each; 0: they are as given, as in the paper.
    crf.REFERENCE_SIZE = 500.0
    # Factored: the pairwise term of what, and initial kernel weights; without it q_what is Q.
    crf.WHAT = CN({"PAIRWISE_TERM": True, "BILATERAL_WEIGHT": 2.5, "SPATIAL_WEIGHT": 0.1})
    # Of both kernels: "after" divides by the filtered ones after filtering (the authors' release),
    # "symmetric" by their root before and after.
    crf.NORMALIZATION = "after"
    # "torch" (plain reference), "numba" (CPU), "triton" (CUDA), or "auto": the fastest that runs.
    crf.BACKEND = "auto"

    # Factored: whose a pixel is before it has asked its neighbours, see FactoredInstanceCRF.
    crf.IDENTITY = CN()
    # "cues", the sum of CUES with learned weights, or "consistency", Eq. 2 and 3.
    crf.IDENTITY.POTENTIAL = "cues"
    # Any of "score", "box", "centre", "size", "place", "evidence".
    crf.IDENTITY.CUES = ["score", "box", "centre", "size", "place", "evidence"]
    # Evidence, where there is: any of "vote" (of the identity head), "masks" (of the detector, with
    # MODEL.MASK_ON, or of given detections). Of both, their product.
    crf.IDENTITY.EVIDENCE = ["vote", "masks"]
    # The pairwise term of whose.
    crf.IDENTITY.PAIRWISE_TERM = True
    # Initial lambda of each of CUES; [] = all 1.
    crf.IDENTITY.CUE_WEIGHTS = []
    # Whether what fits no detection may stay nobody's, and nobody's initial potential.
    crf.IDENTITY.NOBODY = False
    crf.IDENTITY.NOBODY_POTENTIAL = -3.0
    # Outside of its box times so much a detection owns nothing.
    crf.IDENTITY.REACH = 1.3
    # What is added to evidence in [0, 1] before its logarithm, at first.
    crf.IDENTITY.EVIDENCE_FLOOR = 0.01

    # Follow from the data set, P entries: the contiguous object class that owns each part, and the
    # region of the body where a part is looked for before places are counted ("": anywhere).
    crf.PART_OWNER = []
    crf.PART_REGIONS = []

    # The detections B_i, s_i.
    crf.DETECTIONS = CN()
    # "detector" (the model's own), "record" (given with the record) or "ground_truth".
    crf.DETECTIONS.SOURCE = "detector"
    # Detections below this score are dropped, then the best are kept. The factored form can do with
    # a low one: whoever owns nothing is not output. The joint form wants 0.5.
    crf.DETECTIONS.SCORE_THRESH = 0.15
    crf.DETECTIONS.MAX_PER_IMAGE = 20
    # In training, ground-truth boxes are moved and scaled by up to this fraction of their size.
    crf.DETECTIONS.JITTER = 0.1
    # For this many iterations, training uses jittered ground truth whatever the SOURCE.
    crf.DETECTIONS.WARMUP_ITERS = 0

    # Where Q comes from: "head", or "ground_truth" (one-hot; to see what the parts cost).
    crf.PARTS = CN({"SOURCE": "head"})

    # Matching of Eq. 4: "person" (whole objects) or "segment" (to the letter).
    crf.MATCHING = "person"
    # Joint: ground-truth objects without a detection: "ignore" or "background". Factored: their
    # parts count, and whose they are where nobody is an answer.
    crf.UNMATCHED = "ignore"
    # The loss is over the K hardest pixels of each image: a number of pixels (2^15 in the paper,
    # 12 % of a crop of 521 x 521), or below 1 a fraction of the image's valid pixels; 0 = all.
    crf.OHEM_TOP_K = 32768.0
    crf.LOSS_WEIGHT = 1.0
    # The CRF's loss does not reach Q (piecewise training of the CRF beside other losses).
    crf.STOP_GRADIENT_TO_PARTS = False

    # What ranks segments and objects: "mean_q", "mean_marginal", "detection", "product" of the
    # three, "share" (detection x share of the box) or "product_share": see docs/EVALUATION.md.
    crf.SCORE = "product"
    # Objects that own less than this share of the foreground in their box are not output; what was
    # theirs is nobody's.
    crf.MIN_SHARE = 0.05


def _add_solver_config(cfg: CN) -> None:
    # "SGD" (Detectron2's) or "ADAMW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # AdamW's decay rates of the moments. Short runs want the second as short as the first.
    cfg.SOLVER.BETAS = (0.9, 0.999)
    # A schedule's factor of BASE_LR: the model says how fast it learns, a later stage slows down.
    cfg.SOLVER.LR_FACTOR = 1.0
    # Learning rate of the CRF's weights relative to the others'; they have no weight decay.
    cfg.SOLVER.CRF_LR_FACTOR = 10.0


def _add_data_config(cfg: CN) -> None:
    from .data.augmentation import add_augmentation_config
    from .data.datasets.config import add_dataset_config

    add_augmentation_config(cfg)
    add_dataset_config(cfg)
    # How many validation images evaluation draws into OUTPUT_DIR/pictures.
    cfg.TEST.PICTURES = 0
    # Protocols of the reported APs, see docs/EVALUATION.md; the first one's are the plain names.
    cfg.TEST.PROTOCOLS = ["sds"]
    # Also report what each choice of MODEL.INSTANCE_CRF.SCORE would give.
    cfg.TEST.COMPARE_SCORES = False
    # Formats (cihp, mhp, tvg, panoptic, coco, partpq) in which the predictions are written to
    # OUTPUT_DIR/inference/<dataset>/<format>.
    cfg.TEST.EXPORT = []


def follow_datasets(cfg: CN) -> None:
    """Set the keys that follow from the data sets, in place; those that are typed stay.

    They are MODEL.SEM_SEG_HEAD.NUM_CLASSES, MODEL.ROI_HEADS.NUM_CLASSES,
    MODEL.DETECTOR.CLASS_IDS, MODEL.INSTANCE_CRF.PART_OWNER and PART_REGIONS, after the first data
    set of DATASETS.TRAIN, else of TEST.

    Raises:
        ValueError: there is no such data set to follow, or MODEL.DETECTOR.CLASSES lacks one of its
            object classes.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    counts = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.ROI_HEADS.NUM_CLASSES")
    if all(_value(cfg, key) for key in counts) and not (names and names[0] in DatasetCatalog):
        return
    if not names:
        raise ValueError(
            f"{counts[0]} and {counts[1]} follow from the data set, but DATASETS.TRAIN and TEST "
            "are empty: add a file of configs/datasets, or type a name."
        )
    for key, value in _keys_that_follow(cfg, names[0]).items():
        if not _value(cfg, key):
            cfg.merge_from_list([key, value])


def check_datasets(cfg: CN) -> None:
    """Compare the keys that follow from the data sets with each of them.

    Raises:
        ValueError: names the key, the data set and both values.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    for name in names:
        for key, wanted in _keys_that_follow(cfg, name).items():
            if _value(cfg, key) != wanted:
                if name != names[0]:  # with which the key agrees
                    raise ValueError(
                        f"{key} is {_value(cfg, key)} by {names[0]!r}, but {wanted} by {name!r}: "
                        "the data sets of one run must have the same parts and objects."
                    )
                raise ValueError(
                    f"{key} is {_value(cfg, key)}, but {name!r} has {wanted}: leave the key out, "
                    "it follows from the data set. A detector of more classes names them in "
                    f"MODEL.DETECTOR.CLASSES, which is {list(cfg.MODEL.DETECTOR.CLASSES)}."
                )


def _keys_that_follow(cfg: CN, dataset_name: str) -> dict[str, object]:
    """The keys that follow from a data set, and what they must be."""
    taxonomy = taxonomy_of(dataset_name)
    objects, classes = list(taxonomy.object_names), list(cfg.MODEL.DETECTOR.CLASSES)
    for name in objects:
        if classes and name not in classes:
            raise ValueError(
                f"MODEL.DETECTOR.CLASSES is {classes}, without {name!r}, an object class of "
                f"{dataset_name!r}: give that class of the detector the data set's name."
            )
    return {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": taxonomy.num_parts + 1,
        "MODEL.ROI_HEADS.NUM_CLASSES": len(classes or objects),
        "MODEL.DETECTOR.CLASS_IDS": [classes.index(name) for name in objects] if classes else [],
        "MODEL.INSTANCE_CRF.PART_OWNER": list(taxonomy.part_owner),
        "MODEL.INSTANCE_CRF.PART_REGIONS": list(taxonomy.part_regions),
    }


def _value(cfg: CN, key: str) -> object:
    """The value of a dotted key."""
    return reduce(getattr, key.split("."), cfg)


def leaves(cfg: CN, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every value."""
    for key, value in cfg.items():
        if isinstance(value, CN):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _set(cfg: CN, key: str, value: object) -> None:
    """Set a dotted key, whatever its type."""
    section, _, name = key.rpartition(".")
    setattr(_value(cfg, section), name, value)
