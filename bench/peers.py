"""HexPlane's blocks, or DynIBaR's, side by side with peers on the CPU: eager, inductor, heddle, a hand-written loop, JAX, Dr.Jit.

Law: every column is a process of its own, pinned to the same cores with the same allocator settings; they run in turns, one at a time, within
one run. A time is shown only if all outputs and gradients of that column, in that run, are within tolerance of eager PyTorch in float64.

    bench/peers.py                                # one thread: medians of the processes' CPU time
    bench/peers.py --threads 2 --with-peers       # wall time; makes a virtual environment for JAX and Dr.Jit first
    bench/peers.py --model dynibar                # DynIBaR's parts and step at the thesis's batch: eager, inductor (of parts alone), heddle
"""

import argparse
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent / "peers")]
from measure import ROOT, TOLERANCE, check, cpu_facts, median, safe, text_table
from work import BLOCKS, DYNIBAR

PEERS = ROOT / "out" / "peers-venv"
TORCH = ("eager", "compile", "heddle", "deterministic", "fused", "exact")
COLUMNS = (*TORCH[:5], "hand", "jax", "drjit")
# glibc: memory stays with the process instead of going back at every free, so that no column pays for page faults anew in each run.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}
PARTS = [b for b in BLOCKS if b != "iteration"]
MODELS = {"hexplane": BLOCKS, "dynibar": DYNIBAR}
WHAT = {**BLOCKS, **DYNIBAR}
ONLY = {"fused": ["adam"], "deterministic": ["density_feature"], "compile": [*BLOCKS, *(b for b in DYNIBAR if b != "dynibar_iteration")], "hand": PARTS, "jax": PARTS,
        "drjit": ["trajectory", "loss_chain", "positional_encoding", "adam"]}
LIMIT_S = {"prepare": 900, "go": 400}

# (name, block, against, at least times as fast); `against` a list: the fastest of these. Then what is asked in time itself, on a 2-core Zen 5.
GOALS = [("C1", "density_feature", ["eager"], 8.0), ("C1", "density_feature", ["compile"], 20.0),
         ("C2", "trajectory", ["compile"], 2.0), ("C2", "trajectory", ["eager"], 10.0), ("C2", "trajectory", ["drjit"], 1.3),
         ("C3", "volume_rendering", ["eager", "compile", "jax"], 3.5), ("C4", "loss_chain", ["drjit"], 1.1), ("C4", "loss_chain", ["compile"], 6.0),
         ("C5", "positional_encoding", ["compile"], 1.3), ("C7", "adam", ["fused"], 1 / 1.05),
         ("C8", "iteration", ["eager"], 5.0), ("C8", "iteration", ["compile"], 5.0), ("D1", "dynibar_losses", ["eager"], 5.0), ("D1", "dynibar_losses", ["compile"], 3.0),
         ("D2", "dynibar_iteration", ["eager"], 3.0)]
TIMES = [("C1", "density_feature", 9.83, "100 ns a point"), ("C2", "trajectory", 3.0, "3 ms"), ("C3", "volume_rendering", 5.0, "5 ms"),
         ("C4", "loss_chain", 3.0, "3 ms"), ("C5", "positional_encoding", 2.3, "2.3 ms")]
KERNELS = [("D3", "dynibar_iteration", 200)]  # at most, besides matrix products and convolutions
SCALING = ("C6", ["density_feature", "volume_rendering", "iteration"], 1.8)


