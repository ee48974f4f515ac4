"""COCO's AP of files with equal IoUs, equal scores and any ids, against pycocotools on them."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instance_crf.evaluation.toolkit.runner import Evaluation, evaluate_folder
from instance_crf.taxonomies.schema import PartTaxonomy

TAXONOMY = PartTaxonomy(part_names=("head", "torso"))
SIZE = (3, 16)
# As numbers 9 < 10 < 101, as texts "10" < "101" < "9".
IDS = {"numbers": (101, 9, 10, 2, 33, 1000), "texts": ("101", "9", "10", "b", "a", "_")}


def region(rng, image_id):
    """A bar of one of few lengths and places, so that many overlap equally."""
    mask = np.zeros(SIZE, np.uint8)
    x = rng.integers(0, 7)
    mask[:, x : x + rng.choice((4, 5, 8))] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    return {
        "image_id": image_id,
        "category_id": int(rng.integers(1, 3)),
        "segmentation": {"size": list(SIZE), "counts": rle["counts"].decode()},
        "area": int(mask.sum()),
        "bbox": mask_util.toBbox(rle).tolist(),
    }


def write_files(folder, rng, ids):
    """Of either side up to 6 regions an image; the order of the lists is random."""
    truths = [region(rng, i) for i in ids for _ in range(rng.integers(0, 7))]
    found = [region(rng, i) for i in ids for _ in range(rng.integers(0, 7))]
    rng.shuffle(truths)
    rng.shuffle(found)
    for number, row in enumerate(truths, start=1):
        row |= {"id": number, "iscrowd": int(rng.random() < 0.15)}
    for row in found:
        row["score"] = float(rng.integers(1, 4)) / 4
    content = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in ids],
        "annotations": truths,
        "categories": [{"id": c, "name": n} for c, n in enumerate(TAXONOMY.part_names, start=1)],
    }
    for name, value in (("truth", content), ("found", found)):
        (folder / name).mkdir(parents=True)
        (folder / name / "objects.json").write_text(json.dumps(value))


def by_pycocotools(folder):
    """(classes, thresholds) AP."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(folder / "truth/objects.json")
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "found/objects.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    ap = precision.mean(axis=1).T
    return np.where((precision == -1).all(axis=1).T, np.nan, ap)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("kind", IDS)
def test_equals_pycocotools(tmp_path, kind, seed):
    write_files(tmp_path, np.random.default_rng(seed), IDS[kind])
    objects = PartTaxonomy(("any",), TAXONOMY.part_names, (0,))
    task = Evaluation(
        predictions=tmp_path / "found",
        truth=tmp_path / "truth",
        prediction_format="coco",
        truth_format="coco",
        taxonomy=objects,
        protocols=("coco",),
    )
    ours = evaluate_folder(task, workers=1).objects["object_apr"].ap.compute().ap
    np.testing.assert_allclose(ours, by_pycocotools(tmp_path), rtol=0, atol=1e-12)
