"""Gradients as eager has them: None where it has None, in every mode, twice, under hooks, transforms and checkpoints."""

import copy

import pytest
import torch
import torch.utils.checkpoint

from heddle._fuse import door_of
from same import close, same, why_eager


def r(*shape, grad=False, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


def leaf(*shape):
    return r(*shape, grad=True)


def inner_no_grad(x, w):
    with torch.no_grad():
        scale = (x * w).abs().max()
    return x * w / scale


def inner_enable_grad(x, w):
    with torch.enable_grad():
        return x * w


def set_off_and_on(x, w):
    torch.set_grad_enabled(False)
    a = x * w
    torch.set_grad_enabled(True)
    return a + x


@torch.no_grad()
def decorated(x, w):
    return x * w


def inner_inference(x, w):
    with torch.inference_mode():
        n = (x * w).sum()
    return x * 2, n


def written_under_no_grad(x, w):
    y = x * w
    with torch.no_grad():
        y[0] = 0
    return y * 2


def through_int(x, w):
    return (x * w).long().float() * x


def custom_stop(x, w):
    return x * w.detach() + (x * w).data


NONES = {
    "an unused input": (lambda x, w: x * 2, lambda: [leaf(3), leaf(3)]),
    "two results, one input each": (lambda x, w: (x * 2, w * 3), lambda: [leaf(3), leaf(3)]),
    "detached": (custom_stop, lambda: [leaf(3), leaf(3)]),
    "times zero": (lambda x, w: x * 0 + w, lambda: [leaf(3), leaf(3)]),
    "only its shape": (lambda x, w: x.sum() * w.numel() + torch.ones_like(w).sum(), lambda: [leaf(3), leaf(4)]),
    "only compared": (lambda x, w: torch.where(w > 0, x, 0), lambda: [leaf(3), leaf(3)]),
    "rounded": (lambda x, w: x.round() + w, lambda: [leaf(3), leaf(3)]),
    "sign": (lambda x, w: x.sign() * w, lambda: [leaf(3), leaf(3)]),
    "by way of an integer": (through_int, lambda: [leaf(3), leaf(3)]),
    "none requires it": (lambda x, w: x * w, lambda: [r(3), r(3)]),
    "one requires it": (lambda x, w: x * w, lambda: [r(3), leaf(3)]),
    "no_grad within": (inner_no_grad, lambda: [leaf(3), leaf(3)]),
    "enable_grad within": (inner_enable_grad, lambda: [leaf(3), leaf(3)]),
    "set_grad_enabled within": (set_off_and_on, lambda: [leaf(3), leaf(3)]),
    "decorated": (decorated, lambda: [leaf(3), leaf(3)]),
    "inference_mode within": (inner_inference, lambda: [leaf(3), leaf(3)]),
    "written under no_grad": (written_under_no_grad, lambda: [leaf(3), leaf(3)]),
    "through a slice": (lambda x, w: x[:2] * w[1:], lambda: [leaf(3), leaf(3)]),
    "max's places": (lambda x, w: x.max(0), lambda: [leaf(4, 3), leaf(3)]),
    "ties": (lambda x, w: (x.round().max() + torch.maximum(x, x) + x.abs().amax(0)).sum() + w.relu(), lambda: [leaf(4, 3), torch.zeros(3, requires_grad=True)]),
    "a result without gradient beside one with": (lambda x, w: (x * w, (x > 0).float(), w.detach() * 2), lambda: [leaf(3), leaf(3)]),
}


@pytest.mark.parametrize("case", NONES)
def test_none_stays_none(door, case):
    same(door, *NONES[case], eager=None)


def f(x, w):
    return (x * w).sin().sum(-1)


AMBIENT = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "enable_grad": torch.enable_grad}


@pytest.mark.parametrize("mode", AMBIENT)
def test_the_mode_around(door, mode):
    fused = door(f)
    for _ in range(2):
        x, w = leaf(4, 3), leaf(3)
        with AMBIENT[mode]():
            y, want = fused(x, w), f(x, w)
        close(want, y, "result")
        assert (y.requires_grad, y.is_inference()) == (want.requires_grad, want.is_inference())


