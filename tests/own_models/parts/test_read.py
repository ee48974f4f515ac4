"""Arrays, pictures and files as part scores; what is not what it is said to be."""

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.own_models.inputs import PartScores
from instance_crf.own_models.parts import load_part_model, read_part_scores, to_q
from instance_crf.taxonomies import PartTaxonomy

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(scale=3, size=(4, 6, 8)).astype(np.float32)
PROB = np.exp(LOGITS) / np.exp(LOGITS).sum(0)
IDS = GENERATOR.integers(0, 4, (6, 8))


def refused(value, kind, *words, **options):
    with pytest.raises(ValueError) as error:
        read_part_scores(value, kind, **options)
    missing = [word for word in words if word not in str(error.value)]
    assert not missing, (missing, str(error.value))


# Arrays


@pytest.mark.parametrize(
    "value, kind",
    [
        (LOGITS, "logits"),
        (LOGITS[None], "logits"),
        (torch.from_numpy(LOGITS), "logits"),
        (torch.from_numpy(LOGITS[None]).requires_grad_(), "logits"),
        ([torch.from_numpy(LOGITS)], "logits"),
        (LOGITS.tolist(), "logits"),
        (LOGITS.astype(">f4"), "logits"),
        (LOGITS[:, ::-1][:, ::-1], "logits"),
        (PROB, "prob"),
        (PROB.astype(np.float16), "prob"),
        (torch.from_numpy(PROB).bfloat16(), "prob"),
        (IDS, "map"),
        (IDS[None], "map"),
        (IDS[None, None].astype(np.uint16), "map"),
        (torch.from_numpy(IDS.astype(np.uint8)), "map"),
        (IDS.tolist(), "map"),
    ],
)
def test_arrays(value, kind):
    scores = read_part_scores(value, kind)
    expected = {"logits": LOGITS, "prob": PROB, "map": IDS}[kind]
    assert (scores.kind, scores.background, scores.align_corners) == (kind, "first", False)
    assert scores.person_logit is None and not scores.values.requires_grad
    tolerance = 1e-2 if scores.values.dtype in (torch.float16, torch.bfloat16) else 1e-6
    np.testing.assert_allclose(scores.values.double().numpy(), expected, atol=tolerance)


def test_an_array_that_cannot_be_written_is_read_without_a_warning(recwarn):
    array = LOGITS.copy()
    array.flags.writeable = False
    scores = read_part_scores(array, "logits")
    assert scores.values.data_ptr() == array.ctypes.data
    assert not recwarn.list


def test_flipped_arrays():
    scores = read_part_scores(LOGITS[:, :, ::-1], "logits")
    np.testing.assert_array_equal(scores.values.numpy(), LOGITS[:, :, ::-1])


def test_what_is_said_of_the_array():
    scores = read_part_scores(LOGITS, "logits", align_corners=True, background="last")
    assert scores.align_corners and scores.background == "last"


@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (1, 1, 6, 8)])
def test_a_person_logit_means_no_background_channel(shape):
    person = GENERATOR.normal(size=shape)
    scores = read_part_scores(LOGITS, "logits", person_logit=person)
    assert scores.background == "none"
    np.testing.assert_array_equal(scores.person_logit.numpy(), person.reshape(1, 6, 8))


def test_part_scores_are_returned_as_they_are():
    scores = PartScores(torch.from_numpy(LOGITS), "logits", "last", True)
    assert read_part_scores(scores, "prob") is scores
    assert read_part_scores(scores, "prob", background="last", align_corners=True) is scores
    refused(scores, "logits", "background", "'last' and 'first'", background="first")
    refused(scores, "logits", "align_corners", "True and False", align_corners=False)
    refused(scores, "logits", "person_logit is given twice", person_logit=LOGITS[0])


@pytest.mark.parametrize(
    "kind, values, words",
    [
        ("prob", LOGITS, "look like logits"),
        ("prob", 0 * LOGITS, "sums to 0"),
        ("logits", np.nan * LOGITS, "not finite"),
        ("map", IDS + 300, "300..303"),
        ("map", IDS > 1, "boolean"),
    ],
)
def test_the_numbers_of_part_scores_are_checked(kind, values, words):
    refused(PartScores(torch.from_numpy(values), kind), "prob", words)


def test_part_scores_are_proportional_to_probabilities():
    scores = PartScores(torch.from_numpy(3 * PROB), "prob")
    assert read_part_scores(scores, "prob") is scores


