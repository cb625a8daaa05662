"""fuse(..., static=True): a Python function captured by running it, with guards checked in C++ and no Dynamo in the way.

Law: a call is answered by a capture made with the same structure and the same constants; a number that was seen to change is an input.
What the function reads besides its arguments (globals, attributes, closures) is bound when it's captured.
"""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import _region
from ._region import Region, run, run_with_numbers

_PLAIN = (Tensor, torch.nn.Parameter)


class _Out:
    """What a function's result looks like: its tensors in order, everything else as it was."""

    def __init__(self, result: Any) -> None:
        leaves, self.spec = pytree.tree_flatten(result)
        self.tensors, self.rest = [], []
        for leaf in leaves:
            kind = None if isinstance(leaf, Tensor) else type(leaf)
            if kind in (int, float):  # may follow from sizes: a value of the graph
                leaf = torch.scalar_tensor(leaf, dtype=torch.int64 if kind is int else torch.float64)
            if isinstance(leaf, Tensor):
                self.tensors.append(leaf)
            self.rest.append((kind, None if isinstance(leaf, Tensor) else leaf))
        self.single = type(result) in _PLAIN
        self.all_tensors = type(result) in (tuple, list) and all(k is None for k, _ in self.rest) and len(self.rest) == len(result)
        self.container = type(result)

    def rebuild(self, tensors: list[Tensor]) -> Any:
        if self.single:
            return tensors[0]
        if self.all_tensors:
            return self.container(tensors)
        at = iter(tensors)
        leaves = [next(at) if kind is None else kind(next(at).item()) if kind in (int, float) else leaf for kind, leaf in self.rest]
        return pytree.tree_unflatten(leaves, self.spec)


class _Lines:
    """While it lives, ops are recorded with the user's line. Only during capture: tracing lines is slow."""

    def __init__(self) -> None:
        self.skip = (torch.__path__[0], __file__.rsplit("/", 1)[0])

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys.settrace(self.call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def call(self, frame: Any, event: str, arg: Any) -> Any:
        return None if frame.f_code.co_filename.startswith(self.skip) else self.line

    def line(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "line":
            _region.place(f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}")
        return self.line


class _Entry:
    """One capture's Python side: the function of tensors, and what its result looks like."""

    def __init__(self, function: "Static", leaves: list[Any], spec: Any, inputs: list[int], integers: list[int], floats: list[int]) -> None:
        self.inputs, self.integers, self.floats = inputs, integers, floats
        self.out: _Out | None = None
        fixed = [None if isinstance(x, Tensor) else x for x in leaves]
        order = inputs + integers + floats

        def of_tensors(tensors: list[Tensor]) -> list[Tensor]:
            filled = list(fixed)
            for position, t in zip(order, tensors):
                filled[position] = int(t) if position in integers else _region.number(t) if position in floats else t
            args, kwargs = pytree.tree_unflatten(filled, spec)
            with _Lines():
                result = function.function(*args, **kwargs)
            out = _Out(result)
            if self.out is None:
                self.out = out
            return out.tensors

        n = len(inputs)
        self.region = Region(of_tensors, name=function.name, deterministic=function.deterministic,
                             dynamic=[(n + k, -1, f"i{k}") for k in range(len(integers))])

    def __call__(self, leaves: list[Any]) -> Any:
        tensors = [leaves[k] for k in self.inputs]
        if self.integers or self.floats:
            out = run_with_numbers(self.region.id, tensors, [leaves[k] for k in self.integers], [leaves[k] for k in self.floats])
        else:
            out = run(self.region.id, tensors)
        return self.out.rebuild(out)


class _Kind:
    """Calls of one structure. `numbers`: positions of ints and floats that were seen to change."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.first: list[Any] | None = None
        self.entries: dict[Any, _Entry] = {}


class Static:
    """A function or module fused without Dynamo."""

    def __init__(self, function: Any, name: str, deterministic: bool) -> None:
        self.function, self.name, self.deterministic = function, name, deterministic
        self.kinds: dict[Any, _Kind] = {}
        self.module = function if isinstance(function, torch.nn.Module) else None
        self.fast: dict[int, tuple[int, _Entry]] = {}  # number of arguments, all tensors, none by name -> region

    def regions(self) -> list[Region]:
        return [e.region for k in self.kinds.values() for e in k.entries.values()]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs and self.module is None:
            for a in args:
                if type(a) not in _PLAIN:
                    break
            else:
                known = self.fast.get(len(args))
                if known is not None:
                    out = run(known[0], args)
                    return out[0] if known[1].out.single else known[1].out.rebuild(out)
        return self.slow(args, kwargs)

    def slow(self, args: tuple, kwargs: dict) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        shape = (spec, tuple(Tensor if isinstance(x, Tensor) else type(x) for x in leaves), self.state())
        kind = self.kinds.setdefault(shape, _Kind())
        if kind.first is not None:
            for k, (a, b) in enumerate(zip(kind.first, leaves)):
                if type(a) in (int, float) and not (a == b or (a != a and b != b)):
                    kind.numbers.add(k)
        else:
            kind.first = [None if isinstance(x, Tensor) else x for x in leaves]
        constants = tuple(x for k, x in enumerate(leaves) if not isinstance(x, Tensor) and k not in kind.numbers)
        try:
            key = (frozenset(kind.numbers), constants)
            entry = kind.entries.get(key)
        except TypeError:  # an argument that can't be compared: nothing can be remembered
            return self.function(*args, **kwargs)
        if entry is None:
            numbers = sorted(kind.numbers)
            inputs = [k for k, x in enumerate(leaves) if isinstance(x, Tensor)]
            entry = kind.entries[key] = _Entry(self, leaves, spec, inputs, [k for k in numbers if type(leaves[k]) is int],
                                               [k for k in numbers if type(leaves[k]) is float])
            if not kwargs and self.module is None and all(type(a) in _PLAIN for a in args):
                self.fast[len(args)] = (entry.region.id, entry)
        return entry(leaves)

    def state(self) -> Any:
        """What of a module decides which code runs: the mode of every part, and which tensors it holds."""
        if self.module is None:
            return None
        return tuple(m.training for m in self.module.modules()), tuple(id(p) for p in self.module.parameters()), tuple(id(b) for b in self.module.buffers())
