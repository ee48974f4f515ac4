"""What all preparing scripts share: nothing half-written, resuming, refusing to overwrite."""

import os
import shutil
import stat
from pathlib import Path

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
from instance_crf.files import InUseError, lock_folder
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


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"settings": {"level": 2}}, "level was 1, is now 2"),
        ({"settings": {"level": 1, "rest": "ignore"}}, "rest was None, is now 'ignore'"),
        ({"ids": IDS[::-1]}, "the list of images"),
    ],
)
def test_a_finished_split_of_other_settings_is_refused(tmp_path, changes, words, capsys):
    source = Source(tmp_path / "in")
    prepare(tmp_path, source)
    (tmp_path / "in/asked.txt").unlink()
    with pytest.raises(PreparationError, match=rf"Training was prepared with .*{words}.*--force"):
        prepare(tmp_path, source, **changes)
    assert prepare(tmp_path, source, **changes, force=True)
    assert source.asked() == changes.get("ids", IDS)
    assert not prepare(tmp_path, source, **changes)
    with pytest.raises(PreparationError, match="was prepared with"):
        prepare(tmp_path, source)


def test_paths_in_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, Source(tmp_path / "in"), settings={"source": Path("in")})
    assert not prepare(tmp_path, Source(tmp_path / "in"), settings={"source": tmp_path / "in"})
    with pytest.raises(TypeError, match="neither plain nor a path"):
        prepare(tmp_path, Source(tmp_path / "in"), settings={"lut": np.zeros(256)})


def test_a_split_without_a_record_is_complete(tmp_path):
    """Those of older versions."""
    prepare(tmp_path, Source(tmp_path / "in"))
    (tmp_path / "out/Training/prepared.json").unlink()
    assert not prepare(tmp_path, Source(tmp_path / "in"), settings={"level": 2})


def test_splits_of_different_settings_are_told(tmp_path, capsys):
    prepare(tmp_path, Source(tmp_path / "in"), ids=IDS[:3])
    for level in (1, 2):
        prepare_split(
            root=tmp_path / "out",
            split=f"val{level}",
            ids=IDS[:2],
            convert=Source(tmp_path / "in"),
            taxonomy=TAXONOMY,
            settings={"level": level},
            workers=1,
        )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(lines) == 2  # of val2, against either of the others
    assert "Training was prepared with other settings than" in lines[0]
    assert all("val2: level was 1, is now 2" in line for line in lines)


@pytest.mark.parametrize("whole", [True, False])
def test_a_replacement_that_was_cut_off(tmp_path, whole):
    """Killed between the two renames: either data set, never none."""
    source, root = Source(tmp_path / "in"), tmp_path / "out"
    prepare(tmp_path, source)
    (root / "Training").rename(tmp_path / "aside")
    if whole:
        prepare(tmp_path, source, settings={"level": 2})
        (root / "Training").rename(root / "Training.partial")
    (tmp_path / "aside").rename(root / "Training.old")
    (tmp_path / "in/asked.txt").write_text("")
    assert not prepare(tmp_path, source, settings={"level": 2 if whole else 1})
    assert sorted(os.listdir(root)) == ["Training", "taxonomy.json"] and not source.asked()


def test_a_link_is_replaced_not_what_it_leads_to(tmp_path):
    prepare(tmp_path, Source(tmp_path / "in"))
    (tmp_path / "out/Training").rename(tmp_path / "elsewhere")
    (tmp_path / "out/Training").symlink_to(tmp_path / "elsewhere")
    assert prepare(tmp_path, Source(tmp_path / "in"), force=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["Training", "taxonomy.json"]
    assert not (tmp_path / "out/Training").is_symlink()
    assert len(list((tmp_path / "elsewhere").rglob("*"))) == 3 + 3 * len(IDS) + 3


def test_a_removal_that_was_cut_off(tmp_path, monkeypatch):
    """Begun anew, killed while the old files went, and again with the old settings."""
    with pytest.raises(PreparationError):
        prepare(tmp_path, Source(tmp_path / "in", ("059",)))
    remove = shutil.rmtree

    def killed(folder):
        remove(folder / "Images")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, Source(tmp_path / "in"), settings={"level": 2})
    monkeypatch.undo()
    assert prepare(tmp_path, Source(tmp_path / "in"))
    assert len(load_canonical(tmp_path / "out", "train", TAXONOMY)) == len(IDS)


def test_what_is_whole_is_not_made_again(tmp_path):
    prepare(tmp_path, Source(tmp_path / "in"))
    (tmp_path / "out/Training").rename(tmp_path / "out/Training.partial")
    (tmp_path / "in/asked.txt").write_text("")
    source = Source(tmp_path / "in")
    assert prepare(tmp_path, source) and not source.asked()


def test_leftovers_of_killed_runs_are_removed(tmp_path):
    prepare(tmp_path, Source(tmp_path / "in"))
    (tmp_path / "out/.tmp_abc.json").touch()
    (tmp_path / "out/.lock").touch()
    (tmp_path / "out/Training.old/Images").mkdir(parents=True)
    prepare(tmp_path, Source(tmp_path / "in"))
    assert sorted(os.listdir(tmp_path / "out")) == ["Training", "taxonomy.json"]


def test_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with lock_folder(tmp_path / "out", "preparing it"):
        with pytest.raises(InUseError, match="is preparing it"):
            prepare(tmp_path, Source(tmp_path / "in"))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("text", [b"\xff\xfe", b"[]\n", b"", b'{"level": 1}\n["a"]\n3\n'])
def test_a_broken_journal_begins_anew(tmp_path, text):
    (tmp_path / "out/Training.partial").mkdir(parents=True)
    (tmp_path / "out/Training.partial/progress.jsonl").write_bytes(text)
    source = Source(tmp_path / "in")
    assert prepare(tmp_path, source) and source.asked() == IDS


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


@pytest.mark.parametrize("copy", [False, True])
def test_a_photo_again(tmp_path, copy):
    """Of a run that was killed after the photo. Its own file keeps its permissions."""
    source = tmp_path / "a.jpg"
    source.write_text("x")
    source.chmod(0o440)
    for _ in range(2):
        link_or_copy(source, tmp_path / "out/a.jpg", copy)
    assert os.listdir(tmp_path / "out") == ["a.jpg"]
    assert stat.S_IMODE(source.stat().st_mode) == 0o440
