#!/usr/bin/env python
"""How well the CRFs join somebody's part model with somebody's detector, on photographs.

    python tools/evaluate_photographs.py FOLDER
    python tools/evaluate_photographs.py FOLDER --rows factored --output DIR --pictures 12

Nothing is trained. The CRFs, with their initial weights, are compared with the simplest things that
one would do. FOLDER holds

    photos/NAME.jpg         (or .png)
    q/NAME.npz              a part model's logits: person_logit (1, h, w), part_logits (24, h, w),
                            the parts of BodyPix; corners aligned with those of the photograph
    boxes/*.json            one file: {NAME: {"boxes": [[x1, y1, x2, y2], ...], "scores": [...]}},
                            people only, in pixels of the photograph
    truth/NAME_persons.png  8 bits: 0 nobody, 1..n a person, 255 does not count
    photos.csv              with the columns name and truth_partial: 1 where some people are not
                            annotated, who would be taken for false alarms by AP; optional

Q and the CRFs work at ``--side`` pixels along the longer side, with the 24 parts merged into six.
All answers are read at the photograph's own size: probabilities are resized, bilinearly, never
labels; the simple rules are applied at that size, to Q so resized and the boxes as they are. They
give nobody what lies outside of all boxes.

Each row: AP of people at IoU 0.5, mean IoU of all true people, the share of contested pixels (in
two or more boxes) that got the right person, and how many of them got any (exactly:
instance_crf.evaluation.toolkit.person_maps). Then, in brackets, the 95 % interval over the
photographs, paired, of the difference to the nearest box centre with the same boxes, Q and ranking.

``--pictures`` draws the photographs with the most contested pixels, for somebody to look at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from instance_crf.crf import DenseInstanceCRF, FactoredInstanceCRF
from instance_crf.crf.labelling import resize_maps
from instance_crf.crf.place import region_templates
from instance_crf.crf.potentials import CUES
from instance_crf.evaluation.toolkit.person_maps import (
    PERSON_MAP_METRICS,
    PersonMapCounts,
    bootstrap,
    compare_person_maps,
    interval_ends,
    match_boxes,
    metric_cells,
    numbered_by_detection,
    summarize,
    tight_boxes,
)
from instance_crf.evaluation.toolkit.person_pictures import draw_people, number_truth
from instance_crf.evaluation.toolkit.photographs import (
    REGIONS,
    Inputs,
    Photograph,
    find_photographs,
    read_photograph,
)
from instance_crf.files import check_writable, write_json
from instance_crf.program import run_program
from instance_crf.results.files import write_picture
from instance_crf.rules import (
    NEAREST,
    SIMPLE_RULES,
    Preference,
    box_owners,
    by_centre,
)
from instance_crf.structures import PartInstances
from instance_crf.visualization import (
    draw_detections,
    make_sheet,
)

GROUPS = ("simple", "joint", "factored", "cues", "terms", "reach", "nobody", "boxes", "oracle")
Method = Callable[[Photograph], tuple[Tensor, Tensor]]
"""-> (H, W) int64 person map, 0 nobody, i + 1 detection i; (H, W) bool foreground."""


def simple_rule(preference: Preference) -> Method:
    """Each foreground pixel to the most preferred of the boxes that it lies in."""

    def method(photo: Photograph) -> tuple[Tensor, Tensor]:
        boxes, scores = torch.from_numpy(photo.boxes), torch.from_numpy(photo.scores)
        foreground = photo.foreground()
        return box_owners(preference, boxes, scores, foreground), foreground

    return method


def joint() -> Method:
    """The paper's CRF."""
    crf = DenseInstanceCRF(reference_size=500)
    return lambda photo: _answer(crf(*photo.crf_inputs()).label_maps(photo.size))


def joint_identity() -> Method:
    """Whose the paper's CRF thinks a pixel would be, on Q's own foreground."""
    crf = DenseInstanceCRF(reference_size=500)

    def method(photo: Photograph) -> tuple[Tensor, Tensor]:
        labelling, foreground = crf(*photo.crf_inputs()), photo.foreground()
        of_instance = torch.zeros(len(photo.boxes) + 1, *labelling.size)
        of_instance.index_add_(0, labelling.label_space.label_instance, labelling.marginals())
        if not len(photo.boxes):
            return torch.zeros(photo.size, dtype=torch.int64), foreground
        owner = resize_maps(of_instance[1:], photo.size).argmax(0) + 1
        return torch.where(foreground, owner, 0), foreground

    return method


def factored(**options) -> Method:
    """The factored CRF with other options than the defaults."""
    crf = FactoredInstanceCRF(place_templates=region_templates(REGIONS), **options)
    return lambda photo: _answer(crf(*photo.crf_inputs()).label_maps(photo.size))


