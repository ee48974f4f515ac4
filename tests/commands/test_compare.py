"""`instance-crf compare` on small photographs of two people, whose numbers are known by hand."""

import argparse
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.commands import compare
from instance_crf.evaluation.toolkit.person_maps import PERSON_MAP_METRICS, PersonMapCounts
from instance_crf.own_models.compare_pictures import SketchBook
from instance_crf.own_models.comparison import Comparison, person_map
from instance_crf.own_models.inputs import Detections
from instance_crf.own_models.join import Join
from instance_crf.own_models.methods import FACTORED, JOINT, MASKS, make_methods, part_answer
from instance_crf.own_models.truth import Truth
from instance_crf.rules import NEAREST, SIMPLE_RULES
from instance_crf.taxonomies import PartTaxonomy

SIZE = (48, 64)
TAXONOMY = PartTaxonomy(("upper", "lower"))
BEST = "best-scoring box wins"
BOXES = [[8, 8, 36, 40], [28, 8, 56, 40], [0, 40, 4, 48]]
SCORES = [0.9, 0.8, 0.1]


def scene():
    """Person 1 in columns 8..31, person 2 in 32..55, each with two parts; eight columns are in
    both boxes. The third box has nobody."""
    people, parts = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    people[8:40, 8:32], people[8:40, 32:56] = 1, 2
    parts[8:24, 8:56], parts[24:40, 8:56] = 1, 2
    colours = np.array([[90, 90, 90], [200, 40, 40], [40, 40, 200]], np.uint8)
    q = np.where(np.arange(3)[:, None, None] == parts, 0.98, 0.01).astype(np.float32)
    return colours[people], people, parts, q


@pytest.fixture
def folder(tmp_path):
    pixels, people, parts, q = scene()
    files = {"photos": pixels, "truth": people, "parts/Category_ids": parts}
    for name in (*files, "parts/Human_ids", "q"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("one", "two"):
        Image.fromarray(pixels).save(tmp_path / f"photos/{name}.png")
        Image.fromarray(people).save(tmp_path / f"truth/{name}_persons.png")
        Image.fromarray(parts).save(tmp_path / f"parts/Category_ids/{name}.png")
        Image.fromarray(people).save(tmp_path / f"parts/Human_ids/{name}.png")
        np.savez(tmp_path / f"q/{name}.npz", part_prob=q)
    boxes = {name: {"boxes": BOXES, "scores": SCORES} for name in ("one", "two")}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "taxonomy.json").write_text(json.dumps(TAXONOMY.to_dict()))
    return tmp_path


def run(folder, *more, photos="photos"):
    """Exit status, and results.json if there is one."""
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    known = ["--parts", folder / "q", "--detector", f"coco:{folder / 'boxes.json'}"]
    known += ["--taxonomy", folder / "taxonomy.json", "--output", folder / "out"]
    known += [] if "--truth" in more else ["--truth", folder / "truth"]
    args = parser.parse_args([str(each) for each in (folder / photos, *known, *more)])
    status = compare.run(args)
    results = folder / "out/results.json"
    return status, json.loads(results.read_text()) if results.exists() else None


def test_people_by_hand(folder, capsys):
    status, content = run(folder)
    assert status == 0 and content["failed"] == {} and content["people"] == 4
    assert content["photographs"] == ["one", "two"]
    rows = {row["row"]: row for row in content["rows"]}
    # No masks, so neither a row for them nor one without evidence.
    assert list(rows)[:5] == [*SIMPLE_RULES, JOINT, FACTORED]
    assert len(rows) == 5 + 5 + 1 and "without the cue evidence" not in rows
    # The centres are equally far at the border between the two.
    assert rows[NEAREST]["people"] == dict.fromkeys(PERSON_MAP_METRICS, 100.0)
    assert "interval" not in rows[NEAREST] and "parts" not in rows[NEAREST]
    best = rows[BEST]
    expected = [100, 100 * (24 / 28 + 20 / 24) / 2, 50, 100]
    assert [best["people"][m] for m in PERSON_MAP_METRICS] == pytest.approx(expected)
    assert best["interval"]["contested"] == [-50, -50]
    assert rows[FACTORED]["people"]["mIoU"] > 99  # colours and centres agree
    table = capsys.readouterr().out
    assert f"| {BEST} | 100.0 (+0.0 to +0.0) | 84.5 (-15.5 to -15.5) |" in table
    sentence = content["conclusion"]["sentence"]
    assert sentence.startswith("On these 2 photographs (4 people), too few for a verdict, the ")
    assert f"({NEAREST})" in sentence and sentence in table
    page = (folder / "out/comparison.md").read_text()
    assert sentence in page and "| AP50 |" in page and "- size: 512" in page
    assert sorted(os.listdir(folder / "out")) == ["comparison.md", "results.json"]


