"""How long training stands still when HexPlane's planes grow: from a new size to the end of its first step, and what that time goes to.

Law: each size has an optimiser and a `heddle.TrainStep` of its own, as after an upsampling; the first size starts with nothing compiled (the disk
cache is off). `--before FILE` puts the numbers of an earlier build, which this script wrote, beside these. Exit status 1 if a step runs eagerly or
its loss isn't finite.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import time

os.environ["HEDDLE_CACHE"] = "0"
sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "frontends" / "python"))

import torch
import torch.nn.functional as F
from torch import nn

import heddle
import hexplane
from measure import ROOT, cpu_facts, median, text_table


def grow(model: hexplane.HexPlane, scale: hexplane.Scale) -> None:
    """As the reference does: planes are resampled and become new parameters."""
    for name in hexplane.PLANES:
        width = scale.grid if name.endswith("plane") else scale.time
        for i in range(3):
            plane = getattr(model, f"{name}_{i}").detach()
            setattr(model, f"{name}_{i}", nn.Parameter(F.interpolate(plane, (scale.grid, width), mode="bilinear", align_corners=True)))
    model.scale = scale


def measured(rays: int, sizes: list[tuple[int, int]], steps: int) -> list[dict]:
    rows, model = [], None
    for grid, moments in sizes:
        scale = hexplane.Scale(rays, grid, moments)
        if model is None:
            model = hexplane.HexPlane(scale).thicken()
        else:
            grow(model, scale)
        step = heddle.TrainStep(model, hexplane.adam(model))
        times, cpu = [], []
        for i in range(1 + steps):
            inputs = hexplane.step_inputs(scale, i)
            start, before = time.perf_counter(), time.process_time()
            loss = step(*inputs)[0].item()
            times.append(time.perf_counter() - start)
            cpu.append(time.process_time() - before)
        report = step.report()
        if report["eager_reason"] or not math.isfinite(loss):
            raise SystemExit(f"grid {grid}: {report['eager_reason'] or f'the loss is {loss}'}")
        rows.append({"grid": grid, "time": moments, "samples": scale.samples, "first_step_s": times[0], "step_s": median(times[1:]), "fastest_step_s": min(times[1:]),
                     "first_step_cpu_s": cpu[0], "step_cpu_s": median(cpu[1:]),
                     **{k: report.get(k) for k in ("captures", "compiles", "capture_seconds", "plan_seconds", "launches")}})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, default=4096)
    parser.add_argument("--sizes", default="64x16,96x18,128x21", help="grid x moments, in order")
    parser.add_argument("--steps", type=int, default=3, help="after the first at each size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--before", type=pathlib.Path, help="JSON of an earlier build")
    parser.add_argument("--json", type=pathlib.Path, help="write here; default: only print")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes = [tuple(int(n) for n in s.split("x")) for s in args.sizes.split(",")]
    result = {"machine": cpu_facts(), "torch": torch.__version__, "threads": args.threads, "rays": args.rays, "rows": measured(args.rays, sizes, args.steps)}
    before = json.loads(args.before.read_text())["rows"] if args.before else []
    if before:
        result["before"] = before
    header = ["planes", "samples", "until the first step is done", "of CPU", "captures", "compiles", "capture", "plan and compile", "a step"]
    header += ["before", "of CPU"] if before else []
    table = [[f"{r['grid']}^2, {r['grid']} x {r['time']}", str(r["samples"]), f"{r['first_step_s']:.2f} s", f"{r['first_step_cpu_s']:.2f} s", str(r["captures"]), str(r["compiles"]),
              f"{r['capture_seconds'] or 0:.2f} s", f"{r['plan_seconds'] or 0:.2f} s", f"{r['step_s']:.3f} s"] + ([f"{b['first_step_s']:.2f} s", f"{b['first_step_cpu_s']:.2f} s"] if before else [])
             for r, b in zip(result["rows"], before or result["rows"])]
    print(text_table(header, table))
    if args.json:
        (ROOT / args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
