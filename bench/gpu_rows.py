"""The process that measures for bench/gpu: rows in order, each eager, heddle and inductor in turns, one line of JSON a row.

Law: a row is timed only after outputs and gradients of each column were compared with eager in float64 on the same device; what fails is a
row that says so. After an error of the device the process ends with status 3, since nothing measured later in it could be trusted.

On the CPU (a dry run) the same code goes with perf_counter in place of events, at tiny sizes.
"""

import argparse
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

import heddle
from gpu_cases import DETERMINISTIC, ROWS, Case, Run
from heddle._fuse import door_of
from measure import ROUNDING, TOLERANCE, median, safe

WARM, LEAST = 5, 50
COLUMNS = ("eager", "heddle", "graph", "thesis", "compile")
NO_COMPILE = {"dynibar_iteration": "it would take the budget of all rows"}
O: argparse.Namespace


def synchronize() -> None:
    if Run.device.type == "cuda":
        torch.cuda.synchronize()


# ---- one row
def relative_error(got: Tensor | None, want: Tensor | None, largest: float) -> float:
    if got is None or want is None:
        return 0.0 if got is want else math.inf
    if got.shape != want.shape or not got.isfinite().all():
        return math.inf
    off, scale = (got.double() - want.double()).norm().item(), want.double().norm().item()
    scale = largest if scale < ROUNDING * largest else scale
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
    if Run.device.type != "cuda":
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
    least, warm = (3, 1) if Run.dry else (LEAST, WARM)
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
        times = 3 if Run.dry else 20
        case.before()
        synchronize()
        start = time.perf_counter()
        for k in range(times):
            getattr(case, what)(k % case.sets)
        synchronize()
        batch, (events, walls) = time.perf_counter() - start, zip(*samples[name])
        found[name] = {"event_ms": median(events) * 1e3, "event_min_ms": min(events) * 1e3, "wall_ms": median(walls) * 1e3, "batch_ms": batch / times * 1e3,
                       "runs": len(events)}
    return found


def counted(case: Case) -> dict:
    """Kernels, copies and waits of one run, by PyTorch's profiler; the most memory it held above what was there."""
    if Run.device.type != "cuda":
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
    make, deterministic = ROWS[name], name.endswith(DETERMINISTIC)
    row: dict = {"row": name, "columns": {}}
    exact_case = make("exact", lambda f: f, torch.float64)
    exact = {k: None if v is None else v.detach() for k, v in exact_case.results().items()}
    del exact_case
    largest = max((t.double().norm().item() for t in exact.values() if t is not None), default=0.0)
    cases: dict[str, Case] = {}
    own: dict[str, float] = {}
    for column in COLUMNS:
        if column == "graph" and not name.startswith("iteration") or column == "thesis" and not name.startswith("trajectory"):
            continue
        if column == "compile" and (O.compile_seconds <= 0 or name in O.no_compile or name in NO_COMPILE or deterministic):
            why = "it isn't deterministic" if deterministic else NO_COMPILE[name] if name in NO_COMPILE else "the budget for compilers is spent" if O.compile_seconds <= 0 else "it took too long before"
            row["columns"][column] = {"ok": False, "skipped": why}
            continue
        opened: list = []

        def wrap(f: Callable) -> Callable:
            if column == "heddle":
                opened.append(heddle.fuse(f, static=name.startswith("iteration"), deterministic=deterministic))
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
            errors = {k: relative_error(got.get(k), want, largest) for k, want in exact.items()}
            if column == "eager":
                own = errors
            allowed = {k: max(TOLERANCE, 4 * own[k] if math.isfinite(own.get(k, math.inf)) else 0.0) for k in errors}
            over = [k for k, e in errors.items() if not e <= allowed[k]]
            found |= {"worst_error": max(errors.values(), default=0.0), "ok": not over and set(got) == set(exact)}
            if over:
                found["note"] = f"off: {', '.join(f'{k} by {errors[k]:.1e}' for k in over[:3])}"
            for f in opened:
                door = door_of(f)
                reasons = [r for region in door.regions() if (r := region.report()["eager_reason"])] + door.reasons()
                reports = [r.report() for r in door.regions()]
                found |= {"launches": [sum(r[f"launches_{d}"] + r[f"calls_{d}"] for r in reports) for d in ("forward", "backward")],
                          "plan_mb": sum(r["bytes_forward"] + r["bytes_backward"] for r in reports) / 1e6,
                          "compile_s": sum(r["compile_seconds"] for r in reports)}
                if reasons:
                    found |= {"ok": False, "note": f"runs eagerly: {safe(reasons[0])}"}
            if deterministic and column == "heddle":
                again = [case.results() for _ in range(5)]
                found["same_bits"] = all((a is None) == (got[k] is None) and (a is None or torch.equal(a, got[k])) for one in again for k, a in one.items())
                if not found["same_bits"]:
                    found |= {"ok": False, "note": "bits differ from run to run"}
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
    Run.device, Run.dry = torch.device(O.device), O.dry
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
        except (Exception, Late) as error:
            row = {"row": name, "columns": {}, "note": f"{type(error).__name__}: {safe(str(error))}", "device_error": is_device_error(error)}
        say(row)
        if row.get("device_error"):
            return 3
        if O.device == "cuda":
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
