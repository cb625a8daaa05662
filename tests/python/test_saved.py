"""What a fused call keeps for its backward: seen by hooks for saved tensors, recomputed under checkpoints, watched for writes."""

import pytest
import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import heddle
from heddle._fuse import door_of


def normalised(x, w):
    """Its backward reads both arguments, and s, which is a result too."""
    s = x.sum(0)
    return ((x / s) * w).sin().sum(), s


def fused():
    return heddle.fuse(normalised, static=True)


def arguments():
    g = torch.Generator().manual_seed(0)
    return tuple((torch.rand(40, 3, generator=g) + 0.5).requires_grad_() for _ in range(2))


def gradients(f, *inputs):
    loss, s = f(*inputs)
    return torch.autograd.grad(loss + s.square().sum(), inputs)


def test_hooks_see_all_that_the_backward_reads():
    want = gradients(normalised, *arguments())
    seen = []

    def pack(t):
        seen.append(t.shape)
        return t.detach().numpy().copy()

    f = fused()
    with saved_tensors_hooks(pack, torch.from_numpy):
        got = gradients(f, *arguments())
    report = door_of(f).regions()[0].report()
    assert report["eager_reason"] == "" and report["launches_backward"] > 0 and len(seen) > 0
    for a, b in zip(want, got):
        torch.testing.assert_close(a, b)


def test_the_backward_reads_what_hooks_return():
    x = torch.rand(3).add_(0.5).requires_grad_()
    f = heddle.fuse(lambda x: (x * x).sum(), static=True)
    with saved_tensors_hooks(lambda t: t, torch.zeros_like):
        loss = f(x)
    assert torch.autograd.grad(loss, x)[0].eq(0).all()


def test_save_on_cpu_and_checkpoint():
    want = gradients(normalised, *arguments())
    f = fused()
    with save_on_cpu():
        got = gradients(f, *arguments())
    again = gradients(lambda *a: checkpoint(f, *a, use_reentrant=False), *arguments())
    for a, b, c in zip(want, got, again):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)


def test_writes_before_the_backward_are_errors():
    f = fused()
    for which in range(2):
        x, w = arguments()
        inputs = x * 1, w * 1
        loss, s = f(*inputs)
        with torch.no_grad():
            inputs[which].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            (loss + s.sum()).backward()


@pytest.mark.parametrize("static", [False, True])
def test_activation_memory_budget(static):
    """Less is kept where that is asked for; outputs and gradients stay."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).double()
    x = torch.rand(50, 6, dtype=torch.float64)

    def loss(x):
        return net(torch.cat([(x * 3).sin(), (x * 3).cos()], -1)).square().sum()

    want = torch.autograd.grad(loss(x), list(net.parameters()))
    kept = []
    for budget in (1.0, 0.5, 0.0):
        f = heddle.fuse(loss, static=static, activation_memory_budget=budget)
        for got, exact in zip(torch.autograd.grad(f(x), list(net.parameters())), want):
            torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
        kept.append(sum(r.report()["saved_bytes"] for r in door_of(f).regions()))
    assert kept[1] <= kept[0] / 2 and kept[2] <= kept[1] and kept[0] > 0, kept
    with pytest.raises(ValueError, match="activation_memory_budget is 1.5, expected a share from 0 to 1"):
        heddle.fuse(loss, activation_memory_budget=1.5)


@pytest.mark.parametrize("static", [False, True])
def test_rows_of_a_mask_are_priced_by_how_many_there_are(static):
    """Samples of many rows are taken again in the backward, where what they are taken of is smaller."""
    torch.manual_seed(0)
    planes = [torch.rand(1, 8, 96, 96, requires_grad=True) for _ in range(2)]
    points, mask = torch.rand(80000, 2) * 2 - 1, torch.rand(80000) < 0.9

    def loss(points, mask):
        found = points[mask]
        a, b = (torch.nn.functional.grid_sample(p, found[None, :, None], align_corners=True) for p in planes)
        return (a * b).sum()

    f = heddle.fuse(loss, static=static)
    want = torch.autograd.grad(loss(points, mask), planes)
    for got, exact in zip(torch.autograd.grad(f(points, mask), planes), want):
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)
    samples = int(mask.sum()) * 8 * 4  # of one plane, in bytes
    assert sum(r.report()["saved_bytes"] for r in door_of(f).regions()) < samples
