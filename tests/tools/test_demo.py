"""tools/demo.py: four files an image that agree with one another and with the model."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from instance_crf.config import load_config
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.label_io import read_object_map, read_part_map

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("demo", ROOT / "tools" / "demo.py")
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)

TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [10,12,14,16]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16
    MODEL.RPN.CONV_DIMS [16] MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.DEVICE cpu
    INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96
    MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 2 MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST 1
""".split()
CONFIG = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")


@pytest.fixture(scope="module")
def opts(tmp_path_factory):
    weights = tmp_path_factory.mktemp("model") / "random.pth"
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, TINY))
    torch.save({"model": model.state_dict()}, weights)
    return [*TINY, "MODEL.WEIGHTS", str(weights)]


@pytest.fixture
def photos(tmp_path):
    """A folder with two photos, a text file, and an image file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("wide.jpg", (40, 70)), ("tall.png", (70, 40))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image by name")
    return folder


def run(photos, output, opts, *more):
    arguments = ["--config-file", CONFIG, "--input", str(photos), "--output", str(output), *more]
    return demo.main([*arguments, "--opts", *opts])


def test_writes_maps_and_segments_that_agree(photos, tmp_path, opts):
    output = tmp_path / "out"
    status = run(photos, output, opts, "--confidence-threshold", "0", "--batch-size", "2")
    assert status == 0
    kinds = ("{}.png", "{}_parts.png", "{}_objects.png", "{}.json")
    expected = {kind.format(stem) for stem in ("wide", "tall") for kind in kinds}
    assert {path.name for path in output.iterdir()} == expected
    segments_seen = 0
    for stem, size in (("wide", (40, 70)), ("tall", (70, 40))):
        parts = read_part_map(output / f"{stem}_parts.png")
        objects = read_object_map(output / f"{stem}_objects.png")
        described = json.loads((output / f"{stem}.json").read_text())
        assert parts.shape == objects.shape == size
        assert (described["height"], described["width"]) == size
        assert not ((parts == 0) & (objects > 0)).any()
        for segment in described["segments"]:
            where = (parts == segment["part_id"]) & (objects == segment["instance_id"])
            assert where.sum() == segment["area"]
        assert sum(s["area"] for s in described["segments"]) == (objects > 0).sum()
        assert {o["id"] for o in described["objects"]} == set(np.unique(objects)) - {0}
        segments_seen += len(described["segments"])
    assert segments_seen > 0, "the random model finds nothing: choose another seed"


def test_threshold_one_finds_nothing_and_says_so_in_every_file(photos, tmp_path, opts):
    assert run(photos, tmp_path / "out", opts, "--confidence-threshold", "1") == 0
    described = json.loads((tmp_path / "out" / "wide.json").read_text())
    assert described["objects"] == described["segments"] == []
    assert not read_object_map(tmp_path / "out" / "wide_objects.png").any()


def test_unreadable_files_are_named_and_the_others_done(photos, tmp_path, opts, capsys):
    (photos / "broken.jpg").write_bytes(b"junk")
    assert run(photos, tmp_path / "out", opts) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert (tmp_path / "out" / "wide.json").exists()
    assert not list((tmp_path / "out").glob("broken*"))


def test_thin_pictures_are_done_and_hidden_files_left_out(photos, tmp_path, opts):
    for name, size in (("flat", (1, 700)), ("upright", (700, 1))):
        Image.fromarray(np.full((*size, 3), 99, np.uint8)).save(photos / f"{name}.png")
    (photos / "._wide.jpg").write_bytes(b"what macOS leaves on foreign disks")
    assert run(photos, tmp_path / "out", opts, "--show-evidence", "1") == 0
    assert read_part_map(tmp_path / "out/flat_parts.png").shape == (1, 700)
    assert {p.stem for p in (tmp_path / "out").glob("*.json")} == {
        "wide",
        "tall",
        "flat",
        "upright",
    }


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_picture_that_cannot_be_done_does_not_stop_the_others(
    photos, tmp_path, opts, batch_size, capsys
):
    """One has too many pixels, and in all that are not black the network's numbers overflow."""
    Image.new("1", (20_000, 10_000)).save(photos / "huge.png")
    for name in ("a", "z"):
        Image.new("RGB", (40, 50)).save(photos / f"{name}.png")
    wild = ["MODEL.PIXEL_MEAN", "[0.,0.,0.]", "MODEL.PIXEL_STD", "[1e-38,1e-38,1e-38]"]
    assert run(photos, tmp_path / "out", [*opts, *wild], "--batch-size", str(batch_size)) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("2 images done")
    *_, title, first, second, third = printed.err.splitlines()
    assert title == "3 not done:"
    told = {"huge.png": "has more than 178", "tall.png": "has diverged", "wide.jpg": "has diverged"}
    for name, reason in told.items():
        assert any(f"{photos / name}" in line and reason in line for line in (first, second, third))
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == {"a", "z"}