def test_pictures(folder):
    """Person 2's box reaches far into person 1: the nearest centre is wrong where colours are
    right."""
    boxes = {"boxes": [BOXES[0], [20, 8, 56, 40]], "scores": SCORES[:2]}
    (folder / "boxes.json").write_text(json.dumps({"one": boxes, "two": boxes}))
    _, content = run(folder, "--pictures", "1", "--no-ablation")
    nearest, factored = (content["rows"][i]["people"]["mIoU"] for i in (1, 4))
    assert nearest < 97 < 99 < factored
    with Image.open(folder / "out/comparison.png") as picture:
        assert picture.width > 6 * SIZE[1]
    assert "![photographs](comparison.png)" in (folder / "out/comparison.md").read_text()


def test_parts_by_hand(folder):
    shutil.copy(folder / "taxonomy.json", folder / "parts")
    more = ("--truth", folder / "parts", "--truth-format", "cihp", "--no-ablation")
    status, content = run(folder, *more)
    rows = {row["row"]: row for row in content["rows"]}
    assert status == 0 and list(rows) == [*SIMPLE_RULES, JOINT, FACTORED]
    assert set(rows[NEAREST]["parts"].values()) == {100.0}
    # Each part of person 1 has IoU 24/28, of person 2 20/24: all but the threshold 0.9.
    parts = rows[BEST]["parts"]
    assert [parts["part APr50"], parts["person APr50"], parts["APp50"]] == [100] * 3
    assert [parts["part APr vol"], parts["person APr vol"]] == pytest.approx([800 / 9] * 2)
    assert parts["part mIoU"] == 100  # whosever they are
    assert rows[BEST]["people"]["mIoU"] == pytest.approx(100 * (24 / 28 + 20 / 24) / 2)
    assert "part APr50 +0.0" in content["conclusion"]["sentence"]
    assert 'protocol "sds"' in (folder / "out/comparison.md").read_text()


def test_parts_must_be_the_same(folder):
    shutil.copy(folder / "taxonomy.json", folder / "parts")
    truth = ("--truth", folder / "parts", "--truth-format", "cihp", "--no-ablation")
    with pytest.raises(ValueError, match="truth are upper, lower; those of the answers body"):
        run(folder, *truth, "--merge", "body=upper,lower")
    both = ("--merge", "body=upper,lower", "--truth-merge", "body=lower,upper")
    status, content = run(folder, *truth, *both)
    assert status == 0 and content["rows"][1]["parts"]["part APr vol"] == 100


def test_a_photo_that_fails(folder, capsys):
    os.remove(folder / "q/one.npz")
    status, content = run(folder, "--no-ablation")
    assert status == 1 and content["photographs"] == ["two"] and content["people"] == 2
    [(photo, reason)] = content["failed"].items()
    assert photo.endswith("one.png") and "one" in reason
    Image.new("1", (20_000, 10_000)).save(folder / "photos/one.png")
    status, content = run(folder, "--no-ablation")
    assert status == 1 and content["photographs"] == ["two"]
    [(photo, reason)] = content["failed"].items()
    assert reason.startswith(f"{photo} has more than")
    assert capsys.readouterr().err.count("1 of 2 photos not compared") == 2
    assert "## Not compared" in (folder / "out/comparison.md").read_text()
    # A truth of another size adds nothing to any row.
    Image.fromarray(np.ones((4, 4), np.uint8)).save(folder / "truth/two_persons.png")
    shutil.rmtree(folder / "out")
    assert run(folder, "--no-ablation") == (1, None)
    assert "The truth is (4, 4), the image (48, 64)" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_at_once(folder):
    (folder / "out").touch()
    os.remove(folder / "boxes.json")  # not looked at
    with pytest.raises(OSError, match="cannot be written: Not a directory") as raised:
        run(folder)
    assert raised.value.filename == str(folder / "out")


