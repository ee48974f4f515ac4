import pytest
import torch

from instance_crf.crf import build_label_space


def test_one_class_is_background_then_every_part_of_every_detection():
    space = build_label_space(torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    assert space.label_instance.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert space.label_part.tolist() == [0, 1, 2, 3, 1, 2, 3]
    assert (space.num_labels, space.num_detections, space.num_parts) == (7, 2, 3)


def test_two_classes_own_different_parts():
    # Parts 1 and 3 belong to class 0, part 2 to class 1.
    space = build_label_space(torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0]))
    assert space.label_instance.tolist() == [0, 1, 2, 2, 3]
    assert space.label_part.tolist() == [0, 2, 1, 3, 2]


def test_label_index_inverts_the_index_vectors():
    space = build_label_space(torch.tensor([1, 0]), torch.tensor([0, 1, 0]))
    table = space.label_index()
    assert table.tolist() == [[0, -1, -1, -1], [-1, -1, 1, -1], [-1, 2, -1, 3]]


def test_nobodys_labels_come_last():
    space = build_label_space(torch.tensor([1, 0]), torch.tensor([0, 1, 0]), nobody=True)
    assert space.label_instance.tolist() == [0, 1, 2, 2, 0, 0, 0]
    assert space.label_part.tolist() == [0, 2, 1, 3, 1, 2, 3]
    assert space.label_index().tolist() == [[0, 4, 5, 6], [-1, -1, 1, -1], [-1, 2, -1, 3]]


def test_no_detection_leaves_the_background():
    space = build_label_space(torch.zeros(0, dtype=torch.int64), torch.zeros(6, dtype=torch.int64))
    assert space.label_instance.tolist() == [0]
    assert space.label_index().shape == (1, 7)


def test_a_class_without_parts_has_no_label():
    space = build_label_space(torch.tensor([5]), torch.tensor([0, 1]))
    assert space.num_labels == 1
    assert space.num_detections == 1


@pytest.mark.parametrize("bad", [torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64)])
def test_rejects_what_is_not_an_integer_vector(bad):
    with pytest.raises(ValueError, match="object_classes"):
        build_label_space(bad, torch.zeros(1, dtype=torch.int64))
