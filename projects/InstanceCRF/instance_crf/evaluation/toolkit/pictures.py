"""Pictures of the first validation images, drawn while they are evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ...data.image_io import read_image
from ...results.files import write_picture
from ...visualization import ROW_TITLES, draw_row, make_sheet

__all__ = ["PartInstancePictures"]

logger = logging.getLogger(__name__)


class PartInstancePictures(DatasetEvaluator):
    """Input with detections, part segmentation, part instances, ground truth: a row an image.

    Every image gets a file of its own, and all of them one sheet, ``sheet.png``. Has no numbers.
    With several processes, each draws its share of the first images, and the first the sheet.
    """

    def __init__(self, dataset_name: str, *, output_dir: str, max_pictures: int = 8):
        """
        Args:
            dataset_name: a registered dataset with part and object maps.
            output_dir: folder of the pictures; made when the first is drawn.
            max_pictures: images to draw.
        """
        self._taxonomy = MetadataCatalog.get(dataset_name).taxonomy
        records = DatasetCatalog.get(dataset_name)[:max_pictures]
        self._records = {record["image_id"]: record for record in records}
        self._output_dir = Path(output_dir)
        self.reset()

    def reset(self) -> None:
        self._rows = {}

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        """
        Args:
            inputs: dicts with ``image_id``.
            outputs: what the model returned for each.
        """
        for one_input, output in zip(inputs, outputs, strict=True):
            image_id = one_input["image_id"]
            record = self._records.get(image_id)
            if record is None:
                continue
            image = read_image(record["file_name"])
            row = draw_row(image, output, self._taxonomy, record=record)
            self._rows[image_id] = row
            self._save([row], Path(record["file_name"]).stem)

    def evaluate(self) -> dict:
        """Write the sheet of all pictures; there are no numbers."""
        drawn = {}
        for share in comm.gather(self._rows):
            drawn |= share
        rows = [drawn[image_id] for image_id in self._records if image_id in drawn]
        if rows:
            path = self._save(rows, "sheet")
            logger.info("Pictures of %d images: %s", len(rows), path)
        return {}

    def _save(self, rows: list, stem: str) -> Path:
        path = self._output_dir / f"{stem}.png"
        write_picture(path, make_sheet(rows, ROW_TITLES, legend=self._taxonomy))
        return path
