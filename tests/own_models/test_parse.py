"""`instance_crf.parse`: from whatever one has to part instances."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import instance_crf
from instance_crf import parse
from instance_crf.crf import DenseInstanceCRF, FactoredInstanceCRF
from instance_crf.crf.place import region_templates
from instance_crf.own_models.inputs import PartScores, Source
from instance_crf.taxonomies import PartTaxonomy, get_taxonomy

PARTS = get_taxonomy("pascal_person_part")
SIZE = (96, 128)
BOXES = np.array([[10.0, 8, 66, 92], [50, 12, 120, 90]], np.float32)
SCORES = np.array([0.9, 0.8], np.float32)


@pytest.fixture
def truth():
    """(H, W) persons and parts: two rectangles, the first in front, six bands each."""
    person = np.zeros(SIZE, int)
    person[14:88, 56:116] = 2
    person[10:90, 14:62] = 1
    part = np.zeros(SIZE, int)
    for index, (_, y1, _, y2) in enumerate(BOXES):
        band = ((np.arange(SIZE[0]) - y1) / (y2 - y1) * 6).astype(int).clip(0, 5) + 1
        part = np.where(person == index + 1, band[:, None], part)
    return person, part


@pytest.fixture
def image(truth):
    colors = np.array([[40, 90, 40], [200, 60, 60], [60, 60, 210]])
    noise = np.random.default_rng(0).normal(0, 4, (*SIZE, 3))
    return (colors[truth[0]] + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def logits(truth):
    return 6 * F.one_hot(torch.from_numpy(truth[1]), 7).permute(2, 0, 1).float()


def agreement(result, truth):
    person, part = truth
    return (
        (result.object_map.numpy() == person).mean(),
        (result.part_map.numpy() == part).mean(),
    )


def test_the_answer(image, logits, truth):
    result = parse(image, part_logits=logits, detections=(BOXES, SCORES), parts=PARTS)
    assert len(result) == 2 and result.image_size == SIZE
    persons, parts = agreement(result, truth)
    assert persons > 0.97 and parts == 1
    assert result.score_name == "share" and result.taxonomy is PARTS
    assert result.person(0).shape == SIZE
    assert set(np.unique(result.person(0))) == set(range(7))


def test_is_the_factored_crf_at_the_pictures_size(image, logits):
    """Without upsampling `parse` is nothing but the CRF."""
    result = parse(image, part_logits=logits, detections=(BOXES, SCORES), parts=PARTS)
    crf = FactoredInstanceCRF(place_templates=region_templates(PARTS.part_regions))
    with torch.no_grad():
        owner, part = crf(
            logits.softmax(0),
            torch.from_numpy(BOXES),
            torch.from_numpy(SCORES),
            torch.from_numpy(image).permute(2, 0, 1).float(),
        ).argmax()
    assert torch.equal(result.object_map, owner.int())
    assert torch.equal(result.part_map, part.int())


def test_all_ways_to_give_the_same(image, logits, tmp_path, truth):
    prob = logits.softmax(0)
    expected = parse(image, part_logits=logits, detections=(BOXES, SCORES), parts=PARTS)
    Image.fromarray(image).save(tmp_path / "photo.png")
    np.save(tmp_path / "q.npy", prob.numpy())
    boxes = {"boxes": torch.from_numpy(BOXES), "scores": torch.from_numpy(SCORES)}
    for picture, given in (
        (tmp_path / "photo.png", {"part_logits": logits.numpy()}),
        (Image.fromarray(image), {"part_prob": prob}),
        (torch.from_numpy(image).permute(2, 0, 1), {"part_prob": prob.numpy()}),
        (image, {"part_prob": tmp_path / "q.npy"}),
        (image, {"part_logits": lambda pixels: logits}),
        (image, {"part_logits": logits.roll(-1, 0), "background": "last"}),
        (
            image,
            {
                "part_logits": logits[1:] - logits[1:].logsumexp(0),
                "person_logit": (1 / prob[:1] - 1).log(),
                "background": "none",
            },
        ),
    ):
        for detections in (boxes, lambda pixels: boxes):
            result = parse(picture, **given, detections=detections, parts="pascal-person-part")
            assert torch.equal(result.object_map, expected.object_map)
            assert torch.equal(result.part_map, expected.part_map)
    result = parse(image, part_map=truth[1], detections=boxes, parts=PARTS)
    assert min(agreement(result, truth)) > 0.97


def test_larger_pictures_are_answered_at_their_size(image, logits, truth):
    large = np.asarray(Image.fromarray(image).resize((512, 384), Image.Resampling.NEAREST))
    result = parse(
        large,
        part_logits=F.interpolate(logits[None], (48, 64), mode="bilinear", antialias=True)[0],
        detections=(4 * BOXES, SCORES),
        parts=PARTS,
        working_size=128,
    )
    assert result.image_size == (384, 512)
    full = [each.repeat(4, 0).repeat(4, 1) for each in truth]
    persons, parts = agreement(result, full)
    assert persons > 0.97 and parts > 0.97
    # Where the picture has an edge, the border is on it, to the pixel.
    edge = result.object_map.numpy()[160, 440:480]
    assert (edge[: 464 - 440] == 2).all() and (edge[464 - 440 :] == 0).all()


def test_aligned_corners(image, logits):
    small = F.interpolate(logits[None], (13, 17), mode="bilinear", align_corners=True)[0]
    common = {"detections": (BOXES, SCORES), "parts": PARTS}
    result = parse(image, part_logits=small, align_corners=True, **common)
    upsampled = F.interpolate(small[None], SIZE, mode="bilinear", align_corners=True)[0]
    assert torch.equal(result.part_map, parse(image, part_logits=upsampled, **common).part_map)
    half_pixels = parse(image, part_logits=small, **common)
    assert not torch.equal(result.part_map, half_pixels.part_map)


def test_merged_parts(image, logits, truth):
    groups = {"upper body": ["head", "torso", "upper arms", "lower arms"]}
    groups["legs"] = ["upper legs", "lower legs"]
    result = parse(image, part_logits=logits, detections=(BOXES, SCORES), parts=PARTS, merge=groups)
    assert result.taxonomy.part_names == ("upper body", "legs")
    merged = np.array([0, 1, 1, 1, 1, 2, 2])[truth[1]]
    assert (result.part_map.numpy() == merged).all()


def test_several_object_classes(image, logits):
    taxonomy = PartTaxonomy(
        [*PARTS.part_names[:3], "wheel", "door", "roof"], ["person", "car"], [0, 0, 0, 1, 1, 1]
    )
    detections = {"boxes": BOXES, "scores": SCORES, "labels": np.array([2, 7])}
    result = parse(
        image,
        part_logits=logits,
        detections=detections,
        class_names={2: "car", 7: "person", 9: "dog"},
        parts=taxonomy,
    )
    assert result.classes.tolist() == [1, 0]
    for index in (1, 2):
        parts = result.part_map[result.object_map == index]
        assert (parts > 3).all() if index == 1 else (parts <= 3).all()


def test_evidence_decides(image, logits):
    """Somebody who knows better than boxes: the overlap is the second person's."""
    common = {"part_logits": logits, "detections": (BOXES, SCORES), "parts": PARTS}
    plain = parse(image, **common)
    left = torch.zeros(2, *SIZE)
    left[0, :, :58] = 1
    left[1] = 1 - left[0]
    told = parse(image, identity=left, **common)
    asked = parse(image, identity=lambda boxes: left, **common)
    masks = {"boxes": BOXES, "scores": SCORES, "masks": left > 0.5}
    masked = parse(image, **{**common, "detections": masks})
    strip = (slice(20, 80), slice(58, 62))
    assert (plain.object_map[strip] == 1).all()
    assert (told.object_map[strip] == 2).float().mean() > 0.9
    assert torch.equal(asked.object_map, told.object_map)
    assert torch.equal(masked.object_map, told.object_map)


