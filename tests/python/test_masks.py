"""Boolean masks and what depends on values: how many rows there are, which way a branch goes."""

import pytest
import torch

from heddle._fuse import door_of
from same import close, same


def r(*shape, grad=False):
    return torch.randn(shape).requires_grad_(grad)


def leaf(*shape):
    return r(*shape, grad=True)


def masked_l1(pred, target, mask):
    loss = (pred - target).abs()
    return loss[mask].mean()


def shade_hits(x, m):
    out = torch.zeros(x.shape[0], 2)
    out[m] = x[m].exp()[:, :2]
    return out


def if_any(x, m):
    if m.any():
        return x[m].sum()
    return x.sum() * 0


def early_out(x):
    if (x > 100).any():
        return x * 0
    return x * 2


def two_masks(x, a, b):
    y = torch.zeros_like(x)
    y[a & b] = x[a & b] * 2
    y[~a] = x[~a].sin()
    return y


def loop_until(x):
    n = 0
    while x.abs().max() > 1 and n < 5:
        x = x / 2
        n += 1
    return x, n


CASES = {
    "picked": (lambda x, m: x[m] * 2, lambda: [leaf(6, 3), r(6) > 0]),
    "picked, all dimensions": (lambda x: x[x > 0].exp(), lambda: [leaf(6, 3)]),
    "a masked loss": (masked_l1, lambda: [leaf(6, 3), r(6, 3), r(6, 3) > 0]),
    "a masked loss by rows": (masked_l1, lambda: [leaf(6, 3), r(6, 3), r(6) > 0]),
    "put back": (shade_hits, lambda: [leaf(6, 3), r(6) > 0]),
    "filled": (lambda x, m: x.masked_fill(m, 0.0) + torch.where(m, x, -x), lambda: [leaf(6), r(6) > 0]),
    "one value put": (lambda x, m: (lambda y: (y.__setitem__(m, 3.0), y)[1])(x * 2), lambda: [leaf(6), r(6) > 0]),
    "if any": (if_any, lambda: [leaf(6, 3), r(6) > 0]),
    "an early out": (early_out, lambda: [leaf(6)]),
    "two masks": (two_masks, lambda: [leaf(6, 3), r(6) > 0, r(6) > 0]),
    "masked_select and scatter": (lambda x, m: torch.zeros(6).masked_scatter(m, x.masked_select(m) * 2), lambda: [leaf(6), r(6) > 0]),
    "nonzero": (lambda x: x[x.detach().abs().gt(0.5).nonzero(as_tuple=True)] * 2, lambda: [leaf(6, 3)]),
    "how many": (lambda x, m: x[m].sum() / m.sum().clamp(min=1), lambda: [leaf(6, 3), r(6) > 0]),
    "how many, in Python": (lambda x, m: (x[m].sum(), x[m].shape[0]), lambda: [leaf(6, 3), r(6) > 0]),
    "a mask of a mask": (lambda x, m: x[m][x[m][:, 0] > 0].sum(), lambda: [leaf(16, 3), r(16) > 0]),
    "item": (lambda x, m: x * m.sum().item(), lambda: [leaf(6), r(6) > 0]),
    "item of a float": (lambda x: x / x.abs().max().item(), lambda: [leaf(6)]),
    "a loop until": (loop_until, lambda: [leaf(6) if False else (r(6) * 3)]),
    "any row": (lambda x, m: x[m.any(-1)] * 2, lambda: [leaf(6, 3), r(6, 2) > 0]),
    "added into": (lambda x, i: torch.zeros(4, 3).index_add(0, i, x), lambda: [leaf(6, 3), torch.tensor([0, 3, 1, 1, 2, 0])]),
    "index_put, accumulated": (lambda x, i: torch.zeros(4, 3).index_put((i,), x, accumulate=True), lambda: [leaf(6, 3), torch.tensor([0, 3, 1, 1, 2, 0])]),
    "none of them": (lambda x, m: x[m].mean(), lambda: [leaf(6, 3), torch.zeros(6, dtype=torch.bool)]),
    "all of them": (lambda x, m: x[m].mean(), lambda: [leaf(6, 3), torch.ones(6, dtype=torch.bool)]),
}