def test_modes_by_turns(door):
    """One compiled function in and out of every mode."""
    fused = door(f)
    for turn in range(3):
        for mode in AMBIENT.values():
            for grad in (False, True):
                with mode():
                    x, w = r(turn + 2, 3, grad=grad and mode is not torch.inference_mode), r(3)
                    y, want = fused(x, w), f(x, w)
                close(want, y, "result")
                assert (y.requires_grad, y.is_inference()) == (want.requires_grad, want.is_inference())
                if y.requires_grad:
                    y.sum().backward()
                    x2 = x.detach().clone().requires_grad_()
                    f(x2, w).sum().backward()
                    close(x2.grad, x.grad, "gradient")


def test_inference_tensors_as_inputs(door):
    with torch.inference_mode():
        x = r(4, 3)
    fused = door(f)
    w = r(3)
    close(f(x, w), fused(x, w), "outside inference_mode")
    with torch.inference_mode():
        close(f(x, w), fused(x, w), "inside")
    with pytest.raises(RuntimeError, match="nference"):
        f(x, leaf(3))
    with pytest.raises(RuntimeError, match="nference"):
        fused(x, leaf(3))


def test_requires_grad_toggles_between_calls(door):
    fused, x, w = door(f), r(4, 3), r(3)
    for gx, gw in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 1), (0, 1)]:
        x.requires_grad_(bool(gx)), w.requires_grad_(bool(gw))
        x.grad = w.grad = None
        y = fused(x, w)
        want = f(x, w)
        assert y.requires_grad == want.requires_grad
        if not want.requires_grad:
            continue
        g = torch.autograd.grad(want.sum(), [t for t in (x, w) if t.requires_grad])
        y.sum().backward()
        got = [t.grad for t in (x, w) if t.requires_grad]
        for a, b in zip(g, got):
            close(a, b, "gradient")
        assert all(t.grad is None for t in (x, w) if not t.requires_grad)


def test_inputs_with_a_history(door):
    """An input that isn't a leaf: gradients go on into what it was made of."""
    def run(g):
        torch.manual_seed(3)
        a, w = leaf(4, 3), leaf(3)
        h = a.exp()
        h.retain_grad()
        y = g(h, w) * 2 + h.sum(-1)
        y.sum().backward()
        return h.grad, a.grad, w.grad

    for p, q in zip(run(f), run(door(f))):
        close(p, q, "gradient")


def test_retain_graph(door):
    fused, x, w = door(f), leaf(4, 3), leaf(3)
    y = fused(x, w).sum()
    y.backward(retain_graph=True)
    once = x.grad.clone(), w.grad.clone()
    y.backward(retain_graph=True)
    close(2 * once[0], x.grad, "twice")
    close(2 * once[1], w.grad, "twice")
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_each_result_backward_on_its_own(door):
    g = lambda x: (x.sin(), x.cos() * 2, x.detach())  # noqa: E731
    x, e = leaf(3), None
    e = x.detach().clone().requires_grad_()
    a, b = door(g)(x)[:2], g(e)[:2]
    for k in (1, 0):
        got, = torch.autograd.grad(a[k].sum(), x, retain_graph=True)
        want, = torch.autograd.grad(b[k].sum(), e, retain_graph=True)
        close(want, got, f"of result {k}")


def test_autograd_grad_of_some(door):
    fused, x, w = door(f), leaf(4, 3), leaf(3)
    y = fused(x, w).sum()
    gw, = torch.autograd.grad(y, w)
    close(torch.autograd.grad(f(x, w).sum(), w)[0], gw, "gradient of w")
    assert x.grad is None and w.grad is None
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(door(lambda x, w: x * 2)(leaf(3), w).sum(), w)
    gone, = torch.autograd.grad(door(lambda x, w: x * 3)(leaf(3), w).sum(), w, allow_unused=True)
    assert gone is None


SECOND = {
    "sin": (f, lambda: [leaf(4, 3), leaf(3)]),
    "a norm, as in a gradient penalty": (lambda x, w: ((x * w).tanh() ** 2).sum(), lambda: [leaf(4, 3), leaf(3)]),
    "a product": (lambda x, w: (x @ w).sigmoid(), lambda: [leaf(4, 3), leaf(3, 2)]),
}