def test_which_photos(folder, capsys):
    os.remove(folder / "truth/one_persons.png")
    status, content = run(folder, "--no-ablation")
    assert status == 0 and content["photographs"] == ["two"]
    assert "1 of 2 photos have no truth in" in capsys.readouterr().err
    shutil.copy(folder / "photos/two.png", folder / "photos/two.bmp")
    with pytest.raises(ValueError, match="two.bmp and .*two.png would both be compared"):
        run(folder)
    os.rename(folder / "truth/two_persons.png", folder / "truth/three_persons.png")
    with pytest.raises(ValueError, match="None of the 3 photos .* there is truth of 'three'"):
        run(folder)
    for wrong in ("-1", "nothing"):
        with pytest.raises((ValueError, SystemExit)):
            run(folder, "--pictures", wrong)


def prepare(boxes=BOXES, scores=SCORES, taxonomy=TAXONOMY, least_score=0.15, **more):
    pixels, _, _, q = scene()
    join = Join(kind="prob", parts=taxonomy, least_score=least_score)
    detections = Detections(torch.tensor(boxes).float(), torch.tensor(scores), **more)
    return join.prepare(pixels, q, detections, None, None)


def test_all_have_the_same_parts():
    """On a photograph larger than the working size, with noise in its colours and in Q."""
    generator = np.random.default_rng(0)
    pixels = np.kron(scene()[0], np.ones((3, 3, 1), np.uint8))
    pixels = np.clip(pixels + generator.normal(0, 9, pixels.shape), 0, 255).astype(np.uint8)
    q = scene()[3] + generator.random((3, *SIZE)).astype(np.float32)
    boxes = Detections(torch.tensor(BOXES[:2]) * 3.0, torch.tensor(SCORES[:2]))
    join = Join(kind="prob", parts=TAXONOMY, working_size=64)
    problem = join.prepare(pixels, q / q.sum(0), boxes, None, None)
    answer = part_answer(problem)
    assert answer[0].shape == problem.size == (144, 192) and answer[0].unique().tolist() == [
        0,
        1,
        2,
    ]
    for method in make_methods(TAXONOMY):
        if method.kind != "joint" and method.applies(problem):
            assert torch.equal(method.solve(problem, answer).part_map, answer[0]), method.name


def test_masks_and_evidence():
    people = scene()[1]
    masks = torch.from_numpy(np.stack([people == 1, people == 2]))
    problem = prepare(BOXES[:2], SCORES[:2], masks=masks)
    comparison = Comparison(samples=20)
    comparison.add("one", problem, Truth(people.astype(np.int32)))
    rows = {row["row"]: row for row in comparison.rows()}
    assert rows[MASKS]["people"] == dict.fromkeys(PERSON_MAP_METRICS, 100.0)
    assert list(rows)[3] == MASKS and "without the cue evidence" in rows
    # Without detections a photograph needs no masks; with detections it does.
    comparison.add("two", prepare(BOXES[:0], SCORES[:0]), Truth(people.astype(np.int32)))
    assert MASKS in [m.name for m in comparison.methods] and not comparison.notes
    comparison.add("three", prepare(), Truth(people.astype(np.int32)))
    left = [m.name for m in comparison.methods]
    assert MASKS not in left and "without the cue evidence" not in left and len(left) == 11
    assert comparison.notes[0] == f"'{MASKS}' is left out: 1 of 3 images have no masks."


def test_parts_of_another_class_stay():
    """The upper part is a rider's, the lower one a horse's; both have the box of person 1."""
    taxonomy = PartTaxonomy(("upper", "lower"), ("rider", "horse"), (0, 1))
    names = ("horse", "rider", "horse")
    problem = prepare([BOXES[0], BOXES[0], BOXES[1]], [0.9, 0.5, 0.6], taxonomy, class_names=names)
    answer = part_answer(problem)
    for method in make_methods(taxonomy, ablation=False)[:3]:
        owner, _ = person_map(method.solve(problem, answer), problem, "share")
        assert set(np.unique(owner[8:24])) == {0, 2} and set(np.unique(owner[24:40])) == {0, 1, 3}


