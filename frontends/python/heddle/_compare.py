"""heddle.compare: eager in float64, eager, fused and, when asked, inductor, on the user's tensors.

Law: every variant gets the same inputs, cotangents and random state; errors are told against float64; times are taken in turns.
"""

import dataclasses
import json
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ._explain import copied, copied_module, floats, original
from ._fuse import Door, door_of


class Mismatch(AssertionError):
    """A fused result is farther from float64 than it may be. `comparison` holds the table."""

    def __init__(self, comparison: "Comparison") -> None:
        super().__init__("heddle.compare: " + "; ".join(comparison.failures()))
        self.comparison = comparison


@dataclasses.dataclass
class Variant:
    """One way of running. Times in seconds; errors relative to the largest value of the float64 result; None: not known or not there."""

    name: str
    forward: list[float] = dataclasses.field(default_factory=list)
    both: list[float] = dataclasses.field(default_factory=list)
    first: float | None = None  # the first call, forward and backward, compilation included
    launches: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None
    errors: dict[str, float | None] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass
class Comparison:
    """What heddle.compare returns; its str is a table."""

    variants: list[Variant]
    tolerance: dict[str, float]
    problems: list[str]
    threads: int
    device: str

    @property
    def ok(self) -> bool:
        return not self.failures()

    def variant(self, name: str) -> Variant:
        return next(v for v in self.variants if v.name == name)

    def failures(self) -> list[str]:
        """One line for each result of the fused function that is over tolerance, of another kind than eager's, or missing."""
        return self.problems

    def speedup(self, over: str = "eager") -> float:
        """Median time of `over`, forward and backward, by fused's."""
        return statistics.median(self.variant(over).both) / statistics.median(self.variant("fused").both)

    def to_dict(self) -> dict:
        return {"device": self.device, "threads": self.threads, "ok": self.ok, "failures": self.failures(), "tolerance": self.tolerance,
                "variants": [{"name": v.name, "forward_median_s": _median(v.forward), "forward_min_s": min(v.forward, default=None),
                              "both_median_s": _median(v.both), "both_min_s": min(v.both, default=None), "first_call_s": v.first,
                              "launches": v.launches, "bytes": v.bytes, "errors": v.errors, "note": v.note} for v in self.variants]}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        def ms(times: list[float]) -> str:
            return f"{statistics.median(times) * 1e3:9.3f} {min(times) * 1e3:9.3f}" if times else f"{'–':>9} {'–':>9}"

        def pair(p: tuple[int, int] | None, scale: float = 1, digits: str = ".0f") -> str:
            return f"{p[0] / scale:{digits}} + {p[1] / scale:{digits}}" if p else "–"

        lines = [f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}; times in ms, forward / forward and backward",
                 f"{'':<14} {'median':>9} {'min':>9} / {'median':>9} {'min':>9}  {'launches':>11}  {'MB':>15}  {'first call':>10}"]
        for v in self.variants:
            first = f"{v.first:8.2f} s" if v.first is not None else "–"
            lines.append(f"{v.name:<14} {ms(v.forward)} / {ms(v.both)}  {pair(v.launches):>11}  {pair(v.bytes, 1e6, '.2f'):>15}  {first:>10}  {v.note}".rstrip())
        names = [v.name for v in self.variants if v.errors]
        if names:
            lines += ["", f"{'error against float64':<28}" + "".join(f"{n:>12}" for n in names) + f"{'allowed':>12}"]
            for what in self.tolerance:
                row = [next(v.errors.get(what) for v in self.variants if v.name == n) for n in names]
                lines.append(f"{what:<28}" + "".join(f"{'none' if e is None else format(e, '.1e'):>12}" for e in row) + f"{self.tolerance[what]:>12.1e}")
        lines += ["", f"fused is {self.speedup():.2f} times as fast as eager; " + ("all within tolerance" if self.ok else "FAILED: " + "; ".join(self.failures()))]
        return "\n".join(lines)


def _median(times: list[float]) -> float | None:
    return statistics.median(times) if times else None