def test_the_person_logit_of_part_scores_is_checked():
    person = np.full((1, 6, 8), np.inf)
    refused(PartScores(LOGITS, "logits", "none", person_logit=person), "logits", "not finite")


def test_shapes_that_do_not_fit():
    refused(np.stack([LOGITS, LOGITS]), "logits", "(2, 4, 6, 8)", "2 images", "(C, h, w)")
    refused([LOGITS, LOGITS], "logits", "list of 2 ndarray", "one image")
    refused(LOGITS[0], "logits", "(6, 8)", "(C, h, w)", "part_map")
    refused(LOGITS, "map", "(4, 6, 8)", "(h, w)", "part_logits")
    refused(IDS[0], "map", "(8,)")
    refused(IDS[..., None], "map", "(6, 8, 1)", "Leave the last dimension out")
    refused(LOGITS[:, :0], "logits", "empty")
    refused(np.zeros((300, 4, 256)), "logits", "300 channels", "254 parts")


def test_channels_last_where_it_is_clear():
    refused(np.zeros((480, 640, 21), np.float32), "logits", "(480, 640, 21)", "permute(2, 0, 1)")
    refused(PROB.transpose(1, 2, 0), "prob", "(6, 8, 4)", "permute(2, 0, 1)")
    # Where it is not, the taxonomy decides.
    scores = read_part_scores(LOGITS.transpose(1, 2, 0), "logits")
    with pytest.raises(ValueError, match="permute"):
        to_q(scores, (6, 8), 3)


def test_probabilities_that_are_none():
    refused(LOGITS, "prob", f"{LOGITS.min():.4g}", "look like logits", "part_logits")
    refused(PROB * 0.9, "prob", "sums to 0.9..0.9", "sigmoid", "divide by the sum")
    refused(PROB * 1.021, "prob", "1.021")
    assert read_part_scores(PROB * 1.015, "prob")
    refused(1 / (1 + np.exp(-LOGITS)), "prob", "sums to", "sigmoid of its own")
    one_empty = PROB.copy()
    one_empty[:, 2, 3] = 0
    refused(one_empty, "prob", "sums to 0", "background")
    refused((255 * PROB).astype(np.uint8), "prob", "uint8", "part_map", "scaled")
    refused(PROB[1:], "prob", "background's channel is missing")


def test_logits_that_are_none():
    refused(PROB, "logits", "sum to 1..1", "part_prob", "flatten")
    refused(PROB.astype(np.float16), "logits", "part_prob")
    refused(LOGITS.astype(int), "logits", "int64", "floating point")
    assert read_part_scores(np.log(PROB), "logits")
    assert read_part_scores(np.maximum(LOGITS, 0), "logits")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["logits", "prob"])
def test_numbers_that_are_not_finite(kind, bad):
    values = LOGITS.copy()
    values[1, 2, 3] = bad
    refused(values, kind, "not finite", "half precision")


def test_maps_that_are_none():
    refused(IDS > 0, "map", "mask of the foreground", "NAME_seg.npy")
    refused(IDS.astype(float), "map", "float64", "integers")
    refused(IDS - 1, "map", "ids -1..2", "255")
    refused(IDS + 300, "map", "300..303")


def test_persons_that_do_not_fit():
    refused(LOGITS, "logits", "(1, 3, 8)", "(1, 6, 8)", person_logit=LOGITS[0, :3])
    refused(LOGITS, "logits", "probability", person_logit=PROB[0])
    refused(LOGITS, "logits", "not finite", person_logit=LOGITS[0] * np.nan)
    refused(LOGITS, "logits", "'first'", "leave", background="first", person_logit=LOGITS[0])
    refused(LOGITS, "logits", "needs person_logit", background="none")
    refused(IDS, "map", "'first' or 'last'", background="none")
    refused(LOGITS, "logits", "'middle'", "first, last, none", background="middle")


def test_what_is_no_output_of_parts():
    refused(LOGITS, "probs", "'probs'", "prob, logits, map")
    refused(None, "prob", "part_prob is a NoneType")
    refused(lambda pixels: LOGITS, "prob", "function", "Call it")
    refused({"masks": 1, "boxes": 2}, "prob", "masks, boxes", "torchvision")
    refused({}, "prob", "nothing")


# Pictures


def test_a_palette_picture_is_ids():
    picture = Image.fromarray(IDS.astype(np.uint8))
    picture.putpalette([200, 10, 10, 10, 200, 10] * 128)
    assert picture.mode == "P"
    np.testing.assert_array_equal(read_part_scores(picture, "map").values, IDS)


