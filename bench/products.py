"""Products of float32 matrices as a fused region makes them, beside eager's, on the CPU: which library is taken, and what that gains.

Law: eager and fused in turns, one thread, medians of CPU time; every result within float32 rounding of float64's. Exit status 1 if one isn't.
"""

import argparse
import json
import os
import pathlib
import sys
import time

# Memory stays with the process instead of going back at every free: no way pays for page faults anew in each run. glibc reads this at its start.
ALLOCATOR = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}
if any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "frontends" / "python"))

import torch

import heddle
from measure import ROOT, cpu_facts, median, text_table

# (batch, M, K, N), with the right matrix as a linear layer has it: layers of DynIBaR's view aggregation and HexPlane's colour at the sizes of a
# step, their weights' gradients, attention along a ray, and small ones.
SHAPES = [(0, 65536, 210, 256), (0, 65536, 256, 128), (0, 65536, 128, 128), (0, 65536, 128, 1), (0, 8192, 256, 256), (0, 256, 8192, 256), (0, 30379, 150, 128),
          (0, 128, 30379, 150), (0, 30379, 128, 3), (256, 128, 32, 128), (256, 128, 128, 32), (65536, 3, 3, 3), (0, 256, 64, 64), (0, 64, 64, 64), (0, 16, 16, 16)]


def timed(f, seconds: float) -> float:
    begin = time.process_time()
    n = 0
    while n == 0 or time.process_time() - begin < seconds:
        f()
        n += 1
    return (time.process_time() - begin) / n


def row(batch: int, m: int, k: int, n: int, turns: int) -> dict:
    lead = (batch,) if batch else ()
    a, b = torch.randn(*lead, m, k), torch.randn(*lead, n, k)
    torch._dynamo.reset()  # each shape is a function of its own
    fused = heddle.fuse(lambda a, b: a @ b.transpose(-1, -2))
    with torch.no_grad():
        exact = a.double() @ b.double().transpose(-1, -2)
        bound = (a.double().abs() @ b.double().abs().transpose(-1, -2)) * (k + 2) * 6e-8
        error = float(((fused(a, b).double() - exact).abs() / bound).max())
        ways = {"eager": lambda: a @ b.transpose(-1, -2), "fused": lambda: fused(a, b)}
        times = {w: [] for w in ways}
        for _ in range(turns):
            for w, f in ways.items():
                times[w].append(timed(f, 0.005))
    us = {w: median(t) * 1e6 for w, t in times.items()}
    flops = 2 * max(1, batch) * m * k * n
    return {"batch": batch, "m": m, "k": k, "n": n, "eager_us": us["eager"], "fused_us": us["fused"], "gflops_eager": flops / us["eager"] / 1e3,
            "gflops_fused": flops / us["fused"] / 1e3, "ratio": us["eager"] / us["fused"], "error_of_bound": error}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "bench" / "results" / "products-cpu-1.json")
    o = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    rows = [row(*s, o.turns) for s in SHAPES]
    print(text_table(["product", "eager us", "fused us", "GFLOP/s eager", "fused", "times", "error of its bound"],
                     [[(f"{r['batch']} x " if r["batch"] else "") + f"[{r['m']}, {r['k']}] x [{r['k']}, {r['n']}]", f"{r['eager_us']:.1f}", f"{r['fused_us']:.1f}",
                       f"{r['gflops_eager']:.0f}", f"{r['gflops_fused']:.0f}", f"{r['ratio']:.2f}", f"{r['error_of_bound']:.2f}"] for r in rows]))
    o.json.parent.mkdir(parents=True, exist_ok=True)
    o.json.write_text(json.dumps({"machine": cpu_facts(), "torch": torch.__version__, "threads": 1, "time": "cpu_us", "products": rows}, indent=1) + "\n")
    return 0 if all(r["error_of_bound"] <= 1 for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
