"""The one dense operation under every model here: unaries and Gaussian kernels -> log-marginals.

`infer` checks its input and hands it to a backend. A backend is a module with

* ``is_compiled()``: whether its kernels are there; if not, the user is told of the wait;
* ``supports(unary, kernels, compatibility)``: None, or the reason why it cannot;
* ``mean_field(unary, kernels, weights, num_iterations, *, normalization, support, compatibility,
  out)``: see `infer`; at least one iteration and one kernel. ``out``, if given, takes the result;
  it may be the unary itself.

None of them knows a box, a score, a part or a person: whatever makes the unaries is differentiable
tensor code of its own (`potentials`).

Shape letters: N = H·W pixels, L labels, K kernels, T iterations.
"""

from __future__ import annotations

import logging
import time
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from .gaussian_filter import NORMALIZATIONS, GaussianKernel, ImageKernels, bilateral_kernel
from .validation import check_choice, check_support

__all__ = ["BACKENDS", "BackendError", "infer"]

logger = logging.getLogger(__name__)

_MODULES = {"torch": ".mean_field", "numba": ".cpu.mean_field", "triton": ".cuda.mean_field"}
BACKENDS = ("auto", *_MODULES)

_ACCELERATED = {"cpu": "numba", "cuda": "triton"}
_TOLERANCE = 1e-3
"""Largest difference to the reference that the self-check of a backend accepts."""
_works: dict[tuple[str, str], bool] = {}
"""Whether a backend works on a device, once this is known."""
_asked: set[str] = set()
"""Backends whose compilation the user has been told of, or that had none to come."""


class BackendError(ValueError):
    """A backend that was asked for by name cannot do what was asked."""


def infer(
    unary: Tensor,
    kernels: ImageKernels,
    weights: Tensor,
    num_iterations: int,
    *,
    normalization: str = "after",
    support: Tensor | None = None,
    compatibility: Tensor | None = None,
    backend: str = "auto",
    overwrite: bool = False,
) -> Tensor:
    """Log-marginals of a fully connected CRF after T mean-field iterations.

    Args:
        unary: (N, L) finite energies U, pixels row by row.
        kernels: the K Gaussian kernels of the image; lattices built for one call serve the next.
        weights: (K,) their weights w, non-negative for a CRF that smooths.
        num_iterations: T; 0 gives the normalised unary.
        normalization: of the kernels, see `gaussian_filter`.
        support: (N,) f in [0, 1], how much each pixel counts as a sender; None: all count. Constant
            for the gradient.
        compatibility: (L, L) mu(l', l), how much label l' attracts l; None is the Potts model.
        backend: one of BACKENDS by name, or "auto": the accelerated one of the device if it can and
            has once agreed with the reference, otherwise the reference.
        overwrite: the result may take the place of ``unary``, where no gradients are recorded.

    Returns:
        (N, L) log Q in the dtype of ``unary``. Differentiable with respect to ``unary``,
        ``weights`` and ``compatibility``; of second derivatives only the reference has any.

    Raises:
        ValueError: if shapes, devices or options do not fit.
        BackendError: if the backend that is named cannot do it; says why.
    """
    _check(unary, kernels, weights, normalization, support, compatibility, backend)
    if num_iterations == 0 or len(kernels) == 0 or unary.shape[1] == 1:
        # Zero, in the graph of all that is learned: DistributedDataParallel needs all of it.
        learned = [weights] if compatibility is None else [weights, compatibility]
        return torch.log_softmax(-unary, dim=1) + 0.0 * sum(each.sum() for each in learned)
    learns = torch.is_grad_enabled() and any(
        value is not None and value.requires_grad for value in (unary, weights, compatibility)
    )
    options = {
        "normalization": normalization,
        "support": None if support is None else support.detach().to(unary.dtype),
        "compatibility": None if compatibility is None else compatibility.to(unary.dtype),
        "out": unary if overwrite and not learns else None,
    }
    arguments = unary, kernels, weights.to(unary.dtype), num_iterations
    start = time.perf_counter()
    name, new = _choose(backend, unary, kernels, compatibility)
    with torch.autocast(unary.device.type, enabled=False):
        try:
            result = _load(name).mean_field(*arguments, **options)
            if new:
                logger.warning("... compiled in %.0f s.", time.perf_counter() - start)
            return result
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # such as Triton's compilation for this number of labels
            if backend != "auto" or name == "torch":
                raise
            _give_up(name, unary.device, repr(error))
            return _load("torch").mean_field(*arguments, **options)


