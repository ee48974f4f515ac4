"""instance_crf.visualization: pictures show what the maps say, and refuse maps that contradict."""

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.data.label_io import read_part_map, write_object_map, write_part_map
from instance_crf.structures import PartInstances
from instance_crf.taxonomies.schema import PartTaxonomy
from instance_crf.visualization import (
    ROW_TITLES,
    draw_detections,
    draw_legend,
    draw_part_instances,
    draw_part_segmentation,
    draw_record,
    draw_row,
    drawing_scale,
    make_sheet,
    object_color,
    palette_image,
)
from instance_crf.visualization.canvas import enlarge_labels

TAXONOMY = PartTaxonomy(
    ("head", "torso", "legs"), part_colors=((200, 10, 10), (10, 200, 10), (10, 10, 200))
)
TWO_CLASSES = PartTaxonomy(("head", "wheel"), ("person", "bicycle"), (0, 1))
H, W = 60, 80


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.fixture
def maps():
    """Two persons side by side, touching: each a head above a torso."""
    part, obj = np.zeros((H, W), np.uint8), np.zeros((H, W), np.int32)
    part[10:25, 10:70], part[25:50, 10:70] = 1, 2
    obj[10:50, 10:40], obj[10:50, 40:70] = 1, 2
    return part, obj


def has_color(picture, color):
    return bool((picture == np.array(color, np.uint8)).all(-1).any())


def result_of(maps, scores=(0.9, 0.8)):
    part, obj = maps
    boxes = torch.tensor([[10.0, 10, 40, 50], [40, 10, 70, 50]])
    return PartInstances.from_label_maps(
        torch.from_numpy(obj),
        torch.from_numpy(part.astype(np.int32)),
        boxes=boxes,
        scores=torch.tensor(scores),
        classes=torch.zeros(2, dtype=torch.int64),
    )


def test_opaque_parts_have_their_colours_and_the_rest_none(image, maps):
    part, _ = maps
    picture = draw_part_segmentation(image, part, TAXONOMY, alpha=1.0, scale=1)
    assert picture.shape == (H, W, 3) and picture.dtype == np.uint8
    for part_id in (1, 2):
        # Borders are mixed with the neighbour's colour: look at the inside.
        inside = np.zeros_like(part, bool)
        inside[1:-1, 1:-1] = True
        for axis in (0, 1):
            for shift in (-1, 1):
                inside &= np.roll(part == part_id, shift, axis)
        assert (picture[inside] == TAXONOMY.part_colors[part_id - 1]).all()
    assert not any(has_color(picture[:8], color) for color in TAXONOMY.part_colors)


def test_every_object_is_outlined_inside_its_own_mask(image, maps):
    part, obj = maps
    picture = draw_part_instances(image, part, obj, TAXONOMY, scale=4, labels=False)
    where = {i: (picture == object_color(i)).all(-1) for i in (1, 2)}
    enlarged = obj.repeat(4, 0).repeat(4, 1)
    for index in (1, 2):
        assert where[index].sum() > 4 * 2 * (40 + 30)  # about its perimeter, one pixel at least
        assert (enlarged[where[index]] == index).all()
    # The border between the two persons is drawn on both sides.
    assert where[1][150, 150:160].any() and where[2][150, 160:170].any()


def test_a_part_of_nobody_has_its_colour_and_no_outline(image, maps):
    part, obj = maps
    nobodys = np.where(obj == 2, 0, obj)
    picture = draw_part_instances(image, part, nobodys, TAXONOMY, alpha=1.0, scale=1)
    assert (picture[40, 50] == TAXONOMY.part_colors[1]).all()
    assert has_color(picture, object_color(1)) and not has_color(picture, object_color(2))
    row = draw_row(image, result_of((part, nobodys)), TAXONOMY, scale=1)
    assert (row[1] == draw_part_segmentation(image, part, TAXONOMY, scale=1)).all()
    assert not has_color(row[0], object_color(2)) and not has_color(row[2], object_color(2))


