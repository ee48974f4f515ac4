"""What makes pixels one person's: vote, evidence, potential and answer, side by side.

NumPy in, NumPy out: every picture is (h, w, 3) uint8 RGB.

Legend of shapes: H, W image size; s scale of the drawing; h, w any other size; D detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..extras import require
from .canvas import INK, LUMA, enlarge_image, fit, load_font
from .drawing import draw_detections
from .sheets import make_sheet

cv2 = require("cv2", "viz")

__all__ = ["draw_evidence", "draw_heat_map", "draw_votes", "position_colors"]

_SIDE = 320
"""Pixels: about the longer side of each picture of a small image."""
_STRIP = 58
"""Pixels: height of the legend below each picture."""
_NARROWEST = 120
"""Pixels: width of a legend, at least."""
_LETTERS = 14
_HEAT = 0.8
"""Opacity of a heat map."""


def draw_evidence(
    image: np.ndarray,
    output: Mapping[str, Any],
    person: int,
    *,
    stride: int,
    scale: int | None = None,
) -> np.ndarray:
    """A sheet of one row: how the pixels of one detection became its own.

    Its box; every pixel's vote; the evidence A_k(i) that the votes are for it; the probability
    pi_k(i) that a pixel which is someone's is this one's, before mean-field; and that it is
    someone's and this one's, after.

    Args:
        image: (H, W, 3) uint8 RGB.
        output: what the model returned for the image with ``keep_evidence`` and ``keep_whose``.
        person: which of the D detections, from 1, best first.
        stride: of the vote, pixels of the network's input a cell.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Raises:
        ValueError: there is no such detection.
    """
    detections = output["detections"].to("cpu")
    if not 1 <= person <= len(detections):
        raise ValueError(f"there is no detection {person}, only {len(detections)}")
    i = person - 1
    given = image.shape[1]
    scale, image, _ = fit(scale, image, target=_SIDE)
    height, width = image.shape[:2]
    boxes = detections.pred_boxes.tensor.numpy() * (width / given)
    ids = [0] * len(detections)
    ids[i] = person
    evidence, before, after = (
        output[name][i].cpu().numpy() for name in ("evidence", "whose_before", "object_prob")
    )
    centres = _voted_centres(output["vote"].cpu().numpy(), evidence.shape, (height, width), stride)
    someone = 1 - output["sem_seg"][0].cpu().numpy()
    field = position_colors(*np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 64)))
    pictures = [
        draw_detections(image, boxes, detections.scores.tolist(), object_ids=ids, scale=scale),
        *(
            _with_box(picture, boxes[i] * scale)
            for picture in (
                draw_votes(image, centres, someone, scale=scale),
                *(draw_heat_map(image, v, scale=scale) for v in (evidence, before, after)),
            )
        ),
    ]
    wide = max(_NARROWEST, pictures[0].shape[1])
    legends = [
        _strip(wide, None, "its box with its score;\nthe others in grey"),
        _strip(wide, field, "voted centre, by its\nplace in the picture"),
        _bar(wide, "vote fits box"),
        _bar(wide, "this one's, if someone's"),
        _bar(wide, "this one's"),
    ]
    titles = (f"detection {person}", "vote", "evidence", "before mean-field", "after mean-field")
    right = ((0, 0), (0, wide - pictures[0].shape[1]), (0, 0))
    pictures = [np.pad(picture, right, constant_values=255) for picture in pictures]
    row = [np.vstack(pair) for pair in zip(pictures, legends, strict=True)]
    return make_sheet([row], titles)


def draw_votes(
    image: np.ndarray, centres: np.ndarray, someone: np.ndarray, *, scale: int | None = None
) -> np.ndarray:
    """Where each pixel says that its person's box has its centre, as :func:`position_colors`.

    Args:
        image: (H, W, 3) uint8 RGB.
        centres: (2, h, w) x, y of the centres in pixels of the image.
        someone: (h, w) in [0, 1], the opacity: a vote counts where there is a person.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Returns:
        (s H, s W, 3) uint8 RGB, less of a large image.
    """
    height, width = image.shape[:2]
    grey = _grey(image, scale)
    x, y = (_resize(c, grey) / side for c, side in zip(centres, (width, height), strict=True))
    opacity = _resize(someone, grey)[..., None]
    return _to_uint8((1 - opacity) * grey + opacity * position_colors(x, y))


def draw_heat_map(image: np.ndarray, values: np.ndarray, *, scale: int | None = None) -> np.ndarray:
    """Numbers from 0 (dark) to 1 (yellow), over the image in grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (h, w) in [0, 1]; of any size, they are resized to the image.
        scale: whole factor of enlargement; default: see :func:`.canvas.fit`.

    Returns:
        (s H, s W, 3) uint8 RGB, less of a large image.
    """
    grey = _grey(image, scale)
    return _over(grey, _resize(values, grey))


def position_colors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A colour for every place: hue from left to right, bright at the top, dark at the bottom.

    Args:
        x, y: of one shape, fractions of the width and the height, clipped to [0, 1].

    Returns:
        (..., 3) float RGB in 0-255.
    """
    x, y = np.clip(x, 0, 1), np.clip(y, 0, 1)
    hue = np.radians(30 + 290 * x)  # of CIELAB, where equal steps look alike; no full circle
    lab = np.stack([85 - 45 * y, 50 * np.cos(hue), 50 * np.sin(hue)], axis=-1)
    shape = lab.shape
    rgb = cv2.cvtColor(lab.reshape(-1, 1, 3).astype(np.float32), cv2.COLOR_LAB2RGB)
    return 255 * np.clip(rgb.reshape(shape), 0, 1)


