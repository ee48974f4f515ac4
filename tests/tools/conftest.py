"""Shared by the tests of the tools: some build models themselves; a small data set for training."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

import instance_crf
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.register import register_canonical
from instance_crf.data.synthetic import SyntheticPeople

instance_crf.register()

TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [8,10,12,14]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 8 MODEL.SEM_SEG_HEAD.CONVS_DIM 8
    MODEL.RPN.CONV_DIMS [8] MODEL.ROI_BOX_HEAD.FC_DIM 8 MODEL.DEVICE cpu MODEL.WEIGHTS ''
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 0
    MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 3 MODEL.INSTANCE_CRF.DETECTIONS.WARMUP_ITERS 1
    MODEL.INSTANCE_CRF.NUM_ITERATIONS.TRAIN 2 MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST 2
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 1 TEST.PICTURES 1
    DATASETS.TRAIN ('tiny_train',) DATASETS.TEST ('tiny_val',)
""".split()


@pytest.fixture
def tiny_opts():
    """Config overrides of a network and a training that take seconds, on the data set `tiny`."""
    return list(TINY)


def write(root, split, index, image, parts, objects):
    for folder, array in (("Images", image), ("Category_ids", parts), ("Human_ids", objects)):
        path = root / split / folder / f"{index:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def tiny(tmp_path):
    """Four synthetic pictures as training, people standing apart as validation."""
    root = tmp_path / "tiny"
    people = SyntheticPeople(size=(64, 64))
    for index in range(4):
        write(root, "Training", index, *people[index])
    rng = np.random.default_rng(0)
    for index in range(3):
        parts, objects = np.zeros((64, 80), np.uint8), np.zeros((64, 80), np.uint8)
        for person in range(2):
            columns = slice(5 + 40 * person, 25 + 40 * person)
            for part, top in enumerate(range(4, 58, 9), start=1):
                parts[top : top + 9, columns] = part
            objects[4:58, columns] = 2 - person
        write(
            root, "Validation", index, rng.integers(0, 256, (64, 80, 3), np.uint8), parts, objects
        )
    for split, folder, count in (("train", "Training", 4), ("val", "Validation", 3)):
        names = "".join(f"{index:07d}\n" for index in range(count))
        (root / folder / f"{split}_id.txt").write_text(names)
        register_canonical(f"tiny_{split}", root, split, PERSON_PART_TAXONOMY)
    yield root
    for split in ("train", "val"):
        DatasetCatalog.remove(f"tiny_{split}")
