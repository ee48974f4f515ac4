"""instance_crf.predictor: as Detectron2's DefaultPredictor, for several images; clear refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image

import instance_crf
from instance_crf.config import load_config
from instance_crf.predictor import PartInstancePredictor

CONFIG = Path(__file__).resolve().parents[1] / "configs/SyntheticPeople/instance_crf.yaml"
TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [10,12,14,16]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16
    MODEL.RPN.CONV_DIMS [16] MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.DEVICE cpu
    INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96
    MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH 0.0 MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 2
    MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST 1
""".split()


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A small network with random weights, and those weights in a file."""
    instance_crf.register()
    weights = tmp_path_factory.mktemp("model") / "random.pth"
    torch.manual_seed(0)
    model = build_model(load_config(str(CONFIG), TINY))
    torch.save({"model": model.state_dict()}, weights)
    return load_config(str(CONFIG), [*TINY, "MODEL.WEIGHTS", str(weights)])


@pytest.fixture(scope="module")
def predictor(cfg):
    return PartInstancePredictor(cfg, batch_size=2)


def test_registers_what_it_needs(cfg, tmp_path):
    """In a Python where nothing has called `instance_crf.register`."""
    (tmp_path / "config.yaml").write_text(cfg.dump())
    code = (
        "import numpy as np\n"
        "from instance_crf.config import load_config\n"
        "from instance_crf.predictor import PartInstancePredictor\n"
        "predictor = PartInstancePredictor(load_config('config.yaml'))\n"
        "predictor(np.zeros((40, 50, 3), np.uint8))\n"
        "print(*predictor.taxonomy.part_names, sep=', ')\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("head, torso")


def photo(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_agrees_with_detectron2s_predictor(cfg, predictor):
    image = photo(70, 50)
    expected, found = DefaultPredictor(cfg)(image), predictor(image)
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"])
    torch.testing.assert_close(
        found["detections"].pred_boxes.tensor, expected["detections"].pred_boxes.tensor
    )
    assert (found["part_instances"].part_map == expected["part_instances"].part_map).all()


def test_results_know_their_picture_and_what_parts_are_called(predictor, tmp_path):
    bgr, other = photo(70, 50), photo(40, 60, seed=1)
    Image.fromarray(other).save(tmp_path / "a.png")
    given = bgr.copy()
    first, second = (o["part_instances"] for o in predictor([given, tmp_path / "a.png"]))
    given[:] = 0  # as a reader of videos does
    assert np.array_equal(first.image, bgr[:, :, ::-1]) and np.array_equal(second.image, other)
    assert first.taxonomy is second.taxonomy is predictor.taxonomy
    assert first.draw().shape == (70, 50, 3)
    bare = PartInstancePredictor(model=predictor.model, min_size=64, max_size=96)
    assert bare(bgr)["part_instances"].taxonomy is None


@pytest.mark.parametrize("size", [(70, 50), (33, 120), (160, 160), (5, 7), (1, 700), (700, 1)])
def test_results_have_the_images_own_size(predictor, size):
    output = predictor(photo(*size))
    assert output["part_instances"].image_size == size
    assert output["sem_seg"].shape == (7, *size)
    assert output["panoptic_seg"][0].shape == size
    assert output["instances"].image_size == size and output["detections"].image_size == size


def test_several_images_are_one_by_one(predictor):
    images = [photo(60, 60, seed) for seed in range(3)]  # two batches
    outputs = predictor(images)
    assert len(outputs) == 3
    for image, output in zip(images, outputs, strict=True):
        expected = predictor(image)["sem_seg"]
        torch.testing.assert_close(output["sem_seg"], expected, atol=1e-4, rtol=1e-4)


def test_images_of_different_sizes_go_through_together(predictor):
    outputs = predictor([photo(40, 90), photo(90, 40)])
    assert [o["part_instances"].image_size for o in outputs] == [(40, 90), (90, 40)]


def test_no_images(predictor):
    assert predictor([]) == []


def test_files_are_read_as_arrays_are_given(predictor, tmp_path):
    bgr = photo(50, 60)
    Image.fromarray(bgr[:, :, ::-1]).save(tmp_path / "a.png")
    expected = predictor(bgr)["sem_seg"]
    for name in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert torch.equal(predictor(name)["sem_seg"], expected)
    assert torch.equal(predictor([tmp_path / "a.png"])[0]["sem_seg"], expected)


def test_channels_are_turned_for_rgb_models(predictor):
    rgb = PartInstancePredictor(model=predictor.model, min_size=64, max_size=96, image_format="RGB")
    image = photo(64, 64)
    turned = np.ascontiguousarray(image[:, :, ::-1])
    assert torch.equal(rgb(image)["sem_seg"], predictor(turned)["sem_seg"])
    assert not torch.equal(rgb(image)["sem_seg"], predictor(image)["sem_seg"])


def test_images_are_read_a_batch_at_a_time(predictor):
    taken = []

    def images():
        for seed in range(5):
            taken.append(seed)
            yield photo(40, 40, seed)

    next(predictor.predict(images()))
    assert taken == [0, 1]


def test_the_model_is_in_evaluation_mode_and_the_taxonomy_known(predictor):
    assert not predictor.model.training
    assert predictor.taxonomy.num_parts == 6


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        torch.zeros(3, 4, 4),
    ],
)
def test_what_is_no_image_is_refused(predictor, image):
    for images in (image, [image]):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 array in BGR"):
            predictor(images)


def test_pillow_images_are_rgb(predictor):
    bgr = photo(50, 60)
    image = Image.fromarray(bgr[:, :, ::-1])
    for given in (image, [image], [image.convert("RGBA")]):
        found = predictor(given)
        found = found[0] if isinstance(given, list) else found
        assert torch.equal(found["sem_seg"], predictor(bgr)["sem_seg"])
        assert np.array_equal(found["part_instances"].image, bgr[:, :, ::-1])


def test_unreadable_files_are_named(predictor, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    truncated = tmp_path / "truncated.png"
    Image.fromarray(photo(50, 50)).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    for path in (tmp_path / "text.jpg", truncated):
        with pytest.raises(ValueError, match=path.name):
            predictor(path)
    with pytest.raises(FileNotFoundError, match="absent.jpg"):
        predictor([photo(9, 9), tmp_path / "absent.jpg"])


def with_weights(cfg, weights):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg


def test_weights_must_be_there_and_fit(cfg, tmp_path):
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        PartInstancePredictor(with_weights(cfg, ""))
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        PartInstancePredictor(with_weights(cfg, tmp_path / "absent.pth"))
    state = torch.load(cfg.MODEL.WEIGHTS)["model"]
    key = next(k for k in state if k.startswith("part_head") and k.endswith("weight"))
    other = tmp_path / "other.pth"
    torch.save({"model": {k: v for k, v in state.items() if k != key}}, other)
    with pytest.raises(ValueError, match=f"{key}: not in the file"):
        PartInstancePredictor(with_weights(cfg, other))
    torch.save({"model": {**state, key: torch.zeros(1, 2, 3, 4)}}, other)
    with pytest.raises(ValueError, match=rf"{key}: .*1, 2, 3, 4.* in the file"):
        PartInstancePredictor(with_weights(cfg, other))


@pytest.mark.parametrize("part", ["part_head", "roi_heads"])
def test_diverged_weights_are_called_so(cfg, tmp_path, part):
    state = torch.load(cfg.MODEL.WEIGHTS)["model"]
    key = next(k for k in state if k.startswith(part) and k.endswith("weight"))
    torch.save({"model": {**state, key: state[key] * torch.nan}}, tmp_path / "diverged.pth")
    with pytest.raises(ValueError, match=rf"diverged\.pth has 1 .*{key}: its training"):
        PartInstancePredictor(with_weights(cfg, tmp_path / "diverged.pth"))


@pytest.mark.parametrize("crf", [True, False])
def test_numbers_that_are_not_finite_are_refused(cfg, tmp_path, crf):
    """Of one image: what is not black overflows."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.INSTANCE_CRF.ENABLED = crf
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 3, [1e-38] * 3
    predictor, black = PartInstancePredictor(cfg), np.zeros((40, 50, 3), np.uint8)
    predictor(black)
    Image.fromarray(black + 200).save(tmp_path / "bright.png")
    with pytest.raises(ValueError, match=r"part scores of .*bright\.png are not finite"):
        predictor([black, tmp_path / "bright.png"])


def test_parts_are_named_by_the_training_set_without_a_test_set(cfg):
    for train, test in (("synthetic_people_train",), ()), ((), ("synthetic_people_val",)), ((), ()):
        other = cfg.clone()
        other.defrost()
        other.DATASETS.TRAIN, other.DATASETS.TEST = train, test
        taxonomy = PartInstancePredictor(other).taxonomy
        assert taxonomy is None if not train + test else taxonomy.part_names[0] == "head"


def test_wrong_settings_are_refused(predictor):
    with pytest.raises(ValueError, match="YUV"):
        PartInstancePredictor(model=predictor.model, image_format="YUV-BT.601")
    with pytest.raises(ValueError, match="batch_size is 0"):
        PartInstancePredictor(model=predictor.model, batch_size=0)
