import pytest
import torch

from instance_crf.crf.gaussian_filter import (
    GaussianKernel,
    ImageKernels,
    NormalizedFilter,
    bilateral_kernel,
)
from instance_crf.crf.permutohedral_lattice import (
    PermutohedralLattice,
    _enclosing_simplices,
    _simplex_vertex,
)


def spatial_features(height, width, theta):
    return GaussianKernel((height, width), theta).feature_rows("cpu")


def bilateral_features(image, theta_alpha, theta_beta):
    return bilateral_kernel(image, theta_alpha, theta_beta).feature_rows("cpu")


def normalized(kernel, features, **options):
    """The filter of a kind of kernel on features."""
    ones = torch.ones(len(features), 1, dtype=torch.float64)
    return NormalizedFilter(kernel(features), ones, **options)


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
def test_brute_force_against_the_sum_written_out(normalization, brute_force_kernel):
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
    actual = normalized(brute_force_kernel, features, normalization=normalization)(values)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("kernel", ["spatial", "bilateral"])
def test_lattice_approximates_the_gaussian(kernel, normalization, brute_force_kernel):
    """The lattice's kernel is a piecewise linear bump, known to be within some per cent."""
    if kernel == "spatial":
        features = spatial_features(24, 24, 3.0)
    else:
        features = bilateral_features(smooth_image(24, 24).double(), 12.0, 30.0)
    values = torch.rand(576, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = torch.softmax(4 * values, dim=1)
    exact = normalized(brute_force_kernel, features, normalization=normalization)(values)
    lattice = normalized(PermutohedralLattice, features, normalization=normalization)(values)
    assert (lattice - exact).abs().mean() < 0.01
    assert (lattice - exact).abs().max() < 0.05


def test_lattice_has_the_standard_deviation_of_the_gaussian():
    """A point in the middle spreads with variance theta^2 along both axes."""
    theta, size = 4.0, 61
    lattice = PermutohedralLattice(spatial_features(size, size, theta))
    point = torch.zeros(size * size, 1, dtype=torch.float64)
    point[(size // 2) * size + size // 2] = 1
    response = lattice(point)[:, 0].view(size, size)
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    for marginal in (response.sum(0), response.sum(1)):
        variance = (marginal * offset**2).sum() / marginal.sum()
        assert variance.sqrt().item() == pytest.approx(theta, rel=0.1)


@pytest.mark.parametrize("theta", [0.01, 3.0, 500.0])
def test_normalised_filter_keeps_constants(theta):
    lattice = normalized(PermutohedralLattice, spatial_features(9, 13, theta))
    values = torch.full((117, 2), 0.3)
    torch.testing.assert_close(lattice(values), values)


def test_barycentric_weights_are_a_partition_of_one():
    image = torch.rand(3, 15, 17) * 255
    lattice = PermutohedralLattice(bilateral_features(image, 9.0, 4.0))
    assert lattice.weight.min() >= -1e-6
    torch.testing.assert_close(lattice.weight.sum(1), torch.ones(255))
    # All vertices of a simplex differ.
    assert all(len(set(row)) == 6 for row in lattice.vertex.tolist())


def test_vertices_and_neighbours_by_hand():
    """Each vertex written out as coordinates: those of a simplex differ by known steps."""
    image = torch.rand(3, 9, 8) * 60
    lattice = PermutohedralLattice(bilateral_features(image, 4.0, 20.0))
    rounded, rank, _ = _enclosing_simplices(bilateral_features(image, 4.0, 20.0))
    vertices = torch.stack([_simplex_vertex(rounded, rank, r) for r in range(6)], dim=1)
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
    features = bilateral_features(image, 3.0, 30.0)
    lattice = normalized(PermutohedralLattice, features, normalization=normalization)
    matrix = dense_matrix(lattice, 30)
    values = torch.rand(30, 4, dtype=torch.float64, requires_grad=True)
    grad = torch.rand(30, 4, dtype=torch.float64)
    lattice(values).backward(grad)
    torch.testing.assert_close(values.grad, matrix.t() @ grad)
    assert torch.autograd.gradcheck(lattice, (values,))


def test_float32_and_non_contiguous_values():
    lattice = normalized(PermutohedralLattice, spatial_features(6, 7, 2.0))
    values = torch.rand(3, 42).t()
    assert lattice(values).dtype == torch.float32
    torch.testing.assert_close(lattice(values), lattice(values.contiguous()))
    torch.testing.assert_close(lattice(values), lattice(values.double()).float())


def test_keys_beyond_63_bits_take_the_other_way():
    """So fine a lattice that its keys do not pack: each pixel is alone, the filter the identity."""
    features = torch.rand(20, 6, dtype=torch.float64) * 1e6
    values = torch.rand(20, 2, dtype=torch.float64)
    filter_ = normalized(PermutohedralLattice, features)
    torch.testing.assert_close(filter_(values), values)


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_support_by_hand(normalization, brute_force_kernel):
    """Only pixels with support send; a row out of reach of all support is 0."""
    features = torch.tensor([[0.0], [1.0], [2.0], [40.0]], dtype=torch.float64)
    support = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    values = torch.rand(4, 2, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (features - features.t()) ** 2)
    norm = torch.maximum(kernel @ support, 1e-6 * kernel.sum(1))
    if normalization == "after":
        expected = (kernel @ (support[:, None] * values)) / norm[:, None]
    else:
        root = norm.sqrt()[:, None]
        expected = (kernel @ (support[:, None] / root * values)) / root
    options = {"normalization": normalization, "support": support}
    actual = normalized(brute_force_kernel, features, **options)(values)
    torch.testing.assert_close(actual, expected)
    assert actual[3].abs().max() < 1e-9  # support is 38 bandwidths away


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_support_of_ones_changes_nothing(normalization):
    features = bilateral_features(smooth_image(9, 8), 4.0, 20.0)
    values = torch.rand(72, 3, dtype=torch.float64)
    options = {"normalization": normalization}
    plain = normalized(PermutohedralLattice, features, **options)(values)
    ones = normalized(PermutohedralLattice, features, support=torch.ones(72), **options)(values)
    torch.testing.assert_close(ones, plain)


def test_devices_without_sparse_matrices_gather(monkeypatch):
    """What Apple's MPS runs: the same sums without sparse matrices."""
    lattice = PermutohedralLattice(bilateral_features(smooth_image(9, 8), 4.0, 20.0))
    values = torch.rand(72, 3, dtype=torch.float64)
    results = [lattice.filter(values, transpose=transpose) for transpose in (False, True)]
    monkeypatch.setattr(PermutohedralLattice, "_has_matrices", False)
    for transpose, expected in zip((False, True), results, strict=True):
        torch.testing.assert_close(lattice.filter(values, transpose=transpose), expected)


def test_lattices_are_built_once_and_serve_training_after_inference():
    kernels = ImageKernels([GaussianKernel((6, 7), 2.5)])
    made = []

    def build():
        made.append(kernels.kernels[0].lattice(torch.device("cpu")))
        return made[-1]

    with torch.inference_mode():
        kernels.built("lattice", build)(torch.rand(42, 2))
    lattice = kernels.built("lattice", build)
    assert made == [lattice]
    values = torch.rand(42, 2, requires_grad=True)
    lattice(values).sum().backward()
    assert kernels.size == (6, 7) and len(kernels) == 1


def test_rebuilt_lattices_are_the_same_to_the_bit():
    features = bilateral_features(torch.rand(3, 20, 30) * 255, 6.0, 9.0)
    one, other = PermutohedralLattice(features), PermutohedralLattice(features)
    values = torch.rand(600, 4)
    assert torch.equal(one(values), other(values))


def test_large_pictures_are_embedded_in_pieces(monkeypatch):
    from instance_crf.crf import permutohedral_lattice

    features = bilateral_features(smooth_image(20, 30), 6.0, 9.0)
    whole = PermutohedralLattice(features)
    monkeypatch.setattr(permutohedral_lattice, "_PIXELS_AT_A_TIME", 77)
    pieces = PermutohedralLattice(features)
    assert torch.equal(pieces.vertex, whole.vertex) and torch.equal(pieces.weight, whole.weight)


def test_bad_kernels_are_named():
    features = torch.zeros(2, 4, 5)
    for options, message in [
        ({}, "theta, features or both"),
        ({"theta": 0.0}, "theta is 0"),
        ({"features": features[0]}, "features"),
        ({"theta": 1.0, "bandwidths": (1.0,)}, "no features"),
        ({"features": features, "bandwidths": (1.0,)}, "1 bandwidths for 2"),
        ({"features": features, "bandwidths": (1.0, 0.0)}, "bandwidths are"),
        ({"features": features[:, 1:]}, "features"),
    ]:
        with pytest.raises(ValueError, match=message):
            GaussianKernel((4, 5), **options)
    with pytest.raises(ValueError, match="different sizes"):
        ImageKernels([GaussianKernel((4, 5), 1.0), GaussianKernel((5, 4), 1.0)])
    with pytest.raises(ValueError, match="theta is too small"):
        PermutohedralLattice(spatial_features(2, 2, 1e-12))
