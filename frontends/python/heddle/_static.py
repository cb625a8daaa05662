"""fuse(..., static=True): a Python function captured by running it, with guards checked in C++ and no Dynamo in the way.

Law: a call is answered by a capture made with the same structure, the same constants and the same state of the modules it's given; a number
that was seen to change is an input. What else the function reads (globals, attributes, closures) is bound when it's captured.
"""

import enum
import threading
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from . import _region
from ._region import Compiled, Region, run, run_with_numbers
from ._sizes import Size
from ._watch import Unseen, Watch, inline, modes, under

_PLAIN = (Tensor, nn.Parameter)
_CONSTANTS = (int, str, bytes, bool, type(None), complex, type, torch.dtype, torch.device, torch.layout, torch.memory_format, enum.Enum, types.FunctionType,
              types.BuiltinFunctionType, type(torch.ops.aten.add), type(torch.ops.aten.add.Tensor))
_OF_MANY_PROCESSES = (nn.parallel.DistributedDataParallel, nn.parallel.DataParallel)
_KEPT = 64      # captures of one function
_RESTLESS = 16  # calls in a row that no capture answered


class Opaque(Exception):
    """An argument, or a module's state, that can't be compared with an earlier one."""


def _key(x: Any) -> Any:
    """What decides, of an argument that is no tensor, which code runs: equal keys, equal code."""
    if type(x) is float:
        return x.hex()  # -0.0 isn't 0.0, and nan is nan
    if isinstance(x, _CONSTANTS):
        return x
    if isinstance(x, slice):
        return slice, _key(x.start), _key(x.stop), _key(x.step)
    if isinstance(x, (set, frozenset)):
        return type(x), frozenset(map(_key, x))
    if isinstance(x, range):
        return x
    if isinstance(x, nn.Module):
        return id(x), _state(x, [])
    raise Opaque(f"an argument is a {type(x).__name__}, which static=True can't compare with an earlier one; pass its tensors and numbers")


def _state(m: nn.Module, found: list[Any]) -> tuple:
    """What of a module decides which code runs: the mode of every part, and which tensors it holds."""
    if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
        raise Opaque(f"a {type(m).__name__} has hooks, which run as they are")
    if isinstance(m, _OF_MANY_PROCESSES):
        raise Opaque(f"a {type(m).__name__} talks to other processes; fuse the module inside it")
    found.append(m.training)
    found += map(id, m._parameters.values())
    found += map(id, m._buffers.values())
    for part in m._modules.values():
        if part is not None:
            _state(part, found)
    return tuple(found)


class _Out:
    """What a function's result looks like: its tensors in order, everything else as it was."""

    def __init__(self, result: Any, numbers: dict[int, Tensor]) -> None:
        leaves, self.spec = pytree.tree_flatten(result)
        self.tensors, self.rest = [], []
        for leaf in leaves:
            kind = None if isinstance(leaf, Tensor) else type(leaf)
            if id(leaf) in numbers:  # Python has the number that it stands for
                kind, leaf = (float if leaf.is_floating_point() else int), torch.ops.aten.clone(leaf)
            elif kind in (int, float, Size):  # may follow from sizes: a value of the graph
                kind = float if kind is float else int
                leaf = torch.scalar_tensor(int(leaf) if kind is int else leaf, dtype=torch.int64 if kind is int else torch.float64)
            if isinstance(leaf, Tensor):
                self.tensors.append(leaf)
            self.rest.append((kind, None if isinstance(leaf, Tensor) else leaf))
        self.single = type(result) in _PLAIN and self.rest[0][0] is None
        self.flat = type(result) in (tuple, list) and len(self.rest) == len(result) and all(isinstance(x, Tensor) for x in result) and all(k is None for k, _ in self.rest)
        self.container = type(result)

    def check(self, earlier: "_Out | None") -> None:
        """Runs of one capture have one layout, and nothing in it but tensors and what can be compared."""
        for kind, leaf in self.rest:
            if kind is not None and kind not in (int, float) and not isinstance(leaf, _CONSTANTS):
                raise Unseen(f"returns a {kind.__name__}, which may hold tensors; return tensors, numbers and containers of them")
        if earlier is not None and (self.spec != earlier.spec or self.rest != earlier.rest):
            raise Unseen("the structure of its result depends on sizes or values")

    def rebuild(self, tensors: list[Tensor]) -> Any:
        if self.single:
            return tensors[0]
        if self.flat:
            return self.container(tensors)
        at = iter(tensors)
        leaves = [next(at) if kind is None else kind(next(at).item()) if kind in (int, float) else leaf for kind, leaf in self.rest]
        return pytree.tree_unflatten(leaves, self.spec)


