"""Mixed precision: losses and gradients in bfloat16 are those of float32, within its precision."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn.functional import cosine_similarity

PARTS = ("backbone", "part_head", "identity_head", "crf_head", "proposal_generator", "roi_heads")


def losses_and_gradients(model, batch, bfloat16):
    """The losses, and the gradients of each part of the network in one vector."""
    torch.manual_seed(1)  # the detector samples
    model.zero_grad()
    with EventStorage(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {
        part: torch.cat([p.grad.flatten() for p in getattr(model, part).parameters()
                         if p.grad is not None])
        for part in PARTS
    }  # fmt: skip
    return losses, gradients


@pytest.mark.parametrize("form", ["factored", "joint"])
def test_bfloat16(make_model, people, form):
    source = ("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "ground_truth")
    model = make_model("MODEL.INSTANCE_CRF.FORM", form, *source).train()
    for module in model.modules():  # statistics of so few pixels magnify what is rounded
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    batch = [people(), people(64, 48)]
    losses, gradients = losses_and_gradients(model, batch, False)
    rounded, of_rounded = losses_and_gradients(model, batch, True)
    assert losses.keys() == rounded.keys() >= {"loss_crf", "loss_parts", "loss_identity"}
    for name, loss in losses.items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], loss, rtol=1e-2, atol=1e-3)
    for part, gradient in gradients.items():
        assert cosine_similarity(gradient, of_rounded[part], dim=0) > 0.99, part
        assert of_rounded[part].norm() / gradient.norm() == pytest.approx(1, abs=0.15), part
