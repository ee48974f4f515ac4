"""The folder of results: which are whose, and how they were made."""

import json

import pytest

from instance_crf.own_models.batch_folder import RESULT_ENDINGS, BatchFolder, differences


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("ann.jpg", "bob.png"):
        (folder / name).write_text(name)
    return sorted(folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    return BatchFolder(tmp_path / "out")


def start(folder, photos, resume=True, **settings):
    folder.open(photos, settings, resume=resume)


def finish(folder, photo):
    """The results of one photo, the JSON last."""
    for ending in reversed(RESULT_ENDINGS):
        (folder.path / (photo.stem + ending)).write_text(ending)


def files(folder):
    return {path.name: path.read_text() for path in folder.path.iterdir()}


def test_a_result_counts_once_its_json_is_there(folder, photos):
    start(folder, photos, size=1)
    finish(folder, photos[0])
    (folder.path / "bob.png").touch()
    start(folder, photos, size=1)
    assert [folder.has(photo) for photo in photos] == [True, False]


def test_what_was_not_complete_may_have_been_mended(folder, photos):
    start(folder, photos, size=1)
    (folder.path / "bob.png").touch()  # of a run that was killed
    photos[1].write_text("longer than before")
    start(folder, photos, size=1)
    finish(folder, photos[1])
    start(folder, photos, size=1)


def test_the_same_name_in_another_folder(folder, photos, tmp_path):
    start(folder, photos)
    finish(folder, photos[1])
    other = tmp_path / "more/bob.png"
    other.parent.mkdir()
    other.write_text("bob.png")
    with pytest.raises(ValueError, match=r"bob\.json was made of .*photos/bob\.png .*more/bob"):
        start(folder, [other])
    start(folder, [other], resume=False)
    assert not folder.has(other)


def test_a_photo_that_has_changed(folder, photos):
    start(folder, photos)
    finish(folder, photos[1])
    photos[1].write_text("longer")
    with pytest.raises(ValueError, match=r"bob\.png \(7 bytes\); now .*bob\.png \(6 bytes\)"):
        start(folder, photos)


@pytest.mark.parametrize("ending", RESULT_ENDINGS)
def test_files_of_others_are_not_touched(folder, photos, ending):
    folder.path.mkdir()
    (folder.path / f"bob{ending}").write_text("mine")
    with pytest.raises(ValueError, match=f"bob{ending} is there already.*Name another --output"):
        start(folder, photos)
    assert files(folder) == {f"bob{ending}": "mine"}
    start(folder, photos, resume=False)
    assert set(files(folder)) == {"settings.json"}


@pytest.mark.parametrize("text", ["{", "[]", '{"photos": 3}', '{"editor.fontSize": 12}'])
def test_another_programs_settings(folder, photos, text):
    folder.path.mkdir()
    (folder.path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json does not say how results were made"):
        start(folder, photos)
    assert files(folder) == {"settings.json": text}
    start(folder, photos, resume=False)
    assert set(json.loads(files(folder)["settings.json"])["photos"]) == {"ann", "bob"}


def test_names_that_collide(folder, photos):
    same = photos[0].with_name("ann_parts.png")
    with pytest.raises(ValueError, match="would both be named 'ann_parts.png'"):
        start(folder, [*photos, same])
    with pytest.raises(ValueError, match=r"settings\.png would be named settings\.json"):
        start(folder, [photos[0].with_name("settings.png")])
    with pytest.raises(ValueError, match="lies in the --output folder"):
        start(BatchFolder(photos[0].parent), photos)
    assert not folder.path.exists()


def test_many_differences_are_counted(folder, photos):
    start(folder, photos, values=[0] * 8)
    with pytest.raises(ValueError, match=r"values\[4\]: was 0, now 1; and 3 more\. Name"):
        start(folder, photos, values=[1] * 8)


def test_differences():
    before = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": None}
    now = {"a": 1, "b": {"c": [1, 3], "d": "x"}, "e": [1], "f": 2}
    assert list(differences(before, now)) == [
        "b.c[1]: was 2, now 3",
        "e: was null, now [1]",
        "f: was null, now 2",
    ]
    assert list(differences(before, before)) == []
    (longer,) = differences({"x": list(range(100))}, {"x": list(range(101))})
    assert "(100 entries)" in longer and "(101 entries)" in longer and len(longer) < 200