class _Call(threading.local):
    """What passes between a call and the function that C++ calls back if it runs eagerly."""

    given: tuple | None = None        # (leaves, args, kwargs) of the call at hand
    made: Callable | None = None      # if it ran eagerly: from the tensors that came back to the result


_call = _Call()


class _Entry:
    """One capture's Python side: the function of tensors, and what its result looks like."""

    def __init__(self, of: "Static", leaves: list[Any], spec: Any, numbers: list[int], earlier: list[list[tuple]], around: tuple) -> None:
        self.tensors = [k for k, x in enumerate(leaves) if isinstance(x, Tensor)]
        self.integers, self.floats = [k for k in numbers if type(leaves[k]) is int], [k for k in numbers if type(leaves[k]) is float]
        self.of = of
        self.layout: list[_Out] = []  # none before the first capture
        self.region = _region_of(of.made, under(around, of.function), of.name, {"deterministic": of.deterministic, "activation_memory_budget": of.activation_memory_budget}, leaves, spec, (self.tensors, self.integers, self.floats), earlier, self.layout)

    def __call__(self, leaves: list[Any], args: tuple, kwargs: dict) -> Any:
        tensors = [leaves[k] for k in self.tensors]
        _call.given = leaves, args, kwargs
        try:
            if self.integers or self.floats:
                out = self.of.run_with_numbers(self.region.id, tensors, [leaves[k] for k in self.integers], [leaves[k] for k in self.floats])
            else:
                out = self.of.run(self.region.id, tensors)
            return (_call.made or self.layout[0].rebuild)(out)
        finally:
            _call.given = _call.made = None


def _region_of(made: Callable, function: Any, name: str, options: dict, leaves: list[Any], spec: Any, positions: tuple[list[int], ...], earlier: list[list[tuple]],
               layout: list[_Out]) -> Compiled:
    """The region of one entry. It holds the function and the layout, and not the entry, so that both go when the entry goes."""
    tensors, integers, floats = positions
    fixed = [None if isinstance(x, Tensor) else x for x in leaves]
    n = len(tensors)

    def filled(given: list[Tensor], integer: Callable, number: Callable) -> list[Any]:
        values = list(fixed)
        for k, t in zip(tensors, given):
            values[k] = t
        for k, t in zip(integers, given[n:]):
            values[k] = integer(t)
        for k, t in zip(floats, given[n + len(integers):]):
            values[k] = number(t)
        return values

    def captured(given: list[Tensor]) -> list[Tensor]:
        values = filled(given, lambda t: Size(int(t)), _region.number)
        args, kwargs = pytree.tree_unflatten(values, spec)
        with Watch([values[k] for k in floats]) as watch:
            out = _Out(function(*args, **kwargs), watch.numbers)
        after = pytree.tree_leaves((args, kwargs))
        if len(after) != len(values) or any(a is not b for a, b in zip(after, values)):
            raise Unseen("changes a container that it's given")
        out.check(layout[0] if layout else None)
        if not layout:
            layout.append(out)
        found, out.tensors = out.tensors, []
        return found

    def eager(given: list[Tensor]) -> list[Tensor]:
        call, _call.given = _call.given, None
        if call is not None and all(t is call[0][k] for k, t in zip(tensors, given)):
            result = function(*call[1], **call[2])
            _call.made = lambda _: result
            return []
        # Not the call's own tensors: a transform's, or a second derivative's.
        args, kwargs = pytree.tree_unflatten(filled(given, int, float), spec)
        out = _Out(function(*args, **kwargs), {})
        found, out.tensors = out.tensors, []
        _call.made = out.rebuild
        return found

    return made(captured, eager=eager, name=name, **options, dynamic=[(n + k, -1, f"i{k}") for k in range(len(integers))],
                  earlier=[[*shapes, *[()] * (len(integers) + len(floats))] for shapes in earlier])


