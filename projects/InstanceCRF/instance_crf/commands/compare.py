"""The command ``instance-crf compare``: whether joining by a CRF helps, on one's own photos."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.find_images import find_images
from ..data.parallel import print_beside_bar, progress_bar
from ..evaluation.protocols import PROTOCOLS
from ..evaluation.toolkit.formats import TRUTH_READERS
from ..files import check_writable, write_json, write_text
from .models import add_model_arguments, load_models, read_groups

if TYPE_CHECKING:  # they import torch, which arguments and help need not wait for
    from ..own_models.compare_pictures import SketchBook
    from ..own_models.comparison import Comparison
    from ..own_models.truth import TruthFolder

__all__ = ["add_arguments", "run"]

DESCRIPTION = """\
Does the CRF help, with this part model and this detector, on these photos? Nothing is trained. The
factored CRF, without each of its cues, and the joint CRF are compared with simple rules: to the
best-scoring box, to the box whose centre is nearest, to the smallest box, and, where the detector
gives masks, to the best-scoring mask. All see the same Q and boxes, and the models run once for
each photo. The simple rules have Q's foreground and parts, with the borders that the CRFs get.
"""
MEANINGS = """\
All numbers are in percent. In brackets: 95 % of 2000 samples of the photographs, drawn with
replacement, of the difference to the nearest box centre.

- AP50: average precision of {noun} at a mask IoU of 0.5, ranked by {ranking}.
- mIoU: mean IoU of all true {noun}, each with an answer of its own.
- contested: of the pixels in two or more boxes, and of {noun} whose box was found, those that were
  given to the right one, of those given to any.
- answered: of these pixels, those given to any.
"""
PART_MEANINGS = """\
- part APr, {one} APr: by the protocol "{protocol}" ({description}); vol: the mean over its
  thresholds of IoU.
- APp50: average precision of {noun} by the mean IoU of their parts, above 0.5.
- part mIoU: of the part segmentation alone, whosever the parts are. The simple rules and the
  factored CRF leave Q's as it is.
"""
EXAMPLES = """\
examples:
  instance-crf compare photos/ --parts hf:mattmdjaga/segformer_b2_clothes \\
      --detector torchvision:fasterrcnn_resnet50_fpn_v2 --truth truth/ --output compared/
  instance-crf compare CIHP/Images --parts maps/ --taxonomy cihp --detector coco:boxes.json \\
      --truth CIHP --truth-format cihp --output compared/ --pictures 12
"""
_RANKING_WORDS = {
    "share": "score times the share that they have of their box",
    "detection": "the detections' score",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders, patterns")
    add_model_arguments(parser)
    truth = parser.add_argument_group("truth")
    truth.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder of truth")
    truth.add_argument(
        "--truth-format",
        choices=("persons", *TRUTH_READERS),
        default="persons",
        help="persons (the default): whole people, NAME_persons.png with ids 1..n, 0 nobody, 255 "
        "(16 bits: 65535) does not count, and photos.csv with the columns name and truth_partial, "
        "1 where some people are not annotated, if there are any such photos; the others: parts, "
        "as in instance-crf evaluate",
    )
    truth.add_argument(
        "--truth-taxonomy",
        metavar="NAME|FILE",
        help="what the truth's part ids mean; default: taxonomy.json beside it, or the format's",
    )
    truth.add_argument(
        "--truth-merge", metavar="GROUPS", help="coarser parts, as --merge, of the truth"
    )
    parser.add_argument("--ranking", choices=_RANKING_WORDS, default="share", help="default: share")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="sds", help="of the APs of parts (default sds)"
    )
    parser.add_argument(
        "--no-ablation",
        dest="ablation",
        action="store_false",
        help="leave out the factored CRF without a cue or a term",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write results.json and comparison.md here"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=0,
        metavar="N",
        help="and pictures of the N photos on which the factored CRF and the nearest box centre "
        "differ most",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print, write; the exit status is 1 if a photo could not be compared.

    Raises:
        OSError, ImportError, ValueError: about all photos together.
    """
    from ..own_models.compare_pictures import SketchBook
    from ..own_models.comparison import Comparison
    from ..own_models.truth import open_truth

    if args.pictures < 0:
        raise ValueError(f"--pictures is {args.pictures}; it must be 0 or more.")
    if args.pictures and args.output is None:
        raise ValueError("--pictures needs --output, the folder for them.")
    check_writable(args.output, folder=True)
    merge = None if args.truth_merge is None else read_groups(args.truth_merge)
    truth = open_truth(args.truth, args.truth_format, args.truth_taxonomy, merge)
    photos = _photos(args.photos, truth, args.truth)
    comparison = Comparison(
        ranking=args.ranking,
        protocol=args.protocol,
        ablation=args.ablation,
        sketches=SketchBook(args.pictures) if args.pictures else None,
    )
    failed = _compare_all(args, photos, truth, comparison)
    if comparison.images:
        _report(args, comparison, failed)
    if failed:
        print(f"{len(failed)} of {len(photos)} photos not compared", file=sys.stderr)
    return 1 if failed else 0


