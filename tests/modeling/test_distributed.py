"""Two processes, on one of which nobody is there and nobody is found: all gradients arrive."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel


def train_one_step(rank, folder, model, batches, autocast):
    """Saves the gradients that a process has after one step."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(batches)
    )
    try:
        torch.manual_seed(0)
        model = DistributedDataParallel(model.train())
        bfloat16 = torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)
        with EventStorage(), bfloat16:
            losses = model(batches[rank])
        sum(losses.values()).backward()
        result = {name: p.grad for name, p in model.module.named_parameters() if p.requires_grad}
        torch.save((losses, result), f"{folder}/{rank}.pth")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["factored", "joint"])
@pytest.mark.parametrize("autocast", [False, True])
def test_nobody_on_one_of_two_processes(
    tmp_path, make_model, people, with_detections, form, autocast
):
    torch.manual_seed(0)
    model = make_model(
        "MODEL.INSTANCE_CRF.FORM", form, "MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "record",
        "MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH", 0.0, "MODEL.INSTANCE_CRF.BACKEND", "torch",
    )  # fmt: skip
    empty = with_detections(people(), 0)
    empty["part_seg"] = torch.zeros_like(empty["part_seg"])
    empty["object_seg"] = torch.zeros_like(empty["object_seg"])
    empty["instances"] = empty["instances"][torch.zeros(2, dtype=torch.bool)]
    batches = [[with_detections(people(), 2)], [empty]]
    arguments = (str(tmp_path), model, batches, autocast)
    mp.start_processes(train_one_step, arguments, nprocs=2, start_method="fork")
    (losses, first), (losses_of_empty, second) = (
        torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)
    )
    assert losses.keys() == losses_of_empty.keys() >= {"loss_crf", "loss_identity", "loss_parts"}
    assert losses_of_empty["loss_identity"] == 0 < losses["loss_identity"]
    for name, gradient in first.items():
        assert gradient is not None and torch.isfinite(gradient).all(), name
        torch.testing.assert_close(gradient, second[name])
    assert any(gradient.abs().max() > 0 for n, gradient in first.items() if "crf_head" in n)
