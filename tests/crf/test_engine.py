"""Checks of the engine's input, and the choice of the backend."""

import logging

import pytest
import torch

from instance_crf.crf import engine
from instance_crf.crf import mean_field as reference
from instance_crf.crf.engine import BackendError, infer
from instance_crf.crf.gaussian_filter import GaussianKernel, ImageKernels, bilateral_kernel

SIZE = (6, 7)


def make_kernels():
    image = torch.linspace(0, 255, 3 * 42).view(3, *SIZE)
    return ImageKernels([bilateral_kernel(image, 4.0, 30.0), GaussianKernel(SIZE, 1.5)])


def make_unary(labels=4, dtype=torch.float32):
    return torch.rand(42, labels, generator=torch.Generator().manual_seed(0), dtype=dtype)


WEIGHTS = torch.tensor([2.0, 1.0])


class Fake:
    """A backend in the place of numba's.

    Args:
        solve: what its mean-field does.
        reason: why it cannot.
    """

    def __init__(self, solve=reference.mean_field, reason=None, compiled=True):
        self.solve, self.reason, self.compiled, self.calls = solve, reason, compiled, 0

    def is_compiled(self):
        return self.compiled

    def supports(self, unary, kernels, compatibility):
        return self.reason

    def mean_field(self, *args, **kwargs):
        self.calls += 1
        return self.solve(*args, **kwargs)


@pytest.fixture
def install(monkeypatch):
    """Puts a fake in the place of the numba backend, which nobody has tried yet."""
    monkeypatch.setattr(engine, "_works", {})
    monkeypatch.setattr(engine, "_asked", set())
    load = engine._load

    def install(fake):
        def loader(name):
            if name != "numba":
                return load(name)
            if isinstance(fake, Exception):
                raise fake
            return fake

        monkeypatch.setattr(engine, "_load", loader)
        return fake

    return install


def run(**options):
    return infer(make_unary(), make_kernels(), WEIGHTS, 3, **options)


EXPECTED = reference.mean_field(make_unary(), make_kernels(), WEIGHTS, 3)


def test_a_backend_that_agrees_is_taken_and_checked_once(install, caplog):
    fake = install(Fake())
    for _ in range(3):
        torch.testing.assert_close(run(), EXPECTED)
    assert fake.calls == 3 + 1
    assert not caplog.records


def test_the_user_is_told_of_the_wait_for_a_compilation(install, caplog):
    install(Fake(compiled=False))
    run()
    run()
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "Compiling" in said[0] and "compiled in" in said[1]


def test_where_nothing_is_kept_the_user_is_told_once(install, caplog):
    install(Fake(compiled=False))
    for _ in range(3):
        run(backend="numba")
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "Compiling" in said[0] and "compiled in" in said[1]


def wrong(unary, *args, **kwargs):
    return reference.mean_field(unary, *args, **kwargs) + 0.25


def wrong_gradient(unary, *args, **kwargs):
    result = reference.mean_field(unary, *args, **kwargs)
    return result + (unary - unary.detach())


def crash(*args, **kwargs):
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    "fake, message",
    [
        (Fake(wrong), "differs from the reference by 0.29"),
        (Fake(wrong_gradient), "differs from the reference"),
        (Fake(crash), "no compiler"),
        (Fake(lambda *a, **k: torch.full((126, 3), torch.nan).requires_grad_()), "numba backend"),
        (ImportError("no such library"), "no such library"),
    ],
)
def test_a_broken_backend_is_one_warning_and_the_reference(install, caplog, fake, message):
    install(fake)
    for _ in range(2):
        torch.testing.assert_close(run(), EXPECTED)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and message in record.message


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
def test_a_passing_lack_of_memory_switches_nothing_off(install, caplog, error):
    def solve(*args, **kwargs):
        if fake.calls == 1:
            raise error
        return reference.mean_field(*args, **kwargs)

    fake = install(Fake(solve))
    torch.testing.assert_close(run(), EXPECTED)
    assert fake.calls == 1
    torch.testing.assert_close(run(), EXPECTED)
    assert fake.calls == 3 and not caplog.records


