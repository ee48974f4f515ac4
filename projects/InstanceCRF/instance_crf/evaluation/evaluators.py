"""Detectron2's evaluator of instance-level parsing.

Ground truth comes from the dataset's records (``part_file_name``, ``object_file_name``), never
from the model's inputs: mappers drop it at test time.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.label_io import read_object_map, read_part_map
from ..entries import is_crowd
from ..files import write_json
from ..structures import SCORE_NAMES, PartInstances
from ..taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from .contingency import IGNORE
from .parsing import Comparison, Parsing, parsing_of_result
from .protocols import Protocol
from .toolkit.export import make_writer
from .toolkit.export_folder import ExportFolder
from .toolkit.formats import PredictionWriter
from .toolkit.part_parsing import METRICS, PartParsingMetrics, format_results, without_nan
from .toolkit.score_study import ScoreStudy

__all__ = ["PartInstanceEvaluator", "PredictionExporter", "parsing_of_record"]

logger = logging.getLogger(__name__)


class PartInstanceEvaluator(DatasetEvaluator):
    """Part-instance APr, object APr and part segmentation of the outputs' ``part_instances``.

    Every image of the dataset counts, also those for which :meth:`process` was never called.
    Of an image only a few bytes per segment are kept, so memory does not grow with image size.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        protocol: str | Protocol | Sequence[str | Protocol] = "sds",
        score_name: str | None = None,
        compare_scores: bool = False,
        metrics: Sequence[str] = METRICS,
        parts_only: bool = False,
        output_dir: str | None = None,
        distributed: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset with part and object maps.
            protocol: of the APs, see :data:`instance_crf.evaluation.PROTOCOLS`; the numbers of
                further ones are called ``part_apr_<protocol>``, ``object_apr_<protocol>``.
            score_name: what ranks segments and objects, one of
                :data:`instance_crf.structures.SCORE_NAMES`; None: each result's ``score_name``.
            compare_scores: also report APr_vol under every score, as the task ``scores``.
            metrics: which of :data:`instance_crf.evaluation.METRICS`.
            parts_only: evaluate the part segmentation of ``sem_seg`` and nothing else, for a
                model that has no CRF and so labels no object.
            output_dir: where ``part_instance_evaluation.json`` is written; None: nowhere.
            distributed: gather the results of all processes.

        Raises:
            ValueError: unknown protocol or score; a dataset without ground truth.
        """
        self._dataset_name = dataset_name
        self._protocols = protocol
        self._metric_names = ("part_seg",) if parts_only else tuple(metrics)
        self._parts_only = parts_only
        if score_name is not None and score_name not in SCORE_NAMES:
            raise ValueError(
                f"Unknown score {score_name!r}; it is one of {', '.join(SCORE_NAMES)}."
            )
        self._score_name = score_name
        self._compare_scores = compare_scores
        self._output_dir = output_dir
        self._distributed = distributed
        self._taxonomy: PartTaxonomy = MetadataCatalog.get(dataset_name).taxonomy
        self._records = {record["image_id"]: record for record in DatasetCatalog.get(dataset_name)}
        unlabelled = [r["file_name"] for r in self._records.values() if "part_file_name" not in r]
        if unlabelled:
            raise ValueError(
                f"Dataset {dataset_name!r} cannot be evaluated: {len(unlabelled)} image(s) have no "
                f"part_file_name, the first is {unlabelled[0]}."
            )
        self.reset()

    def reset(self) -> None:
        parts, objects = self._taxonomy.part_names, self._taxonomy.object_names
        self._metrics = PartParsingMetrics(parts, objects, self._protocols, self._metric_names)
        self._study = ScoreStudy(parts, objects, self._metrics.protocols[0])
        self._seen: set[Hashable] = set()

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        """
        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``part_instances``, or None there for no result; with
                ``sem_seg`` when only parts are evaluated.

        Raises:
            ValueError: an image that the dataset does not have or that was processed before, a
                result of another size than the ground truth.
        """
        for one_input, output in zip(inputs, outputs, strict=True):
            record = self._record_of(one_input)
            if self._parts_only:
                parts = output["sem_seg"].argmax(0).cpu().numpy()
                self._add_parsing(record, Parsing(part_map=parts))
            else:
                self._add(record, output["part_instances"])

    def _record_of(self, one_input: Mapping) -> Mapping:
        image_id = one_input["image_id"]
        if image_id not in self._records:
            raise ValueError(
                f"Image {image_id!r} ({one_input.get('file_name', 'no file name')}) is not in the "
                f"dataset {self._dataset_name!r}."
            )
        return self._records[image_id]

    def _add(self, record: Mapping, result: PartInstances | None) -> None:
        prediction = None
        if result is not None:
            prediction = parsing_of_result(result, self._score_name)
        comparison = self._add_parsing(record, prediction)
        if self._compare_scores:
            self._study.add(comparison, result)

    def _add_parsing(self, record: Mapping, prediction: Parsing | None) -> Comparison:
        truth = parsing_of_record(record, self._taxonomy)
        self._seen.add(record["image_id"])
        return self._metrics.add(record["image_id"], prediction, truth)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """The numbers in percent on the main process, None on the others."""
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather((self._metrics, self._study, self._seen), dst=0)
            if not comm.is_main_process():
                return None
            self._metrics, self._study, self._seen = gathered[0]
            for metrics, study, seen in gathered[1:]:
                self._metrics.merge(metrics)
                self._study.merge(study)
                self._seen |= seen
        missing = [i for i in self._records if i not in self._seen]
        if missing:
            logger.warning(
                "%d of %d images of %s got no prediction; their ground truth counts as missed.",
                len(missing),
                len(self._records),
                self._dataset_name,
            )
            for image_id in missing:
                self._add(self._records[image_id], None)
        results = self._metrics.compute()
        logger.info(
            "Evaluation of %s, %d images, ranked by %s:\n%s",
            self._dataset_name,
            len(self._records),
            self._score_name or "the model's score",
            format_results(results, self._metrics),
        )
        if self._compare_scores:
            results["scores"] = self._study.compute()
        self._write(results)
        return results

    def _write(self, results: Mapping) -> None:
        if self._output_dir is None:
            return
        path = Path(self._output_dir) / "part_instance_evaluation.json"
        content = {
            "dataset": self._dataset_name,
            "protocols": {task: self._metrics.protocol_of(task) for task in results},
            "score": self._score_name,
            "results": without_nan(results),
        }
        write_json(path, content)


class PredictionExporter(DatasetEvaluator):
    """Writes the outputs' ``part_instances`` as files while a dataset is evaluated.

    The files of all processes replace an earlier export at the end, together.
    """

    def __init__(
        self,
        dataset_name: str,
        format_name: str,
        output_dir: str | Path,
        *,
        score_name: str | None = None,
        distributed: bool = True,
        **options,
    ) -> None:
        """
        Args:
            dataset_name: whose taxonomy the predictions have.
            format_name, options: see :func:`instance_crf.evaluation.toolkit.export.make_writer`.
            output_dir: the folder to write to; files of other names stay.
            score_name: of :data:`instance_crf.structures.SCORE_NAMES`; None: each result's own.
            distributed: gather what all images share from all processes, which have one folder.
        """
        self._taxonomy = MetadataCatalog.get(dataset_name).taxonomy
        self._folder = ExportFolder(output_dir)
        self._make = lambda: make_writer(format_name, self._folder.new, self._taxonomy, **options)
        self._score_name = score_name
        self._distributed = distributed
        self._writer: PredictionWriter | None = None
        self._image_ids: list[str] = []

    def reset(self) -> None:
        """Begin anew.

        Raises:
            ValueError, OSError: see :meth:`ExportFolder.begin`.
        """
        if not self._distributed or comm.is_main_process():
            self._folder.begin()
        if self._distributed:
            comm.synchronize()  # nobody writes before the folder is empty
        self._writer, self._image_ids = self._make(), []

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        """
        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``part_instances``.
        """
        if self._writer is None:
            self.reset()
        for one_input, output in zip(inputs, outputs, strict=True):
            prediction = parsing_of_result(output["part_instances"], self._score_name)
            self._image_ids.append(str(one_input["image_id"]))
            self._writer.add(self._image_ids[-1], prediction)

    def evaluate(self) -> dict:
        """Finish the files on the main process; there are no numbers.

        Raises:
            ValueError: an image was processed twice.
        """
        if self._writer is None:
            self.reset()
        gathered = [(self._writer, self._image_ids)]
        self._writer = None
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(gathered[0], dst=0)
            if not comm.is_main_process():
                return {}
        (writer, _), *others = gathered
        for other, _ in others:
            writer.merge(other)
        writer.close()
        self._folder.publish([image_id for _, ids in gathered for image_id in ids])
        self._folder.end()
        return {}


def parsing_of_record(record: Mapping, taxonomy: PartTaxonomy) -> Parsing:
    """The ground truth of a dataset's record, read from its files.

    Raises:
        FileNotFoundError, ValueError: a missing or broken file, maps of different sizes, an
            unknown part, an object without annotation; the message names the file.
    """
    parts = read_part_map(record["part_file_name"]).astype(np.int32)
    parts[parts == IGNORE_LABEL] = IGNORE
    objects = read_object_map(record["object_file_name"])
    if parts.shape != objects.shape:
        raise ValueError(
            f"{record['part_file_name']} is {parts.shape} (height, width), but "
            f"{record['object_file_name']} is {objects.shape}."
        )
    if parts.max(initial=0) > taxonomy.num_parts:
        raise ValueError(
            f"{record['part_file_name']} has part id {parts.max()}; the dataset has parts "
            f"1..{taxonomy.num_parts}."
        )
    annotations = {a["object_id"]: a for a in record.get("annotations", ())}
    present = np.unique(objects)
    present = present[present > 0]
    unknown = [i for i in present.tolist() if i not in annotations]
    if unknown:
        raise ValueError(
            f"{record['object_file_name']} has object id {unknown[0]}, which the record's "
            f"annotations do not list ({sorted(annotations)})."
        )
    listed = [annotations[i] for i in present.tolist()]
    crowd = [is_crowd(annotation, record["object_file_name"]) for annotation in listed]
    return Parsing.of_maps(
        parts,
        objects,
        object_ids=present,
        object_classes=np.array([a["category_id"] for a in listed], dtype=np.int64),
        object_crowd=np.array(crowd, dtype=bool),
    )
