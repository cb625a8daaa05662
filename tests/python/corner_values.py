"""Eager's answers at special values, and how fused ones are held against them.

Law: each op of a table is one result of ONE fused function, over operands of its own, so that its gradients are its own. Values and gradients are of
eager's class, NaN for NaN, infinity for the same infinity, and a value's zero for a zero of the same sign; else equal but for rounding. Eager has
several loops (vectorised and plain, over dense and over strided memory) that don't always agree with each other: an answer of any of them will do.
"""

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from same import why_eager

INF, NAN = float("inf"), float("nan")
WEIGHTS = torch.tensor([1.0, -2.5, 0.0])  # gradients that reach a result, along the first axis of all operands


def specials(dtype: torch.dtype) -> list[float]:
    """Ends, zeros, denormals, what over- or underflows when squared, halves, neighbours of 1, ends of ops' domains."""
    f = torch.finfo(dtype)
    positive = [INF, f.max, f.max * 0.9, f.max**0.5 * 2, 0.0, f.tiny, f.tiny / 8, f.tiny**0.5 / 4, f.eps / 4, 1.0, 1 + f.eps, 1 - f.eps / 2, 0.5, 1.5, 2.0,
                2.5, 3.0, 6.0, 20.0, 21.0, 89.0, 160.0, 0.1, 1e8, 2.0**-30, 3.25]
    return [NAN, *itertools.chain.from_iterable((v, -v) for v in positive)]


def few(dtype: torch.dtype) -> list[float]:
    f = torch.finfo(dtype)
    positive = [INF, f.max * 0.9, f.max**0.5 * 2, 0.0, f.tiny / 8, f.tiny**0.5 / 4, 1.0, 0.5, 2.0, 3.0]
    return [NAN, *itertools.chain.from_iterable((v, -v) for v in positive)]


def least(dtype: torch.dtype) -> list[float]:
    f = torch.finfo(dtype)
    return [NAN, INF, -INF, 0.0, -0.0, f.max * 0.9, f.tiny / 8, 1.0, -2.0]


def batch(values: list, dtype: torch.dtype) -> Tensor:
    """[3, ...]: once for each weight."""
    t = torch.as_tensor(values, dtype=dtype)
    return t.expand(len(WEIGHTS), *t.shape).clone()


def cross(values: list[float], n: int, dtype: torch.dtype) -> list[Tensor]:
    """All n-tuples, as n operands."""
    return [batch(c, dtype) for c in zip(*itertools.product(values, repeat=n))]


@dataclasses.dataclass
class Answer:
    values: list[Tensor]
    gradients: list[Tensor | None]


Op = Callable[..., Tensor | tuple[Tensor, ...]]
Operands = dict[str, list[Tensor]]


def _dense(t: Tensor) -> Tensor:
    return torch.stack([t, t])


def _strided(t: Tensor) -> Tensor:
    return torch.stack([t, t], -1)[..., 0]


def _weight(t: Tensor, lead: int, layout: Callable) -> Tensor:
    if t.dim() <= lead or t.shape[lead] != len(WEIGHTS):
        return torch.ones_like(t)
    return layout(WEIGHTS.to(t.dtype).view(-1, *[1] * (t.dim() - lead - 1)).expand(t.shape[lead:]).contiguous())


def answers(ops: dict[str, Op], operands: Operands, door: Callable, layout: Callable = lambda t: t) -> tuple[dict[str, Answer], list[str]]:
    """All ops through one function behind `door`, and one step back; the reasons for which it ran eagerly."""
    lead = 1 if layout is _dense else 0
    own = {name: [layout(t).detach().requires_grad_(t.is_floating_point()) for t in operands[name]] for name in ops}
    counts = [len(own[name]) for name in ops]

    def function(*given):
        given, out = list(given), []
        for op, count in zip(ops.values(), counts):
            out.append(op(*given[:count]))
            del given[:count]
        return tuple(out)

    run = door(function)
    results = [[t for t in pytree.tree_leaves(r) if isinstance(t, Tensor)] for r in run(*[t for name in ops for t in own[name]])]
    ends = [t for leaves in results for t in leaves if t.requires_grad]
    torch.autograd.backward(ends, [_weight(t, lead, layout) for t in ends])
    cut = (lambda t: t[0] if t is not None and t.dim() else t) if lead else (lambda t: t)
    found = {name: Answer([cut(t.detach()) for t in leaves], [cut(t.grad) for t in own[name]]) for name, leaves in zip(ops, results)}
    return found, why_eager(run) if run is not function else []


def agrees(got: Tensor, want: Tensor, signed: bool, tolerance: tuple[float, float]) -> Tensor:
    if not want.is_floating_point():
        return got == want
    tiny = torch.finfo(want.dtype).tiny
    close = (got - want).abs() <= tolerance[0] * want.abs() + tolerance[1] + (tiny * torch.finfo(want.dtype).eps * 4 if signed else tiny)
    return torch.where(want.isnan(), got.isnan(), torch.where(want.isinf(), got == want, close & (~((want == 0) & signed) | (got == 0) & (got.signbit() == want.signbit()))))


def disagreements(ops: dict[str, Op], operands: Operands, door: Callable, tolerance: dict[str, tuple[float, float]], row: Callable) -> tuple[list[tuple], list[str]]:
    """(op, "values 0" or "gradients 0", index, operands there, eager's, fused) of each that is no answer of eager's. `row`: what of an operand an index is about."""
    want = [answers(ops, operands, lambda f: f, layout)[0] for layout in (_dense, _strided)]
    got, reasons = answers(ops, operands, door)
    wrong = []
    for name in ops:
        for what in ("values", "gradients"):
            theirs, ours = [getattr(w[name], what) for w in want], getattr(got[name], what)
            assert all(len(t) == len(ours) for t in theirs), name
            for k, t in enumerate(ours):
                if any((w[k] is None) != (t is None) for w in theirs):
                    wrong.append((name, f"{what} {k}", (), (), "None" if theirs[0][k] is None else "some", "None" if t is None else "some"))
                    continue
                if t is None:
                    continue
                assert all(w[k].shape == t.shape and w[k].dtype == t.dtype for w in theirs), f"{name}: {t.shape}, eager {theirs[0][k].shape}"
                right = agrees(t, theirs[0][k], what == "values", tolerance[name]) | agrees(t, theirs[1][k], what == "values", tolerance[name])
                for i in map(tuple, (~right).nonzero().tolist()):
                    at = [row(x, i, x.shape == t.shape).flatten().tolist() for x in operands[name]]
                    wrong.append((name, f"{what} {k}", i, at, [w[k][i].item() for w in theirs], t[i].item()))
    return wrong, reasons
