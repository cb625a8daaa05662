"""Arguments that are no tensors: numbers that change, nested structures, None, names, the same tensor twice; calling like the function."""

import collections
import dataclasses
import functools
import inspect
import math

import pytest
import torch

from heddle._fuse import door_of
from same import Named, close, same


def r(*shape, grad=False):
    return torch.randn(shape).requires_grad_(grad)


def leaf(*shape):
    return r(*shape, grad=True)


Pair = collections.namedtuple("Pair", ["a", "b"])


@dataclasses.dataclass
class Rays:
    origin: torch.Tensor
    direction: torch.Tensor
    far: float = 2.0


def of_rays(rays, t):
    return rays.origin + rays.direction * t * rays.far


def optional(x, y=None, *, scale=1.0):
    return x * scale if y is None else x * scale + y


def variadic(*xs, **more):
    return sum(x.sin() for x in xs) * more.get("scale", 1)


STRUCTURES = {
    "dict in, dict out": (lambda d: {"s": d["a"] + d["b"], "a": d["a"] * 2}, lambda: [{"a": leaf(3), "b": leaf(3)}]),
    "list": (lambda xs: [x * 2 for x in xs], lambda: [[leaf(3), leaf(2)]]),
    "tuple in dict in list": (lambda t: (t[0]["x"][1] * t[1], {"z": [t[0]["x"][0]]}), lambda: [[{"x": (r(3), leaf(3))}, leaf(3)]]),
    "namedtuple": (lambda p: Pair(p.a * p.b, p.a + 1), lambda: [Pair(leaf(3), leaf(3))]),
    "dataclass": (of_rays, lambda: [Rays(r(3), r(3)), r(3)]),
    "None in the result": (lambda x: (x * 2, None, 3, "text"), lambda: [leaf(3)]),
    "None in, default": (optional, lambda: [leaf(3), None]),
    "by name": (optional, lambda: [leaf(3), Named(y=leaf(3), scale=2.0)]),
    "by name, another order": (optional, lambda: [Named(scale=2.0, y=leaf(3), x=leaf(3))]),
    "variadic": (variadic, lambda: [leaf(3), leaf(3), leaf(3), Named(scale=3)]),
    "variadic, none": (variadic, lambda: [leaf(3)]),
    "a string chooses": (lambda x, how: x.sin() if how == "sin" else x.cos(), lambda: [leaf(3), "cos"]),
    "a bool chooses": (lambda x, flag: x.sin() if flag else x.cos(), lambda: [leaf(3), True]),
    "a dtype, a device": (lambda x, t, d: x.to(d, t), lambda: [leaf(3), torch.float64, torch.device("cpu")]),
    "a size": (lambda x, s: x.expand(s) * 2, lambda: [leaf(1, 3), torch.Size([4, 3])]),
    "a slice": (lambda x, s: x[s] * 2, lambda: [leaf(5), slice(1, 4)]),
    "a function": (lambda x, g: g(x) * 2, lambda: [leaf(3), torch.tanh]),
    "a list of numbers": (lambda x, ks: sum(x * k for k in ks), lambda: [leaf(3), [1, 2.5, 3]]),
    "a set": (lambda x, s: x * len(s), lambda: [leaf(3), {1, 2}]),
    "nothing but numbers": (lambda a, b: torch.ones(2) * a + b, lambda: [2.0, 3]),
    "no argument": (lambda: torch.arange(4.0) * 2, lambda: []),
    "numbers out": (lambda x: (x * 2, x.shape[0], x.shape[1] / 2, x.dim()), lambda: [r(3, 4)]),
    "nothing out": (lambda x: None, lambda: [r(3)]),
    "an empty list": (lambda xs: (xs, torch.zeros(2)), lambda: [[]]),
    "the same tensor twice": (lambda x, y: x * y, lambda: (lambda t: [t, t])(leaf(3))),
    "the same in a dict": (lambda d, y: d["x"] * y + d["x"], lambda: (lambda t: [{"x": t}, t])(leaf(3))),
    "an ordered dict": (lambda d: list(d.values())[0] * 2, lambda: [collections.OrderedDict(b=leaf(3), a=leaf(3))]),
    "a defaultdict": (lambda d: d["a"] * 2, lambda: [collections.defaultdict(list, a=leaf(3))]),
    "a parameter": (lambda p, x: p * x, lambda: [torch.nn.Parameter(r(3)), r(3)]),
    "a module": (lambda m, x: m(x).relu(), lambda: [torch.nn.Linear(3, 2), leaf(4, 3)]),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_structures(door, case):
    same(door, *STRUCTURES[case], eager=None)


def test_mutable_arguments_changed_between_calls(door):
    f = lambda x, d: x * d["k"] + sum(d["l"])  # noqa: E731
    fused, x, d = door(f), r(3), {"k": 2.0, "l": [1.0]}
    for step in range(4):
        d["k"] = 2.0 + step
        d["l"].append(float(step))
        close(f(x, d), fused(x, d), f"step {step}")


def test_the_function_fills_a_list_given(door):
    def f(x, log):
        log.append(x * 2)
        return x + 1

    for h in (f, door(f)):
        for _ in range(2):
            log = []
            x = torch.ones(2)
            h(x, log)
            assert len(log) == 1
            close(torch.full((2,), 2.0), log[0], "appended")


def test_an_object_changed_between_calls(door):
    rays = Rays(r(3), r(3))
    fused = door(of_rays)
    for far in (2.0, 3.0, 4.0):
        rays.far = far
        rays.origin = r(3)
        t = r(3)
        close(of_rays(rays, t), fused(rays, t), f"far {far}")


NUMBERS = {
    "a float that grows": (lambda x, k: x * k, [0.1 * k for k in range(8)]),
    "an integer that counts": (lambda x, k: x * k, list(range(8))),
    "a learning rate that falls": (lambda x, k: x - k * x.sin(), [1e-2 * 0.9 ** k for k in range(8)]),
    "a float through math": (lambda x, k: x * math.exp(-k) + math.sqrt(k), [0.5 + k for k in range(8)]),
    "an integer through Python": (lambda x, k: x * (k / 10) + (k % 3), list(range(8))),
    "an integer as an index": (lambda x, k: x[k] * 2, [0, 1, 2, 3, 4, 5, 1, 2]),
    "an integer as an index from behind": (lambda x, k: x[-k] * 2, [1, 2, 3, 4, 5, 1, 2, 3]),
    "an integer as a size": (lambda x, k: x[:k].sum() + torch.zeros(k).sum(), [1, 2, 3, 4, 5, 1, 2, 3]),
    "nan and infinity": (lambda x, k: x * k, [1.0, math.inf, -math.inf, math.nan, 2.0, math.nan]),
    "zero and minus zero": (lambda x, k: x / k, [1.0, 0.0, -0.0, 2.0, -0.0]),
    "whole floats": (lambda x, k: x * k, [1.0, 2.0, 3.0, 4.0]),
    "an integer, then a float": (lambda x, k: x * k, [1, 2, 2.5, 3, 3.5]),
    "a bool": (lambda x, k: x * k, [True, False, True, 1, 0]),
    "large": (lambda x, k: x + k, [1, 2 ** 40, 2 ** 62, -2 ** 62]),
    "of integers": (lambda x, k: (x * 10).long() * k, [1.5, 2.5, 3.5, 4.5]),
    "of integers, integers": (lambda x, k: (x * 10).long() // k, [1, 2, 3, 4]),
    "added to float64": (lambda x, k: x.double() + k, [0.1, 0.2, 0.3, 0.4]),
    "a power": (lambda x, k: x.abs() ** k, [2, 3, 4, 5]),
    "a power of floats": (lambda x, k: x.abs() ** k, [0.5, 1.5, 2.0, 0.0]),
    "decides": (lambda x, k: x.sin() if k > 3 else x.cos(), list(range(8))),
    "decides, a float": (lambda x, k: x.sin() if k > 3.0 else x.cos(), [float(k) for k in range(8)]),
    "repeats a loop": (lambda x, k: sum(x * j for j in range(k)) + x, list(range(6))),
    "returned": (lambda x, k: (x * k, k), [1.5, 2.5, 3.5, 4.5]),
    "an integer returned": (lambda x, k: (x * k, k + 1), [1, 2, 3, 4]),
    "fills": (lambda x, k: torch.full((3,), k) * x[:3], [1.5, 2.5, 3.5, 4.5]),
    "clamps": (lambda x, k: x.clamp(-k, k), [0.1, 0.2, 0.3, 0.4]),
    "rounds": (lambda x, k: x * round(k) + int(k), [0.4, 1.6, 2.4, 3.6]),
    "alpha of add": (lambda x, k: torch.add(x, x, alpha=k), [0.4, 1.6, 2.4, 3.6]),
    "a branchless maximum": (lambda x, k: x * max(k, 2.0) + min(k, 3), [0.5, 1.5, 2.5, 3.5]),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_change(door, case):
    f, numbers = NUMBERS[case]
    fused = door(f)
    torch.manual_seed(2)
    x = r(6)
    for k in numbers:
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        want, got = f(a, k), fused(b, k)
        want, got = (y if isinstance(y, tuple) else (y,) for y in (want, got))
        for p, q in zip(want, got):
            if not isinstance(p, torch.Tensor):
                assert type(p) is type(q) and (p == q or p != p), f"{k}: {q}, eager {p}"
                continue
            close(p, q, f"with {k!r}")
            if p.requires_grad:
                p.sum().backward(), q.sum().backward()
                close(a.grad, b.grad, f"gradient with {k!r}")


SETTLES = ["a float that grows", "an integer that counts", "a learning rate that falls", "an integer as an index", "an integer as a size",
           "of integers", "added to float64", "a power of floats", "clamps", "returned"]


def captures(fused):
    return sum(region.report()["captures"] for region in door_of(fused).regions())


@pytest.mark.parametrize("case", SETTLES)
def test_a_number_seen_to_change_is_an_input(own_door, case):
    """After the second value no capture and no compilation by Dynamo, whatever the number."""
    f, numbers = NUMBERS[case]
    fused, x, counts = own_door(f), r(6), []
    for k in [n for n in numbers if n not in (0, 1)][:6]:
        fused(x, k)
        counts.append((captures(fused), torch._dynamo.utils.counters["stats"]["unique_graphs"]))
    assert len(set(counts[2:])) == 1 and len(counts) > 2, f"captures and Dynamo's graphs by call: {counts}"


def test_two_numbers(own_door):
    f = lambda x, a, b: x * a + b  # noqa: E731
    fused, x, counts = own_door(f), r(3), []
    for step in range(8):
        a, b = 0.1 * step + 2, 3.5 - step if step > 3 else 3.5
        close(f(x, a, b), fused(x, a, b), f"step {step}")
        counts.append(captures(fused))
    assert counts[1] == counts[3] and counts[5] == counts[7]


def method_cases():
    class Loss:
        def __init__(self):
            self.w = 2.0

        def __call__(self, x):
            return x * self.w

        def method(self, x):
            return x + self.w

    loss = Loss()
    return {"a bound method": loss.method, "an object with __call__": loss, "a partial": functools.partial(torch.add, alpha=2),
            "a builtin": torch.sin, "a class's": torch.nn.functional.relu, "an op of the dispatcher": torch.ops.aten.sin.default}


@pytest.mark.parametrize("name", method_cases())
def test_kinds_of_callables(door, name):
    f = method_cases()[name]
    args = [r(3), r(3)] if name == "a partial" else [r(3)]
    close(f(*args), door(f)(*args), name)


def test_a_decorated_method_binds(own_door):
    class Model:
        k = 3.0

        @own_door
        def loss(self, x):
            """The loss."""
            return x * self.k

    m, x = Model(), r(3)
    close(x * 3, m.loss(x), "bound")
    close(x * 3, Model.loss(m, x), "unbound")
    assert Model.loss.__name__ == "loss" and Model.loss.__doc__ == "The loss."
    assert list(inspect.signature(Model.loss).parameters) == ["self", "x"]


def test_wrong_arguments(door):
    for call in (lambda f: f(), lambda f: f(r(1), r(1)), lambda f: f(r(1), y=1), lambda f: f(y=r(1))):
        with pytest.raises(TypeError):
            call(door(lambda x: x * 2))


@pytest.mark.parametrize("bad", [3, "text", None, torch.zeros(2)], ids=str)
def test_what_cannot_be_fused(bad):
    import heddle

    with pytest.raises(TypeError, match="expected a function or an nn.Module"):
        heddle.fuse(bad)


def test_a_generator_function(door):
    def f(x):
        yield x * 2
        yield x * 3

    fused = door(f)
    for _ in range(2):
        close(torch.full((2,), 5.0), sum(fused(torch.ones(2))), "sum of what's yielded")
