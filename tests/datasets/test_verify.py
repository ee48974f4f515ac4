"""datasets/verify.py on data sets with every kind of mistake."""

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.register import register_canonical
from instance_crf.data.preparation.verification import verify_split
from instance_crf.taxonomies.schema import PartTaxonomy

TWO = PartTaxonomy(("head", "wheel"), ("person", "car"), (0, 1))


@pytest.fixture
def data_set(tmp_path, photo, png, mask):
    """A sound split of two images; ``data_set(image, parts=..., objects=...)`` changes one."""
    folder = tmp_path / "Training"
    for image_id in ("a", "b"):
        photo(folder / f"Images/{image_id}.jpg")
        png(folder / f"Category_ids/{image_id}.png", mask(0, 0, 20, 10) + mask(0, 20, 20, 30) * 2)
        png(folder / f"Human_ids/{image_id}.png", mask(0, 0, 20, 10) + mask(0, 20, 20, 30) * 2)
    (folder / "train_id.txt").write_text("a\nb\n")

    def change(image_id, parts=None, objects=None):
        for name, array in (("Category_ids", parts), ("Human_ids", objects)):
            if array is not None:
                png(folder / name / f"{image_id}.png", array)
        return tmp_path

    return change


def test_sound(data_set):
    report = verify_split(data_set("a"), "train", TWO)
    assert report.ok and not report.warnings
    text = report.describe()
    assert "4 objects" in text and "2: 2" in text and "OK: 0 errors, 0 warnings" in text
    assert f"{200 / (48 * 64):.3%} of pixels, 2 images" in text


def kinds(findings):
    return " | ".join(findings)


@pytest.mark.parametrize(
    "change, where, words",
    [
        (lambda m: {"parts": m(0, 0, 20, 10) * 7}, "errors", "cannot be used"),
        (lambda m: {"parts": np.zeros((5, 5))}, "errors", "cannot be used"),
        (
            lambda m: {"parts": m(0, 0, 20, 10) + m(0, 0, 5, 5), "objects": m(0, 0, 20, 10)},
            "errors",
            "another class",
        ),
        (lambda m: {"objects": m(0, 0, 20, 10)}, "warnings", "outside of every object"),
        (
            lambda m: {"parts": m(0, 0, 0, 0), "objects": m(0, 0, 0, 0)},
            "warnings",
            "without objects",
        ),
        (
            lambda m: {"parts": m(0, 0, 20, 10), "objects": m(0, 0, 20, 10) * 5},
            "warnings",
            "with gaps",
        ),
        (
            lambda m: {"parts": m(0, 0, 2, 2), "objects": m(0, 0, 2, 2)},
            "warnings",
            "less than 20 pixels",
        ),
    ],
)
def test_findings(data_set, mask, change, where, words):
    report = verify_split(data_set("a", **change(mask)), "train", TWO)
    assert words in kinds(getattr(report, where))
    places = next(p for kind, p in getattr(report, where).items() if words in kind)
    assert len(places) == 1 and "a.png" in places[0]
    assert report.ok == (where == "warnings")


def test_a_palette_unlike_the_others(data_set, mask):
    root = data_set("a")
    for image_id, scale in (("a", 1), ("b", 1), ("c", 2)):
        image = Image.fromarray(mask(0, 0, 20, 10) + mask(0, 20, 20, 30) * 2).copy()
        image.putpalette([scale * v % 256 for v in range(3 * (4 if image_id == "a" else 256))])
        image.save(root / f"Training/Category_ids/{image_id}.png")
    for folder, suffix in (("Images", "jpg"), ("Human_ids", "png")):
        folder = root / "Training" / folder
        (folder / f"c.{suffix}").write_bytes((folder / f"a.{suffix}").read_bytes())
    (root / "Training/train_id.txt").write_text("a\nb\nc\n")
    report = verify_split(root, "train", TWO)
    assert report.ok
    ((kind, places),) = report.warnings.items()
    assert "palettes" in kind and [p.endswith("c.png") for p in places] == [True]