def test_a_mask_cut_by_the_image_border_has_no_line_there(image):
    everywhere = np.ones((H, W), np.uint8)
    picture = draw_part_instances(image, everywhere, everywhere, TAXONOMY, scale=2, labels=False)
    assert not has_color(picture, object_color(1))


def test_ids_and_scores_are_written(image, maps):
    part, obj = maps
    arguments = (image, part, obj, TAXONOMY)
    bare = draw_part_instances(*arguments, labels=False)
    with_ids = draw_part_instances(*arguments)
    with_scores = draw_part_instances(*arguments, scores={1: 0.5, 2: 0.7})
    changed = [(bare != other).any(-1).sum() for other in (with_ids, with_scores)]
    assert 0 < changed[0] < changed[1]


def test_ignored_pixels_are_marked_but_not_as_a_part(image, maps):
    part, obj = maps
    part, obj = part.copy(), obj.copy()
    part[52:], obj[52:] = 255, -1
    plain = draw_part_instances(image, *maps, TAXONOMY, scale=1)
    marked = draw_part_instances(image, part, obj, TAXONOMY, scale=1)
    assert (plain[52:] != marked[52:]).any() and (plain[:50] == marked[:50]).all()


def test_nothing_found_is_only_the_faded_image(image):
    nothing = np.zeros((H, W), np.uint8)
    picture = draw_part_instances(image, nothing, nothing, TAXONOMY, scale=1)
    assert np.corrcoef(picture.mean(-1).ravel(), image.mean(-1).ravel())[0, 1] > 0.9


def test_arguments_are_not_changed(image, maps):
    before = [array.copy() for array in (image, *maps)]
    draw_part_instances(image, *maps, TAXONOMY)
    draw_detections(image, np.array([[1.0, 2, 30, 40]]))
    for array, copy in zip((image, *maps), before, strict=True):
        assert (array == copy).all()


def test_non_contiguous_arguments(image, maps):
    part, obj = maps
    expected = draw_part_instances(
        np.ascontiguousarray(image[:, ::-1]), part[:, ::-1].copy(), obj[:, ::-1].copy(), TAXONOMY
    )
    found = draw_part_instances(image[:, ::-1], part[:, ::-1], obj[:, ::-1], TAXONOMY)
    assert (expected == found).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, p, o: (i, p[1:], o), r"part_map is \(59, 80\), but the image is \(60, 80\)"),
        (lambda i, p, o: (i, p, o[:, 1:]), r"object_map is \(60, 79\)"),
        (lambda i, p, o: (i, p + 3, o), "part id 4, but the taxonomy has 3 parts"),
        (lambda i, p, o: (i.astype(float), p, o), "uint8 RGB"),
        (lambda i, p, o: (i[..., 0], p, o), "uint8 RGB"),
    ],
)
def test_contradictions_are_refused(image, maps, change, message):
    with pytest.raises(ValueError, match=message):
        draw_part_instances(*change(image, *maps), TAXONOMY)


def test_boxes_are_drawn_where_they_are():
    black = np.zeros((100, 100, 3), np.uint8)
    picture = draw_detections(black, np.array([[20.0, 30, 60, 90]]), scale=1)
    where = np.argwhere((picture == object_color(1)).all(-1))
    assert abs(where.max(0) - [89, 59]).max() <= 1  # the last pixel inside, to half a line
    assert abs(where.min(0) - [30, 20]).max() <= 1
    assert not picture[60:80, 30:50].any()  # below the number, inside the frame


def test_boxes_of_no_object_are_grey_and_below(image):
    boxes = np.array([[10.0, 10, 50, 50], [10, 10, 50, 50]])
    picture = draw_detections(image, boxes, [0.5, 0.6], object_ids=[2, 0])
    assert has_color(picture, object_color(2)) and not has_color(picture, object_color(1))