@pytest.mark.parametrize("case", CASES)
def test_masks(door, case):
    same(door, *CASES[case], eager=None, calls=4)


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
def test_a_mask_of_uint8(own_door):
    """Dynamo alone can't follow it."""
    same(own_door, lambda x, m: x[m] * 2, lambda: [leaf(6, 3), (r(6) > 0).to(torch.uint8)], eager=None)


@pytest.mark.parametrize("function", [masked_l1, shade_hits, if_any], ids=lambda f: f.__name__)
def test_any_number_of_rows(own_door, function):
    """One function over masks of every number of rows; rows are a size, so captures stay few."""
    fused = own_door(function)
    for n in (3, 5, 0, 6, 1, 2, 4):
        x = r(6, 3)
        m = torch.arange(6) < n
        args = (r(6, 3), m) if function is masked_l1 else (m,)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        want, got = function(a, *args), fused(b, *args)
        close(want, got, f"{n} rows")
        want.sum().backward(), got.sum().backward()
        close(a.grad, b.grad, f"gradient, {n} rows")
    assert sum(region.report()["captures"] for region in door_of(fused).regions()) <= (4 if function is if_any else 2)


def test_both_ways_of_a_branch(door):
    fused = door(early_out)
    for x in (torch.ones(3), torch.full((3,), 200.0), torch.ones(3) * 2, torch.full((3,), 300.0)):
        close(early_out(x), fused(x), f"{x[0]}")


def of_rows(count: int, n: int = 40) -> torch.Tensor:
    return torch.arange(n)[torch.randperm(n)].argsort() < count


def check_rows(f, fused, w, a, b):
    x, m, n = r(40, 3), of_rows(a), of_rows(b)
    want, got = f(x, m, n), fused(x, m, n)
    close(want, got, f"{a} and {b} rows")
    close(*(torch.autograd.grad(out, w)[0] for out in (want, got)), f"gradient, {a} and {b} rows")


def test_masks_with_as_many_rows_as_each_other_by_chance(door):
    """At the first call they are as many, later they aren't."""
    w = leaf(3, 2)

    def f(x, a, b):
        return (x[a] @ w).sum() + (x[b] @ w).pow(2).sum()

    fused = door(f)
    for a, b in ((10, 10), (10, 12), (12, 12), (5, 0)):
        check_rows(f, fused, w, a, b)


def test_masks_that_have_to_have_as_many_rows(door):
    """Rows of two masks are multiplied; where they aren't as many, the error is PyTorch's, or Dynamo's."""
    w = leaf(3, 2)

    def f(x, a, b):
        return ((x[a] @ w) * (x[b] @ w)).sum()

    fused = door(f)
    for n in (10, 12, 3):
        check_rows(f, fused, w, n, n)
    with pytest.raises(RuntimeError, match=r"size of tensor a|Eq\(u0, u1\)"):
        fused(r(40, 3), of_rows(10), of_rows(12))
    check_rows(f, fused, w, 7, 7)


def looked_up(x, m, table):
    """Rows whose places in a table are computed: NaN where the mask doesn't hold."""
    out = torch.zeros_like(x)
    out[m] = table[(x[m] * 3).floor().long()].exp().sum(1) * x[m]
    return out


def places(share: float, n: int = 50, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, m = torch.rand(n, 8, dtype=dtype) * 1.9, torch.rand(n, 8) < share
    x[~m] = float("nan")
    return x.requires_grad_(), m, torch.randn(6, 24, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("of_example", [0.3, 0.95])
def test_a_schedule_for_one_share_is_right_at_every_other(own_door, of_example):
    fused = own_door(looked_up)
    for share in (of_example, 0.0, 0.01, 0.5, 0.9, 1.0):
        x, m, table = places(share)
        exact = [x.detach().double().requires_grad_(), m, table.detach().double().requires_grad_()]
        want, got = looked_up(*exact), fused(x, m, table)
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
        seeds = torch.randn_like(want)
        grads = torch.autograd.grad(got, (x, table), seeds.float())
        for ours, theirs in zip(grads, torch.autograd.grad(want, (exact[0], exact[2]), seeds)):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
        assert share > 0 or not grads[1].any()
    # For a GPU all places are computed where the example's mask held at most of them; else rows are found, by scans that count them.
    (region,) = door_of(fused).regions()
    assert ("sum_before" in "".join(region.kernels().values())) == (of_example < 0.5)
    assert " % of its places hold" in region.explain()
