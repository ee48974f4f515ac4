"""After inference: the files that other people's evaluators read.

:func:`export_predictions` writes results that one has in hand; during evaluation,
:class:`instance_crf.evaluation.evaluators.PredictionExporter` writes them from all processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...structures import PartInstances
from ...taxonomies.schema import PartTaxonomy
from ..parsing import Parsing, parsing_of_result
from .formats import WRITERS, PredictionWriter

__all__ = ["export_predictions", "make_writer"]


def make_writer(
    format_name: str, root: str | Path, taxonomy: PartTaxonomy, **options
) -> PredictionWriter:
    """The writer of a format.

    Args:
        format_name: ``cihp``, ``mhp``, ``tvg``, ``panoptic``, ``coco`` or ``partpq``.
        root: the folder to write to.
        taxonomy: of the predictions.
        **options: of the format's writer.

    Raises:
        ValueError: an unknown format.
    """
    if format_name not in WRITERS:
        raise ValueError(f"Unknown format {format_name!r}; it is one of {', '.join(WRITERS)}.")
    return WRITERS[format_name](root, taxonomy, **options)


def export_predictions(
    format_name: str,
    root: str | Path,
    taxonomy: PartTaxonomy,
    results: Iterable[tuple[str, PartInstances | Parsing]],
    *,
    score_name: str | None = None,
    **options,
) -> None:
    """Write results as one format's files.

    Args:
        format_name, root, taxonomy, options: see :func:`make_writer`.
        results: (image id, result) pairs.
        score_name: of :data:`instance_crf.structures.SCORE_NAMES`; None: each result's own.
    """
    with make_writer(format_name, root, taxonomy, **options) as writer:
        for image_id, result in results:
            if not isinstance(result, Parsing):
                result = parsing_of_result(result, score_name)
            writer.add(str(image_id), result)