def _photos(given: Sequence[str], truth: TruthFolder, folder: Path) -> list[Path]:
    """The photos that have a truth.

    Raises:
        FileNotFoundError, ValueError: no photo, none with a truth, two with the same.
    """
    photos, known = find_images(given), set(truth.image_ids())
    found: dict[str, Path] = {}
    for photo in photos:
        if photo.stem not in known:
            continue
        if photo.stem in found:
            raise ValueError(
                f"{found[photo.stem]} and {photo} would both be compared with the truth of "
                f"{photo.stem!r}: give one of them."
            )
        found[photo.stem] = photo
    without = [photo for photo in photos if photo.stem not in known]
    if not found:
        raise ValueError(
            f"None of the {len(photos)} photos has a truth in {folder}: the first is "
            f"{photos[0].stem!r}, and there is truth of {sorted(known)[0]!r}."
        )
    if without:
        print(
            f"note: {len(without)} of {len(photos)} photos have no truth in {folder} and are left "
            f"out, the first is {without[0]}",
            file=sys.stderr,
        )
    return list(found.values())


def _compare_all(
    args: argparse.Namespace, photos: Sequence[Path], truth: TruthFolder, comparison: Comparison
) -> dict[str, str]:
    """Photo -> why it could not be compared."""
    from ..own_models.join import Join

    parts, detector, taxonomy, merge = load_models(args)
    join = Join(
        kind="prob",  # unless the part model says otherwise
        parts=taxonomy,
        merge=merge,
        working_size=args.size,
        least_score=args.least_score,
    )
    truth.check_parts(taxonomy.merge(merge, rest="background")[0] if merge else taxonomy)
    failed = {}
    with progress_bar(len(photos), "Comparing", least=2) as advance:
        for photo in photos:
            try:
                problem = join.prepare(photo, parts, detector, None, None)
                truth.check_parts(problem.taxonomy)
                comparison.add(photo.stem, problem, truth.read(photo.stem))
            except ImportError:
                raise  # would be the same for all photos
            except Exception as error:  # models of others raise what they like
                plain = isinstance(error, (OSError, ValueError)) and str(error)
                failed[str(photo)] = str(error) if plain else f"{type(error).__name__}: {error}"
                print_beside_bar(f"error: {photo}: {failed[str(photo)]}")
            else:
                for doubt in problem.doubts:
                    print_beside_bar(f"warning: {doubt}")
            advance(1)
    return failed


def _report(args: argparse.Namespace, comparison: Comparison, failed: dict[str, str]) -> None:
    """Print, and write if there is a folder for it."""
    from ..own_models.comparison import format_tables

    with warnings.catch_warnings(record=True) as defects:
        warnings.simplefilter("always")
        rows = comparison.rows()
    notes = [*comparison.notes, *dict.fromkeys(str(each.message) for each in defects)]
    content = {
        "settings": _settings(args),
        "photographs": comparison.images,
        "people": comparison.num_people,
        "unit": "percent",
        "rows": rows,
        "conclusion": comparison.conclusion(rows),
        "notes": notes,
        "failed": failed,
    }
    counted = (
        f"{len(comparison.images)} photographs, {comparison.num_people} {comparison.noun}, working "
        f"size {args.size}, detections from {args.least_score:g}"
    )
    tables = "\n".join(format_tables(rows))
    print(f"{counted}, percent\n\n{tables}\n\n{content['conclusion']['sentence']}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.output is not None:
        paragraphs = [f"{counted}.", tables, _meanings(args, comparison, rows), *notes]
        _write(args.output, content, paragraphs, comparison.sketches)


def _write(
    folder: Path, content: dict, paragraphs: Sequence[str], sketches: SketchBook | None
) -> None:
    names = ["comparison.md", "results.json"]
    if sketches is not None and sketches.draw(
        folder / "comparison.png", content["conclusion"]["rule"]
    ):
        names.append("comparison.png")
    lines = ["# Does the CRF help?", content["conclusion"]["sentence"], *paragraphs]
    lines += [f"![photographs]({name})" for name in names[2:]]
    settings = [f"- {key}: {value}" for key, value in content["settings"].items()]
    lines += ["## Settings", "\n".join(settings)]
    if content["failed"]:
        failed = [f"- {photo}: {reason}" for photo, reason in content["failed"].items()]
        lines += ["## Not compared", "\n".join(failed)]
    write_text(folder / "comparison.md", "\n\n".join(lines) + "\n")
    write_json(folder / "results.json", content)
    print(f"Written to {folder}: {', '.join(names)}")


def _meanings(args: argparse.Namespace, comparison: Comparison, rows: Sequence[dict]) -> str:
    words = {"noun": comparison.noun, "ranking": _RANKING_WORDS[args.ranking]}
    text = MEANINGS.format(**words)
    if any("parts" in row for row in rows):
        protocol = PROTOCOLS[args.protocol]
        one = "person" if comparison.noun == "people" else "object"
        text += PART_MEANINGS.format(
            one=one, protocol=protocol.name, description=protocol.description, **words
        )
    return text.rstrip()


def _settings(args: argparse.Namespace) -> dict:
    """All arguments but the photos and what is written."""
    others = ("photos", "output", "pictures", "run")
    values = {name: v for name, v in vars(args).items() if name not in others and v is not None}
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = str(value)
        elif isinstance(value, list):  # keys and values
            values[name] = dict(value)
    return values