def _check(
    unary: Tensor,
    kernels: ImageKernels,
    weights: Tensor,
    normalization: str,
    support: Tensor | None,
    compatibility: Tensor | None,
    backend: str,
) -> None:
    precise = unary.dtype in (torch.float32, torch.float64)
    if unary.dim() != 2 or unary.numel() == 0 or not precise:
        raise ValueError(
            f"unary must be float32 or float64 of shape (N, L), got {unary.dtype} of shape "
            f"{tuple(unary.shape)}."
        )
    if tuple(weights.shape) != (len(kernels),):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}, but there are {len(kernels)} kernels."
        )
    if len(kernels) and kernels.size[0] * kernels.size[1] != len(unary):
        raise ValueError(
            f"unary has {len(unary)} pixels, but the kernels are of an image of "
            f"{kernels.size[0]} x {kernels.size[1]}."
        )
    check_choice("normalization", normalization, NORMALIZATIONS)
    check_choice("backend", backend, BACKENDS)
    check_support(support, len(unary))
    labels = unary.shape[1]
    if compatibility is not None and tuple(compatibility.shape) != (labels, labels):
        raise ValueError(
            f"compatibility has shape {tuple(compatibility.shape)}, but unary has {labels} labels."
        )
    tensors = [("weights", weights), ("support", support), ("compatibility", compatibility)]
    tensors += [("a kernel's features", kernel.features) for kernel in kernels.kernels]
    for name, value in tensors:
        if value is not None and value.device != unary.device:
            raise ValueError(f"{name}: on {value.device}, but unary is on {unary.device}.")


def _choose(
    backend: str, unary: Tensor, kernels: ImageKernels, compatibility: Tensor | None
) -> tuple[str, bool]:
    """The name of the backend that takes this problem, and whether it will compile for it."""
    if backend == "auto":
        name = _ACCELERATED.get(unary.device.type, "torch")
        fits = name != "torch" and _is_taken(name, unary, kernels, compatibility)
        return (name if fits else "torch"), False
    try:
        solver = _load(backend)
    except ImportError as error:
        raise BackendError(f'backend="{backend}" cannot be imported: {error}.') from error
    reason = solver.supports(unary, kernels, compatibility)
    if reason is not None:
        raise BackendError(f'backend="{backend}" {reason}')
    return backend, _say_if_new(backend)


def _load(name: str) -> ModuleType:
    # Imported late: numba and Triton take a moment, may be missing, and only some calls need them.
    return import_module(_MODULES[name], __package__)


def _is_taken(
    name: str, unary: Tensor, kernels: ImageKernels, compatibility: Tensor | None
) -> bool:
    """Whether "auto" takes an accelerated backend, which checks itself at its first use."""
    device = unary.device
    key = (name, str(device))
    if _works.get(key) is False:
        return False
    start = time.perf_counter()
    try:
        solver = _load(name)
        if solver.supports(unary, kernels, compatibility) is not None:
            return False
        if key in _works:
            return True
        new = _say_if_new(name)
        # Whatever mode the first user is in.
        no_autocast = torch.autocast(device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), no_autocast:
            difference = _difference(solver.mean_field, device)
        if new:
            logger.warning("... compiled in %.0f s.", time.perf_counter() - start)
    except (torch.OutOfMemoryError, MemoryError):
        return False  # for now: says nothing about the backend, so that the next call asks again
    except Exception as error:  # of many kinds: no compiler, an old driver, an old device
        return _give_up(name, device, repr(error))
    if not difference <= _TOLERANCE:
        return _give_up(name, device, f"it differs from the reference by {difference:.2g}")
    _works[key] = True
    return True


def _say_if_new(name: str) -> bool:
    """Tells the user once of the wait for a backend's compilation; whether there is one."""
    new = name not in _asked and not _load(name).is_compiled()
    _asked.add(name)
    if new:
        logger.warning("Compiling the CRF's %s kernels, once on this machine ...", name)
    return new


def _give_up(name: str, device: torch.device, problem: str) -> bool:
    """Leaves a device to the reference from now on, with one warning; False, it is not taken."""
    logger.warning(
        "The CRF's %s backend does not work on %s (%s): the plain reference takes its place.",
        name,
        device,
        problem,
    )
    _works[name, str(device)] = False
    return False


def _difference(mean_field, device: torch.device) -> float:
    """Largest difference to the reference on a small problem, forward and backward."""
    height, width, labels = 9, 14, 3
    ramp = torch.arange(height * width * 4, device=device)
    waves = torch.sin(0.37 * ramp.float()).view(4, height, width)
    kernels = ImageKernels(
        [
            bilateral_kernel(127 + 60 * waves[:3], 6.0, 50.0),
            GaussianKernel((height, width), 2.0),
        ]
    )
    support = waves[3].flatten().abs()
    unary = torch.cos(1.3 * ramp[: height * width * labels].float()).view(-1, labels)
    weights = torch.tensor([1.5, 0.7], device=device, dtype=torch.float32)
    results = []
    for solve in (mean_field, _load("torch").mean_field):
        inputs = unary.clone().requires_grad_(), weights.clone().requires_grad_()
        log_marginals = solve(inputs[0], kernels, inputs[1], 3, support=support)
        gradients = torch.autograd.grad((log_marginals.exp() * unary).sum(), inputs)
        results.append([log_marginals, *gradients])
    return max((one - other).abs().max().item() for one, other in zip(*results, strict=True))
