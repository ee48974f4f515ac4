"""The hardest-pixels loss against PyTorch's cross-entropy and numbers by hand."""

import pytest
import torch
import torch.nn.functional as F

from instance_crf.losses import hardest_pixels_loss


def test_by_hand():
    log_probs = [torch.tensor([-1.0, -5.0, -2.0, -3.0]), torch.tensor([-7.0])]
    valid = [torch.tensor([True, False, True, True]), torch.tensor([True])]
    # Kept: 3 and 2 of the first image, whose 5 is ignored; the only one of the second.
    assert hardest_pixels_loss(log_probs, valid, top_k=2).item() == 4.0
    assert hardest_pixels_loss(log_probs, valid, top_k=2.0).item() == 4.0


@pytest.mark.parametrize(
    "top_k, kept",
    # Of 10 valid pixels with losses 1..10, and of 4 with 21..24.
    [
        (0.3, [8, 9, 10, 24]),
        (0.5, [6, 7, 8, 9, 10, 23, 24]),
        (0.999, [*range(1, 11), *range(21, 25)]),
        (1e-6, [10, 24]),
        (1, [10, 24]),
        (6, [5, 6, 7, 8, 9, 10, 21, 22, 23, 24]),
    ],
)
def test_a_fraction_is_that_of_each_images_valid_pixels(top_k, kept):
    first = -torch.cat([torch.arange(1.0, 11), torch.full((10,), 99.0)])
    second = -torch.arange(21.0, 25)
    valid = [first > -50, second > -50]
    loss = hardest_pixels_loss([first, second], valid, top_k=top_k)
    assert loss.item() == pytest.approx(sum(kept) / len(kept))


@pytest.mark.parametrize("top_k", [0, 3, 0.25])
def test_what_is_mined_of_an_image_does_not_depend_on_the_others(top_k):
    """A mini-batch in one process, or spread over many that average their gradients."""
    generator = torch.Generator().manual_seed(2)
    images = [-torch.rand(4, 5, generator=generator) * scale for scale in (1, 10, 100)]
    everything = [torch.ones(4, 5, dtype=torch.bool)] * 3
    alone = [hardest_pixels_loss([x], everything[:1], top_k=top_k).item() for x in images]
    together = hardest_pixels_loss(images, everything, top_k=top_k).item()
    assert together == pytest.approx(sum(alone) / 3)


def test_all_pixels_is_plain_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (2, 5, 6), generator=generator)
    target[0, 0] = 255
    loss = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    ours = hardest_pixels_loss(list(-loss), list(target != 255), top_k=0)
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, ignore_index=255))


def test_more_than_there_are_keeps_all():
    log_probs, valid = [torch.tensor([-1.0, -3.0])], [torch.tensor([True, True])]
    assert hardest_pixels_loss(log_probs, valid, top_k=100).item() == 2.0


def test_nothing_valid_is_zero_and_connected():
    log_prob = torch.zeros(3, requires_grad=True)
    loss = hardest_pixels_loss([log_prob], [torch.zeros(3, dtype=torch.bool)], top_k=5)
    loss.backward()
    assert loss.item() == 0 and log_prob.grad.tolist() == [0, 0, 0]


def test_gradient_reaches_the_hardest_only():
    log_prob = torch.tensor([[-1.0, -9.0], [-8.0, -2.0]], requires_grad=True)
    hardest_pixels_loss([log_prob], [torch.ones(2, 2, dtype=torch.bool)], top_k=2).backward()
    assert log_prob.grad.tolist() == [[0, -0.5], [-0.5, 0]]


def test_gradcheck():
    logits = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    valid = torch.ones(4, 4, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda x: hardest_pixels_loss([x.log_softmax(0)[1]], [valid], top_k=7), logits
    )


@pytest.mark.parametrize(
    "top_k", [-1, -0.5, 1.0, 1.5, float("nan"), float("inf"), True, "12", None]
)
def test_other_values_of_k_are_refused(top_k):
    with pytest.raises(ValueError, match=f"got {top_k!r}.*0 for all pixels"):
        hardest_pixels_loss([torch.zeros(2)], [torch.ones(2, dtype=torch.bool)], top_k=top_k)


def test_bad_input():
    with pytest.raises(ValueError, match="1 log_probs but 0"):
        hardest_pixels_loss([torch.zeros(2)], [], top_k=1)
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        hardest_pixels_loss([torch.zeros(2)], [torch.ones(3, dtype=torch.bool)], top_k=1)
