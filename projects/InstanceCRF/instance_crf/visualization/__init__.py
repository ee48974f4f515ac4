"""Pictures of a labelling: part colours within person outlines, boxes, legends, sheets.

NumPy in, NumPy out: every picture is (H, W, 3) uint8 RGB. Needs OpenCV (the extra ``viz``).
"""

from .canvas import drawing_scale, object_color
from .drawing import (
    ROW_TITLES,
    draw_detections,
    draw_part_instances,
    draw_part_segmentation,
    draw_record,
    draw_row,
    palette_image,
)
from .evidence import draw_evidence, draw_heat_map, draw_votes, position_colors
from .sheets import draw_legend, make_sheet

__all__ = [
    "ROW_TITLES",
    "draw_detections",
    "draw_evidence",
    "draw_heat_map",
    "draw_legend",
    "draw_part_instances",
    "draw_part_segmentation",
    "draw_record",
    "draw_row",
    "draw_votes",
    "drawing_scale",
    "make_sheet",
    "object_color",
    "palette_image",
    "position_colors",
]
