"""docs/YOUR_MODELS.md says what is so: its blocks run, its commands parse, its lists are ours.

A block runs where the comment above it says so: `<!-- runs -->` in a folder with small models under
the names that it uses (conftest.py), `<!-- runs with weights -->` with public models' own, where
there are any. All go on from the first one.
"""

import re
import shlex
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from instance_crf.cli import COMMANDS, main
from instance_crf.taxonomies import TAXONOMY_NAMES, get_taxonomy

PAGE = Path(__file__).resolve().parents[3] / "docs/YOUR_MODELS.md"
TEXT = PAGE.read_text()


def blocks(above):
    """The Python blocks with this line above them, each called by its heading."""
    found = []
    pattern = rf"(?<=\n){above}\n```python\n(.*?)\n```\n"
    for match in re.finditer(pattern, TEXT, re.DOTALL):
        heading = re.findall(r"^#+ (.*)", TEXT[: match.start()], re.MULTILINE)[-1]
        found.append(pytest.param(match[1], id=heading))
    return found


FIRST, *OTHERS = blocks("<!-- runs -->")


def run(code, names):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"photo\.jpg")  # nothing looks wrong
        exec(compile(code, str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def first(folder):
    """What the first block leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run(FIRST.values[0], {})


@pytest.mark.slow
def test_the_first_block(first, agreement):
    parts, persons = agreement(first["result"])
    assert parts > 0.9 and persons > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("code", OTHERS)
def test_block(code, first, folder, agreement, monkeypatch):
    results = []

    def parse(*args, **options):
        results.append(first["parse"](*args, **options))
        return results[-1]

    monkeypatch.chdir(folder)
    names = run(code, {**first, "parse": parse})
    for result in results:
        parts, persons = agreement(result)
        assert parts > 0.9 and persons > 0.95
    if "by_hand" in names:
        assert torch.equal(names["by_hand"].part_map, first["result"].part_map)
        assert torch.equal(names["by_hand"].object_map, first["result"].object_map)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("<!-- runs with weights -->"))
def test_block_with_weights(code, first, real_folder, tmp_path, monkeypatch):
    for file in (real_folder / "weights").iterdir():
        (tmp_path / file.name).symlink_to(file)
    shutil.copy(real_folder / "photos/zidane.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    detector = first["load_detector"]("onnx:yolox_nano_416.onnx")
    result = run(code, {**first, "detector": detector})["result"]
    assert result.image_size == (720, 1280)
    assert sorted(result.scores.tolist())[-2] > 0.7  # two men


def test_python_is_python():
    codes = re.findall(r"```python\n(.*?)\n```\n", TEXT, re.DOTALL)
    assert len(codes) >= len(OTHERS)
    for code in codes:
        compile(code, str(PAGE), "exec")


def command_lines():
    for block in re.findall(r"```bash\n(.*?)\n```\n", TEXT, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["instance-crf"]:
                yield pytest.param(words[1:], id=" ".join(words[:3]))


@pytest.mark.parametrize("words", list(command_lines()))
def test_command(words, monkeypatch):
    """Its arguments are understood; nothing is run."""
    given = []
    module = f"instance_crf{COMMANDS[words[0]][0]}"
    monkeypatch.setattr(f"{module}.run", lambda args: given.append(args) or 0)
    assert main(words) == 0 and given


def test_the_merged_parts_of_the_commands_exist():
    from instance_crf.commands.models import read_groups

    merged = re.findall(r'--taxonomy (\w+)[^`]*?--merge "(.*?)"', TEXT)
    assert merged
    for name, groups in merged:
        get_taxonomy(name).merge(read_groups(groups), rest="background")


def id_table(name):
    """A row of the page's last table."""
    taxonomy = get_taxonomy(name)
    names = ", ".join(f"{j} {part}" for j, part in enumerate(taxonomy.part_names, 1))
    return f"| `{name}` | {names} |"


def test_id_tables():
    shown = re.findall(r"^\| `\w+` \| 1 .*\|$", TEXT.partition("\n## Id tables\n")[2], re.MULTILINE)
    assert shown == [id_table(name) for name in TAXONOMY_NAMES]


def test_links():
    def anchors(text):
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}

    links = re.findall(r"\]\(([^)#]*)#?([^)]*)\)", TEXT)
    assert links
    for file, anchor in links:
        target = PAGE.parent / file if file else PAGE
        assert target.is_file(), file
        assert not anchor or anchor in anchors(target.read_text()), anchor