class _Kind:
    """Calls of one structure. `numbers`: positions of ints and floats that were seen to change."""

    def __init__(self, leaves: list[Any]) -> None:
        self.first = [None if isinstance(x, Tensor) else x for x in leaves]
        self.numbers: set[int] = set()
        self.shapes: list[list[tuple]] = []  # of the tensors, when an entry was made

    def see(self, leaves: list[Any]) -> None:
        for k, (a, b) in enumerate(zip(self.first, leaves)):
            if type(a) in (int, float) and k not in self.numbers and _key(a) != _key(b):
                self.numbers.add(k)


class Static:
    """A function or module fused without Dynamo."""

    made: Callable = Region  # what a capture becomes, and the ops that run that
    run, run_with_numbers = staticmethod(run), staticmethod(run_with_numbers)

    def __init__(self, function: Any, name: str, deterministic: bool, activation_memory_budget: float = 1.0) -> None:
        self.function, self.name, self.deterministic, self.activation_memory_budget = function, name, deterministic, activation_memory_budget
        self.module = function if isinstance(function, nn.Module) else None
        self.lock = threading.Lock()
        self.kinds: dict[Any, _Kind] = {}
        self.entries: dict[Any, _Entry] = {}           # the one used last comes last
        self.fast: dict[int, tuple[int, _Entry]] = {}  # number of arguments, all tensors, none by name -> region
        self.missed: tuple[int, Any] = (0, None)       # how many calls in a row no entry answered, and the last one's key
        self.why: dict[str, None] = {}

    def regions(self) -> list[Compiled]:
        return [e.region for e in list(self.entries.values())]

    def reasons(self) -> list[str]:
        return list(self.why)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # true only where Dynamo reads this: what it compiles is the function
            return self.function(*args, **kwargs)
        if not kwargs and self.module is None and not inline.depth:
            for a in args:
                if type(a) not in _PLAIN:
                    break
            else:
                known = self.fast.get(len(args))
                if known is not None and not torch._C._len_torch_function_stack():
                    _call.given = args, args, kwargs
                    try:
                        out = self.run(known[0], args)
                        if (made := _call.made) is not None:
                            return made(out)
                        layout = known[1].layout[0]
                        return out[0] if layout.single else layout.rebuild(out)
                    finally:
                        _call.given = _call.made = None
        return self.slow(args, kwargs)

    def slow(self, args: tuple, kwargs: dict) -> Any:
        if inline.depth:  # part of a larger function that is being captured
            return self.function(*args, **kwargs)
        try:
            around = modes()
            if around is None:
                raise Opaque("a torch function mode is on that wants to see every call")
            leaves, spec = pytree.tree_flatten((args, kwargs))
            if any(isinstance(x, Tensor) and type(x) not in _PLAIN for x in leaves):
                raise Opaque("an argument is a subclass of a tensor, which may do anything")
            entry = self.entry(leaves, spec, around)
        except Opaque as reason:
            self.why[str(reason)] = None
            return self.function(*args, **kwargs)
        if not kwargs and self.module is None and not around and all(type(a) in _PLAIN for a in args):
            self.fast[len(args)] = (entry.region.id, entry)
        return entry(leaves, args, kwargs)

    def entry(self, leaves: list[Any], spec: Any, around: tuple) -> _Entry:
        """What answers this call: made now, if nothing does yet."""
        shape = spec, tuple(Tensor if isinstance(x, Tensor) else type(x) for x in leaves)
        state = None if self.module is None else _state(self.module, [])
        with self.lock:
            kind = self.kinds.get(shape)
            if kind is None:
                if len(self.kinds) >= _KEPT:
                    self.kinds.pop(next(iter(self.kinds)))
                kind = self.kinds[shape] = _Kind(leaves)
            kind.see(leaves)
            constants = tuple(_key(x) for k, x in enumerate(leaves) if not isinstance(x, Tensor) and k not in kind.numbers)
            key = shape, frozenset(kind.numbers), constants, state, around
            entry = self.entries.pop(key, None)
            if entry is None:
                calls, last = self.missed
                self.missed = calls + 1, key
                if calls >= _RESTLESS and last != key:
                    raise Opaque("a constant among its arguments is new with each call")
                if len(self.entries) >= _KEPT:
                    self.entries.pop(next(iter(self.entries)))
                entry = _Entry(self, leaves, spec, sorted(kind.numbers), kind.shapes, around)
                kind.shapes = [*kind.shapes[-_RESTLESS:], [tuple(x.shape) for x in leaves if isinstance(x, Tensor)]]
            else:
                self.missed = 0, None
            self.entries[key] = entry
            return entry
