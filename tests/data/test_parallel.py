"""Progress: a bar where there is tqdm and enough to do, lines beside it."""

import sys

import pytest

from instance_crf.data.parallel import print_beside_bar, progress_bar


@pytest.mark.parametrize(
    "total, least, bar", [(1, 2, False), (2, 2, True), (49, None, False), (50, None, True)]
)
def test_a_bar_where_it_is_worth_it(total, least, bar, capsys):
    with progress_bar(total, "Working", **({} if least is None else {"least": least})) as advance:
        print_beside_bar("by the way")
        advance(total)
    printed = capsys.readouterr().err
    assert ("Working" in printed and f"{total}/{total}" in printed) == bar
    assert "by the way\n" in printed


def test_without_tqdm_there_are_the_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar(50, "Working") as advance:
        print_beside_bar("by the way")
        advance(50)
    assert capsys.readouterr() == ("", "by the way\n")