@pytest.mark.parametrize("case", SECOND)
def test_second_derivatives(door, case):
    g, make = SECOND[case]

    def penalty(h):
        torch.manual_seed(2)
        x, w = make()
        y = h(x, w).sum()
        gx, = torch.autograd.grad(y, x, create_graph=True)
        (y + (gx ** 2).sum()).backward()
        return y, gx, x.grad, w.grad

    fused = door(g)
    for _ in range(2):
        for p, q in zip(penalty(g), penalty(fused)):
            close(p, q, "second derivative")


def test_tensor_hooks(door):
    def run(g):
        torch.manual_seed(4)
        seen, x, w = [], leaf(4, 3), leaf(3)
        x.register_hook(lambda d: seen.append(("x", d.clone())))
        w.register_hook(lambda d: d * 10)
        h = x * 2
        h.register_hook(lambda d: d + 1)
        y = g(h, w)
        y.register_hook(lambda d: seen.append(("y", d.clone())))
        y.register_hook(lambda d: d * 3)
        w.register_post_accumulate_grad_hook(lambda p: seen.append(("w", p.grad.clone())))
        y.sum().backward()
        return [n for n, _ in seen], [t for _, t in seen] + [x.grad, w.grad]

    want, got = run(f), run(door(f))
    assert want[0] == got[0]
    for p, q in zip(want[1], got[1]):
        close(p, q, "seen by a hook")


def test_a_hook_set_inside(door):
    """A hook on a temporary changes the gradient: it's run, fused or not."""
    def hooked(x, w):
        h = x * w
        if h.requires_grad:
            h.register_hook(lambda d: d * 5)
        return h.sin()

    same(door, hooked, lambda: [leaf(3), leaf(3)], eager=None)


def test_saved_tensors_hooks(door):
    fused, x, w = door(f), leaf(4, 3), leaf(3)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        fused(x, w).sum().backward()
    want = torch.autograd.grad(f(x, w).sum(), (x, w))
    close(want[0], x.grad, "gradient")
    close(want[1], w.grad, "gradient")


def test_what_the_backward_reads_was_written(door):
    for h in (f, door(f)):
        x, w = r(4, 3), leaf(3)
        y = h(x, w)
        x.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_a_result_was_written(door):
    """Eager's exp reads its result, and refuses; a fused one may read its inputs instead, and then is right."""
    x, w = r(4, 3), leaf(3)
    y = door(lambda x, w: (x * w).exp())(x, w)
    want, = torch.autograd.grad((x * w).exp().sum(), w)
    y.detach().add_(1)
    try:
        y.sum().backward()
    except RuntimeError as e:
        assert "modified by an inplace operation" in str(e)
    else:
        close(want, w.grad, "gradient")


def test_anomaly_mode(door):
    with torch.autograd.set_detect_anomaly(True):
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        with pytest.raises(RuntimeError, match="nan"):
            door(lambda x: (x * 0 / x).sqrt().sum())(x).backward()