def test_a_model_without_a_test_set(photos, tmp_path, opts):
    assert run(photos, tmp_path / "out", [*opts, "DATASETS.TEST", "()"]) == 0
    described = json.loads((tmp_path / "out" / "wide.json").read_text())
    assert {s["part"] for s in described["segments"]} <= {*PERSON_PART_TAXONOMY.part_names}
    with pytest.raises(ValueError, match="DATASETS.TEST and TRAIN are empty"):
        counts = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 7, "MODEL.ROI_HEADS.NUM_CLASSES", 1]
        sets = ["DATASETS.TEST", (), "DATASETS.TRAIN", ()]
        demo.main(
            ["--config-file", CONFIG, "--input", str(photos), "--output", str(tmp_path / "no")]
            + ["--opts", *map(str, [*opts, *counts, *sets])]
        )


def test_inputs_that_name_nothing_are_refused(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.jpg names no image"):
        run(photos / "absent.jpg", tmp_path / "out", [])


def test_results_that_cannot_be_written_are_named(photos, tmp_path, opts, full_disk):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OSError, match="cannot be written: Not a directory") as raised:
            run(photos, path, ["MODEL.WEIGHTS", "not looked at"])
        assert raised.value.filename == str(path)
    (tmp_path / "out/tall.png").mkdir(parents=True)
    with pytest.raises(OSError, match="cannot be written: Is a directory") as raised:
        run(photos, tmp_path / "out", opts)
    assert raised.value.filename == str(tmp_path / "out/tall.png")
    with pytest.raises(OSError, match="cannot be written"), full_disk():
        run(photos, tmp_path / "full", opts)
    assert not (tmp_path / "full").exists()


def test_results_never_overwrite(photos, tmp_path):
    with pytest.raises(ValueError, match="lies in the --output folder"):
        run(photos, photos, [])
    (photos / "wide.png").write_bytes((photos / "tall.png").read_bytes())
    with pytest.raises(ValueError, match=r"would both be named 'wide\.png'"):
        run(photos, tmp_path / "out", [])


@pytest.mark.parametrize(
    "wrong", [["--confidence-threshold", "1.5"], ["--batch-size", "0"], ["--show-evidence", "0"]]
)
def test_wrong_arguments_are_refused(photos, tmp_path, wrong, capsys):
    with pytest.raises(SystemExit):
        run(photos, tmp_path, [], *wrong)
    assert wrong[0] in capsys.readouterr().err


def test_evidence_is_drawn_where_there_is_such_a_detection(photos, tmp_path, opts, capsys):
    flags = ("--confidence-threshold", "0", "--show-evidence")
    for person in ("1", "2", "3"):  # the random model finds two in each
        assert run(photos, tmp_path / person, opts, *flags, person) == 0
    names = {"tall_evidence.png", "wide_evidence.png"}
    drawn = {p: {f.name for f in (tmp_path / p).glob("*_evidence.png")} for p in ("1", "2", "3")}
    assert drawn == {"1": names, "2": names, "3": set()}
    first, second = (Image.open(tmp_path / p / "wide_evidence.png") for p in ("1", "2"))
    assert first.size == second.size and first.tobytes() != second.tobytes()
    assert len(list((tmp_path / "3").iterdir())) == 8
    assert "wide.jpg: 2 detections, so there is no evidence for detection 3" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.INSTANCE_CRF.FORM", "joint", "FORM is 'joint'"),
        ("MODEL.IDENTITY_HEAD.ENABLED", False, "IDENTITY_HEAD.ENABLED is False"),
        ("MODEL.INSTANCE_CRF.ENABLED", False, "INSTANCE_CRF.ENABLED is False"),
        ("MODEL.INSTANCE_CRF.NAME", "RuleHead", "INSTANCE_CRF.NAME is 'RuleHead'"),
    ],
)
def test_a_model_without_evidence_is_refused(photos, tmp_path, key, value, message):
    with pytest.raises(ValueError, match=f"--show-evidence.*{message}"):
        run(photos, tmp_path / "out", [*TINY, key, value], "--show-evidence", "1")