class _Counter(TorchDispatchMode):
    """Ops that compute (no views), and the bytes they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func not in (torch.ops.aten.detach.default, torch.ops.aten._local_scalar_dense.default):
            self.ops += 1
            self.bytes += sum(t.numel() * t.element_size() for t in pytree.tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        return out


class _Case:
    """One variant's function with inputs of its own."""

    def __init__(self, call: Callable, module: Any, args: tuple, kwargs: dict, dtype: torch.dtype | None) -> None:
        self.call, self.module, self.args, self.kwargs, self.dtype = call, module, args, kwargs, dtype

    def inputs(self) -> tuple[Any, dict[str, Tensor]]:
        """Fresh copies, and the leaves whose gradients are compared, by name."""
        args, kwargs = copied((self.args, self.kwargs), self.dtype)
        wanted: dict[str, Tensor] = {}
        for path, x in pytree.tree_flatten_with_path((args, kwargs))[0]:
            if isinstance(x, Tensor) and x.requires_grad and not any(x is y for y in wanted.values()):
                name = pytree.keystr(path[1:])
                wanted[f"d input{name}" if path[0].idx == 0 else f"d {name}"] = x
        if isinstance(self.module, torch.nn.Module):
            wanted |= {f"d {n}": p for n, p in self.module.named_parameters() if p.requires_grad}
        return (args, kwargs), wanted

    def run(self, inputs: Any, wanted: dict[str, Tensor], seed: int) -> tuple[Any, list, float, float]:
        """Result, gradients, seconds forward, seconds of both."""
        torch.manual_seed(seed)
        sync = torch.cuda.synchronize if torch.cuda.is_available() and any(t.is_cuda for t in wanted.values()) else lambda: None
        sync()
        start = time.perf_counter()
        result = self.call(*inputs[0], **inputs[1])
        sync()
        middle = time.perf_counter()
        used, gradients = floats(result), [None] * len(wanted)
        if used and wanted:
            seeds = [_cotangent(t, k) for k, t in enumerate(used)]
            sync()
            begin = time.perf_counter()
            gradients = list(torch.autograd.grad(used, list(wanted.values()), seeds, allow_unused=True))
            sync()
            end = time.perf_counter()
        else:
            begin = end = 0.0
        return result, gradients, middle - start, middle - start + end - begin


class _InductorCounts:
    """torch.compile's default backend, with no cache on disk, and the kernels and library calls of the code it wrote."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def __call__(self, gm: Any, inputs: Any, **options: Any) -> Callable:
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        def inner(*args: Any, **kwargs: Any) -> Any:
            compiled = compile_fx_inner(*args, **kwargs)
            body = (getattr(compiled, "source_code", None) or "").partition("def call(")[2]
            launches = len(re.findall(r"^\s+(?:cpp_fused\w*\(|triton_\w+\.run\()", body, re.M))
            launches += len(re.findall(r"(?:extern_kernels|torch\.ops|aten)\.[\w.]+\(", body))
            if kwargs.get("is_backward"):
                self.backward += launches
            else:
                self.forward += launches
            return compiled

        with config.patch(force_disable_caches=True):
            return compile_fx(gm, inputs, inner_compile=inner)


def _cotangent(t: Tensor, k: int) -> Tensor:
    """Any vector will do that is the same for every element type: sines, no two alike."""
    return torch.sin(torch.arange(t.numel(), dtype=torch.float64, device=t.device) + (k + 1)).reshape(t.shape).to(t.dtype)


def _error(got: Tensor | None, want: Tensor | None) -> float | None:
    if want is None or got is None:
        return None if want is got else float("inf")
    if got.shape != want.shape:
        return float("inf")
    if got.numel() == 0:
        return 0.0
    if not (got.is_floating_point() and want.is_floating_point()):
        return 0.0 if torch.equal(got, want.to(got.dtype)) else float("inf")
    a, b = got.detach().double(), want.detach().double()
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(a[~finite].nan_to_num(1.0), b[~finite].nan_to_num(1.0)):
        return float("inf")
    difference = (a - b)[finite].abs()
    return (difference.max() / b[finite].abs().max().clamp_min(1e-30)).item() if difference.numel() else 0.0


def _mean_error(got: Tensor | None, want: Tensor | None) -> float:
    """The root mean square of the error, relative like _error's; infinite where that says nothing."""
    if got is None or want is None or got.shape != want.shape or not got.is_floating_point() or _error(got, want) == float("inf") or got.numel() == 0:
        return float("inf")
    finite = want.isfinite()
    a, b = got.detach().double()[finite], want.detach().double()[finite]
    return ((a - b) / b.abs().max().clamp_min(1e-30)).square().mean().sqrt().item() if b.numel() else 0.0


