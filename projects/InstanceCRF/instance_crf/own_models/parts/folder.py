"""A folder of part scores, a file for each photo.

Letters: H, W size of the image, h, w size of the model's output.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ...taxonomies import PartTaxonomy
from ..images import has_shape_of
from ..inputs import PartScores, Source
from .arrays import ARGUMENTS
from .files import read_file
from .read import checked_scores

__all__ = ["FolderOfParts"]

_ENDINGS = ("_seg.npy", ".npz", ".npy", ".png")
"""In the order in which they are looked for. Sapiens writes ids as NAME_seg.npy, and beside them
NAME.npy, a mask of the foreground, and a picture under the photo's own name."""


class FolderOfParts(Source):
    """Files of part scores, named by the photo's stem.

    Args:
        folder: of ``STEM.npy``, ``STEM.npz``, ``STEM.png``, or ``STEM_seg.npy`` (Sapiens), which is
            taken first where there are several.
        taxonomy: of all of them.
        suffix: between the stem and the ending, e.g. "_parts"; then "_seg" is not looked for.
        kind, align_corners, background: of all of them, where the files do not say.
        stretched: photos were stretched to what the network takes, so that scores may have another
            shape than the photo. Square ones are taken for such at any rate.

    Raises:
        FileNotFoundError: no such folder; when called, no file for the photo.
        ValueError: when called, a file whose shape is not the photo's.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        taxonomy: PartTaxonomy | None = None,
        suffix: str | None = None,
        kind: str | None = None,
        align_corners: bool | None = None,
        background: str | None = None,
        stretched: bool = False,
    ) -> None:
        self.folder, self.taxonomy = Path(folder).expanduser(), taxonomy
        if not self.folder.is_dir():
            raise FileNotFoundError(f"The folder of part scores is not there: {folder}")
        if kind not in (None, *ARGUMENTS):
            raise ValueError(f"kind is {kind!r}; it is one of {', '.join(ARGUMENTS)}.")
        endings = _ENDINGS if suffix is None else [suffix + ending for ending in _ENDINGS[1:]]
        self._endings, self._kind, self._stretched = tuple(endings), kind, stretched
        self._said = {"align_corners": align_corners, "background": background}

    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> PartScores:
        if path is None:
            raise ValueError(
                f"{self.folder} has a file for each photo, but the image has no file name: give "
                "the photo's path, or its own part scores."
            )
        file = self._file_of(Path(path).stem)
        scores = checked_scores(
            read_file(file, self._kind), **self._said, taxonomy=self.taxonomy, source=str(file)
        )
        self._check_shape(scores, pixels.shape[:2], file, path)
        return scores

    def _file_of(self, stem: str) -> Path:
        for ending in self._endings:
            if (self.folder / f"{stem}{ending}").is_file():
                return self.folder / f"{stem}{ending}"
        wanted = ", ".join(f"{stem}{ending}" for ending in self._endings)
        raise FileNotFoundError(f"No part scores of {stem} in {self.folder}: none of {wanted}.")

    def _check_shape(self, scores: PartScores, size: tuple[int, int], file: Path, path) -> None:
        rows, columns = scores.values.shape[-2:]
        if scores.kind != "map" and (self._stretched or rows == columns):
            return
        if not has_shape_of((rows, columns), size):
            raise ValueError(
                f"{path} is {size[0]} x {size[1]}, another shape than {file} with {rows} x "
                f"{columns}: the file may be of another photo, or of one that was cropped, padded "
                "or rotated. If the photos were stretched to what the network takes, say "
                "stretched=True."
            )
