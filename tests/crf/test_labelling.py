"""FactoredLabelling's views of whose a pixel is, for pictures."""

import pytest
import torch

from instance_crf.crf import FactoredInstanceCRF
from instance_crf.crf.potentials import centre_cue, score_cue

CLASSES = {
    "one": {},
    "two": {"object_classes": torch.tensor([1, 0, 1]), "part_owner": torch.tensor([0, 1, 1])},
    "partless": {"object_classes": torch.tensor([0, 3, 0]), "part_owner": torch.tensor([0, 0, 0])},
}


def build(**options):
    defaults = {"num_iterations": 2, "reference_size": None, "theta_alpha": 5.0, "theta_beta": 40.0}
    return FactoredInstanceCRF(**{**defaults, **options})


@pytest.mark.parametrize("classes", CLASSES)
def test_object_prob_is_the_sum_of_a_detections_labels(inputs, classes):
    labelling = build(what_pairwise=True)(*inputs(parts=3), **CLASSES[classes])
    marginals, owner = labelling.marginals().detach(), labelling.label_space.label_instance
    expected = torch.stack([marginals[owner == i].sum(0) for i in (1, 2, 3)])
    torch.testing.assert_close(labelling.object_prob(), expected)
    assert not labelling.object_prob().requires_grad
    assert classes != "partless" or not labelling.whose_prob()[1].any()


def test_without_iterations_whose_prob_is_the_softmax_of_the_potential(inputs):
    q, boxes, scores, image = inputs()
    y, x = torch.arange(20) + 0.5, torch.arange(26) + 0.5
    crf = build(cues=["score", "centre"], reach=100.0, cue_weights={"score": 2.0})
    before = crf(q, boxes, scores, image, num_iterations=0).whose_prob()
    expected = (2 * score_cue(scores) + centre_cue(boxes, y, x)).softmax(0)
    torch.testing.assert_close(before, expected)
    after = crf(q, boxes, scores, image).whose_prob()
    torch.testing.assert_close(after.sum(0), torch.ones(20, 26))
    assert (after - before).abs().max() > 0.1


def test_without_detections_there_is_no_whose(inputs):
    labelling = build()(*inputs(detections=0))
    assert labelling.whose_prob().shape == labelling.object_prob().shape == (0, 20, 26)