def true_identity(photo: Photograph) -> tuple[Tensor, Tensor]:
    """The true person where the truth has one whose box was found; else the nearest centre."""
    owner, foreground = simple_rule(by_centre)(photo)
    found = np.append(0, match_boxes(photo.boxes, tight_boxes(photo.truth)) + 1)
    true = torch.from_numpy(found[np.maximum(photo.truth, 0)])
    return torch.where(foreground & (true > 0), true, owner), foreground


def _answer(maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return maps[0], maps[1] > 0


@dataclass(frozen=True)
class Row:
    """One line of the table. ``ranking`` and ``min_share``: see `PartInstances`."""

    group: str
    name: str
    method: Method
    inputs: Inputs = Inputs()
    ranking: str = "detection"
    min_share: float = 0.0

    def is_baseline_of(self, other: Row) -> bool:
        """Whether ``other`` is compared with this row."""
        same = ("inputs", "ranking", "min_share")
        return self.name == NEAREST and all(
            getattr(self, name) == getattr(other, name) for name in same
        )


SIMPLE = {name: simple_rule(preference) for name, preference in SIMPLE_RULES.items()}


def make_rows() -> list[Row]:
    """All rows, in the order of the table."""
    rows = [Row("simple", name, method) for name, method in SIMPLE.items()]
    rows += [
        Row("joint", "joint CRF", joint()),
        Row("joint", "joint CRF's identity on Q's foreground", joint_identity()),
        Row(
            "factored", "factored CRF, Eq. 2-3 as the potential", factored(potential="consistency")
        ),
        Row("factored", "factored CRF, score and box only", factored(cues=("score", "box"))),
        Row("factored", "factored CRF", factored()),
    ]
    for cue in CUES[:-1]:  # there is no evidence here
        rest = [other for other in CUES if other != cue]
        rows.append(Row("cues", f"factored, without the cue {cue}", factored(cues=rest)))
    rows += [
        Row("terms", "factored, without whose's pairwise term", factored(whose_pairwise=False)),
        Row("terms", "factored, what smoothed", factored(what_pairwise=True)),
        Row("terms", "factored, T = 10", factored(num_iterations=10)),
    ]
    rows += [Row("reach", f"factored, reach {r:g}", factored(reach=r)) for r in (1.0, 1.5, 2.0)]
    for beta in (-3.0, -1.0, 1.0):
        method = factored(nobody=True, nobody_potential=beta)
        rows.append(Row("nobody", f"factored, nobody {beta:+g}", method))
    both = {NEAREST: SIMPLE[NEAREST], "factored CRF": factored()}
    for least, ranking, share in (
        (0.3, "share", 0.0),
        (0.15, "detection", 0.0),
        (0.15, "share", 0.0),
        (0.15, "share", 0.1),
        (0.15, "share", 0.2),
    ):
        rows += [Row("boxes", n, m, Inputs(least), ranking, share) for n, m in both.items()]
    everything = {**SIMPLE, "joint CRF": joint(), "factored CRF": factored()}
    rows.append(Row("oracle", "true identity", true_identity))
    for inputs in (Inputs(true_boxes=True), Inputs(true_boxes=True, true_foreground=True)):
        rows += [Row("oracle", n, m, inputs) for n, m in everything.items()]
        rows.append(Row("oracle", "true identity", true_identity, inputs))
    return rows


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--side", type=int, default=320, help="working size, default 320")
    parser.add_argument("--rows", nargs="+", choices=GROUPS, default=GROUPS, help="default: all")
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="B", help="samples")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write results.json here")
    parser.add_argument(
        "--pictures", type=int, default=0, metavar="N", help="and N photographs, to look at"
    )
    args = parser.parse_args(argv)
    if args.side < 16 or args.bootstrap < 1:
        parser.error("--side must be at least 16, --bootstrap at least 1")
    if args.pictures and not args.output:
        parser.error("--pictures needs --output")
    return args


def judge(row: Row, photo: Photograph) -> tuple[np.ndarray, PersonMapCounts]:
    """(H, W) person map of one row on one photograph, and what it adds to the measures."""
    photo = photo.with_inputs(row.inputs)
    with torch.no_grad():
        owner, foreground = row.method(photo)
    people = PartInstances.from_label_maps(
        owner,
        foreground.int(),
        boxes=torch.from_numpy(photo.boxes),
        scores=torch.from_numpy(photo.scores),
        classes=torch.zeros(len(photo.boxes), dtype=torch.int64),
        score_name=row.ranking,
        min_share=row.min_share,
    )
    person_map, scores = numbered_by_detection(
        people.object_map.numpy(),
        people.detection_index.numpy(),
        people.scores.numpy(),
        len(photo.boxes),
    )
    counts = compare_person_maps(
        person_map, photo.truth, photo.boxes, scores, truth_complete=photo.truth_complete
    )
    return person_map, counts


