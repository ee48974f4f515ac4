"""What the adapters hand to `parse`: consistent in itself."""

import numpy as np
import pytest
import torch

from instance_crf.own_models.inputs import Detections, PartScores

LOGITS = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
IDS = np.arange(12).reshape(3, 4)
PERSON = LOGITS[:1]


def test_arrays_become_tensors():
    scores = PartScores(LOGITS, "logits", "none", person_logit=PERSON.tolist())
    assert torch.equal(scores.values, torch.from_numpy(LOGITS))
    assert torch.equal(scores.person_logit.float(), torch.from_numpy(PERSON))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((LOGITS, "probabilities"), ["'probabilities'", "prob, logits, map"]),
        ((LOGITS, "logits", "middle"), ["'middle'", "first, last, none"]),
        ((LOGITS, "map"), ["(h, w)", "(5, 3, 4)"]),
        ((IDS, "prob"), ["(C, h, w)", "(3, 4)"]),
        ((LOGITS[:, :0], "prob"), ["(5, 0, 4)"]),
        ((IDS, "map", "none"), ["'first'", "'last'"]),
        ((LOGITS, "logits", "none"), ["needs person_logit"]),
        ((LOGITS, "logits", "none", False, PERSON[:, :2]), ["(1, 2, 4)", "(1, 3, 4)"]),
        ((LOGITS, "logits", "none", False, PERSON[0]), ["(3, 4)", "(1, 3, 4)"]),
        (("a file", "logits"), ["values cannot be read as numbers"]),
    ],
)
def test_part_scores_that_contradict_themselves(arguments, words):
    with pytest.raises(ValueError) as error:
        PartScores(*arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_some_of_the_detections():
    found = Detections(
        boxes=torch.arange(12.0).view(3, 4),
        scores=torch.tensor([0.3, 0.2, 0.1]),
        class_names=("a", "b", "c"),
        masks=torch.eye(3)[:, None],
        notes=("a note",),
    )
    taken = found.take(torch.tensor([2, 0]))
    assert len(taken) == 2 and taken.boxes[:, 0].tolist() == [8, 0]
    assert taken.class_names == ("c", "a") and taken.masks[:, 0].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert taken.keypoints is None and taken.notes == ("a note",)
    assert taken.index.tolist() == [2, 0]
    assert taken.take(torch.tensor([False, True])).index.tolist() == [0]
    everything = found.take(torch.ones(3, dtype=torch.bool))
    assert everything.masks is found.masks and everything.index.tolist() == [0, 1, 2]