def test_pictures_that_are_no_ids():
    refused(Image.new("RGB", (8, 6)), "map", "mode RGB", "palette")
    refused(Image.new("1", (8, 6)), "map", "mode 1")
    refused(Image.new("L", (8, 6)), "prob", "part_map", "part_prob")


# Files


def test_files_of_numpy(tmp_path):
    np.save(tmp_path / "logits.npy", LOGITS)
    np.save(tmp_path / "x_seg.npy", IDS)
    np.savez(tmp_path / "one.npz", whatever=PROB)
    np.savez(tmp_path / "named.npz", part_prob=PROB, size=np.array([6, 8]))
    cases = {"logits.npy": LOGITS, "x_seg.npy": IDS, "one.npz": PROB, "named.npz": PROB}
    for (name, expected), kind in zip(
        cases.items(), ["logits", "map", "prob", "prob"], strict=True
    ):
        for path in (tmp_path / name, str(tmp_path / name)):
            scores = read_part_scores(path, kind)
            assert scores.kind == kind and scores.background == "first"
            np.testing.assert_array_equal(scores.values, expected)


def test_a_file_of_person_and_parts(tmp_path):
    person = GENERATOR.normal(size=(1, 6, 8)).astype(np.float16)
    np.savez(tmp_path / "a.npz", person_logit=person, part_logits=LOGITS, internal_size=[48, 64])
    scores = read_part_scores(tmp_path / "a.npz", "logits")
    assert scores.background == "none" and scores.align_corners
    np.testing.assert_array_equal(scores.person_logit, person)
    assert not read_part_scores(tmp_path / "a.npz", "logits", align_corners=False).align_corners
    refused(tmp_path / "a.npz", "prob", "a.npz", "has part_logits", "part_prob")
    refused(tmp_path / "a.npz", "logits", "a.npz", "leave", background="first")


def test_a_png_of_ids(tmp_path):
    ids = IDS.astype(np.uint8)
    ids[0, 0] = 255
    Image.fromarray(ids).save(tmp_path / "a.png")
    scores = read_part_scores(tmp_path / "a.png", "map")
    np.testing.assert_array_equal(scores.values, ids)
    q = to_q(scores, (6, 8), 3)
    torch.testing.assert_close(q[:, 0, 0], torch.full((4,), 0.25))
    refused(tmp_path / "a.png", "prob", "a.png", "part_map")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npy"):
        read_part_scores(tmp_path / "nowhere.npy", "prob")
    refused(tmp_path, "prob", str(tmp_path), "load_part_model")
    (tmp_path / "text.npy").write_text("text")
    refused(tmp_path / "text.npy", "prob", "text.npy")
    (tmp_path / "text.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(tmp_path / "text.npz", "prob", "text.npz")
    np.save(tmp_path / "whole.npy", PROB)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:300])
    refused(tmp_path / "cut.npy", "prob", "cut.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "objects.npy", "prob", "objects.npy")
    np.savez(tmp_path / "two.npz", a=PROB, b=PROB)
    refused(tmp_path / "two.npz", "prob", "has a, b", "part_prob")
    np.savez(tmp_path / "both.npz", part_prob=PROB, part_logits=LOGITS)
    refused(tmp_path / "both.npz", "prob", "part_prob, part_logits")
    np.save(tmp_path / "wrong.npy", LOGITS)
    refused(tmp_path / "wrong.npy", "prob", "wrong.npy", "look like logits")


# Folders


PIXELS = np.zeros((60, 80, 3), np.uint8)
TAXONOMY = PartTaxonomy(("head", "arms", "legs"))


def test_a_folder(tmp_path):
    np.save(tmp_path / "a.npy", LOGITS)
    np.save(tmp_path / "b.npy", PROB)
    np.savez(tmp_path / "c.npz", person_logit=LOGITS[:1], part_logits=LOGITS)
    Image.fromarray(IDS.astype(np.uint8)).save(tmp_path / "d.png")
    source = load_part_model(tmp_path, taxonomy=TAXONOMY)
    assert source.taxonomy is TAXONOMY
    found = {stem: source(PIXELS, tmp_path / f"photos/{stem}.jpg") for stem in "abcd"}
    assert [s.kind for s in found.values()] == ["logits", "prob", "logits", "map"]
    assert [s.background for s in found.values()] == ["first", "first", "none", "first"]
    assert all(s.taxonomy is TAXONOMY for s in found.values())
    np.testing.assert_array_equal(found["a"].values, LOGITS)


def test_a_folder_of_sapiens(tmp_path):
    """Beside the ids: a mask of the foreground, and photo and result side by side."""
    np.save(tmp_path / "a.npy", IDS > 0)
    np.save(tmp_path / "a_seg.npy", IDS)
    Image.new("RGB", (160, 60)).save(tmp_path / "a.png")
    scores = load_part_model(str(tmp_path))(PIXELS, "a.jpg")
    np.testing.assert_array_equal(scores.values, IDS)
    (tmp_path / "a_seg.npy").unlink()
    with pytest.raises(ValueError, match="a.npy.*say kind"):
        load_part_model(tmp_path)(PIXELS, "a.jpg")
    with pytest.raises(ValueError, match="a.npy.*mask of the foreground"):
        load_part_model(tmp_path, kind="map")(PIXELS, "a.jpg")


def test_a_suffix_and_what_is_said_of_all_files(tmp_path):
    np.save(tmp_path / "a_parts.npy", np.maximum(LOGITS, 0))
    with pytest.raises(ValueError, match="a_parts.npy.*kind="):
        load_part_model(tmp_path, suffix="_parts")(PIXELS, "a.jpg")
    options = {"kind": "logits", "background": "last", "align_corners": True}
    scores = load_part_model(tmp_path, suffix="_parts", **options)(PIXELS, "a.jpg")
    assert (scores.kind, scores.background, scores.align_corners) == ("logits", "last", True)


def test_folders_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", LOGITS)
    source = load_part_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="No part scores of b in .*b_seg.npy.*b.png"):
        source(PIXELS, "b.jpg")
    with pytest.raises(ValueError, match="no file name"):
        source(PIXELS)
    with pytest.raises(ValueError, match="a.jpg is 80 x 60, another shape than .*a.npy with 6 x 8"):
        source(PIXELS.transpose(1, 0, 2), "a.jpg")
    with pytest.raises(ValueError, match="there is no option mean; there are taxonomy, suffix"):
        load_part_model(tmp_path, mean=0)
    with pytest.raises(ValueError, match="kind is 'scores'"):
        load_part_model(tmp_path, kind="scores")