def test_no_boxes(image):
    for boxes in (np.zeros((0, 4)), []):
        assert draw_detections(image, boxes, [], [], TAXONOMY).shape[2] == 3


def test_wrong_boxes_are_refused(image):
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\), got \(1, 5\)"):
        draw_detections(image, np.zeros((1, 5)))
    with pytest.raises(ValueError, match="2 scores for 1 boxes"):
        draw_detections(image, np.zeros((1, 4)), [0.1, 0.2])


def test_class_names_are_written_if_there_are_several(image):
    box = np.array([[20.0, 20, 60, 50]])
    one, two = (draw_detections(image, box, None, [0], t) for t in (TAXONOMY, TWO_CLASSES))
    assert (one != two).any()


def test_legend_shows_every_part_and_wraps():
    wide, narrow = draw_legend(TAXONOMY, 600), draw_legend(TAXONOMY, 110)
    assert wide.shape[1] == 600 and narrow.shape[1] == 110 and len(narrow) > 2 * len(wide)
    for legend in (wide, narrow):
        assert all(has_color(legend, color) for color in TAXONOMY.part_colors)


def test_sheet_holds_the_pictures_unchanged():
    rng = np.random.default_rng(1)
    sizes = [[(20, 30), (25, 35)], [(40, 10)]]
    rows = [[rng.integers(0, 255, (*s, 3), dtype=np.uint8) for s in row] for row in sizes]
    sheet = make_sheet(rows, ["a", "b"], row_titles=["x"], legend=TAXONOMY, padding=5)
    for picture in (cell for row in rows for cell in row):
        windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)
        corners = np.argwhere((windows[:, :, 0, 0, 0] == picture[0, 0]).all(-1))
        found = [(sheet[y : y + len(picture), x : x + picture.shape[1]] == picture).all()
                 for y, x in corners]  # fmt: skip
        assert sum(found) == 1
    assert has_color(sheet, TAXONOMY.part_colors[2])


def test_wrong_sheets_are_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        make_sheet([])
    with pytest.raises(ValueError, match="2 titles for 1 columns"):
        make_sheet([[np.zeros((3, 3, 3), np.uint8)]], ["a", "b"])


def test_row_of_a_result(image, maps):
    row = draw_row(image, result_of(maps), TAXONOMY)
    assert len(row) == 3 and len({picture.shape for picture in row}) == 1
    assert has_color(row[0], object_color(2)) and has_color(row[2], object_color(2))
    assert not has_color(row[1], object_color(1))


def test_row_of_a_model_output_greys_boxes_without_pixels(image, maps):
    from detectron2.structures import Boxes, Instances

    result = result_of(maps)
    detections = Instances((H, W))
    lost = torch.tensor([[0.0, 0, 5, 5]])
    detections.pred_boxes = Boxes(torch.cat([result.boxes[:1], lost, result.boxes[1:]]))
    detections.scores = torch.tensor([0.9, 0.85, 0.8])
    detections.pred_classes = torch.zeros(3, dtype=torch.int64)
    q = torch.zeros(TAXONOMY.num_parts + 1, H, W)
    q[3] = 1  # the part head says legs everywhere
    output = {"part_instances": result, "detections": detections, "sem_seg": q}
    boxes, segmentation, _ = draw_row(image, output, TAXONOMY, scale=2)
    assert has_color(boxes, object_color(1)) and has_color(boxes, object_color(2))
    assert not has_color(boxes, object_color(3)) and has_color(boxes, object_color(0))
    legs = np.full((H, W), 3)
    assert (segmentation == draw_part_segmentation(image, legs, TAXONOMY, scale=2)).all()


@pytest.fixture
def record(image, maps, tmp_path):
    names = {key: str(tmp_path / f"{key}.png") for key in ("image", "part", "object")}
    Image.fromarray(image).save(names["image"])
    write_part_map(names["part"], maps[0])
    write_object_map(names["object"], maps[1])
    return {
        "file_name": names["image"],
        "part_file_name": names["part"],
        "object_file_name": names["object"],
    }


