"""After inference: the files that other people's evaluators read.

:func:`export_predictions` writes results that one has in hand; during evaluation,
:class:`instance_crf.evaluation.evaluators.PredictionExporter` writes them from all processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...taxonomies.schema import PartTaxonomy
from ..parsing import Parsing, parsing_of_result
from .export_folder import ExportFolder
from .formats import WRITERS, PredictionWriter

if TYPE_CHECKING:  # it imports torch, which labellings need not
    from ...structures import PartInstances

__all__ = ["export_predictions", "make_writer"]


def make_writer(
    format_name: str, root: str | Path, taxonomy: PartTaxonomy, **options
) -> PredictionWriter:
    """The writer of a format, which writes straight into ``root``, beside what is there.

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
    """Write results as one format's files. They replace an earlier export at the end, together.

    Args:
        format_name, taxonomy, options: see :func:`make_writer`.
        root: the folder; files of other names stay.
        results: (image id, result) pairs.
        score_name: of :data:`instance_crf.structures.SCORE_NAMES`; None: each result's own.

    Raises:
        ValueError: an image that comes twice, what the format cannot hold.
        OSError: another process exports to the folder; the files cannot be written.
    """
    with ExportFolder(root) as folder:
        image_ids: list[str] = []
        with make_writer(format_name, folder.new, taxonomy, **options) as writer:
            for image_id, result in results:
                if not isinstance(result, Parsing):
                    result = parsing_of_result(result, score_name)
                image_ids.append(str(image_id))
                writer.add(image_ids[-1], result)
        folder.publish(image_ids)
