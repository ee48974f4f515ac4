"""What `parse` makes of its inputs before the CRF sees them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instance_crf.own_models.evidence import keypoint_evidence, mask_evidence
from instance_crf.own_models.inputs import PartScores
from instance_crf.own_models.join import Join
from instance_crf.taxonomies import PartTaxonomy

PARTS = PartTaxonomy(("head", "body"))
BOXES = np.array([[2.0, 1, 20, 29], [12, 3, 38, 27]], np.float32)


def prepare(size=(30, 40), boxes=BOXES, scores=None, detections=None, identity=None, **options):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    values = torch.randn(3, 8, 10, generator=torch.Generator().manual_seed(0))
    parts = PartScores(values, "logits", **(scores or {}))
    found = {"boxes": boxes, "scores": np.linspace(0.9, 0.5, len(boxes)), **(detections or {})}
    join = Join("logits", parts=PARTS, **{"working_size": 20, **options})
    return join.prepare(image, parts, found, identity)


def test_each_side_has_its_own_scale():
    """Of 100 x 9 pixels at 32 x 3, which is 2.88 rounded."""
    problem = prepare((100, 9), [[1.5, 10, 9, 60]], working_size=32)
    assert problem.small.shape == (3, 32, 3) and problem.q.shape == (3, 32, 3)
    np.testing.assert_allclose(problem.boxes, [[0.5, 3.2, 3, 19.2]], rtol=1e-6)
    assert problem.detections.boxes.tolist() == [[1.5, 10, 9, 60]]


def test_an_image_at_the_working_size_stays_as_it_is():
    problem = prepare(working_size=4000)
    assert torch.equal(problem.small, problem.picture.float()) and problem.size == (30, 40)
    assert torch.equal(problem.boxes, torch.from_numpy(BOXES))


def test_a_score_may_be_the_least():
    boxes = [[1, 1, 9, 9]] * 3
    problem = prepare(boxes=boxes, detections={"scores": [0.25, 0.5, 0.75]}, least_score=0.5)
    assert problem.detections.index.tolist() == [1, 2]


def test_all_evidence_counts():
    """Masks, keypoints, votes (corners aligned, as the scores are) and an identity."""
    random = torch.Generator().manual_seed(1)
    masks, votes, identity = (
        torch.rand(2, *n, generator=random) for n in ((30, 40), (4, 5), (6, 7))
    )
    keypoints = torch.tensor([[[8.0, 9, 1]], [[30, 20, 1]]])
    asked = []

    def vote(boxes):
        asked.append(boxes)
        return votes

    problem = prepare(
        scores={"votes": vote, "align_corners": True},
        detections={"masks": masks, "keypoints": keypoints},
        identity=identity,
    )
    assert torch.equal(asked[0], torch.from_numpy(BOXES))
    half = torch.tensor([0.5, 0.5, 1])
    expected = (
        mask_evidence(masks, (15, 20))
        * keypoint_evidence(keypoints * half, torch.from_numpy(BOXES) / 2, (15, 20))
        * F.interpolate(votes[None], (15, 20), mode="bilinear", align_corners=True)[0]
        * F.interpolate(identity[None], (15, 20), mode="bilinear", align_corners=False)[0]
    )
    torch.testing.assert_close(problem.evidence, expected)
    assert prepare().evidence is None


@pytest.mark.parametrize("align_corners", [False, True])
def test_corners_of_scores(align_corners):
    """Aligned ones lie at the centres of the image's outer pixels."""
    ramp = torch.linspace(0, 1, 5).expand(2, 3, 5)
    values = torch.cat([ramp[:1], 1 - ramp[:1]])
    image = np.zeros((9, 15, 3), np.uint8)
    join = Join("prob", parts=PartTaxonomy(("all",)), align_corners=align_corners)
    q = join.prepare(image, values, []).q
    expected = F.interpolate(values[None], (9, 15), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(q, expected[0])
