"""The hardest-pixels loss against PyTorch's cross-entropy and numbers by hand."""

import pytest
import torch
import torch.nn.functional as F

from instance_crf.losses import hardest_pixels_loss


def test_by_hand():
    log_probs = [torch.tensor([-1.0, -5.0, -2.0]), torch.tensor([-4.0])]
    valid = [torch.tensor([True, False, True]), torch.tensor([True])]
    # Kept of the mini-batch: 4 and 2; the 5 is ignored.
    assert hardest_pixels_loss(log_probs, valid, top_k=2).item() == 3.0


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


def test_bad_input():
    with pytest.raises(ValueError, match="-1"):
        hardest_pixels_loss([], [], top_k=-1)
    with pytest.raises(ValueError, match="1 log_probs but 0"):
        hardest_pixels_loss([torch.zeros(2)], [], top_k=1)
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        hardest_pixels_loss([torch.zeros(2)], [torch.ones(3, dtype=torch.bool)], top_k=1)