def test_keypoints_decide(image, logits):
    """In pixels of the image, which is larger than the working size."""
    large = np.asarray(Image.fromarray(image).resize((256, 192), Image.Resampling.NEAREST))
    keypoints = np.array(
        [[[2 * x, 2 * y, 1] for y in (20, 40, 60, 80)] for x in (30, 60)], np.float32
    )
    common = {"part_logits": logits, "parts": PARTS, "working_size": 128}
    boxes = {"boxes": 2 * BOXES, "scores": SCORES}
    plain = parse(large, detections=boxes, **common)
    posed = parse(large, detections={**boxes, "keypoints": keypoints}, **common)
    column = (slice(40, 160), slice(116, 122))
    assert (plain.object_map[column] == 1).all()
    assert (posed.object_map[column] == 2).float().mean() > 0.9


def test_rows_of_identity_are_those_of_the_detections_given(image, logits):
    boxes = np.concatenate([[[5, 5, 5, 50]], BOXES[:1], [[500, 5, 600, 50]], BOXES[1:]])
    scores = np.array([0.99, 0.9, 0.95, 0.8])
    left = torch.zeros(4, *SIZE)
    left[1, :, :58] = 1
    left[3, :, 58:] = 1
    with pytest.warns(UserWarning, match="outside of the image"):
        result = parse(
            image, part_logits=logits, detections=(boxes, scores), parts=PARTS, identity=left
        )
    assert result.detection_index.tolist() == [1, 3]
    assert (result.object_map[20:80, 58:62] == 2).float().mean() > 0.9
    assert any("0" in note for note in result.notes) and len(result.notes) >= 1