def evaluate(rows: Sequence[Row], photographs: Sequence[dict], side: int) -> list[list]:
    """The PersonMapCounts of each row on each photograph."""
    counts = [[] for _ in rows]
    with tqdm(total=len(rows) * len(photographs), unit="map", disable=None) as progress:
        for found in photographs:
            photo = read_photograph(found, side)
            for row, of_row in zip(rows, counts, strict=True):
                progress.set_postfix_str(f"{photo.name}, {row.name}", refresh=False)
                of_row.append(judge(row, photo)[1])
                progress.update()
    return counts


def tabulate(rows: Sequence[Row], counts: Sequence[list], samples: int) -> list[dict]:
    """Each row's numbers, and the intervals of its difference to the baseline where it has one."""
    drawn = [bootstrap(of_row, samples) for of_row in counts]
    results = []
    for row, of_row, of_samples in zip(rows, counts, drawn, strict=True):
        result = {"group": row.group, "row": row.name, **vars(row.inputs)}
        result |= {"ranking": row.ranking, "min_share": row.min_share}
        result |= dict(zip(PERSON_MAP_METRICS, summarize(of_row).tolist(), strict=True))
        for base, of_base in zip(rows, drawn, strict=True):
            if base.is_baseline_of(row) and base is not row:
                ends = interval_ends(of_samples - of_base).tolist()
                result["interval"] = dict(zip(PERSON_MAP_METRICS, ends, strict=True))
                break
        results.append(result)
    return results


def title(inputs: Inputs, ranking: str, min_share: float) -> str:
    """What the rows of a table have in common."""
    words = ["true boxes" if inputs.true_boxes else f"boxes above {inputs.least_score:g}"]
    words += ["true foreground"] if inputs.true_foreground else []
    words += ["ranked by score x share"] if ranking == "share" else []
    words += [f"least share {min_share:g}"] if min_share else []
    return ", ".join(words)


def format_tables(rows: Sequence[Row], results: Sequence[dict]) -> Iterator[str]:
    """Lines of Markdown, a table for each kind of boxes, Q and ranking."""
    kinds = [(row.inputs, row.ranking, row.min_share) for row in rows]
    for kind in dict.fromkeys(kinds):
        yield f"\n| {title(*kind)} | {' | '.join(PERSON_MAP_METRICS)} |"
        yield "|---" * (len(PERSON_MAP_METRICS) + 1) + "|"
        for result in (r for r, k in zip(results, kinds, strict=True) if k == kind):
            cells = metric_cells(result, result.get("interval"))
            yield f"| {result['row']} | {' | '.join(cells)} |"


def draw(photographs: Sequence[dict], args: argparse.Namespace) -> Path:
    """A sheet: photograph and boxes, three methods, truth; a person has one colour in all."""
    columns = [
        Row("", name, method)
        for name, method in (
            (NEAREST, SIMPLE[NEAREST]),
            ("joint CRF", joint()),
            ("factored CRF", factored()),
        )
    ]
    lines, names = [], []
    for found in tqdm(photographs, unit="picture", disable=None):
        photo = read_photograph(found, args.side)
        pixels = photo.image.round().byte().permute(1, 2, 0).numpy()
        _, boxes, scores, _ = photo.with_inputs(Inputs()).crf_inputs()
        maps = [judge(row, photo)[0] for row in columns]
        maps.append(number_truth(photo.truth, photo.with_inputs(Inputs()).boxes))
        size = (pixels.shape[1], pixels.shape[0])
        line = [draw_detections(pixels, boxes.numpy(), scores.tolist())]
        for each in maps:
            small = cv2.resize(each.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
            line.append(draw_people(pixels, small))
        lines.append(line)
        names.append(photo.name)
    titles = ["photograph", *(row.name for row in columns), "truth"]
    path = args.output / "photographs.png"
    write_picture(path, make_sheet(lines, titles, row_titles=names))
    return path


def run(args: argparse.Namespace) -> list[dict]:
    """Evaluate, print, write; returns the rows of results.json."""
    check_writable(args.output, folder=True)
    photographs = find_photographs(args.folder)
    every = make_rows()
    chosen = [row for row in every if row.group in args.rows]
    rows = [row for row in every if row in chosen or any(map(row.is_baseline_of, chosen))]
    counts = evaluate(rows, photographs, args.side)
    results = tabulate(rows, counts, args.bootstrap)
    people = sum(len(each.ious) for each in counts[0])
    print(f"{len(photographs)} photographs, {people} people, working size {args.side}, percent")
    print("\n".join(format_tables(rows, results)))
    if args.output:
        content = {"photographs": len(photographs), "people": people, "side": args.side}
        write_json(args.output / "results.json", {**content, "rows": results})
    if args.pictures:
        contested = np.array([each.contested for each in counts[0]])
        order = np.argsort(-contested, kind="stable")[: args.pictures]
        print(f"Pictures: {draw([photographs[i] for i in order], args)}")
    return results


def main(argv: Sequence[str] | None = None) -> None:
    run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_program(main))
