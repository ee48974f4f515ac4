"""Synthetic people: reproducible, consistent, as many and as large as promised, no colour code."""

import multiprocessing
import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pytest

from instance_crf.data.synthetic import SPLITS, TAXONOMY, SyntheticPeople
from instance_crf.data.synthetic.figure import (
    HEAD,
    LOWER_ARMS,
    LOWER_LEGS,
    TORSO,
    UPPER_ARMS,
    UPPER_LEGS,
    Figure,
    sample_outfit,
)
from instance_crf.data.synthetic.materials import Material, pick, random_color
from instance_crf.data.synthetic.pose import (
    LOWER_ARM,
    LOWER_LEG,
    UPPER_ARM,
    UPPER_LEG,
    sample_pose,
    skeleton,
)
from instance_crf.data.synthetic.scene import MIN_VISIBLE_PIXELS, _sample_height
from instance_crf.data.synthetic.shapes import FLAT, Layer, Shape

COUNT = 150


@pytest.fixture(scope="module", params=sorted(SPLITS))
def split(request):
    return request.param


@pytest.fixture(scope="module")
def samples(split):
    people = SyntheticPeople(split)
    return [people[index] for index in range(COUNT)]


def _boxes(object_map):
    """(n, 4) x0, y0, x1, y1, ends exclusive."""
    boxes = []
    for object_id in range(1, int(object_map.max()) + 1):
        ys, xs = np.nonzero(object_map == object_id)
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    return np.array(boxes)


