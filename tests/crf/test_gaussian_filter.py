import pytest
import torch

from instance_crf.crf.gaussian_filter import (
    BruteForceFilter,
    PermutohedralFilter,
    _enclosing_simplices,
    _simplex_vertices,
    bilateral_features,
    spatial_features,
    spatial_filter,
)


def smooth_image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 3, 3, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]


def dense_matrix(filter_, pixels):
    """The filter as an (N, N) matrix, column by column."""
    return filter_(torch.eye(pixels, dtype=torch.float64))


def test_spatial_features_are_x_then_y_over_theta():
    features = spatial_features(2, 3, 2.0)
    assert features.tolist() == [[0, 0], [0.5, 0], [1, 0], [0, 0.5], [0.5, 0.5], [1, 0.5]]


def test_bilateral_features_are_position_then_colour():
    image = torch.tensor([[[10.0, 20.0]], [[30.0, 40.0]], [[50.0, 60.0]]])
    features = bilateral_features(image, 4.0, 10.0)
    assert features.tolist() == [[0, 0, 1, 3, 5], [0.25, 0, 2, 4, 6]]


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_brute_force_against_the_sum_written_out(normalization):
    features = torch.rand(7, 3, dtype=torch.float64) * 3
    values = torch.rand(7, 2, dtype=torch.float64)
    kernel = torch.zeros(7, 7, dtype=torch.float64)
    for i in range(7):
        for j in range(7):
            kernel[i, j] = torch.exp(-0.5 * ((features[i] - features[j]) ** 2).sum())
    norm = kernel.sum(1)
    if normalization == "after":
        expected = (kernel @ values) / norm[:, None]
    else:
        expected = (kernel / torch.outer(norm, norm).sqrt()) @ values
    actual = BruteForceFilter(features, normalization=normalization)(values)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("kernel", ["spatial", "bilateral"])
def test_lattice_approximates_the_gaussian(kernel, normalization):
    """The lattice's kernel is a piecewise linear bump, known to be within some per cent."""
    if kernel == "spatial":
        features = spatial_features(24, 24, 3.0)
    else:
        features = bilateral_features(smooth_image(24, 24).double(), 12.0, 30.0)
    values = torch.rand(576, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = torch.softmax(4 * values, dim=1)
    exact = BruteForceFilter(features, normalization=normalization)(values)
    lattice = PermutohedralFilter(features, normalization=normalization)(values)
    assert (lattice - exact).abs().mean() < 0.01
    assert (lattice - exact).abs().max() < 0.05


def test_lattice_has_the_standard_deviation_of_the_gaussian():
    """A point in the middle spreads with variance theta^2 along both axes."""
    theta, size = 4.0, 61
    lattice = PermutohedralFilter(spatial_features(size, size, theta))
    point = torch.zeros(size * size, 1, dtype=torch.float64)
    point[(size // 2) * size + size // 2] = 1
    response = lattice(point)[:, 0].view(size, size)
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    for marginal in (response.sum(0), response.sum(1)):
        variance = (marginal * offset**2).sum() / marginal.sum()
        assert variance.sqrt().item() == pytest.approx(theta, rel=0.1)


@pytest.mark.parametrize("theta", [0.01, 3.0, 500.0])
def test_normalised_filter_keeps_constants(theta):
    lattice = PermutohedralFilter(spatial_features(9, 13, theta))
    values = torch.full((117, 2), 0.3)
    torch.testing.assert_close(lattice(values), values)


def test_barycentric_weights_are_a_partition_of_one():
    image = torch.rand(3, 15, 17) * 255
    lattice = PermutohedralFilter(bilateral_features(image, 9.0, 4.0))
    assert lattice.weight.min() >= -1e-9
    torch.testing.assert_close(lattice.weight.sum(1), torch.ones(255, dtype=torch.float64))
    # All vertices of a simplex differ.
    assert all(len(set(row)) == 6 for row in lattice.vertex.tolist())


def test_vertices_and_neighbours_by_hand():
    """Each vertex written out as coordinates: those of a simplex differ by known steps."""
    image = torch.rand(3, 9, 8) * 60
    lattice = PermutohedralFilter(bilateral_features(image, 4.0, 20.0))
    rounded, rank, _ = _enclosing_simplices(bilateral_features(image, 4.0, 20.0))
    vertices = _simplex_vertices(rounded, rank)
    coordinates = {}
    for pixel in range(72):
        for corner in range(6):
            key = (*vertices[pixel, corner].tolist(), -int(vertices[pixel, corner].sum()))
            assert len({c % 6 for c in key}) == 1  # congruent modulo F + 1
            assert coordinates.setdefault(int(lattice.vertex[pixel, corner]), key) == key
    assert sorted(coordinates) == list(range(lattice.num_vertices))
    number = {key: index for index, key in coordinates.items()}
    assert len(number) == lattice.num_vertices
    found = 0
    for index, key in coordinates.items():
        for direction in range(6):
            for side, sign in enumerate((1, -1)):
                step = [sign * (5 if c == direction else -1) for c in range(6)]
                wanted = tuple(c + s for c, s in zip(key, step, strict=True))
                expected = number.get(wanted, lattice.num_vertices)
                assert lattice.neighbours[direction, side, index] == expected
                found += expected < lattice.num_vertices
    assert found > lattice.num_vertices


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_backward_is_the_exact_transpose(normalization):
    image = torch.rand(3, 5, 6) * 90
    lattice = PermutohedralFilter(bilateral_features(image, 3.0, 30.0), normalization=normalization)
    matrix = dense_matrix(lattice, 30)
    values = torch.rand(30, 4, dtype=torch.float64, requires_grad=True)
    grad = torch.rand(30, 4, dtype=torch.float64)
    lattice(values).backward(grad)
    torch.testing.assert_close(values.grad, matrix.t() @ grad)
    assert torch.autograd.gradcheck(lattice, (values,))


def test_float32_and_non_contiguous_values():
    lattice = PermutohedralFilter(spatial_features(6, 7, 2.0))
    values = torch.rand(3, 42).t()
    assert lattice(values).dtype == torch.float32
    torch.testing.assert_close(lattice(values), lattice(values.contiguous()))
    torch.testing.assert_close(lattice(values), lattice(values.double()).float())


def test_keys_beyond_63_bits_take_the_other_way():
    """So fine a lattice that its keys do not pack: each pixel is alone, the filter the identity."""
    features = torch.rand(20, 6, dtype=torch.float64) * 1e6
    values = torch.rand(20, 2, dtype=torch.float64)
    torch.testing.assert_close(PermutohedralFilter(features)(values), values)


def test_spatial_filter_is_kept_for_all_images_of_a_size():
    options = {"normalization": "symmetric", "device": torch.device("cpu")}
    with torch.inference_mode():
        kept = spatial_filter(6, 7, 2.5, **options)
        kept(torch.rand(42, 2))
    assert spatial_filter(6, 7, 2.5, **options) is kept
    assert spatial_filter(6, 7, 2.0, **options) is not kept
    values = torch.rand(42, 2, dtype=torch.float64, requires_grad=True)
    fresh = PermutohedralFilter(spatial_features(6, 7, 2.5), normalization="symmetric")
    torch.testing.assert_close(kept(values), fresh(values))
    kept(values).sum().backward()  # what inference mode made first serves training
    kept(values.float()).sum().backward()


def test_unknown_normalization():
    with pytest.raises(ValueError, match="'before'"):
        PermutohedralFilter(spatial_features(2, 2, 1.0), normalization="before")