def _named(result: Any, gradients: list, wanted: dict[str, Tensor]) -> dict[str, Tensor | None]:
    named = {f"output{pytree.keystr(path)}": x for path, x in pytree.tree_flatten_with_path(result)[0] if isinstance(x, Tensor)}
    return named | dict(zip(wanted, gradients))


def compare(function: Callable, *args: Any, inductor: bool = False, check: bool = False, repeats: int | None = None, seconds: float = 2.0,
            tolerance: float | None = None, **kwargs: Any) -> Comparison:
    """Runs `function(*args, **kwargs)` in eager float64, eager, fused and (if asked) inductor, forward and backward, and compares.

    Gradients are those of all inputs and parameters that require one, for the same cotangents. Inputs are copied for each run, so writes
    into them are the variants' own.

    Args:
        function: a function or module, fused or not.
        inductor: also torch.compile's default backend.
        check: raise `Mismatch` when an output or gradient of the fused function is over tolerance.
        repeats: timed runs of each variant; by default as many as fit into `seconds`, 5 at least.
        tolerance: largest error relative to the largest value of the float64 result. By default, for each result, 4 times eager's own error
            or 16 roundings of its element type, whichever is more, unless the root mean square is within 4 times eager's; equality for bools
            and integers.

    Returns:
        a Comparison: print it, or look at `.ok`, `.variants`, `.to_json()`.
    """
    plain, door = original(function), door_of(function)
    options = dict(door.options) if door is not None else {"dynamic": None, "deterministic": False, "activation_memory_budget": 1.0, "static": False}
    is_module = isinstance(plain, torch.nn.Module)

    def case(wrap: Callable, dtype: torch.dtype | None = None) -> _Case:
        module = copied_module(plain)
        if dtype is not None and is_module:
            module = module.to(dtype)
        return _Case(wrap(module), module, args, kwargs, dtype)

    opened: list[Door] = []

    def fused(f: Any) -> Callable:
        opened.append(Door(f, **options))
        return opened[0].call

    cases = {"eager": case(lambda f: f), "fused": case(fused)}
    counted = _InductorCounts()
    if inductor:
        cases["inductor"] = case(lambda f: torch.compile(f, backend=counted))
    seed, variants, results, problems = 0, {}, {}, []
    with torch.random.fork_rng():
        try:
            exact_case = case(lambda f: f, torch.float64)
            inputs, wanted = exact_case.inputs()
            result, gradients, *_ = exact_case.run(inputs, wanted, seed)
            exact, note = _named(result, gradients, wanted), ""
        except Exception as error:  # code that insists on float32
            exact, note = None, f"no float64 reference: {str(error).splitlines()[0]}"
        for name, c in cases.items():
            inputs, wanted = c.inputs()
            before = torch.random.get_rng_state() if name == "eager" else None
            start = time.perf_counter()
            result, gradients, *_ = c.run(inputs, wanted, seed)
            v = variants[name] = Variant(name, first=time.perf_counter() - start)
            results[name] = _named(result, gradients, wanted)
            if before is not None:
                torch.manual_seed(seed)
                if exact is not None and not torch.equal(torch.random.get_rng_state(), _state_after(c, seed)):
                    exact, note = None, "draws random numbers, which differ in float64: errors are against eager"
        reference = dict(exact if exact is not None else results["eager"])
        reference |= {what: t for what, t in results["eager"].items() if t is not None and not t.is_floating_point()}
        allowed: dict[str, float] = {}
        for what, want in results["eager"].items():
            own = _error(want, reference.get(what))
            eps = torch.finfo(want.dtype).eps if want is not None and want.is_floating_point() else 0.0
            allowed[what] = tolerance if tolerance is not None else max(4 * (own or 0.0), 16 * eps)
            got = results["fused"].get(what)
            error = _error(got, reference.get(what))
            # A largest error is a matter of luck where roundings are magnified: it is over only if the mean one is, too.
            mean = _mean_error(got, reference.get(what))
            usual = tolerance is None and mean < float("inf") and mean <= max(4 * _mean_error(want, reference.get(what)), eps)
            if got is not None and want is not None and not (error <= allowed[what] or usual):
                problems.append(f"{what}: error {error:.2e}, over {allowed[what]:.2e}")
            if (got is None) != (want is None):
                problems.append(f"{what}: {'None' if got is None else 'a tensor'}, and eager's is {'None' if want is None else 'a tensor'}")
            elif got is not None and (got.dtype != want.dtype or got.shape != want.shape):
                problems.append(f"{what}: {got.dtype}{list(got.shape)}, and eager's is {want.dtype}{list(want.shape)}")
        if missing := set(results["eager"]) ^ set(results["fused"]):
            problems.append(f"results that only one of the two has: {', '.join(sorted(missing))}")
        for name, v in variants.items():
            v.errors = {what: _error(got, reference.get(what)) for what, got in results[name].items()}
        variants["eager"].launches, variants["eager"].bytes = _eager_counts(cases["eager"], seed)
        reports = [r.report() for r in opened[0].regions()]
        variants["fused"].launches = (sum(r["launches_forward"] + r["calls_forward"] for r in reports), sum(r["launches_backward"] + r["calls_backward"] for r in reports))
        variants["fused"].bytes = (sum(r["bytes_forward"] for r in reports), sum(r["bytes_backward"] for r in reports))
        reasons = [r["eager_reason"] for r in reports if r["eager_reason"]] + opened[0].reasons()
        if inductor:
            variants["inductor"].launches = (counted.forward, counted.backward)
        variants["fused"].note = f"partly eager: {reasons[0]}" if reasons else ""
        variants["eager"].note = note
        _time(cases, variants, repeats, seconds, seed)
    first = next((t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)), torch.empty(0))
    device = torch.cuda.get_device_name(first.device) if first.is_cuda else "CPU"
    found = Comparison(list(variants.values()), allowed, problems, torch.get_num_threads(), device)
    if check and not found.ok:
        raise Mismatch(found)
    return found