def _overlap(a, b):
    """Intersection over the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    area = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0) * max(height, 0) / area


def _drawn_bytes(arguments):
    split, index = arguments
    return b"".join(array.tobytes() for array in SyntheticPeople(split, seed=3)[index])


def _equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What a sample is


def test_shapes_and_types(samples):
    for image, part_map, object_map in samples[:5]:
        assert image.shape == (160, 160, 3)
        assert part_map.shape == object_map.shape == (160, 160)
        assert image.dtype == part_map.dtype == object_map.dtype == np.uint8


@pytest.mark.parametrize("size", [(96, 200), (233, 101), (32, 32)])
def test_other_sizes(size):
    for index in range(10):
        image, part_map, object_map = SyntheticPeople("hard", size)[index]
        assert image.shape == (*size, 3)
        assert part_map.shape == object_map.shape == size
        assert object_map.max() >= 1


def test_every_part_pixel_is_somebodys_and_nobody_lacks_parts(samples):
    for _, part_map, object_map in samples:
        np.testing.assert_array_equal(part_map > 0, object_map > 0)
        assert part_map.max() <= TAXONOMY.num_parts


def test_object_ids_are_contiguous_and_visible(samples):
    for _, _, object_map in samples:
        pixels = np.bincount(object_map.ravel())[1:]
        assert pixels.size >= 1
        assert pixels.min() >= MIN_VISIBLE_PIXELS


def test_tiny_pictures_never_lack_people():
    # Hardly anybody shows the required pixels here, so the fallback has to step in.
    people = SyntheticPeople("hard", (32, 32))
    assert all(people[index].object_map.max() >= 1 for index in range(80))


# Reproducible


def test_order_and_instance_do_not_matter(split):
    people = SyntheticPeople(split, seed=5)
    forward = [people[index] for index in range(4)]
    backward = [SyntheticPeople(split, seed=5)[index] for index in reversed(range(4))]
    assert all(_equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_global_random_state_does_not_matter(split):
    np.random.seed(1)
    first = SyntheticPeople(split)[7]
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    assert _equal(first, SyntheticPeople(split)[7])
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_processes_draw_the_same():
    wanted = [(split, index) for split in SPLITS for index in range(3)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.map(_drawn_bytes, wanted)
    assert elsewhere == [_drawn_bytes(arguments) for arguments in wanted]


def test_seed_index_and_split_each_change_the_picture():
    reference = SyntheticPeople("moderate", seed=0)[0]
    for other in (
        SyntheticPeople("moderate", seed=1)[0],
        SyntheticPeople("moderate", seed=0)[1],
        SyntheticPeople("hard", seed=0)[0],
    ):
        assert not _equal(reference, other)


# As many, as large, as entangled as promised


def test_counts_stay_within_the_split_and_vary(samples, split):
    counts = np.bincount([sample.object_map.max() for sample in samples])
    most = len(SPLITS[split].count_odds)
    assert counts.size - 1 <= most
    assert (counts[1 : most - 1] > 0.04 * COUNT).all()


def test_standing_heights_fill_the_split(split):
    low, high = {"moderate": (0.6, 1.05), "hard": (0.38, 1.05)}[split]
    rng = np.random.default_rng(0)
    typical = rng.uniform(low, high, 300)
    heights = [_sample_height(rng, SPLITS[split], value) for value in typical]
    assert min(heights) == pytest.approx(low)
    assert max(heights) == pytest.approx(high)


def test_visible_heights(samples, split):
    heights = np.concatenate([np.diff(_boxes(s.object_map)[:, 1::2])[:, 0] for s in samples]) / 160
    assert np.median(heights) > {"moderate": 0.6, "hard": 0.45}[split]
    small = (heights < 0.4).mean()
    assert small < 0.05 if split == "moderate" else small > 0.08


def test_people_overlap(samples):
    crowded = [_boxes(s.object_map) for s in samples if s.object_map.max() > 1]
    entangled = [any(_overlap(a, b) > 0.2 for a, b in combinations(boxes, 2)) for boxes in crowded]
    assert np.mean(entangled) > 0.6


def test_some_people_are_cut_by_the_border(samples):
    cut = [
        (boxes[:, :2] == 0).any() or (boxes[:, 2:] == 160).any()
        for boxes in (_boxes(s.object_map) for s in samples)
    ]
    assert 0.3 < np.mean(cut) < 1


def test_every_part_is_common_and_background_is_most(samples):
    share = np.bincount(np.concatenate([s.part_map.ravel() for s in samples]), minlength=7) / (
        COUNT * 160 * 160
    )
    assert 0.5 < share[0] < 0.9
    assert (share[1:] > 0.01).all()


# Colours tell neither parts nor people


def _nearest_mean_color_accuracy(train, test):
    """Balanced accuracy over the parts of the classifier by nearest mean colour."""
    pixels, parts = _part_pixels(train)
    means = np.stack([pixels[parts == part].mean(axis=0) for part in range(1, 7)])
    pixels, parts = _part_pixels(test)
    guess = ((pixels[:, None] - means) ** 2).sum(axis=2).argmin(axis=1) + 1
    return np.mean([(guess[parts == part] == part).mean() for part in range(1, 7)])


def _part_pixels(samples):
    """Every 7th pixel of people: colours (N, 3) and part ids (N,)."""
    colors = np.concatenate([s.image[s.part_map > 0] for s in samples])
    parts = np.concatenate([s.part_map[s.part_map > 0] for s in samples])
    return colors[::7].astype(np.float32), parts[::7]


def test_colors_do_not_tell_parts(samples):
    # Chance is 1/6 = 0.167. Skin helps a little: heads and hands show it more than trousers.
    half = COUNT // 2
    assert _nearest_mean_color_accuracy(samples[:half], samples[half:]) < 0.27


@pytest.mark.parametrize(("acquainted", "low", "high"), [(True, 0.3, 0.6), (False, 0.0, 0.1)])
def test_neighbours_often_share_clothes(acquainted, low, high):
    rng = np.random.default_rng(0)
    similar = []
    for _ in range(300):
        one = sample_outfit(rng, 100.0, [])
        other = sample_outfit(rng, 100.0, [one] if acquainted else [])
        similar.append(np.abs(one.shirt.base - other.shirt.base).mean() < 12)
    assert low <= np.mean(similar) <= high


# Anatomy


def test_bones_keep_their_lengths():
    rng = np.random.default_rng(0)
    for joints, side in product([skeleton(sample_pose(rng)) for _ in range(20)], ("-1", "+1")):
        for start, end, length in (
            ("shoulder", "elbow", UPPER_ARM),
            ("elbow", "wrist", LOWER_ARM),
            ("hip", "knee", UPPER_LEG),
            ("knee", "ankle", LOWER_LEG),
        ):
            bone = joints[end + side] - joints[start + side]
            assert np.linalg.norm(bone) == pytest.approx(length)
        assert np.linalg.norm(joints["facing"]) == pytest.approx(1)


def test_knees_bend_backwards_and_elbows_forwards():
    pose = sample_pose(np.random.default_rng(0))
    pose.yaw = pose.roll = pose.bow = pose.tilt = 0.0
    for limb in (*pose.arms.values(), *pose.legs.values()):
        limb.flexion = limb.abduction = limb.twist = 0.0
        limb.bend = 1.0
    joints = skeleton(pose)
    for side in ("-1", "+1"):
        assert joints["wrist" + side][2] > joints["elbow" + side][2]
        assert joints["ankle" + side][2] < joints["knee" + side][2]
    assert joints["shoulder-1"][0] < 0 < joints["shoulder+1"][0]


def test_a_lone_figure_shows_every_part():
    seen = np.zeros(7)
    for seed in range(30):
        part = Figure(np.random.default_rng(seed), 120.0, []).layer(100, 100).part
        seen += np.isin(np.arange(7), part)
    assert (seen[[HEAD, TORSO, UPPER_ARMS, LOWER_ARMS, UPPER_LEGS, LOWER_LEGS]] >= 27).all()


def test_standing_height_is_the_height():
    pose = sample_pose(np.random.default_rng(0))
    pose.roll = pose.bow = pose.tilt = pose.head_bow = pose.head_tilt = 0.0
    for limb in pose.legs.values():
        limb.flexion = limb.abduction = limb.bend = 0.0
    joints = skeleton(pose)
    assert joints["toes+1"][1] - joints["crown"][1] == pytest.approx(1, abs=0.05)


# Drawing


def _bar(**changes):
    white = Material(np.full(3, 200, np.float32), np.full(3, 200, np.float32), fold=0.0)
    settings = {
        "start": np.array([10.0, 20.0]),
        "end": np.array([30.0, 20.0]),
        "widths": (5.0, 5.0),
        "part": 3,
        "material": white,
    }
    return Shape(**(settings | changes))


def test_capsule_area_is_that_of_its_formula():
    layer = Layer([_bar()])
    wanted = 20 * 10 + np.pi * 25
    assert layer.alpha.sum() == pytest.approx(wanted, rel=0.02)
    # Half-covered pixels on the straight sides count as outside: 9 rows, not 10.
    assert wanted - 30 < np.count_nonzero(layer.part == 3) <= wanted


def test_flat_ends_add_next_to_nothing():
    layer = Layer([_bar(start_cap=FLAT, end_cap=FLAT)])
    assert np.count_nonzero(layer.part == 3) == pytest.approx(200, rel=0.12)


def test_nearer_shapes_hide_further_ones():
    near, far = _bar(part=1, depth=1.0), _bar(part=2, depth=0.0)
    for shapes in ([near, far], [far, near]):
        assert set(np.unique(Layer(shapes).part)) == {-1, 1}


def test_colour_is_cut_where_told():
    red = np.array([200, 0, 0], np.float32)
    skin = Material(red, red, fold=0.0)
    layer = Layer([_bar(cut=0.5, cut_material=skin)])
    row = 20 - layer.top
    assert layer.rgb[1, row, 15 - layer.left] > 150
    assert layer.rgb[1, row, 25 - layer.left] < 1


@pytest.mark.parametrize("place", [(-500, 0), (0, 500), (-3, -3), (158, 158)])
def test_window_matches_the_picture(place):
    layer = Layer([_bar(start=np.array(place, float), end=np.array(place, float) + 4)])
    picture, own = layer.window(160, 160)
    assert np.empty((160, 160))[picture].shape == layer.part[own].shape


def test_pick_follows_its_odds():
    rng = np.random.default_rng(0)
    drawn = [pick(rng, "abc", (1, 2, 1)) for _ in range(4000)]
    assert drawn.count("b") / 4000 == pytest.approx(0.5, abs=0.04)
    assert {pick(rng, "abc") for _ in range(100)} == {"a", "b", "c"}


def test_random_colors_are_colors():
    rng = np.random.default_rng(0)
    colors = np.stack([random_color(rng) for _ in range(500)])
    assert colors.min() >= 0 and colors.max() <= 255
    assert colors.std(axis=0).min() > 40


# Use


def test_taxonomy():
    assert TAXONOMY.part_names == (
        "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs",
    )  # fmt: skip
    assert TAXONOMY.object_names == ("person",)


def test_taxonomy_is_the_one_registered():
    pytest.importorskip("detectron2")
    from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY

    for name in ("part_names", "object_names", "part_owner", "flip_pairs"):
        assert getattr(TAXONOMY, name) == getattr(PERSON_PART_TAXONOMY, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "easy"}, "'easy'.*'moderate'"),
        ({"size": (31, 160)}, "32"),
        ({"size": (160,)}, "height, width"),
        ({"seed": -1}, "non-negative"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticPeople(**arguments)


def test_negative_index():
    with pytest.raises(IndexError, match="-1"):
        SyntheticPeople()[-1]


def test_needs_no_detectron2():
    # An interpreter in which detectron2 cannot be found, whether or not it is installed.
    code = (
        "import sys\n"
        "class Without:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def __getattr__(self, name): return getattr(self.finder, name)\n"
        "    def find_spec(self, name, *rest):\n"
        "        hidden = name.split('.')[0] == 'detectron2'\n"
        "        return None if hidden else self.finder.find_spec(name, *rest)\n"
        "sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]\n"
        "from instance_crf.data.synthetic import SyntheticPeople\n"
        "assert not any(name.startswith('detectron2') for name in sys.modules)\n"
        "print(SyntheticPeople()[0].object_map.max())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 1
