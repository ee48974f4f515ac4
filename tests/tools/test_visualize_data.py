"""tools/visualize_data.py: pictures of a registered data set, from its files or as trained on."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from instance_crf.data.datasets.register import register_canonical
from instance_crf.data.label_io import write_object_map, write_part_map
from instance_crf.taxonomies.schema import PartTaxonomy

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("visualize", ROOT / "tools" / "visualize_data.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

NAME = "visualize_data_test"
TAXONOMY = PartTaxonomy(tuple("abcdef"))
CONFIG = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")


@pytest.fixture
def dataset(tmp_path):
    """Three images on disk, one without any person, registered as NAME."""
    folder = tmp_path / "data" / "Training"
    for sub in ("Images", "Category_ids", "Human_ids"):
        (folder / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(3):
        parts = np.zeros((50, 60), np.uint8)
        if index:
            parts[10:40, 10:30], parts[10:40, 30:50] = 1, 6
        Image.fromarray(rng.integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(
            folder / "Images" / f"{index}.png"
        )
        write_part_map(folder / "Category_ids" / f"{index}.png", parts)
        write_object_map(folder / "Human_ids" / f"{index}.png", (parts > 0).astype(np.int32))
    (folder / "train_id.txt").write_text("0\n1\n2\n")
    register_canonical(NAME, tmp_path / "data", "train", TAXONOMY)
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_pictures_of_the_files(dataset, tmp_path):
    output = tmp_path / "pictures"
    tool.main(["--dataset", dataset, "--output", str(output), "--num", "2", "--legend"])
    assert sorted(p.name for p in output.iterdir()) == [f"{NAME}_0.png", f"{NAME}_1.png"]
    without, with_person = (np.asarray(Image.open(output / f"{NAME}_{i}.png")) for i in (0, 1))
    assert without.shape == with_person.shape and (without != with_person).any()


def test_pictures_that_cannot_be_written(dataset, tmp_path, full_disk):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as raised:
        tool.main(["--dataset", dataset, "--output", str(tmp_path / "file")])
    assert raised.value.filename == str(tmp_path / "file")
    (tmp_path / "new").mkdir()
    with pytest.raises(OSError, match="cannot be written"), full_disk():
        tool.main(["--dataset", dataset, "--output", str(tmp_path / "new")])
    assert not list((tmp_path / "new").iterdir())


def test_pictures_of_what_training_sees(dataset, tmp_path):
    output = tmp_path / "pictures"
    arguments = ["--config-file", CONFIG, "--source", "dataloader", "--output", str(output)]
    opts = ["DATASETS.TRAIN", f"('{NAME}',)", "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", "2"]
    tool.main([*arguments, "--num", "5", *opts])
    assert len(list(output.glob("000?_*.png"))) == 5  # the loader has no end, unlike the data


def test_the_legend_needs_no_files(capsys):
    tool.main(["--dataset", "pascal_person_part_train", "--legend"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["0", "background"] and len(rows) == 8
    assert rows[4].split("  ")[0] == "3" and "left upper arm, person right upper arm" in rows[4]
    tool.main(["--dataset", "cihp_train", "--legend"])
    (arm,) = (r for r in capsys.readouterr().out.splitlines() if r.startswith("14 "))
    assert [c.strip() for c in arm.split("  ") if c][:4] == [
        "14",
        "left arm",
        "person",
        "right arm",
    ]


def test_unknown_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no data set 'nothing'. Known: .*synthetic"):
        tool.main(["--dataset", "nothing", "--output", str(tmp_path)])


def test_neither_pictures_nor_legend():
    with pytest.raises(SystemExit):
        tool.main(["--dataset", NAME])


@pytest.mark.parametrize(
    "wrong",
    [[], ["--dataset", "a", "--config-file", "b"], ["--dataset", "a", "--source", "dataloader"],
     ["--dataset", "a", "--num", "0"]],
)  # fmt: skip
def test_wrong_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(SystemExit):
        tool.main([*wrong, "--output", str(tmp_path)])
