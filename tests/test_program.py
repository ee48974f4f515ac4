"""The end of a program: its exit status, and one line for an error."""

import pytest

from instance_crf.program import run_program


def fail(error):
    def main():
        raise error

    return main


def test_exit_status():
    assert run_program(lambda: None) == 0
    assert run_program(lambda: 3) == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a is 3;\n  it must be 4"), "error: a is 3; it must be 4\n"),
        (ImportError("no module"), "error: no module\n"),
        (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y: Permission denied\n"),
        (FileNotFoundError("x does not exist"), "error: x does not exist\n"),
        (ValueError(), "error: ValueError\n"),
    ],
)
def test_an_error_is_one_line(capsys, error, line):
    assert run_program(fail(error)) == 1
    assert capsys.readouterr().err == line


def test_an_interruption(capsys):
    assert run_program(fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_our_own_errors_keep_their_traceback():
    with pytest.raises(RuntimeError):
        run_program(fail(RuntimeError()))
