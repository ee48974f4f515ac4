"""The command ``instance-crf``: parse, compare, check, evaluate, taxonomies.

Each command is a module with ``add_arguments(parser)`` and ``run(args) -> exit status``, imported
when the command is used: help comes at once, and nothing is imported for a command's sake that
another needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from . import __version__
from .program import run_program

__all__ = ["COMMANDS", "main", "main_of"]

#: Name -> its module and what it does.
COMMANDS = {
    "parse": (
        ".commands.parse",
        "from photos, a part model and a detector: for every pixel a part and a person",
    ),
    "compare": (
        ".commands.compare",
        "what the CRF changes, beside simpler ways to share the parts out among the boxes",
    ),
    "check": (
        ".commands.check",
        "whether a part model gets the right input: range, order of the channels",
    ),
    "evaluate": (".commands.evaluate", "measure saved predictions in any usual format"),
    "taxonomies": (".commands.taxonomies", "what the ids of a part model or a data set mean"),
}
EPILOG = """\
examples:
  instance-crf parse holiday/ --parts hf:mattmdjaga/segformer_b2_clothes \\
      --detector torchvision:fasterrcnn_resnet50_fpn --output parsed/
  instance-crf taxonomies cihp

`instance-crf COMMAND --help` says more. Exit status: 0 all done, 1 an error or something not done,
2 wrong arguments, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return _exit_status(lambda: _parser(argv[0] if argv else ""), argv)


def main_of(name: str, argv: Sequence[str] | None = None, *, description: str) -> int:
    """Run the command ``name`` as a program of its own; returns the exit status."""

    def parser() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
        _fill(parser, name)
        parser.description, parser.epilog = description, None
        return parser

    return _exit_status(parser, argv)


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Of all commands, but with the arguments of the one ``chosen`` only."""
    parser = argparse.ArgumentParser(
        prog="instance-crf",
        description="Instance-level human parsing: for every pixel a part and the person it "
        "belongs to.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"instance-crf {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            _fill(command, name)
    return parser


def _fill(parser: argparse.ArgumentParser, name: str) -> None:
    module = import_module(COMMANDS[name][0], __package__)
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def _exit_status(
    make_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None
) -> int:
    def main() -> int:
        args = make_parser().parse_args(argv)
        return args.run(args)

    return run_program(main)
