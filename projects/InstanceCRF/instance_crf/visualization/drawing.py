"""One labelling, or one row of them: part colours within person outlines, boxes, ground truth.

NumPy in, NumPy out: every picture is (H, W, 3) uint8 RGB. Small images are drawn enlarged (the
argument ``scale``, see :func:`drawing_scale`), so that lines and letters are crisp. The means of
drawing are in :mod:`.canvas`.

Legend of shapes: H, W image size in pixels; n objects (persons); P parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data.image_io import read_image, sample_labels
from ..data.label_io import palette_image, read_object_map, read_part_map
from ..extras import require
from ..structures import PartInstances
from ..taxonomies.schema import PartTaxonomy
from .canvas import (
    INK,
    SMOOTH,
    blend_parts,
    check_parts,
    draw_tags,
    enlarge_image,
    enlarge_labels,
    fade,
    fit,
    object_color,
    outline,
    reduce,
    tag_text,
    top_of,
)

cv2 = require("cv2", "viz")

__all__ = [
    "ROW_TITLES",
    "draw_detections",
    "draw_part_instances",
    "draw_part_segmentation",
    "draw_record",
    "draw_row",
    "palette_image",
]

ROW_TITLES = ("input + detections", "part segmentation", "part instances", "ground truth")
"""The column titles of :func:`draw_row`."""


def draw_part_segmentation(
    image: np.ndarray,
    part_map: np.ndarray,
    taxonomy: PartTaxonomy,
    *,
    alpha: float = 0.7,
    scale: int | None = None,
) -> np.ndarray:
    """The parts' colours over the image; ignored pixels are striped grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        part_map: (H, W) integers, 0 background, 1..P, 255 ignored.
        taxonomy: gives the colours.
        alpha: opacity of the colours, 0..1.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB, less of a large image.

    Raises:
        ValueError: sizes that differ, an image that is not (H, W, 3) uint8, unknown part ids.
    """
    no_objects = np.zeros(part_map.shape, dtype=np.int32)
    return draw_part_instances(image, part_map, no_objects, taxonomy, alpha=alpha, scale=scale)


def draw_part_instances(
    image: np.ndarray,
    part_map: np.ndarray,
    object_map: np.ndarray,
    taxonomy: PartTaxonomy,
    *,
    scores: Mapping[int, float] | None = None,
    alpha: float = 0.7,
    scale: int | None = None,
    labels: bool = True,
) -> np.ndarray:
    """Part colours over the image, each object outlined in its own colour, with id and score.

    A part without an object (nobody's) has its colour and no outline.

    Args:
        image: (H, W, 3) uint8 RGB.
        part_map: (H, W) integers, 0 background, 1..P, 255 ignored.
        object_map: (H, W) integers, 0 none, ids >= 1; negative ids are ignored pixels.
        taxonomy: gives the parts' colours.
        scores: object id -> score in 0..1, written behind the id.
        alpha: opacity of the parts' colours, 0..1.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.
        labels: whether ids and scores are written.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB, less of a large image.

    Raises:
        ValueError: sizes that differ, an image that is not (H, W, 3) uint8, unknown part ids.
    """
    _check_image(image)
    for name, label_map in (("part_map", part_map), ("object_map", object_map)):
        if label_map.shape != image.shape[:2]:
            raise ValueError(
                f"{name} is {label_map.shape}, but the image is {image.shape[:2]} (H, W)."
            )
    scale, image, (part_map, object_map) = fit(scale, image, part_map, object_map)
    check_parts(part_map, taxonomy)
    canvas = enlarge_image(image, scale * SMOOTH).astype(np.float32)
    fade(canvas)
    blend_parts(canvas, enlarge_labels(part_map, scale * SMOOTH), taxonomy, alpha)
    ids, tags = [int(i) for i in np.unique(object_map) if i > 0], []
    objects = enlarge_labels(np.maximum(object_map, 0), scale * SMOOTH) if ids else None
    for index in ids:
        mask = objects == index
        if mask.any():
            outline(canvas, mask, object_color(index), scale * SMOOTH)
            tags.append((index, tag_text(index, scores), top_of(mask)))
    picture = reduce(canvas)
    return draw_tags(picture, tags, above=True) if labels and tags else picture


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: Sequence[float] | None = None,
    classes: Sequence[int] | None = None,
    taxonomy: PartTaxonomy | None = None,
    *,
    object_ids: Sequence[int] | None = None,
    scale: int | None = None,
) -> np.ndarray:
    """The image with boxes, each in the colour and with the number of its object.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) x1 y1 x2 y2 in pixels of the image.
        scores: (n,) in 0..1, written at the boxes.
        classes: (n,) contiguous object classes, named if the taxonomy has more than one.
        taxonomy: gives the names of the classes.
        object_ids: (n,) object of each box, by default 1..n; 0 draws it grey, without a number.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB, less of a large image.

    Raises:
        ValueError: boxes that are not (n, 4), or scores or classes of another number.
    """
    _check_image(image)
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (n, 4), got {boxes.shape}.")
    object_ids = range(1, len(boxes) + 1) if object_ids is None else object_ids
    for name, values in (("scores", scores), ("classes", classes), ("object_ids", object_ids)):
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{len(values)} {name} for {len(boxes)} boxes; give one a box.")
    given = image.shape[1]
    scale, image, _ = fit(scale, image)
    height, width = image.shape[:2]
    boxes = boxes * (width / given)
    factor = scale * SMOOTH
    canvas = enlarge_image(image, factor)
    tags = []
    order = sorted(range(len(boxes)), key=lambda i: object_ids[i] > 0)  # grey ones below
    for i in order:
        corners = np.clip(boxes[i], 0, [width, height] * 2) * factor
        corners = corners.round().astype(int)
        # Pixels are cells: the last one inside a box that ends at x2 is x2 - 1.
        first, last = tuple(map(int, corners[:2])), tuple(map(int, corners[2:] - 1))
        cv2.rectangle(canvas, first, last, INK, 4 * SMOOTH)
        cv2.rectangle(canvas, first, last, object_color(object_ids[i]), 2 * SMOOTH)
        words = [str(object_ids[i])] if object_ids[i] else []
        if classes is not None and taxonomy is not None and taxonomy.num_objects > 1:
            words.insert(0, taxonomy.object_names[int(classes[i])])
        if scores is not None:
            words.append(f"{scores[i]:.2f}")
        if words:
            tags.append((object_ids[i], " ".join(words), first))
    return draw_tags(reduce(canvas), tags)


def draw_row(
    image: np.ndarray,
    output: Mapping[str, Any] | PartInstances,
    taxonomy: PartTaxonomy,
    *,
    record: Mapping[str, Any] | None = None,
    scale: int | None = None,
) -> list[np.ndarray]:
    """The pictures of one result, as :data:`ROW_TITLES` names them.

    Args:
        image: (H, W, 3) uint8 RGB, of the result's size.
        output: what the model returned for the image; boxes that became no object are drawn grey,
            and the part segmentation is the part head's (argmax of Q). Or a ``PartInstances``
            alone, which has its own boxes and parts only.
        taxonomy: names and colours.
        record: dataset record with the ground truth; without one (or without label files in it)
            the last picture is left out.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Returns:
        Three or four pictures of one size.
    """
    if isinstance(output, PartInstances):
        output = {"part_instances": output}
    result = output["part_instances"].to("cpu")
    factor, small, maps = fit(scale, image, result.part_map.numpy(), result.object_map.numpy())
    segmentation = maps[0]
    if "sem_seg" in output:
        segmentation = sample_labels(output["sem_seg"].cpu().numpy(), small.shape[:2]).argmax(0)
    scores = {i: float(score) for i, score in enumerate(result.scores, start=1)}
    row = [
        _draw_detections_of(image, result, output.get("detections"), taxonomy, scale),
        draw_part_segmentation(small, segmentation, taxonomy, scale=factor),
        draw_part_instances(small, *maps, taxonomy, scores=scores, scale=factor),
    ]
    if record is not None and "part_file_name" in record:
        row.append(draw_record(record, taxonomy, image=image, scale=scale))
    return row


def _draw_detections_of(image, result: PartInstances, detections, taxonomy, scale) -> np.ndarray:
    """The detections in the colours of the objects that they became."""
    if detections is None:
        boxes, classes, ids = result.boxes, result.classes, None
        scores = result.object_scores["detection"]
    else:
        detections = detections.to("cpu")
        boxes, classes = detections.pred_boxes.tensor, detections.pred_classes
        scores, ids = detections.scores, _objects_of(boxes.numpy(), result.boxes.numpy())
    return draw_detections(
        image,
        boxes.numpy(),
        scores.tolist(),
        classes.tolist(),
        taxonomy,
        object_ids=ids,
        scale=scale,
    )


def _objects_of(boxes: np.ndarray, object_boxes: np.ndarray, tolerance: float = 1.0) -> list[int]:
    """The object (1..n) that each detection became, 0 if none: objects keep the detections'
    order, so each is the next detection with its box (to ``tolerance`` pixels)."""
    ids, following = [], 0
    for box in boxes:
        found = following < len(object_boxes) and np.allclose(
            box, object_boxes[following], rtol=0, atol=tolerance
        )
        following += found
        ids.append(following if found else 0)
    return ids


def draw_record(
    record: Mapping[str, Any],
    taxonomy: PartTaxonomy,
    *,
    image: np.ndarray | None = None,
    scale: int | None = None,
) -> np.ndarray:
    """The ground truth of a dataset record, read from its PNG files.

    Args:
        record: with ``file_name, part_file_name, object_file_name``.
        taxonomy: names and colours.
        image: the photo, if it has been read already.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, broken, of another size, or holds ids
            that the taxonomy does not have; the message names the file.
    """
    image = read_image(record["file_name"]) if image is None else image
    parts = read_part_map(record["part_file_name"])
    objects = read_object_map(record["object_file_name"])
    try:
        return draw_part_instances(image, parts, objects, taxonomy, scale=scale)
    except ValueError as error:
        raise ValueError(
            f"{record['part_file_name']} or {record['object_file_name']}: {error}"
        ) from None


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}.")