def _state_after(c: _Case, seed: int) -> Tensor:
    inputs, wanted = c.inputs()
    c.run(inputs, wanted, seed)
    return torch.random.get_rng_state()


def _eager_counts(c: _Case, seed: int) -> tuple[tuple[int, int], tuple[int, int]]:
    inputs, wanted = c.inputs()
    torch.manual_seed(seed)
    with _Counter() as forward:
        used = floats(c.call(*inputs[0], **inputs[1]))
    with _Counter() as backward:
        if used and wanted:
            torch.autograd.grad(used, list(wanted.values()), [_cotangent(t, k) for k, t in enumerate(used)], allow_unused=True)
    return (forward.ops, backward.ops), (forward.bytes, backward.bytes)


def _time(cases: dict[str, _Case], variants: dict[str, Variant], repeats: int | None, seconds: float, seed: int) -> None:
    """In turns, so that a noisy machine is noisy for all."""
    begin = time.perf_counter()
    turn = 0
    while turn < (repeats or 5) or (repeats is None and time.perf_counter() - begin < seconds and turn < 1000):
        for name, c in cases.items():
            inputs, wanted = c.inputs()
            *_, forward, both = c.run(inputs, wanted, seed)
            if turn or repeats == 1:  # the first warms up
                variants[name].forward.append(forward)
                variants[name].both.append(both)
        turn += 1
