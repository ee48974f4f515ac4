"""The photos that arguments name, and the names of their results."""

from pathlib import Path

import pytest

from instance_crf.data.find_images import IMAGE_SUFFIXES, check_result_names, find_images


@pytest.fixture
def photos(tmp_path):
    """Two photos, one more in a folder below, and what is none by its name."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "folder.jpg").mkdir()
    for name in ("wide.JPG", "tall.png", "notes.txt", "._wide.jpg", "more/deep.webp"):
        (folder / name).touch()
    return folder


def names(paths):
    return [path.name for path in paths]


def test_files_folders_and_patterns_each_once(photos, monkeypatch):
    assert names(find_images([photos])) == ["tall.png", "wide.JPG"]
    assert names(find_images([photos / "notes.txt"])) == ["notes.txt"]  # as one likes
    assert names(find_images([str(photos / "*.JPG"), photos])) == ["wide.JPG", "tall.png"]
    assert names(find_images([str(photos / "**/*.webp")])) == ["deep.webp"]
    monkeypatch.chdir(photos.parent)
    again = [photos / "tall.png", "photos/tall.png", "photos/more/../tall.png"]
    assert find_images(again) == [photos / "tall.png"]


def test_every_suffix_counts(tmp_path):
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / f"a{suffix}").touch()
    assert len(find_images([tmp_path])) == len(IMAGE_SUFFIXES)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "a[1].jpg").touch()
    (tmp_path / "a1.jpg").touch()
    assert names(find_images([tmp_path / "a[1].jpg"])) == ["a[1].jpg"]


@pytest.mark.parametrize("nothing", ["absent.jpg", "*.gif", "empty"])
def test_what_names_nothing_is_refused(photos, nothing):
    (photos / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="names no image"):
        find_images([photos, photos / nothing])


@pytest.mark.parametrize(
    "first, second, name", [("a.jpg", "b/a.png", "a.png"), ("a.jpg", "a_parts.jpg", "a_parts.png")]
)
def test_two_results_of_one_name(first, second, name):
    with pytest.raises(ValueError, match=f"{first}.*{second}.*would both be named '{name}'"):
        check_result_names([Path(first), Path(second)], Path("out"), (".png", "_parts.png"))


def test_results_beside_the_photos(photos, monkeypatch):
    monkeypatch.chdir(photos)
    check_result_names([Path("tall.png")], Path("out"), (".png",))
    for output in (Path("."), photos):
        with pytest.raises(ValueError, match="tall.png lies in the --output folder"):
            check_result_names([Path("tall.png")], output, (".png",))