def test_a_failure_at_a_later_problem_is_one_warning_too(install, caplog):
    """As where Triton's compilation for another number of labels fails."""

    def solve(*args, **kwargs):
        if fake.calls == 2:
            raise RuntimeError("no registers left")
        return reference.mean_field(*args, **kwargs)

    fake = install(Fake(solve))
    for _ in range(2):
        torch.testing.assert_close(run(), EXPECTED)
    (record,) = caplog.records
    assert "no registers left" in record.message and fake.calls == 2
    fake = install(Fake(crash))
    with pytest.raises(RuntimeError, match="no compiler"):
        run(backend="numba")


def test_a_backend_forced_by_name_says_why_it_cannot(install):
    install(Fake(reason="has the hiccups."))
    torch.testing.assert_close(run(), EXPECTED)
    with pytest.raises(BackendError, match='backend="numba" has the hiccups'):
        run(backend="numba")
    install(ImportError("no such library"))
    with pytest.raises(BackendError, match="no such library"):
        run(backend="numba")


def test_what_a_backend_declines_does_not_check_it(install):
    fake = install(Fake(reason="has the hiccups."))
    run()
    assert fake.calls == 0 and engine._works == {}


@pytest.mark.parametrize("mode", ["inference", "autocast", "double"])
def test_the_self_check_does_not_mind_the_mode_of_its_first_user(mode, monkeypatch):
    monkeypatch.setattr(engine, "_works", {})
    try:
        if mode == "inference":
            with torch.inference_mode():
                run()
        elif mode == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                torch.testing.assert_close(run(backend="torch"), EXPECTED)
                run()
        else:
            torch.set_default_dtype(torch.float64)
            run()
    finally:
        torch.set_default_dtype(torch.float32)
    assert engine._works == {("numba", "cpu"): True}


@pytest.mark.parametrize("backend", ["torch", "numba", "auto"])
def test_nothing_to_do_is_the_normalised_unary(backend):
    unary = make_unary().requires_grad_()
    weights = WEIGHTS.clone().requires_grad_()
    result = infer(unary, make_kernels(), weights, 0, backend=backend)
    torch.testing.assert_close(result, torch.log_softmax(-unary, 1))
    result[:, 0].sum().backward()
    assert weights.grad.tolist() == [0, 0]
    alone = infer(unary[:, :1], make_kernels(), weights, 5, backend=backend)
    assert (alone == 0).all()
    none = infer(unary, ImageKernels([]), weights[:0], 5, backend=backend)
    torch.testing.assert_close(none, result)


def test_kernels_serve_several_calls():
    kernels, built = make_kernels(), []
    original = kernels.built
    kernels.built = lambda key, build: original(key, lambda: built.append(key) or build())
    for labels in (2, 5, 2):
        infer(make_unary(labels), kernels, WEIGHTS, 2)
    assert len(built) == len(set(built)) > 0


def test_overwriting_gives_the_same_and_spares_what_is_learned():
    unary = make_unary()
    result = infer(unary, make_kernels(), WEIGHTS, 3, overwrite=True)
    torch.testing.assert_close(result, EXPECTED)
    assert result.data_ptr() == unary.data_ptr()
    unary = make_unary().requires_grad_()
    infer(unary, make_kernels(), WEIGHTS, 3, overwrite=True)
    assert torch.equal(unary, make_unary())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"unary": make_unary()[0]}, "unary"),
        ({"unary": make_unary().long()}, "unary"),
        ({"unary": make_unary()[:40]}, "40 pixels.*6 x 7"),
        ({"weights": WEIGHTS[:1]}, "weights"),
        ({"normalization": "before"}, "'before'"),
        ({"support": torch.ones(41)}, "support"),
        ({"support": torch.full((42,), 2.0)}, "support"),
        ({"support": torch.full((42,), torch.nan)}, "support"),
        ({"compatibility": torch.eye(3)}, "compatibility"),
        ({"backend": "cpp"}, "'cpp'"),
        ({"backend": "cpp", "num_iterations": 0}, "'cpp'"),
        ({"unary": make_unary().half()}, "float16"),
    ],
)
def test_bad_input_is_named(change, message):
    values = {"unary": make_unary(), "kernels": make_kernels(), "weights": WEIGHTS}
    with pytest.raises(ValueError, match=message):
        infer(**{**values, "num_iterations": 2, **change})
