"""Config files: plain data, errors that name the file, data sets that stay where they are named."""

import sys
from pathlib import Path

import pytest
import yaml

import instance_crf
from instance_crf.config import load_config

instance_crf.register()
DEMO = str(Path(__file__).resolve().parents[1] / "configs/SyntheticPeople/instance_crf.yaml")


def write(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def test_no_file_runs_python(tmp_path):
    ran = tmp_path / "ran"
    bad = f"OUTPUT_DIR: !!python/object/apply:os.system ['touch {ran}']\n"
    evil = write(tmp_path, "evil.yaml", bad)
    heir = write(tmp_path, "heir.yaml", "_BASE_: evil.yaml\nSEED: 1\n")
    heirs = write(tmp_path, "heirs.yaml", f"_BASE_: ['{DEMO}', '{evil}']\n")
    for file in (evil, heir, heirs):
        for arguments in ((file,), (DEMO, [file])):
            with pytest.raises(
                ValueError, match="evil.yaml is not YAML of plain values.*os.system"
            ):
                load_config(*arguments)
    assert not ran.exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("SEED: [1", "broken.yaml is not YAML"),
        ("- SEED", "broken.yaml must hold KEY: value, but holds"),
        ("SEEDS: 1", "broken.yaml: Non-existent config key: SEEDS"),
        ("SEED: one", "broken.yaml: Type mismatch.*SEED"),
        ("SOLVER: 3", "(?s)broken.yaml: .*SOLVER"),
        ("OUTPUT_DIR:", "broken.yaml: OUTPUT_DIR has no value"),
        ("VERSION: 1", "broken.yaml: VERSION is 1, but must be 2"),
        ("_BASE_: broken.yaml", "broken.yaml: _BASE_ leads back to it"),
        ("DATASETS: {TEST: synthetic_people_val}", "broken.yaml: DATASETS.TEST .*lists names"),
        ("DATASETS: {PART_YAML: [a.yaml]}", "broken.yaml: DATASETS.PART_YAML is no file"),
        ("MODEL: {DEVICE: gpu}", "MODEL.DEVICE is 'gpu'"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(DEMO, [write(tmp_path, "broken.yaml", text)])


def test_missing_bases_and_other_codings_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config(write(tmp_path, "a.yaml", "_BASE_: nowhere.yaml\n"))
    (tmp_path / "b.yaml").write_bytes("OUTPUT_DIR: größe".encode("latin-1"))
    with pytest.raises(ValueError, match="b.yaml is not text in UTF-8"):
        load_config(DEMO, [str(tmp_path / "b.yaml")])
    (tmp_path / "c.yaml").write_bytes("\ufeffSEED: 5".encode())
    assert load_config(DEMO, [str(tmp_path / "c.yaml")]).SEED == 5


def test_keys_without_a_value_are_named():
    with pytest.raises(ValueError, match="the keys given: OUTPUT_DIR has no value"):
        load_config(DEMO, ["SEED", "1", "OUTPUT_DIR"])
    with pytest.raises(ValueError, match="the keys given: .*MODEL.FOO"):
        load_config(DEMO, ["MODEL.FOO", "1"])


@pytest.fixture
def mine(tmp_path):
    """A part YAML with three splits; none of its files is read."""
    paths = {"images": "photos", "parts": "parts", "objects": "people"}
    splits = dict.fromkeys(("train", "val", "test"), paths)
    content = {"name": "mine", "parts": list("abcdef"), "splits": splits}
    return write(tmp_path, "mine.yaml", yaml.safe_dump(content))


def sets(*arguments):
    cfg = load_config(*arguments)
    return cfg.DATASETS.TRAIN, cfg.DATASETS.TEST


def test_part_yaml_takes_the_place_of_the_sets_before_it(mine, tmp_path):
    own = ["DATASETS.PART_YAML", mine]
    assert sets(DEMO, own) == (("mine_train",), ("mine_val",))
    heir = write(tmp_path, "heir.yaml", f"_BASE_: {DEMO}\nDATASETS: {{PART_YAML: {mine}}}\n")
    assert sets(heir) == (("mine_train",), ("mine_val",))
    assert sets(DEMO, [*own, "DATASETS.PART_YAML", ""]) == sets(DEMO)


def test_sets_named_beside_or_after_a_part_yaml_stay(mine, tmp_path):
    own = ["DATASETS.PART_YAML", mine]
    for typed, expected in (
        ("('mine_test',)", ("mine_test",)),
        ("()", ()),
        ("('synthetic_people_val', 'mine_test')", ("synthetic_people_val", "mine_test")),
    ):
        test = ["DATASETS.TEST", typed]
        assert sets(DEMO, [*own, *test]) == (("mine_train",), expected)
        assert sets(DEMO, [*test, *own]) == (("mine_train",), expected)
    beside = f"DATASETS: {{PART_YAML: {mine}, TEST: [mine_test]}}\n"
    beside = write(tmp_path, "beside.yaml", beside)
    assert sets(DEMO, [beside]) == (("mine_train",), ("mine_test",))
    saved = write(tmp_path, "config.yaml", load_config(DEMO, [beside]).dump())
    assert sets(saved) == (("mine_train",), ("mine_test",))
    assert sets(saved, ["DATASETS.TEST", "()"]) == (("mine_train",), ())
    assert sets(saved, ["DATASETS.TRAIN", "('mine_val',)"]) == (("mine_val",), ("mine_test",))


def test_modules_are_imported_by_name_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, "my_broken_sets.py", "import surely_not_installed\n")
    for name in ("my_absent_sets", "my_broken_sets", "os.system('true')", "", ".x"):
        with pytest.raises(ImportError, match="DATASETS.MODULES.*cannot be imported") as caught:
            load_config(DEMO, ["DATASETS.MODULES", [name]])
        assert repr(name) in str(caught.value)
    for name in ("my_sets.py", "./my_sets.py"):
        with pytest.raises(ImportError, match="without .py, its folder in PYTHONPATH"):
            load_config(DEMO, ["DATASETS.MODULES", [name]])
    code = (
        "from instance_crf.data.datasets.register import register_canonical\n"
        "from instance_crf.taxonomies.schema import PartTaxonomy\n"
        "horses = PartTaxonomy(part_names=('head', 'legs'), object_names=('horse',))\n"
        "register_canonical('horses_train', 'nowhere', 'train', horses)\n"
    )
    write(tmp_path, "my_sets.py", code)
    keys = ["DATASETS.MODULES", "['my_sets']", "DATASETS.TRAIN", "('horses_train',)"]
    try:
        cfg = load_config(DEMO, [*keys, "DATASETS.TEST", "()"])
        assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
        assert "MODULES:\n  - my_sets\n" in cfg.dump()
    finally:
        sys.modules.pop("my_sets", None)
