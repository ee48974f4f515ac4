import numpy as np
import pytest
from detectron2.data import transforms as T
from scipy import ndimage

from instance_crf.data.color import RandomBlur, RandomChannels, RandomHSV
from instance_crf.data.transforms import AffineTransform, RandomAffineCrop, is_mirrored


def affine(a, b, c, d, e, f, size):
    return AffineTransform(np.array([[a, b, c], [d, e, f]], dtype=float), size)


def test_identity_copies_pixels():
    image = np.random.randint(0, 256, (31, 47, 3), dtype=np.uint8)
    t = affine(1, 0, 0, 0, 1, 0, (31, 47))
    assert np.array_equal(t.apply_image(image), image)
    assert np.array_equal(t.apply_segmentation(image), image)


def test_mirror_equals_numpy():
    image = np.random.randint(0, 256, (31, 47, 3), dtype=np.uint8)
    t = affine(-1, 0, 47, 0, 1, 0, (31, 47))
    assert t.mirrored
    assert np.array_equal(t.apply_image(image), image[:, ::-1])
    assert np.array_equal(t.apply_segmentation(image[..., 0]), image[:, ::-1, 0])
    assert np.allclose(t.apply_box(np.array([[3.0, 4, 10, 20]])), [[37, 4, 44, 20]])


def test_crop_and_padding():
    labels = np.random.randint(0, 7, (20, 30, 3), dtype=np.uint8)
    t = affine(1, 0, -5, 0, 1, 4, (20, 30))
    out = t.apply_segmentation(labels)
    assert np.array_equal(out[4:, :25], labels[:16, 5:])
    assert (out[:4] == 255).all() and (out[:, 25:] == 255).all()


def test_image_is_reflected_beyond_its_border():
    image = np.random.randint(0, 256, (20, 30, 3), dtype=np.uint8)
    out = affine(1, 0, 4, 0, 1, 0, (20, 34)).apply_image(image)
    assert np.array_equal(out[:, 4:], image)
    assert np.array_equal(out[:, :4], image[:, 4:0:-1])


@pytest.mark.parametrize("scale", [0.55, 1.0, 1.7])
def test_nearest_equals_scipy(scale):
    """Rotation and scale of a label map, against SciPy's own resampling."""
    labels = np.zeros((60, 60), np.uint8)
    labels[10:40, 15:50] = 3
    angle = 0.4
    matrix = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offset = np.array([30.0, 30.0]) - matrix @ [30.0, 30.0]
    out = AffineTransform(np.column_stack([matrix, offset]), (60, 60)).apply_segmentation(labels)
    back = np.linalg.inv(matrix)[::-1, ::-1]  # SciPy has (row, column)
    start = np.linalg.inv(matrix) @ (np.array([0.5, 0.5]) - offset)
    expected = ndimage.affine_transform(
        labels, back, offset=start[::-1] - 0.5, order=0, cval=255, output=np.uint8
    )
    inside = expected != 255  # SciPy fills half a pixel earlier
    assert (out == expected)[inside].mean() > 0.998  # ties at pixel borders
    assert (out[~inside] != 255).sum() < 0.02 * out.size


def test_boxes_follow_the_pixels():
    labels = np.zeros((80, 90), np.uint8)
    labels[20:50, 30:60] = 1
    for _ in range(20):
        augmentation = RandomAffineCrop(
            scale_range=(0.6, 1.6), crop_size=(100, 110), rotation=20, flip_prob=0.5
        )
        t = augmentation.get_transform(labels)
        out = t.apply_segmentation(labels)
        ys, xs = np.nonzero(out == 1)
        box = np.clip(t.apply_box(np.array([[30.0, 20, 60, 50]]))[0], 0, [110, 100, 110, 100])
        found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert np.abs(box - found).max() <= 2


@pytest.mark.parametrize("crop", [(40, 50), (200, 210), (40, 210)])
def test_crop_size_holds_and_shows_the_image(crop):
    image = np.full((80, 90, 3), 7, np.uint8)
    for _ in range(10):
        t = RandomAffineCrop(crop_size=crop, flip_prob=0.5).get_transform(image)
        out = t.apply_segmentation(image)
        assert out.shape == (*crop, 3)
        # As much of the picture as fits, never cut while there is room.
        assert (out == 7).all(-1).sum() == min(crop[0], 80) * min(crop[1], 90)


def test_unscaled_crop_copies_pixels():
    image = np.random.randint(0, 256, (40, 50, 3), dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(image, (17, 20, 3))[:, :, 0]
    out = RandomAffineCrop(crop_size=(17, 20)).get_transform(image).apply_image(image)
    assert (windows == out).all(axis=(2, 3, 4)).any()


def test_strong_reduction_averages():
    """A checkerboard shrunk four times is grey, not noise."""
    board = (np.indices((80, 80)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    out = affine(0.25, 0, 0, 0, 0.25, 0, (20, 20)).apply_image(board)
    assert np.abs(out.astype(int) - 128).max() <= 1


@pytest.mark.parametrize(
    "transforms, mirrored",
    [
        ([], False),
        ([T.HFlipTransform(5)], True),
        ([T.VFlipTransform(5)], True),
        ([T.HFlipTransform(5), T.VFlipTransform(5)], False),  # half a turn
        ([T.ResizeTransform(4, 4, 8, 8), T.HFlipTransform(8)], True),
        ([affine(-1, 0, 9, 0, 1, 0, (9, 9)), T.HFlipTransform(9)], False),
        ([affine(-1, 0, 9, 0, -1, 9, (9, 9))], False),
    ],
)
def test_is_mirrored(transforms, mirrored):
    assert is_mirrored(T.TransformList(transforms)) is mirrored


@pytest.mark.parametrize(
    "arguments", [{"scale_range": (0, 1)}, {"scale_range": (2, 1)}, {"crop_size": (0, 4)}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RandomAffineCrop(**arguments)


@pytest.mark.parametrize("augmentation", [RandomHSV(), RandomChannels(), RandomBlur(max_sigma=2.0)])
def test_colour_keeps_type_shape_and_labels(augmentation):
    image = np.random.randint(0, 256, (20, 30, 3), dtype=np.uint8)
    before = image.copy()
    for _ in range(10):
        t = augmentation.get_transform(image)
        out = t.apply_image(image)
        assert out.dtype == np.uint8 and out.shape == image.shape
        assert t.apply_segmentation(image) is image
    assert np.array_equal(image, before)


def test_no_noise_changes_nothing():
    image = np.random.randint(0, 256, (20, 30, 3), dtype=np.uint8)
    plain = RandomChannels(permute_prob=0, invert_prob=0, contrast=0, brightness=0)
    assert np.array_equal(plain.get_transform(image).apply_image(image), image)
    negative = RandomChannels(permute_prob=0, invert_prob=1, contrast=0, brightness=0)
    assert np.array_equal(negative.get_transform(image).apply_image(image), 255 - image)
    hsv = RandomHSV(hue=0, saturation=0, value=0).get_transform(image).apply_image(image)
    assert np.abs(hsv.astype(int) - image).max() <= 6  # 8-bit hue is coarse


def test_hsv_value_scales_brightness():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = {
        int(RandomHSV(value=0.5).get_transform(image).apply_image(image)[0, 0, 0])
        for _ in range(50)
    }
    assert min(values) >= 50 and max(values) <= 150 and len(values) > 10


def test_hsv_needs_a_known_format():
    with pytest.raises(ValueError, match="'L'"):
        RandomHSV(image_format="L")