def test_object_without_any_part(data_set, mask):
    person = PartTaxonomy(("head", "torso"))
    parts, objects = mask(0, 0, 20, 10), mask(0, 0, 20, 10) + mask(30, 30, 40, 40) * 2
    report = verify_split(data_set("a", parts=parts, objects=objects), "train", person)
    assert "objects without any part" in report.warnings
    parts[30:40, 30:40] = 255  # known not to be annotated: fine
    report = verify_split(data_set("a", parts=parts, objects=objects), "train", person)
    assert "objects without any part" not in report.warnings


def test_orphans_and_absent_parts(data_set, photo, tmp_path):
    root = data_set("a")
    photo(root / "Training/Images/c.jpg")
    three = PartTaxonomy(("head", "wheel", "tail"), ("person", "car"), (0, 1, 0))
    report = verify_split(root, "train", three)
    assert report.warnings["files that the list does not name"] == [
        str(root / "Training/Images/c.jpg")
    ]
    assert report.warnings["parts that never appear"] == ["3 tail"]


def test_missing_files(data_set):
    root = data_set("a")
    (root / "Training/Human_ids/b.png").unlink()
    report = verify_split(root, "train", TWO)
    assert not report.ok and "b.png" in report.describe() and "NOT USABLE" in report.describe()


def test_truncated_png(data_set):
    root = data_set("a")
    path = root / "Training/Human_ids/b.png"
    path.write_bytes(path.read_bytes()[:60])
    report = verify_split(root, "train", TWO)
    assert "b.png" in kinds(report.errors["files that cannot be used"])


def test_other_class_order_of_pascal_person_part(tmp_path, photo, png):
    rows = np.repeat(np.array([2, 4, 6, 1, 3, 5], np.uint8), 8)[:, None].repeat(64, 1)
    photo(tmp_path / "Training/Images/a.jpg")
    png(tmp_path / "Training/Category_ids/a.png", rows)
    png(tmp_path / "Training/Human_ids/a.png", np.ones((48, 64)))
    (tmp_path / "Training/train_id.txt").write_text("a\n")
    report = verify_split(tmp_path, "train", PERSON_PART_TAXONOMY)
    assert "the order of the six classes" in report.errors


def test_many_places_are_cut_short(data_set, mask):
    root = data_set("a", objects=mask(0, 0, 20, 10))
    data_set("b", objects=mask(0, 0, 20, 10))
    assert "... and 1 more" in verify_split(root, "train", TWO).describe(shown=1)


def test_script(data_set, script, capsys, mask, tmp_path):
    verify = script("verify")
    root = data_set("a")
    register_canonical("verify_test_train", root, "train", TWO)
    try:
        verify.main(["verify_test_train"])
        assert "OK: 0 errors" in capsys.readouterr().out
        data_set("a", objects=mask(0, 0, 20, 10))
        verify.main(["verify_test_train"])  # warnings alone do not fail
        with pytest.raises(SystemExit):
            verify.main(["verify_test_train", "--strict"])
        data_set("a", parts=mask(0, 0, 9, 9) * 9)
        with pytest.raises(SystemExit):
            verify.main(["verify_test_train"])
    finally:
        DatasetCatalog.remove("verify_test_train")
        MetadataCatalog.remove("verify_test_train")
    with pytest.raises(ValueError, match="Known: .*cihp_train"):
        verify.main(["nobody"])


def test_script_on_a_part_yaml(data_set, script, capsys, tmp_path):
    data_set("a")
    split = {"images": "Training/Images", "parts": "Training/Category_ids"}
    content = {"name": "mine", "parts": ["head", "wheel"], "objects": ["person", "car"]}
    content["owners"] = {"head": "person", "wheel": "car"}
    content["splits"] = {"train": split | {"objects": "Training/Human_ids"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    script("verify").main(["--yaml", str(tmp_path / "mine.yaml")])
    assert "mine_train" in capsys.readouterr().out
    Image.new("RGB", (3, 3)).save(tmp_path / "Training/Category_ids/b.png")
    with pytest.raises(SystemExit):
        script("verify").main(["--yaml", str(tmp_path / "mine.yaml")])
