"""What a mask's density does to time where rows are looked up: heddle's two schedules, rows found and all places, and eager.

Law: the same function of the same points, thread CPU time, the ways in turns within one run; values and gradients are checked against eager in
float64 at every density. A schedule is chosen by the first call's mask: one that selects a tenth, or all.

    PYTHONPATH=frontends/python .venv/bin/python bench/masks.py --json bench/results/masks.json
"""

import argparse
import json
import pathlib
import time

import hexplane
import torch
from measure import check, cpu_facts, median, text_table

import heddle

DENSITIES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.03, 0.01)
RAYS, SAMPLES = 1024, 96


def tables(dtype: torch.dtype = torch.float32) -> list[list[torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    shapes = [(1, 24, 64, 64)] * 3, [(1, 24, 64, 16)] * 3, [(24, 1)] * 3
    return [[(float(k == 2) + 0.1 * torch.randn(s, generator=g)).to(dtype).requires_grad_() for s in of] for k, of in enumerate(shapes)]


def rows(xyz, t, m, given):
    out = torch.zeros(xyz.shape[0], dtype=xyz.dtype)
    out[m] = hexplane.density_feature(xyz[m], t[m], *given)
    return out


def differentiated(function, given, *inputs):
    leaves = [t for of in given for t in of]

    def run():
        out = function(*inputs, given)
        return [out, *torch.autograd.grad((out * out).sum(), leaves)]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers")
    parser.add_argument("--rounds", type=int, default=9)
    o = parser.parse_args()
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    step = torch.randn(RAYS, 1, 3, generator=g)
    step *= 0.012 / step.norm(dim=-1, keepdim=True)
    xyz = ((torch.rand(RAYS, 1, 3, generator=g) * 1.6 - 0.8) + step * torch.arange(SAMPLES)[None, :, None]).clamp(-1, 1).reshape(-1, 3)
    t = (torch.rand(RAYS, 1, generator=g) * 2 - 1).expand(RAYS, SAMPLES).reshape(-1, 1).contiguous()
    found_rows, all_places = heddle.fuse(rows, static=True), heddle.fuse(rows, static=True)
    single, exact = tables(), tables(torch.float64)
    differentiated(found_rows, single, xyz, t, torch.rand(xyz.shape[0], generator=g) < 0.1)()
    differentiated(all_places, single, xyz, t, torch.ones(xyz.shape[0], dtype=torch.bool))()
    found = []
    for density in DENSITIES:
        m = torch.rand(xyz.shape[0], generator=g) < density
        ways = {"compacted": differentiated(found_rows, single, xyz, t, m), "dense": differentiated(all_places, single, xyz, t, m), "eager": differentiated(rows, single, xyz, t, m)}
        named = lambda out: {str(k): x.detach().numpy() for k, x in enumerate(out)}  # noqa: E731
        want, own = named(differentiated(rows, exact, xyz.double(), t.double(), m)()), named(ways["eager"]())
        for name in ("compacted", "dense"):
            errors, wrong = check(named(ways[name]()), want, own)
            assert not wrong, (name, density, wrong)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for k in range(o.rounds):
            for name, run in ways.items():
                if name == "eager" and k > 2:
                    continue
                start = time.thread_time()
                run()
                times[name].append(1e3 * (time.thread_time() - start))
        found.append({"density": density, "rows": int(m.sum()), **{name: median(t) for name, t in times.items()}})
        print(f"{density}: {found[-1]}", flush=True)
    print(text_table(["density", "eager", "dense", "compacted"], [[f"{r['density']:.2f}", *(f"{r[k]:.2f}" for k in ("eager", "dense", "compacted"))] for r in found]))
    if o.json:
        what = f"density feature, forward and backward, {RAYS * SAMPLES} points of which a mask selects some; thread CPU time, ms, medians"
        o.json.write_text(json.dumps({"machine": cpu_facts(), "threads": 1, "what": what, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
