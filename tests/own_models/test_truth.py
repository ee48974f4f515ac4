"""Truth of people and of parts, from files, against what was written."""

import numpy as np
import pytest
from PIL import Image

from instance_crf.evaluation.contingency import IGNORE
from instance_crf.evaluation.parsing import Parsing
from instance_crf.own_models.truth import TRUTH_FORMATS, PersonTruth, merge_parts, open_truth
from instance_crf.taxonomies import PartTaxonomy, get_taxonomy

TAXONOMY = PartTaxonomy(("hair", "face", "coat"))
GROUPS = {"head": ["face", "hair"]}


def write(path, values, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path)


def test_people(tmp_path):
    write(tmp_path / "truth/a_persons.png", [[0, 3, 3], [255, 7, 0]])
    write(tmp_path / "truth/b.2_persons.png", [[0, 300, 65535]], np.uint16)
    (tmp_path / "photos.csv").write_text("name,truth_partial\nb.2,1\na,0\n")
    truth = open_truth(tmp_path / "truth", "persons")
    assert truth.image_ids() == ["a", "b.2"] and truth.taxonomy is None
    first, second = map(truth.read, truth.image_ids())
    assert first.people.tolist() == [[0, 1, 1], [-1, 2, 0]]  # without gaps
    assert second.people.tolist() == [[0, 1, -1]]
    assert first.complete and not second.complete and first.parsing is None
    truth.check_parts(TAXONOMY)  # there are none to differ


def test_table_beside_the_maps(tmp_path):
    write(tmp_path / "a_persons.png", [[1]])
    assert PersonTruth(tmp_path).read("a").complete
    (tmp_path / "photos.csv").write_text("licence,name,truth_partial\nnone,a,1\n")
    assert not PersonTruth(tmp_path).read("a").complete
    (tmp_path / "photos.csv").write_text("name,partial\na,1\n")
    with pytest.raises(ValueError, match="photos.csv must have the columns name and truth_partial"):
        PersonTruth(tmp_path)


def canonical(folder, parts, people):
    write(folder / "Category_ids/a.png", parts)
    write(folder / "Human_ids/a.png", people)


def test_parts(tmp_path):
    canonical(tmp_path, [[1, 2, 19, 0, 255]], [[5, 5, 2, 0, 0]])
    truth = open_truth(tmp_path, "cihp")
    assert truth.taxonomy == get_taxonomy("cihp") and truth.image_ids() == ["a"]
    found = truth.read("a")
    # What is ignored, and nobody's, may be anybody's.
    assert found.people.tolist() == [[2, 2, 1, 0, -1]] and found.complete
    assert found.parsing.part_map.tolist() == [[1, 2, 19, 0, IGNORE]]
    assert found.parsing.object_ids.tolist() == [2, 5]


def test_merged_parts(tmp_path):
    canonical(tmp_path, [[1, 2, 3, 0, 255]], [[1, 1, 2, 0, 2]])
    (tmp_path / "taxonomy.json").write_text('{"part_names": ["hair", "face", "coat"]}')
    truth = open_truth(tmp_path, "cihp", merge=GROUPS)
    found = truth.read("a")
    assert truth.taxonomy.part_names == ("head",)
    assert found.parsing.part_map.tolist() == [[1, 1, 0, 0, IGNORE]]
    # The coat is background now, and nobody's; the ignored pixel is still person 2's.
    assert found.people.tolist() == [[1, 1, 0, 0, 2]]
    assert found.parsing.segment_parts.tolist() == [1]
    truth.check_parts(PartTaxonomy(("head",)))
    with pytest.raises(ValueError, match="parts of the truth are head; .* answers hair, face, coa"):
        truth.check_parts(TAXONOMY)


def test_merging_people_who_overlap_and_crowds():
    parsing = Parsing(
        part_map=np.array([[1, 3, 2]]),
        object_map=np.array([[1, 1, 2]]),
        object_ids=np.array([1, 2]),
        object_classes=np.array([0, 0]),
        object_crowd=np.array([False, True]),
        person_maps=np.array([[[1, 3, 0]], [[0, IGNORE, 2]]]),
    )
    lut = TAXONOMY.merge(GROUPS, rest="background")[1]
    merged = merge_parts(parsing, lut)
    assert merged.person_maps.tolist() == [[[1, 0, 0]], [[0, IGNORE, 1]]]
    assert merged.object_map.tolist() == [[1, 0, 2]]
    assert merged.part_map.tolist() == [[1, 0, IGNORE]]  # of a crowd


def test_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        open_truth(tmp_path / "nowhere", "persons")
    with pytest.raises(FileNotFoundError, match="has no NAME_persons.png"):
        open_truth(tmp_path, "persons")
    for name in set(TRUTH_FORMATS) - {"persons"}:
        with pytest.raises(FileNotFoundError):
            open_truth(tmp_path, name).read("a")
