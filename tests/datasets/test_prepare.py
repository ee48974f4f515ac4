"""What all preparing scripts share: nothing half-written, resuming, refusing to overwrite."""

import numpy as np
import pytest
from PIL import Image

from instance_crf.data.datasets.canonical import load_canonical
from instance_crf.data.preparation.conversion import (
    PreparationError,
    PreparedImage,
    link_or_copy,
    prepare_split,
)
from instance_crf.taxonomies.schema import PartTaxonomy

TAXONOMY = PartTaxonomy(("a", "b"), ("cat", "dog"), (0, 1))
IDS = [f"{i:03d}" for i in range(60)]  # enough for several processes


class Source:
    """Converts ids to images; can be told to fail, and writes down what it was asked for."""

    def __init__(self, folder, failing=()):
        self.folder, self.failing = folder, failing
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / "photo.jpg")

    def __call__(self, image_id):
        with (self.folder / "asked.txt").open("a") as stream:
            stream.write(image_id + "\n")
        if image_id in self.failing:
            raise ValueError(f"{image_id}.mat is broken")
        parts = np.full((6, 8), 255, np.uint8)
        return PreparedImage(
            self.folder / "photo.jpg", parts, np.ones((6, 8), np.int32), {1: "dog"}
        )

    def asked(self):
        return (self.folder / "asked.txt").read_text().split()


def prepare(tmp_path, source, ids=IDS, **changes):
    arguments = {"settings": {"level": 1}, "workers": 1} | changes
    return prepare_split(
        root=tmp_path / "out",
        split="train",
        ids=ids,
        convert=source,
        taxonomy=TAXONOMY,
        **arguments,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_complete(tmp_path, workers):
    assert prepare(tmp_path, Source(tmp_path / "in"), workers=workers)
    records = load_canonical(tmp_path / "out", "train", TAXONOMY)
    assert [r["image_id"] for r in records] == IDS
    assert {a["category_id"] for r in records for a in r["annotations"]} == {1}
    assert [p.name for p in (tmp_path / "out").iterdir()] in (
        ["taxonomy.json", "Training"],
        ["Training", "taxonomy.json"],
    )
    assert not (tmp_path / "out/Training/progress.jsonl").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_failure_then_resume(tmp_path, workers):
    with pytest.raises(PreparationError, match=r"(?s)2 of 60.*007.mat is broken.*050.mat"):
        prepare(tmp_path, Source(tmp_path / "in", ("007", "050")), workers=workers)
    assert not (tmp_path / "out/Training").exists()
    (tmp_path / "in/asked.txt").unlink()
    repaired = Source(tmp_path / "in")
    assert prepare(tmp_path, repaired)
    assert sorted(repaired.asked()) == ["007", "050"]
    records = load_canonical(tmp_path / "out", "train", TAXONOMY)
    assert len(records) == 60 and all(a["category_id"] for r in records for a in r["annotations"])


def test_killed_run_goes_on(tmp_path):
    source = Source(tmp_path / "in")

    def killed(image_id):
        if image_id == "030":
            raise KeyboardInterrupt
        return source(image_id)

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, killed)
    journal = tmp_path / "out/Training.partial/progress.jsonl"
    journal.write_text(journal.read_text() + '["031", {"1"')  # cut off in the middle of a line
    (tmp_path / "in/asked.txt").unlink()
    (tmp_path / "out/Training.partial/Images/.tmp_half.jpg").touch()
    assert prepare(tmp_path, source)
    assert source.asked() == IDS[30:]
    assert sorted(p.stem for p in (tmp_path / "out/Training/Images").iterdir()) == IDS


def test_other_settings_begin_anew(tmp_path):
    with pytest.raises(PreparationError):
        prepare(tmp_path, Source(tmp_path / "in", ("059",)))
    (tmp_path / "in/asked.txt").unlink()
    source = Source(tmp_path / "in")
    prepare(tmp_path, source, settings={"level": 2})
    assert source.asked() == IDS


def test_another_list_begins_anew(tmp_path):
    with pytest.raises(PreparationError):
        prepare(tmp_path, Source(tmp_path / "in", ("059",)))
    others = [f"x{i}" for i in range(60)]
    prepare(tmp_path, Source(tmp_path / "in"), ids=others)
    names = {p.stem for p in (tmp_path / "out/Training/Images").iterdir()}
    assert names == set(others)


def test_nothing_appears_when_inputs_are_broken(tmp_path):
    with pytest.raises(PreparationError):
        prepare(tmp_path, Source(tmp_path / "in", ("000",)))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["Training.partial"]


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    source = Source(tmp_path / "in")
    prepare(tmp_path, source)
    marker = tmp_path / "out/Training/mine.txt"
    marker.write_text("kept")
    assert not prepare(tmp_path, source)
    assert "--force" in capsys.readouterr().out and marker.exists()
    with pytest.raises(PreparationError):  # the old split stays until the new one is whole
        prepare(tmp_path, Source(tmp_path / "in", ("001",)), force=True)
    assert marker.exists()
    (tmp_path / "out/Training.old").mkdir()  # of a run that was killed while replacing
    assert prepare(tmp_path, source, force=True) and not marker.exists()
    assert not (tmp_path / "out/Training.old").exists()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "out/Training").mkdir(parents=True)
    with pytest.raises(PreparationError, match="not made by these scripts"):
        prepare(tmp_path, Source(tmp_path / "in"))


def test_another_meaning_in_the_same_folder_is_refused(tmp_path):
    prepare(tmp_path, Source(tmp_path / "in"))
    other = PartTaxonomy(("b", "a"), ("cat", "dog"), (0, 1))
    with pytest.raises(PreparationError, match="in another folder"):
        prepare_split(
            root=tmp_path / "out",
            split="val",
            ids=IDS,
            convert=Source(tmp_path / "in"),
            taxonomy=other,
            settings={},
        )


def test_no_images(tmp_path):
    with pytest.raises(PreparationError, match="No images"):
        prepare(tmp_path, Source(tmp_path / "in"), ids=[])


def test_link_or_copy(tmp_path):
    source = tmp_path / "a.jpg"
    source.write_text("x")
    link_or_copy(source, tmp_path / "linked/a.jpg")
    link_or_copy(source, tmp_path / "copied/a.jpg", copy=True)
    assert (tmp_path / "linked/a.jpg").stat().st_ino == source.stat().st_ino
    assert (tmp_path / "copied/a.jpg").stat().st_ino != source.stat().st_ino
    assert (tmp_path / "copied/a.jpg").read_text() == "x"
