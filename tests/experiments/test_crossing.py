"""Pictures in which people cross: by hand."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

import instance_crf
from instance_crf.experiments.crossing import crossing_images, crossing_people, register_crossing


def record(image_id, *boxes, crowd=(), classes=None):
    return {
        "image_id": image_id,
        "file_name": f"{image_id}.jpg",
        "annotations": [
            {
                "object_id": number,
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0 if classes is None else classes[number - 1],
                "iscrowd": int(number in crowd),
            }
            for number, box in enumerate(boxes, 1)
        ],
    }


A, B, C = (0, 0, 10, 10), (4, 0, 14, 10), (5, 0, 15, 10)  # IoU: A B 6/14, A C 5/15, B C 9/11


def test_people():
    assert crossing_people(record("i", A, B)) == [1, 2]
    assert crossing_people(record("i", A, C)) == []
    assert crossing_people(record("i", A, C), 1 / 3 - 1e-6) == [1, 2]
    assert crossing_people(record("i", A, C, B), 0.5) == [2, 3]
    assert crossing_people(record("i", A, (0, 0, 10, 10))) == [1, 2]


def test_nobody_crosses_a_crowd_another_class_or_alone():
    assert crossing_people(record("i", A, B, crowd=[2])) == []
    assert crossing_people(record("i", A, B, classes=[0, 1])) == []
    assert crossing_people(record("i", A)) == crossing_people(record("i")) == []


def test_boxes_in_any_mode():
    one = record("i", A, B)
    one["annotations"][1] |= {"bbox": (4, 0, 10, 10), "bbox_mode": BoxMode.XYWH_ABS}
    assert crossing_people(one) == [1, 2]


RECORDS = [record("far", A, C), record("near", A, B, (50, 0, 60, 10)), record("crowd", C, B)]


def test_pictures():
    assert crossing_images(RECORDS) == ["near", "crowd"]
    assert crossing_images(RECORDS, 0.5) == ["crowd"]


@pytest.fixture
def name():
    instance_crf.register()
    names = ["crossing_test_val", "crossing_test_val_crossing"]
    DatasetCatalog.register(names[0], lambda: RECORDS)
    MetadataCatalog.get(names[0]).set(thing_classes=["person"], taxonomy="the taxonomy")
    yield names[0]
    for each in names:
        if each in DatasetCatalog:
            DatasetCatalog.remove(each)
        MetadataCatalog.remove(each)


def test_a_data_set_of_them(name):
    new = register_crossing(name)
    assert new == "crossing_test_val_crossing"
    assert DatasetCatalog.get(new) == RECORDS[1:]  # with all of their people
    metadata = MetadataCatalog.get(new)
    assert (metadata.name, metadata.taxonomy) == (new, "the taxonomy")
    assert register_crossing(name, 0.5) == new
    assert DatasetCatalog.get(new) == RECORDS[2:]
    with pytest.raises(ValueError, match="none of the 3 pictures of crossing_test_val .* 0.9"):
        DatasetCatalog.get(register_crossing(name, 0.9))


def test_a_name_that_is_not_there():
    with pytest.raises(KeyError, match="no data set 'nowhere'"):
        register_crossing("nowhere")
