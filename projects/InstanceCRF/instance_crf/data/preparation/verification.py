"""Looking through a data set on disk before a training run finds out the hard way.

Legend: P parts; H, W image size in pixels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ...taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from ..datasets.canonical import (
    IMAGE_SUFFIXES,
    TAXONOMY_FILE,
    check_taxonomy_file,
    files_by_stem,
    list_files,
    read_id_list,
    split_folder,
)
from ..datasets.index import TURNED, ImageFiles, index_image, make_record, read_classes
from ..datasets.pascal_person_part import (
    PERSON_PART_TAXONOMY,
    part_heights,
    recognise_class_order,
)
from ..label_io import palette_of, read_label_png, read_object_map, read_part_map
from ..parallel import parallel_map

__all__ = ["Report", "verify_files", "verify_split"]

#: Objects smaller than this many pixels are worth a look.
TINY_OBJECT = 20


@dataclass
class Report:
    """What was found. ``errors`` make the data unusable; ``warnings`` deserve a look.

    Both map a kind of finding to the places where it was found.
    """

    title: str
    errors: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    warnings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    facts: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.errors

    def describe(self, shown: int = 5) -> str:
        """The report as text, with at most ``shown`` places of each kind."""
        lines = [self.title, *(f"  {fact}" for fact in self.facts)]
        for label, findings in (("ERROR", self.errors), ("warning", self.warnings)):
            for kind, places in findings.items():
                lines.append(f"{label}: {kind} ({len(places)})")
                lines += [f"    {place}" for place in places[:shown]]
                if len(places) > shown:
                    lines.append(f"    ... and {len(places) - shown} more")
        warned = sum(map(len, self.warnings.values()))
        verdict = "OK" if self.ok else "NOT USABLE"
        lines.append(f"{verdict}: {sum(map(len, self.errors.values()))} errors, {warned} warnings.")
        return "\n".join(lines)


def verify_split(
    root: str | Path, split: str, taxonomy: PartTaxonomy, *, workers: int | None = None
) -> Report:
    """Check every file of one split in the canonical layout.

    Args:
        root, split, taxonomy: as registered.
        workers: threads; default one a core.
    """
    folder = split_folder(root, split)
    report = Report(f"{folder} ({taxonomy.num_parts} parts)")
    try:
        ids = read_id_list(folder / f"{split}_id.txt")
        check_taxonomy_file(folder.parent / TAXONOMY_FILE, taxonomy)
        paths = [folder / name for name in ("Images", "Category_ids", "Human_ids")]
        _find_orphans(paths, set(ids), report)
        files = list_files(*paths, ids)
    except (OSError, ValueError) as error:
        report.errors["the files of the split"].append(str(error))
        return report
    instance_ids = folder / "Instance_ids"
    _verify_files(
        report,
        files,
        taxonomy,
        classes=folder / "object_classes.json",
        instance_ids=instance_ids if instance_ids.is_dir() else None,
        workers=workers,
    )
    return report


def verify_files(
    title: str, files: Sequence[ImageFiles], taxonomy: PartTaxonomy, *, workers: int | None = None
) -> Report:
    """Check images from anywhere, e.g. those of a part YAML."""
    report = Report(title)
    _verify_files(report, files, taxonomy, workers=workers)
    return report


def _verify_files(
    report: Report,
    files: Sequence[ImageFiles],
    taxonomy: PartTaxonomy,
    *,
    classes: Path | None = None,
    instance_ids: Path | None = None,
    workers: int | None = None,
) -> None:
    try:
        given = read_classes(classes, taxonomy)
    except ValueError as error:
        report.errors["the classes of the objects"].append(str(error))
        return
    findings = parallel_map(
        partial(_verify_image, taxonomy=taxonomy, given=given, instance_ids=instance_ids),
        files,
        description=f"Verifying {report.title}",
        workers=workers,
    )
    _summarise(findings, taxonomy, report)


@dataclass
class _Finding:
    """What one image contributes."""

    image_id: str
    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    objects: int = 0
    heights: list[tuple[int, float]] = field(default_factory=list)
    labelled: bool = False
    part_file: str = ""
    palette: bytes = b""


def _verify_image(
    files: ImageFiles, *, taxonomy: PartTaxonomy, given: dict, instance_ids: Path | None
) -> _Finding:
    found = _Finding(files.image_id)
    try:
        entry = index_image(files, taxonomy, given.get(files.image_id, {}))
        if files.parts is None:
            return found
        parts, objects = read_part_map(files.parts), read_object_map(files.objects)
        if "turned" in entry:
            found.warnings.append((f"photos {TURNED}", files.photo))
        found.labelled = True
        found.part_file, found.palette = files.parts, palette_of(files.parts)
        found.pixels = np.bincount(parts.reshape(-1), minlength=256)
        found.objects = len(entry["objects"])
        annotations = make_record(files, entry)["annotations"]
        _check_objects(files, parts, objects, annotations, taxonomy, found)
        if taxonomy.part_names == PERSON_PART_TAXONOMY.part_names:
            found.heights = part_heights(parts, objects)
        if instance_ids is not None:
            _check_instance_ids(instance_ids, files, parts, objects, taxonomy, found)
    except (OSError, ValueError) as error:
        found.errors.append(("files that cannot be used", str(error)))
    return found


def _check_objects(files, parts, objects, annotations, taxonomy, found: _Finding) -> None:
    is_part = (parts > 0) & (parts != IGNORE_LABEL)
    stray = int((is_part & (objects == 0)).sum())
    if stray:
        found.warnings.append(
            ("part pixels outside of every object", f"{files.parts}: {stray} pixels")
        )
    if not annotations:
        found.warnings.append(("images without objects", files.objects))
    ids = sorted(a["object_id"] for a in annotations)
    if ids != list(range(1, len(ids) + 1)):
        found.warnings.append(("object ids with gaps", f"{files.objects}: {ids[:10]}"))
    owners = taxonomy.owner_lut()[parts]
    for annotation in annotations:
        mask = objects == annotation["object_id"]
        where = f"{files.objects}: object {annotation['object_id']}"
        if mask.sum() < TINY_OBJECT:
            found.warnings.append(
                (f"objects of less than {TINY_OBJECT} pixels", f"{where}, {mask.sum()} pixels")
            )
        if not (is_part & mask).any() and not (parts[mask] == IGNORE_LABEL).any():
            found.warnings.append(("objects without any part", where))
        foreign = mask & is_part & (owners != annotation["category_id"])
        if foreign.any():
            name = taxonomy.part_names[int(parts[foreign][0]) - 1]
            found.errors.append(
                (
                    "objects with parts of another class",
                    f"{where} is a {taxonomy.object_names[annotation['category_id']]} but has "
                    f"{int(foreign.sum())} pixels of parts like {name!r}",
                )
            )


def _check_instance_ids(folder, files, parts, objects, taxonomy, found: _Finding) -> None:
    """CIHP's rule: instance id = (person - 1) * (P + 1) + part, on every part pixel."""
    path = folder / f"{files.image_id}.png"
    instances = read_label_png(path).astype(np.int64)
    if instances.shape != parts.shape:
        raise ValueError(f"{path} is {instances.shape} (height, width), expected {parts.shape}.")
    known = (parts > 0) & (parts != IGNORE_LABEL) & (objects > 0)
    expected = (objects.astype(np.int64) - 1) * (taxonomy.num_parts + 1) + parts
    wrong = int((known & (instances != expected)).sum())
    if wrong:
        kind = f"Instance_ids against the rule (person - 1) * {taxonomy.num_parts + 1} + part"
        found.errors.append((kind, f"{path}: {wrong} pixels"))


