"""A Python function over a flat list of tensors, captured and compiled by heddle when it's called.

Law: the function has no other inputs than the list; what it holds besides (a closure's tensors) is bound when it's captured. It comes in
two forms that compute the same: the one that is captured sees numbers as tensors, the one that runs eagerly sees them as they are.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _library  # noqa: F401  loads the ops

OfTensors = Callable[[list[Tensor]], list[Tensor]]
_functions: dict[int, tuple[OfTensors, OfTensors]] = {}  # as it runs, as it's captured
_numbers = itertools.count()
_implementation = torch.library.Library("heddle", "IMPL")


def _python(function: int, inputs: list[Tensor], captured: bool) -> list[Tensor]:
    return _functions[function][captured](inputs)


for _key in ("CompositeImplicitAutograd", "FuncTorchBatchedDecomposition"):  # vmap asks for its own
    _implementation.impl("python", _python, _key)

# The ops as plain functions: what torch.ops.heddle.run(...) ends in, less three lookups.
run = torch.ops.heddle.run.default._op
run_with_numbers = torch.ops.heddle.run_with_numbers.default._op
step = torch.ops.heddle.step.default._op
place = torch.ops.heddle.place.default
scalar_tensor = torch.ops.aten.scalar_tensor.default


def number(x: Tensor) -> Tensor:
    """A tensor without dimensions that counts like a Python number in type promotion."""
    x = torch.ops.aten.alias(x)
    torch.ops.heddle.mark_number(x)
    return x


class Compiled:
    """What is made of one function. `id` is what the op that runs it takes."""

    _kind: Callable

    def __init__(self, function: OfTensors, *, eager: OfTensors | None = None, name: str = "f", dynamic: Sequence[tuple[int, int, str]] = (),
                 earlier: Sequence[Sequence[Sequence[int]]] = (), recapture: bool = True, deterministic: bool = False, strict: bool = False, **more: Any) -> None:
        self.name = name
        self._function = next(_numbers)
        _functions[self._function] = (eager or function, function)
        options = {"name": name, "recapture": recapture, "deterministic": deterministic, "strict": strict,
                   "dynamic": [{"input": i, "dim": d, "name": n} for i, d, n in dynamic], "earlier": earlier, **more}
        self._handle = type(self)._kind(self._function, json.dumps(options))
        self.id: int = self._handle.id()

    def __del__(self) -> None:
        if _functions is not None:  # at the interpreter's end
            _functions.pop(getattr(self, "_function", -1), None)

    def explain(self) -> str:
        return self._handle.explain()

    def kernels(self) -> dict[str, str]:
        """CUDA text of all kernels, by name."""
        flat = self._handle.kernels()
        return dict(zip(flat[::2], flat[1::2]))


    def traffic(self) -> list[dict]:
        """Bytes that the CUDA kernels move beside the least they can, of each direction of the last call (runtime/traffic.h)."""
        return json.loads(self._handle.traffic())


class Region(Compiled):
    """One fused function. `Region.id` is what `run` takes."""

    _kind = staticmethod(torch.classes.heddle.Region)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return run(self.id, inputs)

    def report(self) -> dict:
        """Of the last call: launches, library calls, bytes, seconds of compilation, why it ran eagerly if it did."""
        return json.loads(self._handle.report())

    def dump(self, folder: str) -> list[str]:
        """Writes graphs after each pass, programs and kernels; returns the files."""
        return self._handle.dump(folder)