def _voted_centres(
    vote: np.ndarray, network_size: tuple[int, int], size: tuple[int, int], stride: int
) -> np.ndarray:
    """(4 or 2, h, w) votes of the padded input -> (2, H', W') centres, in pixels of the image of
    ``size``, at the network's size without padding."""
    centres = vote if len(vote) == 2 else (vote[:2] + vote[2:]) / 2
    height, width = network_size
    centres = centres.repeat(stride, axis=1).repeat(stride, axis=2)[:, :height, :width]
    return centres * np.array([size[1] / width, size[0] / height])[:, None, None]


def _grey(image: np.ndarray, scale: int | None) -> np.ndarray:
    """(H, W, 3) -> (s H, s W, 3) float, without colour."""
    scale, image, _ = fit(scale, image)
    large = enlarge_image(image, scale)
    return np.repeat((large @ np.array(LUMA))[..., None], 3, axis=2)


def _resize(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    size = like.shape[1], like.shape[0]
    return cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)


def _over(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(h, w, 3) grey, (h, w) in [0, 1] -> (h, w, 3) RGB: colours over the grey, made paler."""
    heat = cv2.applyColorMap(_to_uint8(255 * values), cv2.COLORMAP_INFERNO)[..., ::-1]
    return _to_uint8(_HEAT * heat + (1 - _HEAT) * (80 + grey * 175 / 255))


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _with_box(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The picture with a thin box, in its pixels."""
    picture = picture.copy()
    first, last = box[:2].round().astype(int).tolist(), (box[2:].round().astype(int) - 1).tolist()
    cv2.rectangle(picture, first, last, INK, 3)
    cv2.rectangle(picture, first, last, (255, 255, 255), 1)
    return picture


def _strip(width: int, swatch: np.ndarray | None, text: str) -> np.ndarray:
    """(_STRIP, width, 3): a swatch, if there is one, and words beside it."""
    strip = Image.new("RGB", (width, _STRIP), "white")
    left = 4
    if swatch is not None:
        side = _STRIP - 8
        strip.paste(Image.fromarray(_to_uint8(swatch)).resize((side, side)), (4, 4))
        left += side + 8
    font = _font_that_fits(text, width - left - 4)
    ImageDraw.Draw(strip).multiline_text((left, 8), text, INK, font, spacing=5)
    return np.asarray(strip)


def _bar(width: int, text: str) -> np.ndarray:
    """(_STRIP, width, 3): the colours of a heat map from 0 to 1, and words below."""
    strip = Image.new("RGB", (width, _STRIP), "white")
    font, draw = _font_that_fits(text, width - 4), ImageDraw.Draw(strip)
    length, top = width - 40, 8
    values = np.tile(np.linspace(0, 1, length), (_LETTERS, 1))
    bar = _over(np.full((*values.shape, 3), 128.0), values)  # as it is over a photo
    strip.paste(Image.fromarray(bar), (20, top))
    for x, end in ((10, "0"), (width - 10, "1")):
        draw.text((x, top + _LETTERS / 2), end, INK, font, anchor="mm")
    draw.text((width / 2, top + 2.4 * _LETTERS), text, INK, font, anchor="ms")
    return np.asarray(strip)


def _font_that_fits(text: str, width: int) -> ImageFont.FreeTypeFont:
    """Letters of at most _LETTERS pixels, smaller where a picture is narrow."""
    longest = max(load_font(_LETTERS).getlength(line) for line in text.split("\n"))
    return load_font(max(7, min(_LETTERS, int(_LETTERS * width / longest))))