@pytest.mark.parametrize("shape, fits", [((60, 80), True), ((62, 80), True), ((64, 80), False)])
def test_how_far_a_shape_may_be_off(shape, fits, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((600, 800), np.uint8))
    pixels = np.zeros((*shape, 3), np.uint8)
    if fits:
        assert load_part_model(tmp_path)(pixels, "a.jpg")
    else:
        with pytest.raises(ValueError, match="another shape"):
            load_part_model(tmp_path)(pixels, "a.jpg")


def test_scores_of_a_network_that_squashes_photos(tmp_path):
    np.save(tmp_path / "a.npy", LOGITS[:, :, :6])
    assert load_part_model(tmp_path)(PIXELS, "a.jpg").values.shape == (4, 6, 6)
    np.save(tmp_path / "a.npy", LOGITS.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="another shape .* stretched=True"):
        load_part_model(tmp_path)(PIXELS, "a.jpg")
    assert load_part_model(tmp_path, stretched=True)(PIXELS, "a.jpg").values.shape == (4, 8, 6)
    np.save(tmp_path / "a.npy", IDS[:, :6])
    with pytest.raises(ValueError, match="another shape"):
        load_part_model(tmp_path, stretched=True)(PIXELS, "a.jpg")


def test_what_is_no_model(tmp_path):
    for spec in ("nowhere", tmp_path / "nowhere", "tf:model", "C:\\parts"):
        with pytest.raises(FileNotFoundError, match="neither a folder.*hf:..., torchvision:"):
            load_part_model(spec)
    with pytest.raises(ValueError, match="'hf:' names no model"):
        load_part_model("hf:")
    with pytest.raises(ValueError, match="There is no taxonomy 'cat'"):
        load_part_model(tmp_path, taxonomy="cat")
    np.save(tmp_path / "a.npy", LOGITS)
    assert load_part_model(tmp_path, taxonomy="cihp").taxonomy.num_parts == 19


def test_outputs_of_a_real_model(real_folder):
    source = load_part_model(real_folder / "q")
    for name in ("cihp_12008", "coco128_110"):
        path = real_folder / "photos" / f"{name}.jpg"
        pixels = np.asarray(Image.open(path))
        scores = source(pixels, path)
        assert scores.background == "none" and scores.align_corners
        q = to_q(scores, (120, 160), 24, image_size=pixels.shape[:2])
        torch.testing.assert_close(q.sum(0), torch.ones(120, 160))
        assert 0.05 < float((q[0] < 0.5).float().mean()) < 0.9