def test_no_detections(image, logits):
    nothing = (np.zeros((0, 4)), np.zeros(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = parse(image, part_logits=logits, detections=nothing, parts=PARTS)
    assert len(result) == 0 and (result.part_map > 0).any() and not result.object_map.any()


def test_boxes_below_the_least_score(image, logits):
    result = parse(image, part_logits=logits, detections=(BOXES, [0.9, 0.1]), parts=PARTS)
    assert result.detection_index.tolist() == [0]


def test_another_crf(image, logits):
    common = {"part_logits": logits, "detections": (BOXES, SCORES), "parts": PARTS}
    crf = DenseInstanceCRF(reference_size=500)
    joint = parse(image, crf=crf, **common)
    picture = torch.from_numpy(image).permute(2, 0, 1).float()
    with torch.no_grad():
        labelling = crf(
            logits.softmax(0), torch.from_numpy(BOXES), torch.from_numpy(SCORES), picture
        )
    assert torch.equal(joint.object_map, labelling.argmax()[0].int())


class Remembering(Source):
    def __init__(self, answer):
        self.answer, self.paths = answer, []

    def __call__(self, pixels, path=None):
        self.paths.append(path)
        return self.answer


def test_sources_are_told_the_file(image, logits, tmp_path):
    Image.fromarray(image).save(tmp_path / "photo.png")
    source = Remembering(PartScores(logits, "logits", taxonomy=PARTS))
    result = parse(tmp_path / "photo.png", part_prob=source, detections=(BOXES, SCORES))
    assert source.paths == [tmp_path / "photo.png"] and len(result) == 2


# --- several images ---


def test_lists_in_iterator_out(image, logits):
    results = parse(
        (each for each in [image, image[:, ::-1]]),
        part_logits=[logits, logits.flip(2)],
        detections=lambda pixels: (BOXES, SCORES),
        parts=PARTS,
    )
    assert iter(results) is results
    first, second = results
    alone = parse(image, part_logits=logits, detections=(BOXES, SCORES), parts=PARTS)
    assert torch.equal(first.object_map, alone.object_map)
    assert torch.equal(second.part_map, alone.part_map.flip(1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"part_logits": 1}, "more than 1 images, but part_logits has 1"),
        ({"part_logits": 3}, "are 2 images, but part_logits has more"),
        ({"detections": {"boxes": BOXES}}, "one detections .dict.: it must be a list"),
        ({"detections": "boxes.json"}, "one detections .str.: it must be a list"),
        ({"part_logits": 0.5}, "one part_logits .float.: it must be a list"),
    ],
)
def test_lists_that_do_not_fit(image, logits, change, message):
    given = {"part_logits": [logits] * 2, "detections": [(BOXES, SCORES)] * 2}
    for name, value in change.items():
        given[name] = [logits] * value if isinstance(value, int) else value
    with pytest.raises(ValueError, match=message):
        list(parse([image, image], parts=PARTS, **given))


