"""Classes go by name; a number without its table is refused."""

import pytest
import torch

from instance_crf.own_models.boxes import read_detections, select_classes
from instance_crf.own_models.inputs import Detections
from instance_crf.taxonomies import PartTaxonomy, get_taxonomy

SIZE = (60, 80)
PEOPLE = get_taxonomy("cihp")
PETS = PartTaxonomy(("head", "body", "wheel"), ("Dog", "bicycle"), (0, 0, 1))


def build(*names, known=None):
    count = len(names)
    return Detections(
        boxes=torch.arange(4.0).expand(count, 4) + torch.arange(count)[:, None],
        scores=torch.linspace(0.9, 0.1, count),
        class_names=names,
        known_classes=known,
    )


def test_by_name_without_case():
    given = build("person", "dog", "Person ", "bicycle", "PERSON")
    found, classes = select_classes(given, PEOPLE)
    assert found.index.tolist() == [0, 2, 4] and classes.tolist() == [0, 0, 0]
    assert classes.dtype == torch.int64 and found.boxes[:, 0].tolist() == [0, 2, 4]
    found, classes = select_classes(given, PETS)
    assert found.index.tolist() == [1, 3] and classes.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["people", "Human", "pedestrian", "persons"])
def test_names_of_a_person(name):
    found, classes = select_classes(build(name, "rider", "man"), PEOPLE)
    assert found.class_names == (name,) and classes.tolist() == [0]


def test_names_of_coco_and_voc():
    voc = ("aeroplane", "motorbike", "pottedplant", "sofa", "table", "tvmonitor")
    taxonomy = PartTaxonomy(voc, voc, tuple(range(6)))
    coco = ("airplane", "motorcycle", "potted plant", "couch", "dining table", "tv")
    assert select_classes(build(*coco), taxonomy)[1].tolist() == list(range(6))


def test_the_very_name_goes_first():
    taxonomy = PartTaxonomy(("a", "b"), ("person", "pedestrian"), (0, 1))
    given = build("pedestrian", "person", "human")
    assert select_classes(given, taxonomy)[1].tolist() == [1, 0, 0]


def test_without_names_all_are_the_only_object():
    given = Detections(torch.rand(3, 4), torch.rand(3))
    found, classes = select_classes(given, PEOPLE)
    assert found is given and classes.tolist() == [0, 0, 0]
    with pytest.raises(
        ValueError, match="no classes, but the taxonomy has 2 objects: Dog, bicycle"
    ):
        select_classes(given, PETS)
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0))
    assert select_classes(nothing, PETS)[1].tolist() == []


def test_an_image_of_dogs_only_is_legal():
    found, classes = select_classes(build("dog", "dog", known=("person", "dog")), PEOPLE)
    assert len(found) == 0 and classes.shape == (0,) and found.notes == ()


def test_a_table_without_the_object_is_not():
    known = ("__background__", "N/A", "cat", "dog")
    with pytest.raises(ValueError, match="The detector's are cat, dog; the taxonomy's are person"):
        select_classes(build("dog", known=known), PEOPLE)
    with pytest.raises(ValueError, match="The detector's are"):  # also where nothing was found
        select_classes(build(known=known), PEOPLE)


def test_without_a_table_it_is_noted():
    found, _ = select_classes(build("class_0", "class_0", "dog"), PEOPLE)
    assert len(found) == 0
    assert found.notes == ("No detection is a person; there are 2 class_0, 1 dog.",)


def test_a_person_has_another_number_in_each_model():
    boxes = [[1, 1, 9, 9], [2, 2, 8, 8]]
    yolo, torchvision = ["person", "bicycle"], ["__background__", "person", "bicycle"]
    for labels, table, expected in [
        ([0, 1], yolo, [0]),
        ([1, 2], torchvision, [0]),
        ([2, 1], torchvision, [1]),
        ([7, 3], {7: "dog", 3: "person"}, [1]),
    ]:
        found = read_detections((boxes, [0.5, 0.5], labels), size=SIZE, class_names=table)
        found, classes = select_classes(found, PEOPLE)
        assert found.boxes.tolist() == [boxes[i] for i in expected] and classes.tolist() == [0]


@pytest.mark.parametrize(
    "labels, table, words",
    [
        ([1, 2], None, r"numbers \(1, 2\).*person is 0 in YOLO.*1 in torchvision.*class_names="),
        ([1, 2], ["person", "dog"], r"label 2, but class_names has 0..1 \(2 names\)"),
        ([1.5, 1], ["person", "dog"], r"label 1.5"),
        ([float("nan"), 1], ["person", "dog"], r"label nan"),
        (["person", "dog", "cat"], None, "2 boxes, but 3 labels"),
        ([1, 2], "person", "class_names is 'person'"),
        ([1, 2], ["person", 3], "class_names holds 3"),
        ([1, 2], [], "class_names holds nothing"),
        ([1, 2], {"person": 1}, "key 'person'; its keys must be the model's numbers"),
        (None, ["person", "dog"], "2 names, but the detections have no labels"),
    ],
)
def test_tables_that_do_not_fit(labels, table, words):
    value = {"boxes": [[1, 1, 9, 9], [2, 2, 8, 8]], "labels": labels}
    with pytest.raises(ValueError, match=words):
        read_detections(value, size=SIZE, class_names=table)


def test_a_table_of_one_name_needs_no_labels():
    for table in (["person"], ["__background__", "person"], {1: "person"}):
        found = read_detections([[1, 1, 9, 9]], size=SIZE, class_names=table)
        assert found.class_names == ("person",)