def test_record_is_drawn_from_its_files(record, image, maps):
    expected = draw_part_instances(image, *maps, TAXONOMY)
    assert (draw_record(record, TAXONOMY) == expected).all()
    row = draw_row(image, result_of(maps), TAXONOMY, record=record)
    assert len(row) == len(ROW_TITLES) and (row[3] == expected).all()


def test_broken_records_are_named(record, tmp_path):
    write_part_map(record["part_file_name"], np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match="part.png.*is \\(5, 5\\)"):
        draw_record(record, TAXONOMY)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match="broken.jpg"):
        draw_record({**record, "file_name": str(broken)}, TAXONOMY)
    with pytest.raises(FileNotFoundError, match="absent.jpg"):
        draw_record({**record, "file_name": str(tmp_path / "absent.jpg")}, TAXONOMY)


def test_palette_file_is_ids_to_readers_and_colours_to_viewers(maps, tmp_path):
    part = maps[0].copy()
    part[0, 0] = 255
    palette_image(part, TAXONOMY).save(tmp_path / "parts.png")
    assert (read_part_map(tmp_path / "parts.png") == part).all()
    colors = np.asarray(Image.open(tmp_path / "parts.png").convert("RGB"))
    assert tuple(colors[12, 12]) == TAXONOMY.part_colors[0] and tuple(colors[5, 5]) == (0, 0, 0)


def test_enlarging_keeps_labels_and_places():
    labels = np.random.default_rng(2).integers(0, 4, (12, 15)).repeat(3, 0).repeat(3, 1)
    labels[labels == 3] = 300
    assert (enlarge_labels(labels, 1) == labels).all()
    enlarged = enlarge_labels(labels, 4)
    assert enlarged.shape == (144, 180) and set(np.unique(enlarged)) == set(np.unique(labels))
    # The middle of every 3 x 3 block is surrounded by its own label.
    assert (enlarged[5::12, 5::12] == labels[1::3, 1::3]).all()


def test_large_images_are_drawn_at_1600_pixels():
    """As the image reduced by hand is; what scale is said is kept."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (1200, 4800, 3), dtype=np.uint8)
    maps = np.zeros((1200, 4800), np.int64), np.zeros((1200, 4800), np.int64)
    maps[0][300:900, 600:2400], maps[1][300:900, 600:2400] = 2, 1
    small = np.asarray(Image.fromarray(large).resize((1600, 400), Image.Resampling.BOX))
    small_maps = tuple(each[1::3, 1::3] for each in maps)
    box = np.array([[600.0, 300, 2400, 900]])
    assert (draw_detections(large, box) == draw_detections(small, box / 3)).all()
    expected = draw_part_instances(small, *small_maps, TAXONOMY)
    assert (draw_part_instances(large, *maps, TAXONOMY) == expected).all()
    assert expected.shape == (400, 1600, 3)
    assert draw_part_instances(large, *maps, TAXONOMY, scale=1).shape == large.shape
    q = torch.nn.functional.one_hot(torch.from_numpy(maps[0]), 3).permute(2, 0, 1).float()
    row = draw_row(large, {"part_instances": result_of(maps), "sem_seg": q}, TAXONOMY)
    assert (row[1] == draw_part_segmentation(small, small_maps[0], TAXONOMY)).all()
    bare = draw_row(large, result_of(maps), TAXONOMY)
    assert all((one == two).all() for one, two in zip(row, bare, strict=True))


def test_scale_brings_small_images_to_a_readable_size():
    assert drawing_scale(160, 160) == 3
    assert drawing_scale(375, 500) == 1
    assert drawing_scale(2000, 3000) == 1


def test_colours_of_objects_differ():
    assert len({object_color(i) for i in range(1, 21)}) == 20
