"""Evaluate a folder of predictions against a folder of ground truth, with several processes."""

from __future__ import annotations

import copy
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from ...data.parallel import default_workers, end_with_parent, progress_bar
from ...taxonomies.schema import PartTaxonomy
from ..protocols import Protocol
from .export_folder import check_images, read_manifest
from .formats import PREDICTION_READERS, TRUTH_READERS, COCOPredictions, COCOTruth
from .part_parsing import METRICS, PartParsingMetrics

__all__ = ["Evaluation", "caveat", "evaluate_folder"]

_IMAGES_AT_A_TIME = 16


@dataclass(frozen=True)
class Evaluation:
    """What one run evaluates.

    Attributes:
        predictions, truth: folders.
        prediction_format, truth_format: see :mod:`.formats`; ``coco`` goes with ``coco``.
        taxonomy: of both.
        protocols: of the APs.
        metrics: of :data:`METRICS`.
        image_ids: evaluate these alone; None: every image with ground truth.
        reader_options: keywords of the reader of predictions.
    """

    predictions: Path
    truth: Path
    prediction_format: str
    truth_format: str
    taxonomy: PartTaxonomy
    protocols: Sequence[str | Protocol] = ("sds",)
    metrics: Sequence[str] = METRICS
    image_ids: Sequence[str] | None = None
    reader_options: dict = field(default_factory=dict)

    def new_metrics(self) -> PartParsingMetrics:
        """An empty accumulator."""
        metrics = self.metrics
        if self.prediction_format == "coco":
            metrics = [m for m in metrics if m in ("part_apr", "object_apr")]
        return PartParsingMetrics(
            self.taxonomy.part_names, self.taxonomy.object_names, self.protocols, metrics
        )

    def open(self) -> _Source:
        """The files.

        Raises:
            ValueError, FileNotFoundError: an unknown format; folders that are not of their format.
        """
        if "coco" in (self.prediction_format, self.truth_format):
            if self.prediction_format != self.truth_format:
                raise ValueError(
                    "Predictions in COCO's instance format need ground truth in the same format."
                )
            return _COCOSource(self)
        return _MapSource(self)


class _Source:
    """Predictions and ground truth, image by image."""

    truth_ids: list[str]
    prediction_ids: list[str]

    def add(self, metrics: PartParsingMetrics, image_id: str) -> None:
        raise NotImplementedError

    def restricted_to(self, image_ids: Sequence[str]) -> _Source:
        """A copy for these images, to be sent to another process."""
        raise NotImplementedError


class _MapSource(_Source):
    def __init__(self, task: Evaluation) -> None:
        prediction = _look_up(PREDICTION_READERS, task.prediction_format, "prediction")
        truth = _look_up(TRUTH_READERS, task.truth_format, "ground-truth")
        self.predictions = prediction(task.predictions, task.taxonomy, **task.reader_options)
        self.truth = truth(task.truth, task.taxonomy)
        self.truth_ids = self.truth.image_ids()
        self.prediction_ids = self.predictions.image_ids()
        self._predicted = set(self.prediction_ids)

    def add(self, metrics: PartParsingMetrics, image_id: str) -> None:
        predicted = image_id in self._predicted
        prediction = self.predictions.read(image_id) if predicted else None
        truth = self.truth.read(image_id)
        try:
            metrics.add(image_id, prediction, truth)
        except ValueError as error:  # each is sound by itself
            folders = f"{self.predictions.root} and {self.truth.root} disagree"
            raise ValueError(f"{folders}: {error}") from None

    def restricted_to(self, image_ids: Sequence[str]) -> _MapSource:
        part = copy.copy(self)
        part.predictions = self.predictions.restricted_to(image_ids)
        part.truth = self.truth.restricted_to(image_ids)
        part.truth_ids = list(image_ids)
        part.prediction_ids = [i for i in image_ids if i in self._predicted]
        part._predicted = set(part.prediction_ids)
        return part


class _COCOSource(_Source):
    def __init__(self, task: Evaluation) -> None:
        self.truth = COCOTruth(task.truth, task.taxonomy)
        self.predictions = COCOPredictions(task.predictions, task.taxonomy, self.truth)
        self.truth_ids = self.prediction_ids = self.truth.image_ids()
        # A kind that only one side has is not evaluated: it would be all misses.
        self.kinds = [k for k in self.truth.kinds if k in self.predictions.kinds]
        if not self.kinds:
            raise ValueError(
                f"{task.predictions} has {', '.join(self.predictions.kinds)}.json and {task.truth} "
                f"has {', '.join(self.truth.kinds)}.json: nothing to compare."
            )

    def add(self, metrics: PartParsingMetrics, image_id: str) -> None:
        for kind, targets in (("parts", metrics.parts), ("objects", metrics.objects)):
            if kind not in self.kinds:
                for metric in targets.values():
                    metric.available = False
                continue
            prediction = self.predictions.regions(kind, image_id)
            truth = self.truth.regions(kind, image_id)
            ious = prediction.iou(truth)
            for metric in targets.values():
                metric.add_regions(
                    int(image_id) if self.truth.numbers else image_id,  # so they rank in COCO
                    scores=prediction.scores,
                    classes=prediction.classes,
                    ious=ious,
                    truth_classes=truth.classes,
                    truth_crowd=truth.crowd,
                )

    def restricted_to(self, image_ids: Sequence[str]) -> _COCOSource:
        part = copy.copy(self)
        part.truth = self.truth.restricted_to(image_ids)
        part.predictions = self.predictions.restricted_to(image_ids)
        part.truth_ids = part.prediction_ids = list(image_ids)
        return part