TRANSFORMS = {
    "grad": lambda g, x, w: torch.func.grad(lambda a: g(a, w).sum())(x),
    "grad in the second": lambda g, x, w: torch.func.grad(lambda a, b: g(a, b).sum(), argnums=1)(x, w),
    "vmap": lambda g, x, w: torch.func.vmap(g, in_dims=(0, None))(x, w),
    "jvp": lambda g, x, w: torch.func.jvp(g, (x, w), (torch.ones_like(x), torch.ones_like(w)))[1],
    "vjp": lambda g, x, w: torch.func.vjp(g, x, w)[1](torch.ones(x.shape[:-1]))[0],
    "jacrev": lambda g, x, w: torch.func.jacrev(g, argnums=1)(x, w),
    "jacfwd": lambda g, x, w: torch.func.jacfwd(g, argnums=1)(x, w),
    "hessian": lambda g, x, w: torch.func.hessian(lambda b: g(x, b).sum())(w),
    "per-sample gradients": lambda g, x, w: torch.func.vmap(torch.func.grad(lambda b, a: g(a, b)), in_dims=(None, 0))(w, x),
    "functional jacobian": lambda g, x, w: torch.autograd.functional.jacobian(lambda a: g(a, w), x),
    "functionalize": lambda g, x, w: torch.func.functionalize(g)(x, w),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_transforms_over_a_fused_function(door, case):
    fused, x, w = door(f), r(4, 3), r(3)
    for _ in range(2):
        close(TRANSFORMS[case](f, x, w), TRANSFORMS[case](fused, x, w), case)
        close(f(x, w), fused(x, w), "a plain call after it")


@pytest.mark.parametrize("case", ["grad", "vmap", "jvp"])
def test_transforms_inside_a_fused_function(door, case):
    g = lambda x, w: TRANSFORMS[case](f, x, w) + x.sum()  # noqa: E731
    same(door, g, lambda: [r(4, 3), r(3)], eager=None)


def test_forward_mode_gradients(door):
    import torch.autograd.forward_ad as fw

    fused, x, w, t = door(f), r(4, 3), r(3), r(4, 3)
    with fw.dual_level():
        d = fw.make_dual(x, t)
        close(fw.unpack_dual(f(d, w)).tangent, fw.unpack_dual(fused(d, w)).tangent, "tangent")
    close(f(x, w), fused(x, w), "a plain call after it")


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_checkpoint_around(door, reentrant):
    def run(g):
        torch.manual_seed(5)
        x, w = leaf(4, 3), leaf(3)
        y = torch.utils.checkpoint.checkpoint(g, x, w, use_reentrant=reentrant)
        (y * 2).sum().backward()
        return y, x.grad, w.grad

    fused = door(f)
    for _ in range(2):
        for p, q in zip(run(f), run(fused)):
            close(p, q, "checkpointed")


def test_checkpoint_of_random_numbers(door):
    g = lambda x: torch.nn.functional.dropout(x, 0.5) * x  # noqa: E731

    def run(h):
        torch.manual_seed(6)
        x = leaf(20)
        torch.utils.checkpoint.checkpoint(h, x, use_reentrant=False).sum().backward()
        return x.grad

    close(run(g), run(door(g)), "gradient")


def test_checkpoint_inside(door):
    def g(x, w):
        return torch.utils.checkpoint.checkpoint(f, x, w, use_reentrant=False) * 2

    same(door, g, lambda: [leaf(4, 3), leaf(3)], eager=None)


def test_accumulation_over_calls(door):
    fused, x, w = door(f), leaf(4, 3), leaf(3)
    total = sum(fused(x * k, w).sum() for k in (1.0, 2.0, 3.0))
    total.backward()
    x2, w2 = (t.detach().clone().requires_grad_() for t in (x, w))
    sum(f(x2 * k, w2).sum() for k in (1.0, 2.0, 3.0)).backward()
    close(x2.grad, x.grad, "gradient")
    close(w2.grad, w.grad, "gradient")


def test_backward_inside(door):
    """The function takes a derivative itself: eager within, or fused around it."""
    def g(x, w):
        y = (x * w).sin().sum()
        d, = torch.autograd.grad(y, w, create_graph=True)
        return y + (d ** 2).sum()

    same(door, g, lambda: [leaf(4, 3), leaf(3)], eager=None)


def test_zero_gradients_from_outside(door):
    """Incoming gradients that are undefined, expanded, of other strides or wrapped."""
    fused = door(lambda x: (x.t() * 2, x.sum(0)))
    for k, seed in [(0, torch.ones(1).expand(4, 3)), (0, r(3, 4).t()), (1, torch.ones(()).expand(4))]:
        x = leaf(3, 4)
        y = fused(x)
        y[k].backward(seed)
        want, = torch.autograd.grad((x.t() * 2, x.sum(0))[k], x, seed)
        close(want, x.grad, f"seed {k}")


def test_a_deep_copy_of_a_result(own_door):
    fused, x = own_door(f), r(4, 3)
    y = fused(x, r(3))
    close(y, copy.deepcopy(y), "copy")
    assert not why_eager(fused) and door_of(fused)