def test_results_of_one_image_are_not_those_of_several(image, logits):
    """Though some libraries' can be gone through: of two images, one with two people would do."""
    supervision = pytest.importorskip("supervision")

    class Results(list):
        xyxy = BOXES

    one = supervision.Detections(xyxy=BOXES, confidence=SCORES)
    for detections in (one, Results(BOXES)):
        with pytest.raises(ValueError, match="one detections .(Detections|Results).: it must be a"):
            parse([image] * 2, part_logits=[logits] * 2, detections=detections, parts=PARTS)


def test_errors_name_the_image_of_a_list(image, logits):
    with pytest.raises(ValueError, match="Image 1 of the list: The image is an array"):
        list(
            parse(
                [image, image.astype(float)],
                part_logits=[logits] * 2,
                detections=[(BOXES, SCORES)] * 2,
                parts=PARTS,
            )
        )


# --- what is wrong ---


@pytest.mark.parametrize(
    "change, message",
    [
        ({"part_logits": None}, "part_map; it got none of them"),
        ({"part_prob": torch.ones(7, 4, 4) / 7}, "it got part_prob and part_logits"),
        ({"parts": None}, "what the parts are.*pascal_person_part"),
        ({"parts": "pascal_person"}, "pascal_person_part"),
        ({"parts": "cihp"}, "7.*19|19.*7"),
        ({"background": "none"}, "person_logit"),
        ({"detections": (BOXES, 100 * SCORES)}, "90"),
        ({"detections": (BOXES[:, [0, 1, 0, 1]] - [0, 0, 5, 5], SCORES)}, "x, y, w"),
        ({"detections": (BOXES, SCORES[:1])}, "1"),
        ({"class_names": ["cat", "dog"], "detections": (BOXES, SCORES, [0, 1])}, "cat"),
        ({"parts": ["head"]}, "no taxonomy \\['head'\\]"),
        ({"merge": {"all": "head"}}, "a mapping from each new part to a list"),
        ({"smoothing": 1.5}, "smoothing is 1.5"),
        ({"smoothing": 1, "part_logits": None, "part_map": np.ones(SIZE, int)}, "smoothing is 1"),
        ({"working_size": 4}, "working_size is 4"),
        ({"working_size": 512.5}, "working_size is 512.5"),
        ({"working_size": (96, 128)}, r"working_size is \(96, 128\)"),
        ({"least_score": -1}, "least_score is -1"),
        ({"least_score": "0.3"}, "least_score is '0.3'"),
        ({"min_share": 2}, "min_share is 2"),
        ({"crf": "factored"}, "crf is 'factored'; .*FactoredInstanceCRF"),
        ({"crf": FactoredInstanceCRF}, "crf is <class"),
        ({"align_corners": "yes"}, "align_corners is 'yes'"),
        ({"part_logits": torch.nn.Conv2d(3, 7, 1)}, "Conv2d is a network"),
        ({"detections": torch.nn.Linear(2, 2)}, "Linear is a network"),
        ({"identity": torch.zeros(1, 9, 9)}, r"identity is \(1, 9, 9\).*must be \(2, h, w\)"),
        ({"identity": torch.zeros(3, 9, 9)}, r"identity is \(3, 9, 9\).*must be \(2, h, w\)"),
        ({"identity": lambda boxes: torch.zeros(3, 9, 9)}, r"identity is \(3, 9, 9\)"),
        ({"identity": torch.zeros(2, 0, 9)}, r"identity is \(2, 0, 9\)"),
        ({"identity": torch.full((2, 9, 9), 3.0)}, "identity goes from 3 to 3"),
        ({"identity": torch.full((2, 9, 9), torch.nan)}, "identity goes from nan"),
        ({"identity": "maps.npy"}, "identity cannot be read as numbers"),
        (
            {"identity": torch.zeros(2, 9, 9), "crf": DenseInstanceCRF(reference_size=500)},
            "an identity, but DenseInstanceCRF takes none",
        ),
        (
            {"crf": FactoredInstanceCRF(place_templates=torch.ones(19, 4, 4))},
            "6 parts and a background, but place_templates are of 19 parts",
        ),
    ],
)
def test_bad_input(image, logits, change, message):
    given = {"part_logits": logits, "detections": (BOXES, SCORES), "parts": PARTS, **change}
    with pytest.raises(ValueError, match=message):
        parse(image, **given)