def _find_orphans(paths: list[Path], ids: set[str], report: Report) -> None:
    for path in paths:
        if path.is_dir():
            suffixes = IMAGE_SUFFIXES if path.name == "Images" else (".png",)
            for image_id, name in files_by_stem(path, suffixes).items():
                if image_id not in ids:
                    report.warnings["files that the list does not name"].append(name)


def _summarise(findings: list[_Finding], taxonomy: PartTaxonomy, report: Report) -> None:
    for found in findings:
        for kind, place in found.errors:
            report.errors[kind].append(place)
        for kind, place in found.warnings:
            report.warnings[kind].append(place)
    labelled = [f for f in findings if f.labelled]
    report.facts.append(f"{len(findings)} images, {len(labelled)} with readable labels")
    if not labelled:
        return
    per_image = Counter(f.objects for f in labelled)
    report.facts.append(
        f"{sum(f.objects for f in labelled)} objects; images by number of objects: "
        + ", ".join(f"{n}: {count}" for n, count in sorted(per_image.items()))
    )
    pixels = np.sum([f.pixels for f in labelled], axis=0)
    report.facts.append(
        f"pixels: {pixels[0] / pixels.sum():.1%} background, "
        f"{pixels[IGNORE_LABEL] / pixels.sum():.1%} ignored"
    )
    present = np.sum([f.pixels > 0 for f in labelled], axis=0)
    for j, name in enumerate(taxonomy.part_names, 1):
        report.facts.append(
            f"{j:4d} {name:32s} {pixels[j] / pixels.sum():8.3%} of pixels, {present[j]} images"
        )
        if not present[j]:
            report.warnings["parts that never appear"].append(f"{j} {name}")
    _compare_palettes(labelled, report)
    heights = [h for f in labelled for h in f.heights]
    if heights and recognise_class_order(heights) == "other":
        report.errors["the order of the six classes"].append(
            "part 2 is on top of people and part 5 at the bottom: these ids are 1 lower arms, "
            "2 head, 3 upper legs, 4 torso, 5 lower legs, 6 upper arms. Convert them with "
            "datasets/prepare_pascal_person_part.py --instances."
        )


def _compare_palettes(findings: list[_Finding], report: Report) -> None:
    """Programs that save a palette picture again may renumber its colours, and so the ids."""
    palettes = Counter(f.palette for f in findings if f.palette)
    if not palettes:
        return
    usual = max(palettes, key=lambda palette: (palettes[palette], len(palette)))
    for found in findings:
        common = min(len(found.palette), len(usual))  # colours at the end may be left out
        if found.palette[:common] != usual[:common]:
            kind = "palettes unlike those of the other files: are the ids still the same?"
            report.warnings[kind].append(found.part_file)
