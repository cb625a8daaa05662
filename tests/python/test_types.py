"""Element types: promotion, integers and bools, autocast, PyTorch's default, random numbers."""

import pytest
import torch

from same import close, same


def r(*shape, grad=False, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


def leaf(*shape, dtype=torch.float32):
    return r(*shape, grad=True, dtype=dtype)


f64, bf16, f16 = torch.float64, torch.bfloat16, torch.float16

PROMOTION = {
    "float64 creeps in": (lambda x, y: x * y + x, lambda: [leaf(3), r(3, dtype=f64)]),
    "float64 in a constant": (lambda x: x * torch.tensor([0.5, 1.5], dtype=f64), lambda: [leaf(2)]),
    "float64 from linspace": (lambda x: x * torch.linspace(0, 1, 4, dtype=f64), lambda: [leaf(4)]),
    "a float of Python": (lambda x: x * 0.1 + 1e-10, lambda: [leaf(3)]),
    "a float and integers": (lambda i: i * 0.5, lambda: [torch.arange(4)]),
    "an integer and floats": (lambda x: x * 2 + 3, lambda: [leaf(3, dtype=f64)]),
    "integers divided": (lambda i, j: (i / j, i // j, i % j), lambda: [torch.arange(-4, 4), torch.tensor([3, 2, -3, 5, 7, -2, 1, 4])]),
    "bools added": (lambda m: m + m, lambda: [torch.tensor([True, False])]),
    "bools multiplied and summed": (lambda m, x: (m * x, m.sum(), m.float().mean()), lambda: [torch.tensor([True, False, True]), leaf(3)]),
    "int32 and int64": (lambda i, j: i + j, lambda: [torch.arange(3, dtype=torch.int32), torch.arange(3)]),
    "int32 wraps": (lambda i: i * 65536 * 65536 + i, lambda: [torch.arange(3, dtype=torch.int32)]),
    "bfloat16 and float32": (lambda x, y: x * y, lambda: [leaf(3, dtype=bf16), leaf(3)]),
    "bfloat16 and float16": (lambda x, y: x * y, lambda: [leaf(3, dtype=bf16), leaf(3, dtype=f16)]),
    "bfloat16 alone": (lambda x: (x * 3 + 1).exp() * x, lambda: [leaf(7, dtype=bf16)]),
    "float16 alone": (lambda x: (x * 3 + 1).sigmoid(), lambda: [leaf(7, dtype=f16)]),
    "float16 overflows": (lambda x: x.half() * 60000, lambda: [torch.tensor([1.0, 2.0, -2.0])]),
    "where of two types": (lambda x, y: torch.where(x > 0, x, y), lambda: [leaf(4), r(4, dtype=f64)]),
    "cat of two types": (lambda x, i: torch.cat([x, i]), lambda: [leaf(2), torch.arange(2)]),
    "mean in another type": (lambda x: x.mean(dtype=f64), lambda: [leaf(5)]),
    "sum of integers": (lambda i: (i.sum(), i.prod(), i.cumsum(0)), lambda: [torch.arange(1, 5, dtype=torch.int32)]),
    "to and back": (lambda x: x.to(torch.int64).to(f64) + x, lambda: [leaf(3)]),
    "float64 throughout": (lambda x, w: (x @ w).tanh().sum(), lambda: [leaf(3, 4, dtype=f64), leaf(4, dtype=f64)]),
    "in place keeps its type": (lambda x, y: (lambda z: z.add_(y))(x * 1), lambda: [leaf(3), r(3, dtype=f64)]),
    "inf and nan": (lambda x: (x / 0, x.log(), x.isnan(), x.isinf()), lambda: [torch.tensor([-1.0, 0.0, 1.0, float("nan")])]),
    "pow of two types": (lambda x, i: x ** i, lambda: [leaf(3), torch.arange(3)]),
    "an integer to a power": (lambda i: (i ** 2, i ** 0.5), lambda: [torch.arange(3)]),
    "result_type of 0-dim": (lambda x, y: x + y, lambda: [torch.arange(3), r(dtype=f64)]),
    "a literal tensor": (lambda x: x + torch.tensor(0.1), lambda: [leaf(3, dtype=f64)]),
}


@pytest.mark.parametrize("case", PROMOTION)
def test_promotion(door, case):
    same(door, *PROMOTION[case], eager=None)


NO_FLOATS = {
    "comparisons": (lambda x, y: (x > y, x == y, (x > 0) & (y > 0), ~(x > 0)), lambda: [leaf(4), leaf(4)]),
    "arg": (lambda x: (x.argmax(-1), x.argmin(), x.argsort(-1)), lambda: [leaf(3, 4)]),
    "rounded to integers": (lambda x: ((x * 4).round().int(), (x * 4).long(), (x * 200).to(torch.int32)), lambda: [leaf(5)]),
    "any and all": (lambda x: ((x > 0).any(), (x > 0).all(-1)), lambda: [leaf(3, 4)]),
    "bits": (lambda i, j: (i & j, i | j, i ^ j, i << 2, ~i), lambda: [torch.arange(4), torch.tensor([3, 1, 0, 2])]),
    "an index, and what's there": (lambda x: x.max(-1), lambda: [leaf(3, 4)]),
    "count": (lambda x: (x > 0).sum(-1), lambda: [leaf(3, 4)]),
    "bucketize": (lambda x: torch.bucketize(x.detach(), torch.tensor([-1.0, 0.0, 1.0])), lambda: [leaf(6)]),
    "one_hot": (lambda i: torch.nn.functional.one_hot(i, 5), lambda: [torch.tensor([0, 4, 2])]),
    "integers and a float with a gradient": (lambda x, i: (x[i] * 2, i + 1, x[i] > 0), lambda: [leaf(4), torch.tensor([3, 0, 0])]),
    "arange and sizes": (lambda x: (torch.arange(x.shape[0]), torch.full((2,), x.shape[1])), lambda: [r(3, 4)]),
    "sorted": (lambda x: x.sort(-1), lambda: [leaf(3, 4)]),
    "topk": (lambda x: x.topk(2), lambda: [leaf(3, 4)]),
    "uint8": (lambda x: (x.clamp(0, 1) * 255).to(torch.uint8), lambda: [torch.rand(4)]),
    "int16 and int8": (lambda x: ((x * 10).to(torch.int16) * 2, (x * 10).to(torch.int8) + 1), lambda: [torch.rand(4)]),
    "searchsorted": (lambda x, y: torch.searchsorted(x, y), lambda: [torch.arange(4.0), torch.rand(3) * 4]),
    "unique": (lambda i: torch.unique(i), lambda: [torch.tensor([3, 1, 3])]),
    "bincount": (lambda i: torch.bincount(i, minlength=4), lambda: [torch.tensor([3, 1, 3])]),
}


@pytest.mark.parametrize("case", NO_FLOATS)
def test_integers_and_bools(door, case):
    same(door, *NO_FLOATS[case], eager=None)


def net(x, w, b):
    return torch.nn.functional.linear(x, w, b).relu().sum(-1) + (x * x).mean()


def weights():
    return [leaf(4, 8), leaf(5, 8), leaf(5)]


def cast_inside(x, w, b):
    with torch.autocast("cpu", dtype=bf16):
        h = torch.nn.functional.linear(x, w, b)
    return h, (h.float() * 0.1).tanh().sum()


def cast_off_inside(x, w, b):
    with torch.autocast("cpu", enabled=False):
        return torch.nn.functional.linear(x, w, b)


def test_autocast_inside(door):
    same(door, cast_inside, weights, eager=None, tolerance=3e-2)


@pytest.mark.parametrize("function", [net, cast_off_inside], ids=["plain", "off inside"])
def test_autocast_around(door, function):
    """On, off and on again around one fused function; backward outside of it, as one should."""
    fused = door(function)
    for kind in (bf16, None, f16, bf16, None):
        torch.manual_seed(3)
        xs = weights()
        ys = [x.detach().clone().requires_grad_() for x in xs]
        with torch.autocast("cpu", dtype=kind or bf16, enabled=kind is not None):
            want, got = function(*xs), fused(*ys)
        close(want, got, f"under {kind}")
        want.float().sum().backward(), got.float().sum().backward()
        for k, (x, y) in enumerate(zip(xs, ys)):
            close(x.grad, y.grad, f"gradient {k} under {kind}", 2e-2 if kind else None)


def test_autocast_of_a_module(door):
    net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.LayerNorm(6), torch.nn.GELU(), torch.nn.Linear(6, 2))

    class Cast(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            with torch.autocast("cpu", dtype=bf16):
                return self.net(x)

    same(door, Cast(), lambda: [leaf(4, 8)], eager=None, tolerance=3e-2)


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(f64)
    yield
    torch.set_default_dtype(torch.float32)


def makes(x):
    return x * torch.ones(3) + torch.tensor(0.5) + torch.arange(3) / 2 + torch.linspace(0, 1, 3)


def test_the_default_type_around(door, double_by_default):
    same(door, makes, lambda: [leaf(3)], eager=None)


def test_the_default_type_changes_between_calls(door):
    fused, x = door(makes), r(3)
    close(makes(x), fused(x), "float32")
    torch.set_default_dtype(f64)
    try:
        close(makes(x), fused(x), "float64")
    finally:
        torch.set_default_dtype(torch.float32)
    close(makes(x), fused(x), "float32 again")


def drop(x):
    return torch.nn.functional.dropout(x, 0.3) * x


def noise(x):
    return x + torch.randn_like(x) * torch.rand(x.shape[0], 1) + torch.randn(x.shape)


RANDOM = {
    "dropout": (drop, lambda: [leaf(4, 50)]),
    "noise of every kind": (noise, lambda: [leaf(4, 5)]),
    "integers": (lambda x: x[torch.randint(0, x.shape[0], (7,))], lambda: [leaf(4, 5)]),
    "a permutation": (lambda x: x[torch.randperm(x.shape[0])], lambda: [leaf(6, 2)]),
    "bernoulli": (lambda x: torch.bernoulli(x.sigmoid().detach()) * x, lambda: [leaf(4, 5)]),
    "uniform_ in place": (lambda x: torch.empty_like(x).uniform_(-1, 1) * x, lambda: [leaf(4, 5)]),
    "normal_ and exponential_": (lambda x: torch.empty(5).normal_(1, 2) * x + torch.empty(5).exponential_(), lambda: [leaf(4, 5)]),
    "multinomial": (lambda p: torch.multinomial(p, 5, replacement=True), lambda: [torch.rand(6)]),
    "rand_like under no_grad": (torch.no_grad()(lambda x: torch.rand_like(x) + x), lambda: [leaf(3)]),
}


@pytest.mark.parametrize("case", RANDOM)
def test_random_numbers(door, case):
    """The same numbers as eager from the same seed, and the generator left in the same state, call after call."""
    same(door, *RANDOM[case], eager=None, calls=3)


def test_a_generator_of_its_own(door):
    def draw(x, g):
        return x + torch.rand(3, generator=g)

    fused = door(draw)
    a, b, x = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5), r(3)
    for _ in range(3):
        close(draw(x, a), fused(x, b), "drawn")
    assert torch.equal(a.get_state(), b.get_state())


def test_a_seed_set_inside(door):
    def seeded(x):
        torch.manual_seed(3)
        return x + torch.rand(3)

    fused, x = door(seeded), r(3)
    for _ in range(3):
        close(seeded(x), fused(x), "drawn")


def test_capturing_leaves_the_generator_alone(door):
    torch.manual_seed(11)
    want = torch.rand(3)
    torch.manual_seed(11)
    door(lambda x: x * 2)(torch.ones(3))
    assert torch.equal(want, torch.rand(3))


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_a_conversion_rounds(door, narrow, wide):
    """Straight-through rounding, and what is quantised on purpose: all that is asked of a narrow type is its rounding."""

    def f(x):
        y = (x * 2).to(narrow).to(wide)
        return y, (y - x * 2).abs().sum() * 100

    fused = door(f)
    x, y = (torch.linspace(-3, 3, 1001, dtype=wide).requires_grad_() for _ in range(2))
    want, got = f(x), fused(y)
    assert torch.equal(want[0], got[0])
    torch.testing.assert_close(got[1], want[1])
    want[0].mul(want[0].detach().sin()).sum().backward(), got[0].mul(got[0].detach().sin()).sum().backward()
    assert torch.equal(x.grad, y.grad)
