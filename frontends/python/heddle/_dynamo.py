"""Dynamo's door: a graph of torch calls becomes a region of heddle.

Law: the region computes what the graph does, with sizes and numbers that Dynamo calls symbols as inputs; the derivative is heddle's own,
so nothing of PyTorch's backward is traced. What can't be captured runs as the graph it is, and says why.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from . import _region
from ._region import Region, run, run_with_numbers

# Functions of Python numbers as functions of tensors of no dimensions.
_OF_NUMBERS: dict[Any, Any] = {getattr(torch, "_sym_" + f): getattr(torch, f)
                               for f in ("sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh", "asin", "acos", "atan", "log2") if hasattr(torch, "_sym_" + f)}
_OF_NUMBERS |= {torch.sym_float: lambda x: x, torch.sym_max: lambda a, b: _pick(b, ">", a), torch.sym_min: lambda a, b: _pick(b, "<", a)}
# What Dynamo asserts about sizes holds by its guards, and not at the sizes that a capture tries.
_ASSERTIONS = {torch.ops.aten._assert_scalar.default, torch.ops.aten.sym_constrain_range.default, torch.ops.aten.sym_constrain_range_for_size.default,
               torch._check, torch._check_is_size}
# Functions that switch a transform (torch.func) or a forward derivative on and off, and what they work on.
_TRANSFORMS = ("torch._C._functorch", "torch._functorch", "torch.autograd.forward_ad")
_FORWARD = {"_enter_dual_level", "_exit_dual_level", "_make_dual", "_unpack_dual", "_set_fwd_grad_enabled"}


def _pick(a: Any, sign: str, b: Any) -> Tensor:
    """Python's max and min of numbers: a if it's larger (smaller), else b."""
    a, b = (x if isinstance(x, Tensor) else _region.number(_region.scalar_tensor(x, dtype=torch.float64)) for x in (a, b))
    return torch.where(a > b if sign == ">" else a < b, a, b)


def _value(node: fx.Node) -> Any:
    return node.meta.get("example_value", node.meta.get("val"))


def _polynomial(expr: Any) -> str | None:
    """A size as heddle writes it ("2*s0*s1 + 3"), or None."""
    import sympy

    try:
        p = sympy.Poly(sympy.expand(expr), *sorted(expr.free_symbols, key=str), domain="ZZ")
    except (sympy.PolynomialError, sympy.CoercionFailed):
        return None
    names = [str(s) for s in p.gens]
    terms = []
    for powers, c in p.terms():
        factors = [n for n, power in zip(names, powers) for _ in range(power)]
        terms.append("*".join(factors if c == 1 and factors else [str(int(c)), *factors]))
    return " + ".join(terms).replace("+ -", "- ")


def _symbol(size: Any) -> Any:
    """sympy's expression of a symbolic size or number, None for a plain one."""
    if isinstance(size, (torch.SymInt, torch.SymFloat)):
        expr = size.node.expr
        return None if expr.is_number else expr
    return None


def _line(node: fx.Node) -> str:
    """The user's line a node stems from, "file.py:12", the innermost that Dynamo tells."""
    lines = [x.strip() for x in (node.meta.get("stack_trace") or "").splitlines() if x.strip().startswith("File ")]
    if not lines:
        return ""
    parts = lines[-1].split('"')
    return f"{parts[1].rsplit('/', 1)[-1]}:{parts[2].split(',')[1].split()[-1]}" if len(parts) > 2 else ""


def _rewritten(gm: fx.GraphModule) -> fx.GraphModule:
    """The graph as it's captured: numbers are tensors, lines are told, assertions about sizes left out."""
    graph = fx.Graph()
    at: dict[fx.Node, fx.Node] = {}
    where = ""

    def as_number(x: Any) -> Any:
        if isinstance(x, fx.Node) and isinstance(_value(x), torch.SymInt):
            return graph.call_function(_region.number, (graph.call_function(_region.scalar_tensor, (at[x],), {"dtype": torch.float64}),))
        return at[x] if isinstance(x, fx.Node) else x

    for node in gm.graph.nodes:
        if node.op == "call_function" and node.target in _ASSERTIONS and not node.users:
            continue
        if node.op.startswith("call") and (line := _line(node)) and line != where:
            where = line
            graph.call_function(_region.place, (line,))
        is_float = isinstance(_value(node), torch.SymFloat)
        if is_float and node.op == "call_method" and node.target == "item":
            at[node] = graph.call_function(_region.number, (at[node.args[0]],))
        elif is_float and node.op == "call_function" and (node.target in _OF_NUMBERS or getattr(node.target, "__module__", "") == "_operator"):
            made = graph.call_function(_OF_NUMBERS.get(node.target, node.target), tuple(as_number(x) for x in node.args))
            at[node] = graph.call_function(_region.number, (made,))
        elif node.op == "call_function" and node.target is torch._C._autograd._get_data_attr:
            at[node] = graph.call_function(torch.Tensor.detach, (at[node.args[0]],))
        else:
            at[node] = graph.node_copy(node, lambda n: at[n])
    return fx.GraphModule(gm, graph)


def _transform(gm: fx.GraphModule) -> str:
    """The transform inside a graph, or "". Such a graph changes PyTorch's state as it runs, and can't run twice at once."""
    for n in gm.graph.nodes:
        if n.op == "call_function" and ((getattr(n.target, "__module__", None) or "").startswith(_TRANSFORMS) or getattr(n.target, "__name__", "") in _FORWARD):
            return n.target.__name__
    return ""