@pytest.mark.parametrize("picture", [None, 7, b"photo.jpg", {"a": "photo.jpg"}])
def test_what_is_no_picture_is_refused_at_once(logits, picture):
    with pytest.raises(ValueError, match="The image is a"):
        parse(picture, part_logits=logits, detections=(BOXES, SCORES), parts=PARTS)


def test_files_that_are_not_there(image, logits, tmp_path):
    given = {"part_logits": logits, "detections": (BOXES, SCORES), "parts": PARTS}
    for name in ("parts", "part_logits", "detections"):
        with pytest.raises(FileNotFoundError, match="nothing.json"):
            parse(image, **{**given, name: str(tmp_path / "nothing.json")})


def test_votes_that_are_none(image, logits):
    common = {"detections": (BOXES, SCORES), "parts": PARTS}
    for votes in (torch.ones(9, 9), torch.ones(3, 9, 9), -torch.ones(2, 9, 9)):
        scores = PartScores(logits, "logits", votes=lambda boxes, votes=votes: votes)
        with pytest.raises(ValueError, match="^votes (is|goes)"):
            parse(image, part_logits=scores, **common)


def test_nobody_has_no_identity(image, logits):
    nothing = (np.zeros((0, 4)), np.zeros(0))
    for identity in (torch.zeros(0, *SIZE), lambda boxes: torch.zeros(len(boxes), *SIZE)):
        result = parse(
            image, part_logits=logits, detections=nothing, parts=PARTS, identity=identity
        )
        assert len(result) == 0


def test_a_photo_that_its_tag_turns(image, logits, tmp_path):
    """Of which the detector did not know."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "photo.jpg", exif=exif)
    turned = logits.rot90(-1, (1, 2))
    with pytest.warns(UserWarning, match="1 of 2 boxes reach far beyond the image, 96x128.*turned"):
        parse(tmp_path / "photo.jpg", part_logits=turned, detections=(BOXES, SCORES), parts=PARTS)


def test_a_map_of_another_shape_than_the_picture(image, truth):
    with pytest.raises(ValueError, match="128x96.*96x128|96x128.*128x96"):
        parse(image, part_map=truth[1].T.copy(), detections=(BOXES, SCORES), parts=PARTS)


def test_ids_beyond_the_taxonomy(image, truth):
    with pytest.raises(ValueError, match="9"):
        parse(
            image,
            part_map=np.where(truth[1] == 3, 9, truth[1]),
            detections=(BOXES, SCORES),
            parts=PARTS,
        )


def test_unlikely_input_warns(image, logits):
    with pytest.warns(UserWarning, match="background"):
        result = parse(
            image, part_logits=logits.roll(-1, 0), detections=(BOXES, SCORES), parts=PARTS
        )
    assert result.notes


# --- the package ---


def test_is_importable_as_promised_and_without_libraries():
    code = (
        "import sys, torch; import instance_crf; assert 'parse' in dir(instance_crf); "
        "from instance_crf import parse; "
        "print([m for m in ('detectron2', 'cv2', 'transformers', 'torchvision', 'supervision', "
        "'onnxruntime', 'pycocotools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_unknown_names_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'pars'"):
        instance_crf.pars  # noqa: B018