def test_numbers_of_detections():
    """The first is below the least score, the second wins nothing."""
    boxes = [BOXES[2], [0, 0, 4, 4], *BOXES[:2]]
    problem = prepare(boxes, [0.1, 0.5, 0.6, 0.7])
    assert len(problem.detections) == 3
    method = make_methods(TAXONOMY, ablation=False)[0]
    owner, scores = person_map(method.solve(problem, part_answer(problem)), problem, "share")
    assert owner[10, 10] == 2 and owner[10, 30] == 3 and owner[0, 0] == 0
    assert scores.tolist() == pytest.approx([0, 0.6 * 20 / 28, 0.7])


def counts(iou):
    hit = np.array([iou >= 0.5])
    return PersonMapCounts(np.array([iou]), 10, 10, int(10 * iou), np.array([1.0]), hit, 1)


@pytest.mark.parametrize(
    "ours, nearest, verdict, words",
    [
        (0.9, 0.1, "better", "the factored CRF is better than the best simple rule: AP50 +100.0 ["),
        (0.2, 0.8, "worse", "the factored CRF is worse than the best simple rule: AP50 -100.0 ["),
        (0.7, 0.6, "open", "the factored CRF is neither better nor worse, beyond chance, than "),
    ],
)
def test_verdict(ours, nearest, verdict, words):
    comparison = Comparison(samples=50, ablation=False)
    comparison._methods = [m for m in make_methods(TAXONOMY, ablation=False) if not m.needs]
    comparison.images = [str(i) for i in range(10)]
    ious = {FACTORED: ours, NEAREST: nearest}
    comparison._people = {m.name: [counts(ious.get(m.name, 0))] * 10 for m in comparison.methods}
    conclusion = comparison.conclusion(comparison.rows())
    assert conclusion["verdict"] == verdict and words in conclusion["sentence"]
    gained = conclusion["differences"]["mIoU"]
    assert gained["rule"] == NEAREST and gained["difference"] == pytest.approx(
        100 * (ours - nearest)
    )
    assert gained["interval"] == pytest.approx([gained["difference"]] * 2)


def test_without_anybody_or_complete_truth():
    people = scene()[1].astype(np.int32)
    comparison = Comparison(samples=20, ablation=False)
    comparison.add("one", prepare(), Truth(np.zeros_like(people)))
    assert "has nobody" in comparison.conclusion(comparison.rows())["sentence"]
    comparison.add("two", prepare(), Truth(people, complete=False))
    assert list(comparison.conclusion(comparison.rows())["differences"]) == ["mIoU", "contested"]


def test_the_photographs_that_differ_most(tmp_path):
    people = scene()[1].astype(np.int32)
    problem, answer = prepare(), torch.from_numpy(scene()[2])
    book = SketchBook(2)
    for name, columns in (("a", 2), ("b", 0), ("c", 6), ("d", 4)):
        other = people.copy()
        other[:, 32 : 32 + columns] = 0
        maps = {NEAREST: people, JOINT: people, FACTORED: other}
        book.offer(name, problem, answer, maps, Truth(people))
    assert [sketch.name for *_, sketch in sorted(book._heap, reverse=True)] == ["c", "d"]
    assert book.draw(tmp_path / "sheet.png", NEAREST) and (tmp_path / "sheet.png").is_file()
    assert not SketchBook(1).draw(tmp_path / "none.png", NEAREST)
    assert not (tmp_path / "none.png").exists()


@pytest.mark.slow
def test_real_photographs(real_folder, tmp_path):
    photos = sorted((real_folder / "photos").glob("cihp_*"))[:2]
    groups = {
        "head": ["left face", "right face"],
        "torso": ["torso front", "torso back"],
        "legs": [
            f"{s} {n} leg {w}"
            for s in ("left", "right")
            for n in ("upper", "lower")
            for w in ("front", "back")
        ],
    }
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    boxes = real_folder / "boxes/yolox_nano.json"
    arguments = [*photos, "--parts", real_folder / "q", "--detector", f"coco:{boxes}"]
    arguments += ["--taxonomy", "bodypix", "--merge", tmp_path / "groups.json", "--size", 96]
    arguments += ["--truth", real_folder / "truth", "--output", tmp_path / "out"]
    assert compare.run(parser.parse_args([str(each) for each in arguments])) == 0
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert all(row["people"]["mIoU"] > 20 for row in rows) and len(rows) == 11
