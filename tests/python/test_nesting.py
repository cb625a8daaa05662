"""Fused inside fused, inside torch.compile, inside other things that compile or record; code that Dynamo can't follow."""

import pytest
import torch
from torch import nn

import heddle
from heddle._fuse import door_of
from same import close, same


def r(*shape, grad=False):
    return torch.randn(shape).requires_grad_(grad)


def leaf(*shape):
    return r(*shape, grad=True)


def inner(x):
    return (x * 2).sin()


@pytest.mark.parametrize("outer", ["fuse", "static", "compile", "eager backend"])
@pytest.mark.parametrize("within", ["fuse", "static", "compile"])
def test_fused_inside_fused(outer, within):
    from conftest import DOORS

    part = DOORS[within](inner)
    wrap = DOORS.get(outer) or (lambda f: torch.compile(f, backend="eager"))

    def whole(x):
        return part(x) * part(x + 1) + x

    torch.manual_seed(0)
    fused, plain = wrap(whole), lambda x: inner(x) * inner(x + 1) + x  # noqa: E731
    for n in (3, 3, 4, 5):
        x = leaf(n)
        y = x.detach().clone().requires_grad_()
        a, b = plain(x), fused(y)
        close(a, b, f"{n}")
        a.sum().backward(), b.sum().backward()
        close(x.grad, y.grad, f"gradient {n}")


def test_dynamo_is_as_it_was(own_door):
    """What Dynamo compiled while a function of its own was captured by running would have found its tables changed."""
    part = torch.compile(inner, backend="heddle")
    heddle.fuse(lambda x: part(x) + x, static=True)(r(3))
    assert torch._dynamo.eval_frame._stance.stance == "default"

    class Doubling(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            out = super().__torch_function__(func, types, args, kwargs or {})
            return out * 2 if func is torch.sin else out

    f = lambda x: torch.sin(x) + 1  # noqa: E731
    fused, x = own_door(f), r(3)
    for _ in range(2):
        close(f(x.as_subclass(Doubling)).as_subclass(torch.Tensor), fused(x.as_subclass(Doubling)).as_subclass(torch.Tensor), "of a subclass")
        close(f(x), fused(x), "a plain one")


def test_fused_twice_is_fused_once(own_door):
    f = own_door(inner)
    assert own_door(f) is f
    m = own_door(nn.Linear(2, 2))
    assert own_door(m) is m


def test_compile_of_a_fused_module():
    m = heddle.fuse(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    x = r(2, 3)
    close(m(x), torch.compile(m, backend="eager")(x), "compiled")


def test_capture_within_a_call_of_the_same(door):
    """A function that calls itself, fused."""
    def fib(x, n):
        return x if n < 2 else fused(x, n - 1) + fused(x, n - 2)

    fused = door(fib)
    close(torch.full((2,), 8.0), fused(torch.ones(2), 5), "fib")


class Doubled(torch.autograd.Function):
    """x² with a derivative of its own, wrong on purpose: 10."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return g * 10


OWN = {
    "alone": lambda x: Doubled.apply(x),
    "at the end": lambda x: Doubled.apply(x.sin()),
    "in the middle": lambda x: (Doubled.apply(x.sin()) * 2).cos(),
    "beside": lambda x: Doubled.apply(x) + x.sin(),
    "its result dropped": lambda x: (Doubled.apply(x), x * 2)[1],
}


@pytest.mark.parametrize("case", OWN)
def test_derivatives_of_their_own(door, case):
    same(door, OWN[case], lambda: [leaf(3)], eager=None)


def breaks(x):
    y = x.sin()
    print(end="")
    torch._dynamo.graph_break()
    return y * 2


def test_graph_breaks(door):
    same(door, breaks, lambda: [leaf(3)], eager=None)


def test_numpy_inside(door):
    def f(x):
        return x * float(x.detach().numpy().max()) + torch.from_numpy(x.detach().numpy() * 2)

    same(door, f, lambda: [leaf(4)], eager=None, calls=3)


def test_lists_of_values_inside(door):
    same(door, lambda x: x * sum(x.detach().tolist()), lambda: [leaf(4)], eager=None, calls=3)


def test_data_of_a_temporary(door):
    same(door, lambda x, w: x * 2 + (x * w).data, lambda: [leaf(4), leaf(4)], eager=None, calls=3)


def test_a_closure_over_tensors(door):
    w = leaf(3)
    fused = door(lambda x: x * w)
    for _ in range(3):
        w.grad = None
        x = r(3)
        fused(x).sum().backward()
        close(x, w.grad, "gradient of what it holds")
        with torch.no_grad():
            w.add_(1)


def test_a_closure_rebound():
    """Globals and closures that are bound anew are seen through Dynamo's guards."""
    w = torch.ones(3)

    def f(x):
        return x * w

    fused = heddle.fuse(f)
    close(torch.ones(3), fused(torch.ones(3)), "first")
    w = torch.full((3,), 4.0)
    close(w, fused(torch.ones(3)), "after rebinding")


def test_strict_dynamo_errors_do_not_escape():
    """What Dynamo can't trace at all runs as it is."""
    import io

    def f(x):
        out = io.StringIO()
        print(x.shape, file=out)
        return x * len(out.getvalue())

    same(heddle.fuse, f, lambda: [leaf(3)], eager=None)


def test_recursion_of_modules(door):
    class Tree(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.w = nn.Parameter(torch.ones(2) * depth)
            self.parts = nn.ModuleList([Tree(depth - 1), Tree(depth - 1)] if depth else [])

        def forward(self, x):
            return sum((p(x) for p in self.parts), x * self.w)

    same(door, Tree(3), lambda: [leaf(2)], eager=None)


def test_many_functions_in_one_process(own_door):
    """Fused functions made and dropped: regions go with them."""
    import gc

    from heddle import _region

    before = len(_region._functions)
    for k in range(20):
        own_door(lambda x: x * k + 1)(torch.ones(2))
    torch._dynamo.reset()
    gc.collect()
    assert len(_region._functions) - before <= 2


def test_fused_in_a_data_loader_worker():
    """Forked processes can call what the parent fused."""
    import multiprocessing as mp

    f = heddle.fuse(inner, static=True)
    f(torch.ones(3))
    ctx = mp.get_context("fork")
    q = ctx.Queue()

    def work():
        torch.set_num_threads(1)
        q.put(f(torch.ones(3)).tolist())

    p = ctx.Process(target=work)
    p.start()
    got = q.get(timeout=60)
    p.join(60)
    close(inner(torch.ones(3)), torch.tensor(got), "from the child")
    assert door_of(f)