def evaluate_folder(task: Evaluation, *, workers: int | None = None) -> PartParsingMetrics:
    """Evaluate, with a progress bar.

    Args:
        task: what to evaluate.
        workers: processes; None: one a core.

    Raises:
        ValueError, FileNotFoundError: whatever the files contradict, by the file's name;
            predictions of images that have no ground truth; an export that is not whole.
    """
    manifest = read_manifest(task.predictions)
    source = task.open()
    image_ids = _images(task, source)
    if manifest is not None and task.prediction_format != "coco":  # whose files list no images
        check_images(manifest, source.prediction_ids, task.predictions)
    total = task.new_metrics()
    workers = default_workers() if workers is None else workers
    if workers <= 1 or len(image_ids) <= _IMAGES_AT_A_TIME:
        with progress_bar(len(image_ids), "Evaluating") as advance:
            for image_id in image_ids:
                source.add(total, image_id)
                advance(1)
    else:
        _evaluate_in_processes(task, source, image_ids, workers, total)
    if read_manifest(task.predictions) != manifest:
        raise ValueError(
            f"{task.predictions} got another export while it was evaluated. Evaluate it again."
        )
    return total


def caveat(protocol: Protocol, prediction_format: str, truth_format: str) -> str | None:
    """What these files cannot tell that the protocol asks for, and what becomes of it."""
    if protocol.crowd == "absorb" and truth_format != "coco":
        return f"{truth_format} files mark no crowds, so none excuses a prediction that lies in it"
    if protocol.ignore == "erase" and truth_format == "coco":
        return "coco files have no ignored pixels, so none are erased; those of crowds stay, too"
    if protocol.images == "predicted" and prediction_format == "coco":
        return "coco files do not list the images without a prediction, so these count, too"
    return None


def _evaluate_in_processes(
    task: Evaluation,
    source: _Source,
    image_ids: Sequence[str],
    workers: int,
    total: PartParsingMetrics,
) -> None:
    chunks = [
        image_ids[i : i + _IMAGES_AT_A_TIME] for i in range(0, len(image_ids), _IMAGES_AT_A_TIME)
    ]
    shares = ((task, source.restricted_to(chunk)) for chunk in chunks)
    pool = ProcessPoolExecutor(workers, _context(), initializer=end_with_parent)
    with pool, progress_bar(len(image_ids), "Evaluating") as advance:
        try:
            with _no_program():  # in which the pool starts its processes
                parts = pool.map(_evaluate, shares)
            for chunk, part in zip(chunks, parts, strict=True):
                total.merge(part)
                advance(len(chunk))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _images(task: Evaluation, source: _Source) -> list[str]:
    """The images to evaluate.

    Raises:
        ValueError: no ground truth; a prediction or a listed image without ground truth.
    """
    known = set(source.truth_ids)
    if not known:
        raise ValueError(f"{task.truth} has no ground truth in the {task.truth_format} format.")
    wanted = source.truth_ids if task.image_ids is None else list(task.image_ids)
    nameless = [i for i in wanted if i not in known]
    if nameless:
        raise ValueError(f"Image {nameless[0]!r} of the list has no ground truth in {task.truth}.")
    stray = [i for i in source.prediction_ids if i not in known]
    if stray:
        raise ValueError(
            f"{len(stray)} prediction(s) in {task.predictions} have no ground truth in "
            f"{task.truth}, the first is {stray[0]!r}. Is it the right split?"
        )
    return wanted


def _look_up(registry: dict, name: str, kind: str):
    if name not in registry:
        raise ValueError(f"Unknown {kind} format {name!r}; it is one of {', '.join(registry)}.")
    return registry[name]


def _context() -> multiprocessing.context.BaseContext:
    """Processes that do not inherit this one's threads, and import the package once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextmanager
def _no_program() -> Iterator[None]:
    """Processes started in here do not import the program that runs (``__main__``) once more.

    They need nothing of it, and it may have imported torch and Detectron2, which take seconds and
    half a gigabyte a process.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _evaluate(share: tuple[Evaluation, _Source]) -> PartParsingMetrics:
    task, source = share
    metrics = task.new_metrics()
    for image_id in source.truth_ids:
        source.add(metrics, image_id)
    return metrics