class Worker:
    """A column's process."""

    def __init__(self, column: str, folder: pathlib.Path, cores: list[int], threads: int, scale: str) -> None:
        self.column, self.threads = column, threads
        script = {"hand": "hand_worker", "jax": "jax_worker", "drjit": "drjit_worker"}.get(column, "torch_worker")
        python = PEERS / "bin" / "python" if column in ("jax", "drjit") else sys.executable
        paths = [str(ROOT / "frontends" / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                       "OMP_PROC_BIND": "true", "OMP_PLACES": ",".join(f"{{{c}}}" for c in cores), "TORCHINDUCTOR_CACHE_DIR": str(ROOT / "out" / "inductor"),
                       "TORCHINDUCTOR_COMPILE_THREADS": "1", "HEDDLE_CACHE": "0",
                       "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"}
        self.log = open(folder / f"{column}.log", "w")
        command = [python, ROOT / "bench" / "peers" / f"{script}.py", folder, column, str(threads), scale]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cores))

    def ask(self, **order: object) -> dict:
        """One line there and one back; what dies or hangs is an answer with an error."""
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], LIMIT_S.get(order["do"], 60))[0]:
                self.process.kill()
                return {"error": f"no answer within {LIMIT_S.get(order['do'], 60)} s"}
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self.log.flush()
            said = pathlib.Path(self.log.name).read_text().strip().splitlines()
            return {"error": "its process ended: " + (safe(said[-1]) if said else "")}
        return json.loads(line)

    def go(self, block: str, times: int = 1, threads: int | None = None) -> dict:
        return self.ask(do="go", block=block, times=times, threads=threads or self.threads)

    def close(self) -> None:
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # it ended before
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def make_peers() -> None:
    if not (PEERS / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    packages = ["jax==0.10.2", "drjit==1.5.0", f"numpy=={np.__version__}"]
    subprocess.run([PEERS / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)


def versions() -> dict:
    import importlib.metadata

    found = {"torch": importlib.metadata.version("torch"), "numpy": np.__version__}
    if (PEERS / "bin" / "python").exists():
        code = "import importlib.metadata as m; print(m.version('jax'), m.version('drjit'))"
        said = subprocess.run([PEERS / "bin" / "python", "-c", code], capture_output=True, text=True)
        if said.returncode == 0:
            found |= dict(zip(("jax", "drjit"), said.stdout.split()))
    return found


def progress(text: str) -> None:
    print(f"{time.perf_counter() - STARTED:6.0f} s  {text}", file=sys.stderr, flush=True)


STARTED = time.perf_counter()


def measure(block: str, workers: dict[str, Worker], folder: pathlib.Path, seconds: float, most: int) -> dict:
    """Prepares a block in each column, compares, and times those that are right, in turns."""
    def load(column: str) -> dict | None:
        file = folder / f"{block}-{column}.npz"
        return dict(np.load(file)) if file.exists() else None

    columns = [c for c in workers if block in ONLY.get(c, WHAT)]
    rows = {}
    for column in ["exact", *[c for c in columns if c != "exact"]]:
        answer = workers[column].ask(do="prepare", block=block)
        row = rows[column] = {"column": column, "first_s": answer.get("first_s"), **answer.get("facts", {}), "ok": False, "note": answer.get("error", "")}
        if column == "exact":
            exact = load("exact")
            if exact is None:
                return {"block": block, "what": WHAT[block], "columns": {}, "note": f"no float64 reference: {row['note']}"}
            workers[column].ask(do="drop", block=block)
        elif not row["note"]:
            got = load(column)
            errors, wrong = check(got, exact, load("eager"))
            row |= {"errors": errors, "worst_error": max(errors.values(), default=None), "ok": not wrong, "note": "; ".join(wrong[:3])}
        progress(f"{block}: {column} " + (f"ready in {row['first_s']:.1f} s" if row["first_s"] else "") + (f": {row['note']}" if row["note"] else ""))
    running = [c for c in columns if c != "exact" and rows[c]["ok"]]
    cpu, wall, alone = ({c: [] for c in running} for _ in range(3))
    scaled = block in SCALING[1] and next(iter(workers.values())).threads > 1
    begin, turn = time.perf_counter(), 0
    while running and turn < most and (turn < 3 or time.perf_counter() - begin < seconds):
        for column in list(running):
            answer = workers[column].go(block, 2)
            if "error" in answer:
                rows[column] |= {"ok": False, "note": answer["error"]}
                running.remove(column)
                continue
            cpu[column] += answer["cpu"][1:]  # the first of a turn finds the caches as another column left them
            wall[column] += answer["wall"][1:]
            if scaled and column in TORCH:
                alone[column] += workers[column].go(block, 2, threads=1).get("wall", [])[1:]
        turn += 1
    for column in columns:
        workers[column].ask(do="drop", block=block)
        row = rows[column]
        if row["ok"] and column != "exact":
            row["runs"] = len(wall[column])
            for kind, times in (("cpu", cpu[column]), ("wall", wall[column])):
                row |= {f"{kind}_ms": median(times) * 1e3, f"{kind}_min_ms": min(times) * 1e3}
            if alone[column]:
                row["one_thread_wall_ms"] = median(alone[column]) * 1e3
                row["scaling"] = row["one_thread_wall_ms"] / row["wall_ms"]
    progress(f"{block}: {turn} turns")
    rows.pop("exact")
    return {"block": block, "what": WHAT[block], "columns": rows}


def goals(found: list[dict], threads: int, model: str) -> list[dict]:
    """Each goal: asked, reached, met; met is None where something wasn't measured."""
    key = "cpu_ms" if threads == 1 else "wall_ms"
    blocks = {b["block"]: b["columns"] for b in found}

    def of(block: str, column: str) -> float | None:
        return blocks.get(block, {}).get(column, {}).get(key)

    rows = []

    def goal(name: str, block: str, what: str, asked: float, value: float | None) -> None:
        rows.append({"name": name, "block": block, "what": what, "goal": asked, "value": value, "met": None if value is None else value >= asked})

    if threads > 1:
        for block in SCALING[1] if model == "hexplane" else ():
            goal(SCALING[0], block, f"one thread's wall time by that of {threads}", SCALING[2], blocks.get(block, {}).get("heddle", {}).get("scaling"))
        return rows
    for name, block, against, least in GOALS:
        if block not in MODELS[model]:
            continue
        mine, others = of(block, "heddle"), [t for c in against if (t := of(block, c)) is not None]
        known = mine and others and (len(against) > 1 or len(others) == len(against))
        goal(name, block, f"times as fast as {' or '.join(against)}", least, min(others) / mine if known else None)
    for name, block, most in KERNELS if model == "dynibar" else ():
        kernels = blocks.get(block, {}).get("heddle", {}).get("kernels")
        goal(name, block, f"at most {most} kernels besides products and convolutions", 1.0, most / kernels if kernels else None)
    for name, block, most, words in TIMES if model == "hexplane" else ():
        mine = of(block, "heddle")
        goal(name, block, f"at most {words} (stated for a core of a Zen 5)", 1.0, most / mine if mine else None)
    return rows


def show(found: list[dict], asked: list[dict], threads: int) -> str:
    key = "cpu_ms" if threads == 1 else "wall_ms"
    used = [c for c in COLUMNS if any(c in b["columns"] for b in found)]

    def cell(row: dict | None) -> str:
        if row is None:
            return "–"
        return f"{row[key]:.2f}" if key in row else "failed" if row["note"] else "–"

    lines = [[b["block"], *(cell(b["columns"].get(c)) for c in used), f"{b['columns'].get('heddle', {}).get('worst_error') or 0:.0e}",
              f"{b['columns'].get('eager', {}).get('worst_error') or 0:.0e}"] for b in found]
    kind = "CPU time of the process" if threads == 1 else f"wall time with {threads} threads"
    text = f"{kind}, ms, medians\n" + text_table(["block", *used, "error", "eager's"], lines)
    counts = [f"{b['block']}: " + ", ".join(f"{c} {words} {r[key]:.3g}" for c, r in b["columns"].items() for key, words in
                                             (("kernels", "kernels"), ("library_calls", "library calls"), ("library_share", "share of products and convolutions")) if key in r)
              for b in found if any(k in r for r in b["columns"].values() for k in ("kernels", "library_share"))]
    text += "\n\n" + "\n".join(counts) if counts else ""
    notes = [f"{b['block']}, {c}: {r['note']}" for b in found for c, r in b["columns"].items() if r["note"]]
    notes += [f"{b['block']}: {b['note']}" for b in found if b.get("note")]
    met = {True: "met", False: "missed", None: "not measured"}
    asked_rows = [[g["name"], g["block"], g["what"], f"{g['goal']:.2f}", "–" if g["value"] is None else f"{g['value']:.2f}", met[g["met"]]] for g in asked]
    if asked_rows:
        text += "\n\n" + text_table(["goal", "block", "what", "asked", "reached", ""], asked_rows)
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="hexplane", help="whose blocks")
    parser.add_argument("--scale", default="thesis", help="of DynIBaR, as in bench/dynibar.py; thesis: 64 rays of 128 samples, pictures of 512 x 288")
    parser.add_argument("--blocks", nargs="*", choices=list(WHAT), metavar="BLOCK", help="only these; all: " + ", ".join(WHAT))
    parser.add_argument("--columns", nargs="*", choices=COLUMNS, metavar="COLUMN", help="only these; all: " + ", ".join(COLUMNS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, default=0, help="the first core that columns are pinned to")
    parser.add_argument("--with-peers", action="store_true", help=f"install JAX and Dr.Jit into {PEERS.relative_to(ROOT)} and take them in")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each block")
    parser.add_argument("--turns", type=int, default=41, help="of each block at most")
    parser.add_argument("--json", type=pathlib.Path, help="where the numbers go; default: bench/results/peers-cpu-THREADS.json for a run of all blocks")
    o = parser.parse_args()
    if o.with_peers:
        make_peers()
    columns = [c for c in o.columns or COLUMNS if c not in ("jax", "drjit") or (PEERS / "bin" / "python").exists()]
    if o.threads > 1:
        columns = [c for c in columns if c != "hand"]  # written for one
    cores = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count())))[o.core:o.core + o.threads]
    if len(cores) < o.threads:
        parser.error(f"--threads {o.threads} from core {o.core} on: this machine has {os.cpu_count()} cores")
    before = cpu_facts()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        workers = {c: Worker(c, pathlib.Path(folder), cores, o.threads, o.scale) for c in ["exact", *columns]}
        try:
            for block in o.blocks or MODELS[o.model]:
                found.append(measure(block, workers, pathlib.Path(folder), o.seconds, o.turns))
        finally:
            for w in workers.values():
                w.close()
    asked = goals(found, o.threads, o.model)
    print(show(found, asked, o.threads))
    to = o.json or (ROOT / "bench" / "results" / f"{'peers' if o.model == 'hexplane' else o.model}-cpu-{o.threads}.json" if not o.blocks and not o.columns else None)
    if to:
        facts = {**before, "load_after": [round(x, 2) for x in os.getloadavg()], "versions": versions()}
        to.write_text(json.dumps({"machine": facts, "threads": o.threads, **({"scale": o.scale} if o.model == "dynibar" else {}), "cores": cores, "allocator": ALLOCATOR, "tolerance": TOLERANCE,
                                  "time": "cpu_ms" if o.threads == 1 else "wall_ms", "blocks": found, "goals": asked}, indent=1) + "\n")
        print(f"\n{to}")
    return 0 if all(r["ok"] for b in found for c, r in b["columns"].items() if c in ("eager", "heddle")) else 1


if __name__ == "__main__":
    sys.exit(main())
