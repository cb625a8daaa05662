"""One fused function, many threads: first calls at once, sizes of their own, backward, captures that meet."""

import threading

import pytest
import torch

from same import close


def f(x, w):
    return (x * w).sin().sum(-1)


def in_threads(count, work):
    """Runs work(k) in `count` threads that start together; raises what any of them raised, fails if one doesn't end."""
    errors, gate = [], threading.Barrier(count)

    def run(k):
        try:
            gate.wait(60)
            work(k)
        except BaseException as e:  # noqa: BLE001
            errors.append(e)

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads), "a thread waits for ever"
    if errors:
        raise errors[0]


def check(function, fused, n, seed):
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(n, 3, generator=g).requires_grad_(), torch.randn(3, generator=g).requires_grad_()
    y = fused(x, w)
    y.sum().backward()
    want = function(x, w)
    gx, gw = torch.autograd.grad(want.sum(), (x, w))
    close(want, y, "result")
    close(gx, x.grad, "gradient")
    close(gw, w.grad, "gradient")


SIZES = {"one size": lambda k, step: 4, "a size per thread": lambda k, step: 4 + k, "a size per call": lambda k, step: 1 + (3 * k + 5 * step) % 11}


@pytest.mark.parametrize("sizes", SIZES)
def test_the_same_function(door, sizes):
    fused = door(f)
    in_threads(4, lambda k: [check(f, fused, SIZES[sizes](k, step), 10 * k + step) for step in range(6)])


def test_functions_of_their_own(door):
    """Captures of different functions at the same moment."""
    def work(k):
        g = lambda x, w: (x * w + k).sin().sum(-1)  # noqa: E731
        fused = door(g)
        for step in range(3):
            check(g, fused, 3 + step, step)

    in_threads(4, work)


def test_one_inside_the_other(own_door):
    """Each of two functions calls the other's part; two threads enter from opposite ends."""
    inner = own_door(lambda x, w: (x * w).sin())
    a = own_door(lambda x, w: inner(x, w).sum(-1))
    b = own_door(lambda x, w: inner(inner(x, w), w).sum(-1))
    plain = {0: lambda x, w: (x * w).sin().sum(-1), 1: lambda x, w: ((x * w).sin() * w).sin().sum(-1)}
    in_threads(4, lambda k: [check(plain[k % 2], (a, b)[k % 2], 3 + step, step) for step in range(4)])


def test_a_capture_that_starts_a_thread(own_door):
    """The function waits for another thread, which calls it as well."""
    deep = threading.local()
    results = []

    def g(x):
        if not getattr(deep, "inside", False) and threading.current_thread() is threading.main_thread():
            t = threading.Thread(target=lambda: results.append(fused(torch.ones(2))), daemon=True)
            t.start()
            t.join(60)
            assert not t.is_alive()
        return x * 2

    fused = own_door(g)
    close(torch.full((2,), 2.0), fused(torch.ones(2)), "outer")
    assert results
    for y in results:
        close(torch.full((2,), 2.0), y, "inner")


def test_a_module_in_threads(door):
    torch.manual_seed(0)
    m = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    fused = door(m)

    def work(k):
        g = torch.Generator().manual_seed(k)
        for step in range(5):
            x = torch.randn(2 + step % 3, 3, generator=g)
            with torch.no_grad() if k % 2 else torch.enable_grad():
                close(m(x), fused(x), "result", 1e-4)

    in_threads(4, work)


def test_modes_belong_to_threads(own_door):
    """no_grad, autocast and inference_mode in one thread don't reach the others."""
    fused, w = own_door(lambda x, w: x @ w), torch.randn(3, 3)

    def work(k):
        for _ in range(10):
            x = torch.randn(2, 3, requires_grad=True)
            if k == 0:
                with torch.no_grad():
                    assert not fused(x, w).requires_grad
            elif k == 1:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    assert fused(x, w).dtype == torch.bfloat16
            elif k == 2:
                with torch.inference_mode():
                    assert fused(torch.randn(2, 3), w).is_inference()
            else:
                y = fused(x, w)
                assert y.requires_grad and y.dtype == torch.float32

    in_threads(4, work)


def test_backward_in_another_thread(door):
    fused = door(f)
    x, w = torch.randn(4, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    y = fused(x, w).sum()
    in_threads(1, lambda k: y.backward())
    gx, gw = torch.autograd.grad(f(x, w).sum(), (x, w))
    close(gx, x.grad, "gradient")
    close(gw, w.grad, "gradient")


def test_many_backwards_at_once(door):
    """One graph for each thread, all over one parameter."""
    fused, w = door(f), torch.randn(3, requires_grad=True)
    xs = [torch.randn(4, 3) for _ in range(4)]
    losses = [fused(x, w).sum() for x in xs]
    in_threads(4, lambda k: losses[k].backward())
    want, = torch.autograd.grad(sum(f(x, w).sum() for x in xs), w)
    close(want, w.grad, "gradient", 1e-4)