class Graph:
    """One of Dynamo's graphs: the region it became, or why it didn't."""

    def __init__(self, gm: fx.GraphModule, name: str, deterministic: bool, activation_memory_budget: float) -> None:
        self.gm, self.region, self.reason = gm, None, ""
        placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
        values = [_value(n) for n in placeholders]
        tensors = [k for k, v in enumerate(values) if isinstance(v, Tensor)]
        integers = [k for k, v in enumerate(values) if isinstance(v, (int, torch.SymInt)) and not isinstance(v, bool)]
        other = [k for k in range(len(values)) if k not in tensors and k not in integers]
        if other:
            self.reason = f"an argument of the graph is a {type(values[other[0]]).__name__}, neither a tensor nor a size"
        elif transform := _transform(gm):
            self.reason = f"a transform inside ({transform}); fuse the function it is of"
        if self.reason:
            self.call: Callable = gm.forward
            return

        # Sizes: named by Dynamo's symbols. An integer that some tensor's size gives is no input.
        dynamic: list[tuple[int, int, str]] = []
        source: dict[str, tuple[int, int]] = {}
        for i, k in enumerate(tensors):
            for d, size in enumerate(values[k].shape):
                if (expr := _symbol(size)) is None:
                    continue
                text = _polynomial(expr)
                dynamic.append((i, d, text or f"d{i}_{d}"))
                source.setdefault(str(expr), (i, d))
        given: list[int] = []
        derived: dict[int, tuple[int, int]] = {}
        for k in integers:
            if not placeholders[k].users:
                continue
            expr = _symbol(values[k])
            if expr is not None and str(expr) in source:
                derived[k] = source[str(expr)]
            else:
                given.append(k)
        for j, k in enumerate(given):
            expr = _symbol(values[k])
            if expr is not None:
                dynamic.append((len(tensors) + j, -1, _polynomial(expr) or f"d{k}"))

        outputs = next(n for n in gm.graph.nodes if n.op == "output").args[0]
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        kinds = [None if isinstance(o, fx.Node) and isinstance(_value(o), Tensor) else int if isinstance(o, fx.Node) and isinstance(_value(o), (int, torch.SymInt))
                 else float if isinstance(o, fx.Node) else "constant" for o in outputs]
        graph = _rewritten(gm)
        count, n = len(values), len(tensors)

        def of_tensors(flat: list[Tensor], graph: fx.GraphModule = graph) -> list[Tensor]:
            args: list[Any] = [0] * count
            for i, k in enumerate(tensors):
                args[k] = flat[i]
            for k, (i, d) in derived.items():
                args[k] = flat[i].shape[d]
            for j, k in enumerate(given):
                args[k] = int(flat[n + j])
            out = graph.forward(*args)
            out = out if isinstance(out, (tuple, list)) else (out,)
            # Python numbers among the results are values of the graph: they may follow from sizes.
            return [torch.scalar_tensor(o, dtype=torch.int64 if kind is int else torch.float64) if not isinstance(o, Tensor) else o
                    for kind, o in zip(kinds, out) if kind != "constant"]

        self.region = Region(of_tensors, eager=lambda flat: of_tensors(flat, gm), name=name, dynamic=dynamic, deterministic=deterministic,
                             activation_memory_budget=activation_memory_budget)
        region = self.region.id
        order = [*tensors]
        plain = all(k is None for k in kinds)

        def rebuilt(out: list[Tensor]) -> list[Any]:
            it = iter(out)
            return [o if kind == "constant" else next(it) if kind is None else kind(next(it).item()) for kind, o in zip(kinds, outputs)]

        if plain and order == list(range(count)) and not given:
            self.call = lambda *args: run(region, args)
        elif not given:
            self.call = lambda *args: (run if plain else lambda r, a: rebuilt(run(r, a)))(region, [args[k] for k in order])
        else:
            def call(*args: Any) -> Any:
                out = run_with_numbers(region, [args[k] for k in order], [args[k] for k in given], [])
                return out if plain else rebuilt(out)
            self.call = call
        self.call.region = self.region  # lives as long as what calls it


class Backend:
    """A backend of torch.compile that remembers what it compiled: `Backend.graphs`."""

    def __init__(self, name: str = "f", deterministic: bool = False, activation_memory_budget: float = 1.0) -> None:
        self.name, self.deterministic, self.activation_memory_budget = name, deterministic, activation_memory_budget
        self.graphs: list[Graph] = []

    def __call__(self, gm: fx.GraphModule, example_inputs: list[Any], **_: Any) -> Callable:
        name = self.name if not self.graphs else f"{self.name}_{len(self.graphs)}"
        graph = Graph(gm, name, self.deterministic, self.activation_memory_budget)
        self.graphs.append(graph)
        return graph.call


def heddle(gm: fx.GraphModule, example_inputs: list[Any], *, options: dict[str, Any] | None = None, **_: Any) -> Callable:
    """The backend behind `torch.compile(..., backend="heddle")`. Options: {"deterministic": bool, "activation_memory_budget": float}."""
    given = options or {}
    return Backend(deterministic=bool(given.get("deterministic", False)), activation_memory_budget=float(given.get("activation_memory_budget", 1)))(gm, example_inputs)
