"""Eager and fused, compared by everything a caller can see: results, their memory, what was written, gradients, random numbers, exceptions.

Law: both get copies of their own, made from the same random numbers; equal means equal but for the rounding of the element type.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from heddle._fuse import door_of


@dataclasses.dataclass
class Call:
    """What one call did."""

    error: str | None = None
    result: Any = None
    arguments: Any = None
    gradients: list = dataclasses.field(default_factory=list)
    parameters: dict = dataclasses.field(default_factory=dict)
    random: Tensor | None = None


def _inputs(arguments: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(arguments) if isinstance(x, Tensor)]


def observe(function: Callable, arguments: tuple, held: torch.nn.Module | None, backward: bool) -> Call:
    """Calls, and takes the derivative in every result that has one, each with its own weights."""
    call = Call(arguments=arguments)
    kwargs = {}
    if arguments and isinstance(arguments[-1], Named):
        kwargs, arguments = arguments[-1], arguments[:-1]
    try:
        call.result = function(*arguments, **kwargs)
        call.random = torch.get_rng_state()
        ends = [x for x in pytree.tree_leaves(call.result) if isinstance(x, Tensor) and x.requires_grad and x.grad_fn is not None]
        if backward and ends:
            g = torch.Generator().manual_seed(7)
            torch.autograd.backward(ends, [torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype) for x in ends])
    except Exception as e:  # noqa: BLE001  compared by its type
        call.error = type(e).__name__
    call.gradients = [x.grad if x.is_leaf else None for x in _inputs(call.arguments)]
    if held is not None:
        call.parameters = {n: (p.detach().clone(), None if p.grad is None else p.grad.clone()) for n, p in held.named_parameters()}
        call.parameters |= {n: (b.detach().clone(), None) for n, b in held.named_buffers()}
    return call


class Named(dict):
    """Arguments by name, as the last of a call's arguments."""


pytree.register_pytree_node(Named, lambda d: (list(d.values()), list(d)), lambda values, keys: Named(zip(keys, values)))


def close(a: Tensor, b: Tensor, what: str, tolerance: float | None = None) -> None:
    assert a.dtype == b.dtype, f"{what}: {b.dtype}, eager {a.dtype}"
    assert a.shape == b.shape, f"{what}: {tuple(b.shape)}, eager {tuple(a.shape)}"
    assert a.device == b.device, f"{what}: on {b.device}, eager {a.device}"
    eps = tolerance or {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 4e-3}.get(a.dtype, 0)
    torch.testing.assert_close(b.detach(), a.detach(), rtol=eps, atol=eps, equal_nan=True, check_stride=False, msg=lambda m: f"{what}: {m}")


def _steps(t: Tensor) -> list[int]:
    """Strides that say something."""
    return [s for s, n in zip(t.stride(), t.shape) if n > 1] if t.numel() else []


def _memory(t: Tensor, others: list[Tensor]) -> list[Any]:
    """Which of the others a tensor is, and whose memory it shows."""
    return [t is o or ("shares", t.storage_offset()) if t.untyped_storage()._cdata == o.untyped_storage()._cdata and o.numel() else False for o in others]


def equal(want: Call, got: Call, tolerance: float | None = None) -> None:
    assert got.error == want.error, f"raises {got.error}, eager {want.error}"
    a, spec = pytree.tree_flatten(want.result)
    b, spec_b = pytree.tree_flatten(got.result)
    assert spec == spec_b, f"result is {spec_b}, eager {spec}"
    inputs_a, inputs_b = _inputs(want.arguments), _inputs(got.arguments)
    for k, (x, y) in enumerate(zip(a, b)):
        if not isinstance(x, Tensor):
            assert type(x) is type(y) and x == y, f"result {k}: {y!r}, eager {x!r}"
            continue
        close(x, y, f"result {k}", tolerance)
        assert _steps(x) == _steps(y), f"result {k}: strides {y.stride()}, eager {x.stride()}"
        assert x.requires_grad == y.requires_grad, f"result {k}: requires_grad {y.requires_grad}, eager {x.requires_grad}"
        assert (x.grad_fn is None) == (y.grad_fn is None), f"result {k}: grad_fn {y.grad_fn}, eager {x.grad_fn}"
        assert type(x) is type(y), f"result {k}: {type(y)}"
        assert _memory(x, inputs_a) == _memory(y, inputs_b), f"result {k}: shares memory with inputs {_memory(y, inputs_b)}, eager {_memory(x, inputs_a)}"
        ta, tb = [t for t in a[:k] if isinstance(t, Tensor)], [t for t in b[:k] if isinstance(t, Tensor)]
        assert _memory(x, ta) == _memory(y, tb), f"result {k}: shares memory with results {_memory(y, tb)}, eager {_memory(x, ta)}"
    for k, (x, y) in enumerate(zip(inputs_a, inputs_b)):
        close(x, y, f"input {k} afterwards", tolerance)
        assert (x._version > 0) == (y._version > 0) if not x.is_inference() else True, f"input {k}: written, or eager wrote it"
    for k, (x, y) in enumerate(zip(want.gradients, got.gradients)):
        assert (x is None) == (y is None), f"gradient {k}: {'None' if y is None else 'not None'}, eager {'None' if x is None else 'not None'}"
        if x is not None:
            close(x, y, f"gradient {k}", tolerance)
    for n, (x, dx) in want.parameters.items():
        y, dy = got.parameters[n]
        close(x, y, n, tolerance)
        assert (dx is None) == (dy is None), f"gradient of {n}: {'None' if dy is None else 'not None'}, eager {'None' if dx is None else 'not None'}"
        if dx is not None:
            close(dx, dy, f"gradient of {n}", tolerance)
    if want.random is not None:
        assert torch.equal(want.random, got.random), "the random generator is not where eager leaves it"


def why_eager(fused: Any) -> list[str]:
    """Reasons for which the last calls ran eagerly, of all regions; empty: all fused."""
    d = door_of(fused)
    return [r for r in (region.report()["eager_reason"] for region in d.regions()) if r] + d.reasons()


def same(door: Callable, function: Any, arguments: Callable[[], Any], *, calls: int = 2, backward: bool = True, eager: str | None = "",
         tolerance: float | None = None, raises: str | None = None) -> Any:
    """Calls function(*arguments()) eagerly and fused, `calls` times each. Returns the fused one.

    `eager`: "" where all of it must be fused, else what a reason for running eagerly must contain; None: don't ask.
    `raises`: the type that eager raises, by name.
    """
    copies, records, fused = [copy.deepcopy(function) for _ in range(2)], [], None
    for one, f in zip(copies, (lambda x: x, door)):
        torch.manual_seed(1)
        fused = f(one)
        records.append([observe(fused, tuple(arguments()), one if isinstance(one, torch.nn.Module) else None, backward) for _ in range(calls)])
    assert records[0][0].error == raises, f"eager raises {records[0][0].error}"
    for want, got in zip(*records):
        equal(want, got, tolerance)
    if eager is not None and door_of(fused) is not None:
        reasons = why_eager(fused)
        assert (not reasons) if eager == "" else any(eager in r for r in reasons), f"ran eagerly: {reasons}"
    return fused
