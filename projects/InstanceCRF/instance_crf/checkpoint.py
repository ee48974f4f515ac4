"""Checkpoints: written whole or not at all, and refused where they do not fit the model."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog
from torch import nn

from .files import atomic_path, inside, read_text, write_text
from .program import first_of
from .weights_file import is_whole, read_weights_file

__all__ = ["Checkpointer", "load_weights", "part_names_of"]

logger = logging.getLogger(__name__)

_LAST = "last_checkpoint"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, which loses nothing and passes over nothing in silence.

    * A checkpoint gets its name when it is on the disk. A full disk or a killed run leaves those
      before it as they were.
    * Nothing that a file holds is run (:mod:`.weights_file`).
    * Weights that do not fit are refused: when resuming, the file and the model must have the same;
      with ``strict``, the file must have all of the model's. Otherwise, that is where training
      starts from other weights, some must fit, and what has another shape may differ in the number
      of outputs only, as classifiers of other classes do; what starts anew is told.

    Args:
        model: the model.
        save_dir: OUTPUT_DIR.
        strict: the weights are for predicting.
        part_names: of the data set, saved with the weights and compared when loading.
        **options: see Detectron2.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        strict: bool = False,
        part_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, save_dir, **options)
        self.strict = strict
        self.part_names = None if part_names is None else list(part_names)
        self._resuming = False
        self._file = self._query = ""

    def save(self, name: str, **extra: Any) -> None:
        """Write ``save_dir/<name>.pth``, and then its name into ``last_checkpoint``.

        Raises:
            OSError: it cannot be written, e.g. the disk is full; names the file.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.model.state_dict(), "part_names": self.part_names}
        content |= {key: thing.state_dict() for key, thing in self.checkpointables.items()} | extra
        path = Path(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        with atomic_path(path, durable=True) as temporary, open(temporary, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # what torch hides: the disk is full
                    raise error.__context__ from None
                raise
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """See Detectron2."""
        write_text(Path(self.save_dir, _LAST), last_filename_basename, durable=True)

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from; "" if the folder has none.

        Raises:
            FileNotFoundError, ValueError: ``last_checkpoint`` is missing beside checkpoints, or
                names none; says which there are.
        """
        last = Path(self.save_dir, _LAST)
        if not last.is_file():
            if _newest_beside(last) is None:
                return ""
            raise FileNotFoundError(f"{last} does not exist.{_instead(last, resuming=True)}")
        name = read_text(last).strip()
        if not name:
            raise ValueError(f"{last} is empty.{_instead(last, resuming=True)}")
        return str(inside(self.save_dir, name, str(last)))

    def has_checkpoint(self) -> bool:
        """Whether there is one to resume from; raises what `get_checkpoint_file` does."""
        return bool(self.get_checkpoint_file())

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the last checkpoint with all that a run needs to go on, or the weights of ``path``.

        Raises:
            FileNotFoundError, ValueError: see :meth:`load`.
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        self._resuming = True
        try:
            return self.load(self.get_checkpoint_file())
        finally:
            self._resuming = False

    def load(self, path: str, *args: Any, **options: Any) -> dict[str, Any]:
        """See Detectron2.

        Raises:
            FileNotFoundError: there is no such file; says which there are.
            OSError: a URL cannot be read; names it.
            ValueError: it is broken, unsafe, not finite, or does not fit; or ``strict`` and no file
                is named.
        """
        self._file, _, self._query = path.partition("?")
        if self.strict and not path:
            raise ValueError(
                "MODEL.WEIGHTS is empty: name a trained checkpoint, e.g. MODEL.WEIGHTS "
                "output/demo/model_final.pth."
            )
        if path and "://" not in path and not os.path.isfile(self._file):
            said = "" if self._resuming else " (MODEL.WEIGHTS)"
            raise FileNotFoundError(f"There is no checkpoint {self._file}{said}.{self._hint()}")
        try:
            rest = super().load(path, *args, **options)
        except ValueError as error:
            if self._file in str(error):
                raise
            raise ValueError(f"{self._file}: {error}") from None
        except OSError as error:  # of a download, it has no file, or one that is not the user's
            if "://" in path:
                raise OSError(f"{path} cannot be had: {error}") from None
            raise
        finally:
            self._parsed_url_during_load = None  # Detectron2 keeps it after an error
        if path:
            self._check_finite()
        self._check_names(rest.get("part_names"))
        return rest

    def _check_finite(self) -> None:
        """
        Raises:
            ValueError: weights that are NaN or infinite: a detector with such just finds nothing.
        """
        state = self.model.state_dict()
        wrong = [key for key, value in state.items() if not value.isfinite().all()]
        if wrong:
            raise ValueError(
                f"{self._file} has {len(wrong)} weights with numbers that are not finite (NaN or "
                f"infinite), the first is {wrong[0]}: its training has diverged. Take an earlier "
                f"checkpoint, or train with a lower SOLVER.BASE_LR.{self._hint()}"
            )

    def _check_names(self, theirs: list[str] | None) -> None:
        """
        Raises:
            ValueError: the same parts in another order; of others it is only told.
        """
        if theirs is None or self.part_names is None or theirs == self.part_names:
            return
        said = f"{self._file} knows the parts {theirs}, the data set {self.part_names}"
        if sorted(theirs) == sorted(self.part_names) and (self.strict or self._resuming):
            raise ValueError(f"{said}: their ids do not mean the same. Take that order.")
        logger.warning("%s.", said)

    def _hint(self) -> str:
        return _instead(Path(self._file), resuming=self._resuming)

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            content = read_weights_file(filename)
        except ValueError as error:
            raise ValueError(f"{error}{self._hint()}") from None
        if filename.endswith(".pkl"):
            return _of_pickle(content)
        if filename.endswith(".pyth"):  # pycls'
            state = content.get("model_state", {})
            state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
            return {"model": state, "__author__": "pycls", "matching_heuristics": True}
        content = content if "model" in content else {"model": content}
        if parse_qs(self._query).get("matching_heuristics") == ["True"]:
            content["matching_heuristics"] = True
        for key in self.checkpointables if self._resuming else ():
            if key not in content:
                raise ValueError(
                    f"{self._file} has weights only, without the {key}'s state: a run cannot be "
                    "resumed from it. To start from its weights, leave --resume out and name it "
                    "as MODEL.WEIGHTS."
                )
        return content

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        state = checkpoint["model"]
        for name, value in state.items() if isinstance(state, dict) else [("model", state)]:
            if not isinstance(value, (torch.Tensor, np.ndarray)):
                kind = type(value).__name__
                raise ValueError(f"{self._file} is no checkpoint: {name} is a {kind}, no tensor.")
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        shapes = {key: (theirs, ours) for key, theirs, ours in incompatible.incorrect_shapes}
        missing = [key for key in incompatible.missing_keys if key not in shapes]
        unknown = list(incompatible.unexpected_keys)
        wrong = [f"{key}: {theirs} in the file, {ours} in the model"
                 for key, (theirs, ours) in shapes.items()]  # fmt: skip
        lines = [*wrong, *(f"{key}: not in the file" for key in missing)]
        if self._resuming and not self.strict:
            lines += [f"{key}: not in the model" for key in unknown]
            if lines:
                raise ValueError(
                    f"{self._file} was written by a run of another model, so --resume cannot go on "
                    f"from it: {first_of(lines)}. Take that run's config; or leave --resume out, "
                    "with another OUTPUT_DIR, and name the file as MODEL.WEIGHTS."
                )
        elif self.strict:
            if lines:
                lines += [f"{key}: not in the model" for key in unknown]
                raise ValueError(
                    f"{self._file} does not have the weights of the model as the config describes "
                    f"them; is it another model's? {first_of(lines)}."
                )
            if unknown:
                logger.warning("%s: not used by the model: %s.", self._file, first_of(unknown))
        else:
            self._check_start(shapes, wrong, missing)
            self._tell_start(wrong, missing, unknown)

    def _check_start(self, shapes: dict, wrong: list[str], missing: list[str]) -> None:
        """
        Raises:
            ValueError: none of the weights fits, or one has another shape for another reason than
                other classes.
        """
        names = {name for name, _ in self.model.named_parameters()}
        if not names - shapes.keys() - set(missing):
            lines = [*wrong, *(f"{name}: not in the file" for name in missing)]
            raise ValueError(
                f"{self._file} has none of the model's weights; is it another model's? "
                f"{first_of(lines)}. To train from nothing: MODEL.WEIGHTS ''."
            )
        other = [line for line, (theirs, ours) in zip(wrong, shapes.values(), strict=True)
                 if theirs[1:] != ours[1:]]  # fmt: skip
        if other:
            raise ValueError(
                f"{self._file} is of a model with other layers, which would start anew: "
                f"{first_of(other)}. Take its config's sizes, or other weights."
            )

    def _tell_start(self, wrong: list[str], missing: list[str], unknown: list[str]) -> None:
        """Log what of the model comes from the file, and what starts anew."""
        own = Counter(key.partition(".")[0] for key in self.model.state_dict())
        anew = [line.partition(":")[0] for line in wrong] + missing
        lost = Counter(key.partition(".")[0] for key in anew)
        parts = ", ".join(f"{part} {count - lost[part]} of {count}" for part, count in own.items())
        logger.info("Weights from %s: %s.", self._file, parts)
        if wrong:
            told = "; ".join(wrong)  # all of them: they are few, and no other weight is passed over
            logger.warning("Of another number of outputs, so they start anew: %s.", told)
        if missing:
            logger.warning("Not in the file, so they start anew: %s.", first_of(missing))
        if unknown:
            logger.warning("In the file, but not in the model: %s.", first_of(unknown))


def load_weights(model: nn.Module, file_name: str, part_names: Sequence[str] | None = None) -> None:
    """Load a checkpoint that has all of the model's weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no file is named, it is broken, it lacks weights, has some of other shapes, or
            is of the parts in another order.
    """
    Checkpointer(model, strict=True, part_names=part_names).load(file_name)


def part_names_of(dataset_names: Sequence[str]) -> list[str] | None:
    """What the first of the data sets calls its parts, None if that is not known."""
    names = dataset_names[:1]
    taxonomy = MetadataCatalog.get(names[0]).get("taxonomy") if names else None
    return None if taxonomy is None else list(taxonomy.part_names)


def _of_pickle(content: dict[str, Any]) -> dict[str, Any]:
    """Detectron2's ``.pkl`` as it is; Detectron1's and Caffe2's as Detectron2 wants it."""
    if "model" in content and "__author__" in content:
        return content
    state = content.get("blobs", content)
    state = {key: value for key, value in state.items() if not key.endswith("_momentum")}
    return {"model": state, "__author__": "Caffe2", "matching_heuristics": True}


def _newest_beside(path: Path) -> Path | None:
    """The last written of the whole checkpoints in the folder of ``path``, without that itself."""
    found = [p for p in path.parent.glob("model_*.pth") if p != path and is_whole(p)]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def _instead(path: Path, *, resuming: bool) -> str:
    """A sentence on how to go on without ``path``."""
    newest = _newest_beside(path)
    if not resuming:
        return "" if newest is None else f" {newest} is whole."
    if newest is None:
        return f" {path.parent} has no other: to begin anew, leave --resume out."
    how = f"To go on from {newest.name}: echo {newest.name} > {path.parent / _LAST}"
    return f" {how}, then --resume; to begin anew, leave --resume out."
