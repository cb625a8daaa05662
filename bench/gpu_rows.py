"""The process that measures for bench/gpu: rows in order, each eager, heddle and inductor in turns, one line of JSON a row.

Law: a row is timed only after outputs and gradients of each column were compared with eager in float64 on the same device; what fails is a
row that says so. After an error of the device the process ends with status 3, since nothing measured later in it could be trusted.

On the CPU (a dry run) the same code goes with perf_counter in place of events, at tiny sizes.
"""

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable

os.environ.setdefault("HEDDLE_CACHE", "0")

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import blocks
import heddle
import hexplane
from heddle._fuse import door_of
from measure import TOLERANCE, median, safe

WARM, LEAST = 5, 50
COLUMNS = ("eager", "heddle", "compile")
O: argparse.Namespace


def device() -> torch.device:
    return torch.device(O.device)


def synchronize() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


class Case:
    """What a row measures, in one element type: `make(wrap)` gives `both` and `forward`, to be called with the number of the input set."""

    sets = 1
    forward: Callable[[int], object] | None = None
    before: Callable[[], None] = staticmethod(lambda: None)

    def results(self) -> dict[str, Tensor | None]:
        raise NotImplementedError


class Differentiated(Case):
    """A function of tensors, forward and backward. Inputs are copied until the sets don't fit into the L2 cache together."""

    def __init__(self, function: Callable, inputs: tuple[Tensor, ...], wrap: Callable, dtype: torch.dtype, wanted: bool = True) -> None:
        self.function = wrap(function)
        size = sum(t.numel() * t.element_size() for t in inputs)
        self.sets = 1 if device().type == "cpu" or dtype == torch.float64 else max(1, min(8, math.ceil(160e6 / max(size, 1))))
        to = [t.detach().to(device(), dtype if t.is_floating_point() else t.dtype) for t in inputs]
        self.inputs = [[t.clone().requires_grad_(given.requires_grad and wanted) for t, given in zip(to, inputs)] for _ in range(self.sets)]
        self.leaves = [[t for t in one if t.requires_grad] for one in self.inputs]
        self.seeds: list[Tensor] | None = None

    def roots(self, out: object) -> list[Tensor]:
        found = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor) and t.requires_grad]
        if self.seeds is None:
            g = torch.Generator().manual_seed(7)
            self.seeds = [torch.randn(t.shape, generator=g).to(t.device, t.dtype) if t.dim() else torch.ones_like(t) for t in found]
        return found

    def forward(self, k: int) -> object:
        return self.function(*self.inputs[k])

    def both(self, k: int) -> tuple:
        out = self.function(*self.inputs[k])
        roots = self.roots(out)
        return out, torch.autograd.grad(roots, self.leaves[k], self.seeds, allow_unused=True) if roots else ()

    def results(self) -> dict[str, Tensor | None]:
        out, gradients = self.both(0)
        named = {f"output {k}": t for k, t in enumerate(x for x in pytree.tree_leaves(out) if isinstance(x, Tensor))}
        return {k: v.detach() for k, v in named.items()} | {f"d {k}": g for k, g in enumerate(gradients)}


