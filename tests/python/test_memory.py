"""Where results lie and what is written: inputs that are written, results that are inputs or views of them, strides, no elements, no dimensions."""

import pytest
import torch

from same import close, same


def r(*shape, grad=False, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


def leaf(*shape):
    return r(*shape, grad=True)


def alias_then_add(x, tv):
    loss = x
    loss += tv
    return loss


def loss_of_parts(x, y):
    l1 = (x - y).abs().mean()
    loss = l1
    loss += (x * x).mean()
    return loss, l1


def write_a_view(x):
    y = x * 2
    y[1:] += 1
    y[0] = 7
    return y


def write_and_use(x):
    a = x.sin()
    x.mul_(2)
    return a + x


def copy_into(x, y):
    x[:, 0].copy_(y.exp())
    return x.sum()


def swap(x, y):
    t = x.clone()
    x.copy_(y)
    y.copy_(t)
    return x * y


def fill_rows(x, i):
    x.index_fill_(0, i, 3.0)
    return x + 1


def out_argument(x, y):
    torch.mul(x, 3, out=y)
    return y.sum()


def decay(x, w):
    with torch.no_grad():
        x.mul_(0.5)
    return x * w


def put_back(x, m):
    out = torch.zeros_like(x)
    out[m] = x[m].exp()
    return out


WRITES = {
    "in place": (lambda x: x.add_(1), lambda: [r(3)]),
    "in place, nothing returned": (lambda x: x.mul_(2) and None if False else (x.mul_(2), None)[1], lambda: [r(3)]),
    "an alias is added to": (alias_then_add, lambda: [r(3), r(3)]),
    "loss += tv": (loss_of_parts, lambda: [leaf(4, 3), r(4, 3)]),
    "views of a temporary": (write_a_view, lambda: [leaf(3, 4)]),
    "before and after": (write_and_use, lambda: [r(5)]),
    "through a view of an input": (copy_into, lambda: [r(3, 4), r(3)]),
    "two inputs, crosswise": (swap, lambda: [r(3), r(3)]),
    "by index": (fill_rows, lambda: [r(4, 2), torch.tensor([0, 2])]),
    "out=": (out_argument, lambda: [r(3), torch.empty(3)]),
    "through a mask": (put_back, lambda: [leaf(4, 3), torch.tensor([True, False, True, True])]),
    "the transpose of an input": (lambda x: (x.t().add_(1), x * 2)[1], lambda: [r(2, 3)]),
    "zero_": (lambda x: (x.zero_(), x + 1)[1], lambda: [r(2, 3)]),
    "an integer counter": (lambda x, n: (n.add_(1), x * n)[1], lambda: [leaf(3), torch.tensor(2)]),
    "a strided input": (lambda x: (x.mul_(2), x.sum())[1], lambda: [r(4, 6)[:, ::2]]),
    "an input and what it is of": (lambda x, w: (x.add_(w), (x * w).sum())[1], lambda: [r(3), leaf(3)]),
    "its value before used": (lambda x, w: (x + w).sum() + x.add_(1).sum(), lambda: [r(3), leaf(3)]),
    "under no_grad, a leaf": (torch.no_grad()(lambda x: x.mul_(0.5)), lambda: [leaf(3)]),
    "a leaf, and its value": (decay, lambda: [leaf(3), leaf(3)]),
    "returned as well": (lambda x, w: (x.add_(w), x * 2), lambda: [r(3), leaf(3)]),
    "rows of a buffer": (lambda x, w: (x[1:].copy_(w * 2), x.sum())[1], lambda: [r(3, 2), leaf(2, 2)]),
    "a mask of a buffer": (lambda out, x, m: (out.__setitem__(m, x[m].exp()), out)[1], lambda: [torch.zeros(4, 2), leaf(4, 2), torch.tensor([True, False, True, True])]),
}


@pytest.mark.parametrize("case", WRITES)
def test_writes(door, case):
    same(door, *WRITES[case])


def history(f):
    """What a write into an input that has a history, or gets one, does to gradients of what is made of it afterwards."""
    torch.manual_seed(3)
    a, w = leaf(3), leaf(3)
    h, buffer, rows = a * 2, r(3), r(2, 3)
    view = rows[0]
    first = f(h, w)
    second = f(buffer, w * 2)
    f(view, w * 3)
    total = (h ** 2).sum() + (buffer ** 3).sum() + rows.exp().sum() + (first + second).sum()
    total.backward()
    return h, buffer, rows, total, a.grad, w.grad


@pytest.mark.parametrize("write", [lambda x, w: x.add_(w), lambda x, w: x.mul_(w).sin_(), lambda x, w: (x[1:].copy_(w[1:]), x + 1)[1], lambda x, w: (x.fill_(2), x * w)[1],
                                   lambda x, w: x.copy_(w)], ids=["add", "two", "part", "constant", "copy"])
def test_the_history_of_what_is_written(door, write):
    fused = door(write)
    for _ in range(2):
        for p, q in zip(history(write), history(fused)):
            close(p, q, "after the write")
            assert p.requires_grad == q.requires_grad


def shared_halves():
    x = r(6)
    return [x[:4], x[2:]]


SHARED = {  # arguments that share memory, one of them written: order matters
    "overlapping": (lambda x, y: (x.add_(1), y * 2)[1], shared_halves),
    "twice the same, written": (lambda x, y: (x.add_(1), y * 2)[1], lambda: [r(3)] * 2),
    "twice the same": (lambda x, y: x * y + x, lambda: [leaf(3)] * 2),
    "a view and its base": (lambda x, y: (y.mul_(3), x.sum() + y.sum())[1], lambda: (lambda x: [x, x[0]])(r(2, 3))),
    "apart in one memory": (lambda x, y: (x.add_(1), y * 2)[1], lambda: (lambda x: [x[:2], x[2:]])(r(4))),
}


@pytest.mark.parametrize("case", SHARED)
def test_inputs_that_share_memory(door, case):
    same(door, *SHARED[case], eager=None)


VIEWS = {
    "the input": (lambda x: x, lambda: [leaf(3)]),
    "the input and more": (lambda x: (x, x * 2, x), lambda: [leaf(3)]),
    "transposed": (lambda x: x.t(), lambda: [leaf(2, 3)]),
    "a slice": (lambda x: x[1:, ::2], lambda: [r(4, 5)]),
    "a slice with a gradient": (lambda x: x[1:, ::2], lambda: [leaf(4, 5)]),
    "select": (lambda x: x[-1], lambda: [r(4, 5)]),
    "reshape that views": (lambda x: x.reshape(6), lambda: [r(2, 3)]),
    "reshape that copies": (lambda x: x.t().reshape(6), lambda: [r(2, 3)]),
    "expand": (lambda x: x.expand(4, 3), lambda: [r(3)]),
    "detach": (lambda x: (x.detach(), x * 2), lambda: [leaf(3)]),
    "chunks": (lambda x: x.chunk(2), lambda: [r(4, 3)]),
    "unbind": (lambda x: x.unbind(0), lambda: [r(3, 2)]),
    "diagonal": (lambda x: x.diagonal(), lambda: [r(3, 3)]),
    "contiguous of contiguous": (lambda x: x.contiguous(), lambda: [r(3, 3)]),
    "to that does nothing": (lambda x: x.to(torch.float32), lambda: [r(3, 3)]),
    "views of one result": (lambda x: (lambda y: (y, y[0], y.t()))(x * 2), lambda: [leaf(3, 3)]),
    "one result twice": (lambda x: (lambda y: (y, y))(x * 2), lambda: [leaf(3)]),
    "a view, the whole left out": (lambda x: (x * 2)[0], lambda: [leaf(3, 4)]),
    "a view of a written input": (lambda x: (x.add_(1), x[0])[1], lambda: [r(3, 4)]),
    "dtype view": (lambda x: x.view(torch.int32), lambda: [r(3, 4)]),
    "view_as_real's kind: unfold": (lambda x: x.unfold(0, 2, 1), lambda: [r(5)]),
    "squeeze and unsqueeze": (lambda x: (x.squeeze(0), x.unsqueeze(-1)), lambda: [r(1, 3)]),
    "movedim": (lambda x: x.movedim(0, -1), lambda: [r(2, 3, 4)]),
    "narrow of a slice": (lambda x: x[1:].narrow(1, 0, 2), lambda: [r(3, 4)]),
}


@pytest.mark.parametrize("case", VIEWS)
def test_views(door, case):
    same(door, *VIEWS[case], eager=None)


@pytest.mark.parametrize("pick", [lambda x: x[1:], lambda x: x.t(), lambda x: x.view(-1), lambda x: x], ids=["slice", "t", "view", "itself"])
def test_a_write_into_a_returned_view_reaches_the_input(door, pick):
    x, f = torch.zeros(2, 3), door(lambda x: (pick(x), x + 1))
    view, more = f(x)
    view.add_(5)
    want = torch.zeros(2, 3)
    pick(want).add_(5)
    assert torch.equal(x, want) and torch.equal(more, torch.ones(2, 3))


def test_results_have_memory_of_their_own(door):
    f = door(lambda x: (x * 2, x + 1, torch.zeros_like(x)))
    x = r(3)
    first, second = f(x), f(x)
    for t in first:
        t.fill_(9)
    assert torch.equal(second[0], x * 2) and torch.equal(second[1], x + 1) and torch.equal(second[2], torch.zeros(3))
    assert torch.equal(f(x)[2], torch.zeros(3))


def test_a_result_that_is_a_constant_is_new_each_time(door):
    f = door(lambda x: (x + 1, torch.ones(3)))
    f(r(3))[1].zero_()
    assert torch.equal(f(r(3))[1], torch.ones(3))


def channels_last():
    return r(2, 3, 4, 5).to(memory_format=torch.channels_last)


STRIDES = {
    "a.t() + 1": (lambda a: a.t() + 1, lambda: [leaf(3, 4)]),
    "permuted": (lambda a: a.permute(2, 0, 1).exp(), lambda: [leaf(2, 3, 4)]),
    "permuted and plain": (lambda a, b: a.permute(1, 0) * b, lambda: [leaf(2, 3), leaf(3, 2)]),
    "channels_last": (lambda a: a * 2, lambda: [channels_last()]),
    "channels_last plus a bias": (lambda a, b: a + b[:, None, None], lambda: [channels_last(), leaf(3)]),
    "channels_last, a sum": (lambda a: a.sum(1), lambda: [channels_last()]),
    "channels_last, relu of a convolution": (lambda a, w: torch.nn.functional.conv2d(a, w).relu(), lambda: [channels_last(), leaf(4, 3, 2, 2)]),
    "made channels_last": (lambda a: (a * 2).contiguous(memory_format=torch.channels_last), lambda: [leaf(2, 3, 4, 5)]),
    "a slice's gaps are gone": (lambda a: a[:, ::2] * 2, lambda: [leaf(4, 6)]),
    "a strided input": (lambda a: a * 2, lambda: [r(4, 6)[:, ::2]]),
    "an expanded input": (lambda a, b: a * b, lambda: [r(1, 4).expand(3, 4), leaf(3, 4)]),
    "an overlapping input": (lambda a: a * 2, lambda: [r(6).as_strided((3, 3), (1, 1))]),
    "clone keeps": (lambda a: a.t().clone(), lambda: [leaf(3, 4)]),
    "matmul of transposed": (lambda a, b: a.t() @ b, lambda: [leaf(3, 4), leaf(3, 5)]),
    "zeros_like keeps": (lambda a: torch.zeros_like(a.t()), lambda: [r(3, 4)]),
    "cat of channels_last": (lambda a: torch.cat([a, a * 2], 1), lambda: [channels_last()]),
    "where of transposed": (lambda a: torch.where(a.t() > 0, a.t(), 0), lambda: [leaf(3, 4)]),
    "reduced keepdim": (lambda a: a.sum(1, keepdim=True) + a.t().t(), lambda: [r(3, 4).t()]),
    "softmax of transposed": (lambda a: a.t().softmax(-1), lambda: [leaf(3, 4)]),
    "to another dtype": (lambda a: a.t().double(), lambda: [leaf(3, 4)]),
    "comparison": (lambda a: a.t() > 0, lambda: [r(3, 4)]),
    "cumsum": (lambda a: a.t().cumsum(0), lambda: [leaf(3, 4)]),
    "einsum": (lambda a, b: torch.einsum("ik,jk->ji", a, b), lambda: [leaf(3, 4), leaf(2, 4)]),
}


@pytest.mark.parametrize("case", STRIDES)
def test_strides_are_kept(door, case):
    same(door, *STRIDES[case], eager=None)


EMPTY = {
    "pointwise": (lambda x: x * 2 + 1, lambda: [leaf(0, 3)]),
    "sum": (lambda x: x.sum(), lambda: [leaf(0)]),
    "sum of some": (lambda x: x.sum(0), lambda: [leaf(0, 3)]),
    "sum of the empty": (lambda x: x.sum(1), lambda: [leaf(0, 3)]),
    "mean": (lambda x: x.mean(), lambda: [leaf(0)]),
    "prod and norm": (lambda x: x.prod() + x.norm(), lambda: [r(0)]),
    "matmul with nothing inside": (lambda a, b: (a @ b).relu(), lambda: [leaf(2, 0), leaf(0, 3)]),
    "matmul of nothing": (lambda a, b: (a @ b).relu(), lambda: [leaf(0, 4), leaf(4, 3)]),
    "cat with nothing": (lambda x, y: torch.cat([x, y]) * 2, lambda: [leaf(0, 3), leaf(2, 3)]),
    "a mask of none": (lambda x: x[x > 100].sum(), lambda: [leaf(5)]),
    "softmax": (lambda x: x.softmax(-1), lambda: [leaf(0, 3)]),
    "a slice of nothing": (lambda x: x[2:2] * 3, lambda: [leaf(5)]),
    "index by nothing": (lambda x, i: x[i] * 2, lambda: [leaf(5, 2), torch.empty(0, dtype=torch.long)]),
    "cumsum": (lambda x: x.cumsum(0), lambda: [leaf(0)]),
    "written": (lambda x: x.add_(1), lambda: [r(0, 2)]),
    "broadcast with one": (lambda x, y: x + y, lambda: [leaf(0, 3), leaf(1, 3)]),
}


@pytest.mark.parametrize("case", EMPTY)
def test_tensors_of_no_elements(door, case):
    same(door, *EMPTY[case], eager=None)


def test_none_then_some_then_none(door):
    f = door(lambda x, w: (x * w).sin().sum(0))
    for n in (3, 0, 5, 0, 1, 2, 0):
        x, w, xe, we = r(n, 2), leaf(2), None, None
        xe, we = x.clone(), w.detach().clone().requires_grad_()
        y, want = f(x, w), (xe * we).sin().sum(0)
        y.sum().backward(), want.sum().backward()
        torch.testing.assert_close(y, want)
        torch.testing.assert_close(w.grad, we.grad)


POINTS = {
    "0-dim": (lambda x: x.sin() * 2, lambda: [leaf()]),
    "0-dim and more": (lambda x, y: x * y, lambda: [leaf(), leaf(3)]),
    "a 0-dim float64 doesn't promote": (lambda x, y: x * y, lambda: [r(dtype=torch.float64), leaf(3)]),
    "a 1-dim float64 does": (lambda x, y: x * y, lambda: [r(1, dtype=torch.float64), leaf(3)]),
    "a 0-dim integer": (lambda x, y: x * y, lambda: [torch.tensor(3), leaf(3)]),
    "an integer and a 0-dim float": (lambda x, y: x * y, lambda: [torch.arange(3), leaf()]),
    "sum of 0-dim": (lambda x: x.sum(0) + x.mean(), lambda: [leaf()]),
    "min and argmax": (lambda x: (x.min(), x.argmax()), lambda: [leaf(4)]),
    "index by 0-dim": (lambda x, i: x[i] * 2, lambda: [leaf(4, 3), torch.tensor(2)]),
    "0-dim and 0-dim": (lambda x, y: torch.stack([x, y]).sum() / x, lambda: [leaf(), leaf()]),
}


@pytest.mark.parametrize("case", POINTS)
def test_no_dimensions(door, case):
    same(door, *POINTS[case], eager=None)


SLICES = {  # slices of one tensor
    "columns": (lambda x: (x[:, 0] * x[:, 1] - x[:, 2]).sum(), lambda: [leaf(5, 3)]),
    "neighbours": (lambda x: ((x[1:] - x[:-1]) ** 2).mean(), lambda: [leaf(6, 2)]),
    "overlapping, written": (lambda x: (lambda y: (y[1:].add_(y[:-1].clone()), y)[1])(x * 1), lambda: [leaf(5)]),
    "every other": (lambda x: x[::2] - x[1::2], lambda: [leaf(6)]),
    "from behind": (lambda x: x[-2:] * x[1:3, ..., -1:], lambda: [leaf(4, 3)]),
    "None and ellipsis": (lambda x: x[:, None] * x[None, ..., 0:1], lambda: [leaf(4, 3)]),
    "a list": (lambda x: x[[2, 0]] * 2, lambda: [leaf(4, 3)]),
    "split": (lambda x: sum(p.prod(-1).sum() for p in x.split([1, 2, 1], -1)), lambda: [leaf(5, 4)]),
}


@pytest.mark.parametrize("case", SLICES)
def test_slices_of_one_tensor(door, case):
    same(door, *SLICES[case])