class Adam(Case):
    """A step of the optimiser over a model's 22 tensors. Eager and inductor: PyTorch's; heddle: plain tensor maths, fused."""

    rates = {"rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}

    def __init__(self, scale: hexplane.Scale, wrap: Callable, column: str, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(3)
        model = hexplane.HexPlane(scale)
        self.parameters = [p.detach().to(device(), dtype).clone() for p in model.parameters()]
        self.gradients = [torch.randn(p.shape, generator=g).to(device(), dtype) for p in self.parameters]
        self.steps, self.moments = 0, None
        if column in ("heddle", "exact"):
            # heddle.TrainStep goes here once it's there.
            self.moments = [[torch.zeros_like(p) for p in self.parameters] for _ in range(2)]
            step = torch.no_grad()(wrap(self.plain))

            def run(_: int) -> None:
                self.steps += 1
                r = self.rates
                size, root = r["rate"] / (1 - r["beta1"] ** self.steps), (1 - r["beta2"] ** self.steps) ** 0.5
                step(self.parameters, *self.moments, self.gradients, torch.full((), size, dtype=dtype, device=device()), torch.full((), root, dtype=dtype, device=device()))
        else:
            for p, grad in zip(self.parameters, self.gradients):
                p.requires_grad_().grad = grad
            self.optimiser = torch.optim.Adam(self.parameters, lr=self.rates["rate"], fused=column == "eager", capturable=column == "compile" and device().type == "cuda")
            step = torch.compile(self.optimiser.step) if column == "compile" else self.optimiser.step

            def run(_: int) -> None:
                step()

        self.both = run

    @classmethod
    def plain(cls, parameters: list, first: list, second: list, gradients: list, size: Tensor, root: Tensor) -> None:
        r = cls.rates
        for p, m, v, g in zip(parameters, first, second, gradients):
            m.copy_(r["beta1"] * m + (1 - r["beta1"]) * g)
            v.copy_(r["beta2"] * v + (1 - r["beta2"]) * g * g)
            p.copy_(p - size * m / (torch.sqrt(v) / root + r["epsilon"]))

    def results(self) -> dict[str, Tensor | None]:
        for _ in range(3):
            self.both(0)
        moments = self.moments or [[self.optimiser.state[p][key] for p in self.parameters] for key in ("exp_avg", "exp_avg_sq")]
        return {f"{kind} {k}": t.detach().clone() for kind, all_ in zip(("parameter", "first", "second"), (self.parameters, *moments)) for k, t in enumerate(all_)}


class Iteration(Case):
    """Render, loss, backward, Adam; parameters are put back before each, so that all do the same work."""

    def __init__(self, scale: hexplane.Scale, thick: bool, wrap: Callable, dtype: torch.dtype) -> None:
        model = hexplane.HexPlane(scale).fill()
        self.model = (model.thicken() if thick else model).to(device(), dtype)
        self.inputs = [t.to(device(), dtype) for t in hexplane.step_inputs(scale)]
        self.loss = wrap(self.model)
        self.optimiser = hexplane.adam(self.model, fused=True)
        self.start = [p.detach().clone() for p in self.model.parameters()]

    def before(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list(self.model.parameters()), self.start)

    def forward(self, _: int) -> object:
        return self.loss(*self.inputs)

    def both(self, _: int) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(*self.inputs)[0].backward()
        self.optimiser.step()

    def results(self) -> dict[str, Tensor | None]:
        out = self.loss(*self.inputs)
        gradients = torch.autograd.grad(out[0], list(self.model.parameters()), allow_unused=True)
        return {f"output {k}": t.detach() for k, t in enumerate(out)} | {f"d {name}": g for (name, _), g in zip(self.model.named_parameters(), gradients)}


# ---- the rows
def scale_of(name: str) -> hexplane.Scale:
    s = hexplane.SCALES[name]
    return dataclasses.replace(hexplane.SCALES["tiny"], filled=s.filled) if O.dry else s


def few(n: int) -> int:
    return max(32, n // 2000) if O.dry else n


def density(random: bool) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        model = hexplane.HexPlane(scale_of("first"))
        xyz, t = hexplane.points_on_rays(model, hexplane.step_inputs(model.scale))
        g, m = torch.Generator().manual_seed(5), min(len(xyz), 642_000)
        xyz, t = (torch.rand(m, 3, generator=g) * 2 - 1, torch.rand(m, 1, generator=g) * 2 - 1) if random else (xyz[:m], t[:m])
        return Differentiated(blocks.density_feature, (xyz, t, *model.three("density_plane"), *model.three("density_line_time"), *model.three("density_basis_mat")), wrap, dtype)

    return make


def volume(samples: int) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        g, rays, n = torch.Generator().manual_seed(6), few(4096), 21 if O.dry else samples
        sigma = torch.nn.functional.softplus(torch.randn(rays, n, generator=g) * 3 - 2).requires_grad_()
        rgb, target = torch.rand(rays, n, 3, generator=g).requires_grad_(), torch.rand(rays, 3, generator=g)

        def volume_rendering(sigma: Tensor, dist: Tensor, rgb: Tensor, target: Tensor) -> Tensor:
            return (hexplane.volume_rendering(sigma, dist, rgb) - target).pow(2).mean()

        return Differentiated(volume_rendering, (sigma, torch.full((1, n), 4.0 / n), rgb, target), wrap, dtype)

    return make


def losses(name: str) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        model = hexplane.HexPlane(scale_of(name))
        g = torch.Generator().manual_seed(8)
        picture, rgb = torch.rand(model.scale.rays, 3, generator=g).requires_grad_(), torch.rand(model.scale.rays, 3, generator=g)

        def loss_block(picture: Tensor, rgb: Tensor, weight: Tensor, *planes: Tensor) -> Tensor:
            three = [list(planes[k:k + 3]) for k in range(0, 12, 3)]
            return (picture - rgb).pow(2).mean() + hexplane.planes_variation(three[0], three[1]) * weight + hexplane.planes_variation(three[2], three[3]) * weight

        return Differentiated(loss_block, (picture, rgb, torch.tensor(hexplane.TV_WEIGHT), *model.planes()), wrap, dtype)

    return make


def trajectory(points: int) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        g = torch.Generator().manual_seed(9)
        coefficients, basis = torch.randn(few(points // 128), 128, 18, generator=g).requires_grad_(), torch.randn(12, 6, generator=g).requires_grad_()

        def moved(coefficients: Tensor, basis: Tensor) -> dict:
            return blocks.trajectory(coefficients, basis, 5)

        return Differentiated(moved, (coefficients, basis), wrap, dtype)

    return make


def of_block(block: blocks.Block) -> Callable:
    return lambda column, wrap, dtype: Differentiated(block.function, block.inputs(0.02 if O.dry else 1.0), wrap, dtype)


ROWS: dict[str, Callable[[str, Callable, torch.dtype], Case]] = {
    "density_on_rays": density(False),
    "volume_rendering_221": volume(221),
    "iteration_first": lambda column, wrap, dtype: Iteration(scale_of("first"), False, wrap, dtype),
    "loss_first": losses("first"),
    "adam_first": lambda column, wrap, dtype: Adam(scale_of("first"), wrap, column, dtype),
    "density_random": density(True),
    "iteration_late": lambda column, wrap, dtype: Iteration(scale_of("late"), True, wrap, dtype),
    "loss_late": losses("late"),
    "adam_late": lambda column, wrap, dtype: Adam(scale_of("late"), wrap, column, dtype),
    "volume_rendering_689": volume(689),
    "trajectory_65k": trajectory(65_536),
    "trajectory_197k": trajectory(196_608),
    **{f"block_{b.name}": of_block(b) for b in blocks.BLOCKS},
}


# ---- one row
def relative_error(got: Tensor | None, want: Tensor | None) -> float:
    if got is None or want is None:
        return 0.0 if got is want else math.inf
    if got.shape != want.shape or not got.isfinite().all():
        return math.inf
    off, scale = (got.double() - want.double()).norm().item(), want.double().norm().item()
    return 0.0 if off == 0 else off / scale if scale > 0 else math.inf


class Late(BaseException):
    """A compiler's time is spent. No Exception, so that it passes through whatever the compiler catches."""


def within(seconds: float, f: Callable) -> object:
    def ring(*_: object) -> None:
        raise Late(f"not compiled within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return f()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def sample(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by events and by the wall, from an idle device to an idle device."""
    synchronize()
    if device().type != "cuda":
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start,) * 2
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start = time.perf_counter()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3, time.perf_counter() - start


def timed(cases: dict[str, Case], what: str, seconds: float) -> dict[str, dict]:
    """In turns; then, `batch`, many in a row with one wait at the end: what a step costs when the host can run ahead."""
    least, warm = (3, 1) if O.dry else (LEAST, WARM)
    samples: dict[str, list] = {name: [] for name in cases}
    begin, turn = time.perf_counter(), 0
    while turn < warm + least and not (turn >= warm + 10 and time.perf_counter() - begin > seconds):
        for name, case in cases.items():
            case.before()
            pair = sample(lambda: getattr(case, what)(turn % case.sets))
            if turn >= warm:
                samples[name].append(pair)
        turn += 1
    found = {}
    for name, case in cases.items():
        times = 3 if O.dry else 20
        case.before()
        synchronize()
        start = time.perf_counter()
        for k in range(times):
            getattr(case, what)(k % case.sets)
        synchronize()
        found[name] = {"event_ms": median([e for e, _ in samples[name]]) * 1e3, "event_min_ms": min(e for e, _ in samples[name]) * 1e3,
                       "wall_ms": median([w for _, w in samples[name]]) * 1e3, "batch_ms": (time.perf_counter() - start) / times * 1e3, "runs": len(samples[name])}
    return found


def counted(case: Case) -> dict:
    """Kernels, copies and waits of one run, by PyTorch's profiler; the most memory it held above what was there."""
    if device().type != "cuda":
        return {}
    found: dict = {}
    case.before()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    case.both(0)
    torch.cuda.synchronize()
    found["peak_mb"] = (torch.cuda.max_memory_allocated() - held) / 1e6

    def profiled(run: Callable[[], object]) -> dict:
        case.before()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]) as p:
            run()
            torch.cuda.synchronize()
        events = p.events()
        on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
        return {"kernels": sum(not e.name.startswith(("Memcpy", "Memset")) for e in on_device), "clears": sum(e.name.startswith("Memset") for e in on_device),
                "copies_to_host": sum("DtoH" in e.name for e in on_device), "busy_ms": sum(e.device_time_total for e in on_device) / 1e3,
                "waits": sum(e.name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize") for e in events)}

    once, nothing = profiled(lambda: case.both(0)), profiled(lambda: None)
    return found | {key: max(0, once[key] - nothing[key]) for key in once}


def is_device_error(error: BaseException) -> bool:
    return "CUDA error" in str(error) or "an illegal memory access" in str(error) or type(error).__name__ == "AcceleratorError"


def measure(name: str) -> dict:
    make = ROWS[name]
    row: dict = {"row": name, "columns": {}}
    exact_case = make("exact", lambda f: f, torch.float64)
    exact = {k: None if v is None else v.detach() for k, v in exact_case.results().items()}
    del exact_case
    cases: dict[str, Case] = {}
    own: dict[str, float] = {}
    for column in COLUMNS:
        if column == "compile" and (O.compile_seconds <= 0 or name in O.no_compile):
            row["columns"][column] = {"ok": False, "skipped": "the budget for compilers is spent" if O.compile_seconds <= 0 else "it took too long before"}
            continue
        opened: list = []

        def wrap(f: Callable) -> Callable:
            if column == "heddle":
                opened.append(heddle.fuse(f, static=name.startswith("iteration")))
                return opened[0]
            return torch.compile(f) if column == "compile" else f

        found = row["columns"][column] = {"ok": False}
        start = time.perf_counter()
        try:
            def first() -> tuple[Case, dict]:
                case = make(column, wrap, torch.float32)
                results = case.results()
                case.before()
                case.both(0)
                synchronize()
                return case, results

            case, got = within(min(O.compile_seconds, O.compile_row), first) if column == "compile" else first()
            found["first_s"] = time.perf_counter() - start
            errors = {k: relative_error(got.get(k), want) for k, want in exact.items()}
            if column == "eager":
                own = errors
            over = [k for k, e in errors.items() if not e <= max(TOLERANCE, 4 * own.get(k, 0.0) if math.isfinite(own.get(k, 0.0)) else 0.0)]
            found |= {"worst_error": max(errors.values(), default=0.0), "ok": not over and set(got) == set(exact)}
            if over:
                found["note"] = f"off: {', '.join(f'{k} by {errors[k]:.1e}' for k in over[:3])}"
            for f in opened:
                door = door_of(f)
                reasons = [r for region in door.regions() if (r := region.report()["eager_reason"])] + door.reasons()
                reports = [r.report() for r in door.regions()]
                found |= {"launches": [sum(r[f"launches_{d}"] + r[f"calls_{d}"] for r in reports) for d in ("forward", "backward")],
                          "plan_mb": sum(r["bytes_forward"] + r["bytes_backward"] for r in reports) / 1e6, "compile_s": sum(r["compile_seconds"] for r in reports)}
                if reasons:
                    found |= {"ok": False, "note": f"runs eagerly: {safe(reasons[0])}"}
            if found["ok"]:
                cases[column] = case
        except Late as late:
            found["skipped"] = str(late)
        except Exception as error:
            found["note"] = f"{type(error).__name__}: {safe(str(error))}"
            if is_device_error(error):
                row["device_error"] = True
                return row
        finally:
            if column == "compile":
                O.compile_seconds -= time.perf_counter() - start
    for what in ("both", "forward"):
        if cases and all(getattr(c, what, None) is not None for c in cases.values()):
            for column, times in timed(cases, what, O.row_seconds).items():
                row["columns"][column] |= {f"{what}_{k}": v for k, v in times.items()}
    for column, case in cases.items():
        try:
            row["columns"][column] |= counted(case)
        except Exception as error:
            row["columns"][column]["not_counted"] = safe(str(error))
            if is_device_error(error):
                row["device_error"] = True
                return row
    return row


def main() -> int:
    global O
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--no-compile", nargs="*", default=[], help="rows for which inductor isn't asked")
    parser.add_argument("--compile-seconds", type=float, default=150.0)
    parser.add_argument("--compile-row", type=float, default=45.0)
    parser.add_argument("--row-seconds", type=float, default=8.0)
    parser.add_argument("--list", action="store_true")
    O = parser.parse_args()
    if O.list:
        print("\n".join(ROWS))
        return 0
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what: dict) -> None:
        replies.write(json.dumps(what) + "\n")
        replies.flush()

    say({"facts": {"torch": torch.__version__, "device": torch.cuda.get_device_name() if O.device == "cuda" else "CPU", "threads": torch.get_num_threads(),
                   "tf32": torch.backends.cuda.matmul.allow_tf32, "cudnn_tf32": torch.backends.cudnn.allow_tf32}})
    for name in O.rows:
        say({"start": name, "compile_seconds": O.compile_seconds})
        torch._dynamo.reset()
        try:
            row = measure(name)
        except Exception as error:
            row = {"row": name, "columns": {}, "note": f"{type(error).__name__}: {safe(str(error))}", "device_error": is_device_error(error)}
        say(row)
        if row.get("device_error"):
            return 3
        if O.device == "cuda":
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
