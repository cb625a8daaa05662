"""What can be told of HexPlane's CUDA kernels with no GPU: registers, spills, wide loads, vector reductions, launches, bytes, host reads.

Law: a kernel is known by its text alone, never by its name: it gathers if it makes integers of f32 (a look-up by coordinate; f64 are counts that
the host passes), it scatters if it adds into memory. What misses its goal is listed as that; the exit status is 1 only if a kernel doesn't compile.

Additions in memory are of four neighbours at once where points scatter; those to which all points come, the hot addresses, are first added up by
the threads of a block (`add_together`, or one thread adds the block's total) and then are as few as blocks: how wide they are doesn't matter.

Bytes are those of the kernels of the plan for CUDA (runtime/traffic.h), forward and backward apart, as autograd calls them. A kernel moves each
buffer that it reads and each that it writes once a stage, and clears what is added to; looked up is no more of a table than look-ups can touch.
Least of a kernel: what it reads of others and hands to others, once; the goal is for the sum of these. Least of a part: inputs read and outputs
written, once in each direction, and what kernels write for library calls to read and read of what these write. Between, nothing: what is saved, and
what passes from kernel to kernel, is excess. No plan of several kernels reaches it, so that it's shown and no goal. What library calls move themselves is listed, and in neither number. Of a step sizes are those once rooms for the rows of its masks are
learned. Saved: what lives between forward and backward besides inputs and parameters.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable

os.environ.setdefault("HEDDLE_CACHE", "0")
sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "frontends" / "python"))

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import hexplane
from heddle._region import Region
from measure import ROOT, safe, text_table

ARCH = "sm_90"
ALSO = ("sm_75", "sm_80", "sm_86", "sm_100", "sm_120")
REGISTERS, BUDGETED = 64, ("sm_75", "sm_80", "sm_90")  # of a kernel that gathers, and where
BYTES, STEPS = 1.5, 4  # moved, of the least; steps until rooms are learned
KERNELS, SAVED = 10, 0.25  # launches of a step, and bytes kept by eager's, at most
HOST_READS = ("nonzero", "item", "_local_scalar_dense", "is_nonzero", "masked_select", "unique", "equal", "heddle.guard")


# ---- one kernel: what NVRTC and ptxas make of its text
def number(pattern: str, log: str) -> int | None:
    found = re.findall(pattern, log)
    return max(map(int, found)) if found else None


def spilled(log: str) -> int:
    return sum(number(rf"(\d+) bytes spill {way}", log) or 0 for way in ("stores", "loads"))


def nvrtc_compile(name: str, text: str, arch: str) -> tuple[bytes, str]:
    """A binary (PTX for compute_..) and the log, as runtime/nvrtc.cpp makes it. Raises RuntimeError with the log."""
    image, log = compile_once(name, text, arch)
    most = number(r"#define BLOCKS (\d+)", text) or 0
    for blocks in range(most - 1, max(1, most // 2) - 1, -1):
        if not spilled(log):
            break
        fewer = compile_once(name, text, arch, f"--define-macro=BLOCKS={blocks}")
        if spilled(fewer[1]) < spilled(log):
            image, log = fewer
    return image, log


def compile_once(name: str, text: str, arch: str, *more: str) -> tuple[bytes, str]:
    from cuda.bindings import nvrtc

    def ok(answer: tuple) -> tuple:
        if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"{name}: {answer[0]}")
        return answer[1:]

    binary = arch.startswith("sm_")
    program, = ok(nvrtc.nvrtcCreateProgram(text.encode(), f"{name}.cu".encode(), 0, None, None))
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", b"--diag-suppress=177", *([b"--ptxas-options=-v"] if binary else []),
               *(m.encode() for m in more)]
    result = nvrtc.nvrtcCompileProgram(program, len(options), options)[0]
    size, = ok(nvrtc.nvrtcGetProgramLogSize(program))
    log = bytearray(size)
    ok(nvrtc.nvrtcGetProgramLog(program, log))
    said = log.decode(errors="replace").strip("\0")
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"{name} for {arch}: {said}")
    size_of, get = (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN) if binary else (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    image = bytearray(ok(size_of(program))[0])
    ok(get(program, image))
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(image), said


def cuobjdump() -> str | None:
    """NVIDIA's, of the toolkit or of Triton's wheel."""
    import shutil

    wheel = pathlib.Path(torch.__file__).resolve().parents[1] / "triton" / "backends" / "nvidia" / "bin" / "cuobjdump"
    return shutil.which("cuobjdump") or (str(wheel) if wheel.exists() else None)


def sass(image: bytes, tool: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(image)
        file.flush()
        return subprocess.run([tool, "-sass", file.name], capture_output=True, text=True).stdout


def adds_of_blocks(text: str) -> int:
    """Additions of floats to memory, one element each, of what the threads of a block have added up."""
    threads = re.search(r"(\d+) threads a block", text)[1]
    vectors = {name: (dtype, int(n)) for dtype, n, name in re.findall(r"Vec<(\w+), (\d+)> (\w+) = \{\};", text)}
    together = [vectors[name] for name in re.findall(rf"add_together<\d+, {threads}>\(.*, (\w+), [^,]*\);", text) if name in vectors]
    totals = re.findall(rf"const (?:float|double) (\w+) = all_sum<{threads}>", text)
    alone = [name for name in re.findall(r"if \(threadIdx\.x == 0\) add_to\w*\(.*, (\w+)\);", text) if name in totals]
    return sum(0 if (dtype, n) == ("float", 4) else n for dtype, n in together) + len(alone)


def kernel_facts(name: str, text: str) -> dict:
    row: dict = {"kernel": name, "lines": text.count("\n"), "adds": sorted(set(re.findall(r"^//   points .*, adds (\w+)", text, re.M)))}
    try:
        image, log = nvrtc_compile(name, text, ARCH)
        row |= {"registers": number(r"Used (\d+) registers", log), "spills": spilled(log), "shared": number(r"(\d+) bytes smem", log) or 0,
                "cubin": len(image), "adds_of_blocks": adds_of_blocks(text), "also": {}}
        ptx = nvrtc_compile(name, text, ARCH.replace("sm_", "compute_"))[0].decode(errors="replace")
        row |= {"gathers": bool(re.search(r"cvt\.r[mz]i\.[su](?:32|64)\.f32", ptx)), "ptx_loads": len(re.findall(r"ld\.global\S*", ptx)),
                "ptx_loads_128": len(re.findall(r"ld\.global\S*\.v4\.[fub]32|ld\.global\S*\.v2\.[fub]64", ptx)),
                "ptx_adds": len(re.findall(r"(?:red|atom)\.\S*global\S*(?:\.add\S*\.f(?:32|64)|\.f(?:32|64)\.add)", ptx)),
                "ptx_adds_v4": len(re.findall(r"(?:red|atom)\.\S*global\S*(?:\.add\S*v4\.f32|v4\.f32\.add)", ptx))}
        if tool := cuobjdump():
            code = sass(image, tool)
            row |= {"sass_loads": len(re.findall(r"\bLDG\.", code)), "sass_loads_128": len(re.findall(r"\bLDG\.\S*\.128", code)),
                    "sass_adds": len(re.findall(r"\b(?:REDG?|ATOMG?)\.\S*ADD\S*F(?:32|64)", code)),
                    "sass_adds_v4": len(re.findall(r"\b(?:REDG?|ATOMG?)\.\S*ADD\S*F32x4", code)),
                    "sass_instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", code, re.M))}
    except RuntimeError as error:
        row["error"] = safe(str(error))
        return row
    for arch in ALSO:
        try:
            log = nvrtc_compile(name, text, arch)[1]
            row["also"][arch] = {"registers": number(r"Used (\d+) registers", log), "spills": spilled(log)}
        except RuntimeError as error:
            row["error"] = safe(str(error))
    return row


# ---- one part: the plan's numbers beside eager's
class HostReads(TorchDispatchMode):
    """Ops of eager for which the host waits: sizes or values that it must know."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.ops = 0

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        name = func.overloadpacket.__name__
        if not func.is_view:
            self.ops += 1
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else []
        masked = any(isinstance(t, Tensor) and t.dtype == torch.bool for t in indices)
        self.count += name in HOST_READS or masked
        return func(*args, **(kwargs or {}))


def saved_by_eager(function: Callable, inputs: list[Tensor], owned: list[Tensor]) -> int:
    """Memory that autograd holds after the forward, each block once, without inputs and parameters."""
    known, kept = {t.untyped_storage().data_ptr() for t in owned}, {}

    def pack(t: Tensor) -> Tensor:
        if (at := t.untyped_storage().data_ptr()) not in known:
            kept[at] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function(inputs)
    del out
    return sum(kept.values())


def bytes_facts(traffic: list[dict]) -> dict:
    moved, least, calls = (sum(d[key] for d in traffic) for key in ("moved", "least", "calls"))
    kernels = {k["kernel"]: {"moved": k["moved"], "least": k["least"]} for d in traffic for k in d["kernels"]}
    least_of_kernels = sum(k["least"] for k in kernels.values())
    return {"bytes_moved": moved, "bytes_least": least, "bytes_ratio": moved / least, "bytes_least_of_kernels": least_of_kernels,
            "bytes_ratio_of_kernels": moved / least_of_kernels, "bytes_calls": calls, "bytes_of_kernels": kernels}


def gradients_of(out: list[Tensor], leaves: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    roots = [t for t in out if t.requires_grad]
    seeds = [torch.ones_like(t) for t in roots]
    return seeds, list(torch.autograd.grad(roots, leaves, seeds, allow_unused=True))


def parts(model: hexplane.HexPlane) -> dict[str, tuple[Callable, list[Tensor], list[tuple[int, int, str]]]]:
    """Each part as a function of a list, its inputs, and which sizes vary: (input, dimension, name)."""
    scale, step = model.scale, hexplane.step_inputs(model.scale)
    xyz, t = hexplane.points_on_rays(model, step)
    g = torch.Generator().manual_seed(1)
    few = torch.randperm(len(xyz), generator=g)[:max(1, len(xyz) // 25)]  # about as many as weigh something
    sigma = torch.nn.functional.softplus(torch.randn(scale.rays, scale.samples, generator=g) * 3 - 2).requires_grad_()
    rgb = torch.rand(scale.rays, scale.samples, 3, generator=g).requires_grad_()
    picture = torch.rand(scale.rays, 3, generator=g).requires_grad_()
    dist = torch.full((1, scale.samples), 4.0 / scale.samples)
    directions = hexplane.unit(torch.randn(len(few), 3, generator=g))
    return {
        "density_feature": (lambda i: [model.density_feature(i[0], i[1])], [xyz, t], [(0, 0, "M"), (1, 0, "M")]),
        "volume_rendering": (lambda i: [hexplane.volume_rendering(i[0], i[1], i[2])], [sigma, dist, rgb], [(0, 0, "B"), (2, 0, "B")]),
        "colour": (lambda i: [model.colour(model.app_feature(i[0], i[1]), i[2])], [xyz[few], t[few], directions], [(0, 0, "K"), (1, 0, "K"), (2, 0, "K")]),
        "loss_block": (lambda i: [model.loss_block(*i)], [picture, step[1], step[3], step[4]], [(0, 0, "B"), (1, 0, "B")]),
        "iteration": (lambda i: list(model.loss(*i)), step, [(0, 0, "B"), (1, 0, "B"), (2, 0, "B")]),
    }


def part_facts(name: str, function: Callable, inputs: list[Tensor], dynamic: list, model: hexplane.HexPlane) -> tuple[dict, dict[str, str]]:
    """The row of a part, and its kernels' texts."""
    parameters = [] if name == "volume_rendering" else list(model.parameters())
    leaves = [t for t in inputs if t.requires_grad] + parameters
    region = Region(function, name=name, dynamic=dynamic, recapture=False, strict=True)
    out = region(inputs)
    gradients_of(out, leaves)
    report, texts, traffic = region.report(), region.kernels(), region.traffic()
    with HostReads() as eager:
        gradients_of(function(inputs), leaves)
    calls = report["library_calls"]
    reads = [c for c in calls if any(re.search(rf"\b{re.escape(w)}\b", c) for w in HOST_READS)]
    saved = saved_by_eager(function, inputs, [*inputs, *model.parameters()])
    return {"part": name, "rays": model.scale.rays, "samples": model.scale.samples, "points": int(inputs[0].shape[0]),
            "kernels_forward": report["launches_forward"], "kernels_backward": report["launches_backward"],
            "calls": report["calls_forward"] + report["calls_backward"], "library_calls": calls,
            "host_reads": len(reads), "host_reads_eager": eager.count, "ops_eager": eager.ops,
            **bytes_facts(traffic), "bytes_saved": report["saved_bytes"], "bytes_saved_eager": saved, "saved_ratio": report["saved_bytes"] / saved if saved else None}, texts


def step_facts(model: hexplane.HexPlane, eager: dict) -> tuple[dict, dict[str, str]]:
    """The row of a whole step, Adam included, as it is planned for CUDA; `eager`: the row of its loss."""
    import heddle

    inputs = hexplane.step_inputs(model.scale)
    step = heddle.TrainStep(model, hexplane.adam(model), bounded=True)
    for _ in range(STEPS):
        step(*inputs)
    report, texts = step.report(), step.kernels()
    if report["eager_reason"]:
        raise RuntimeError(f"runs eagerly: {report['eager_reason']}")
    return {"part": "train_step", "rays": model.scale.rays, "samples": model.scale.samples, "kernels_forward": len(texts), "kernels_backward": 0,
            "calls": report["calls"], "library_calls": report["library_calls"], "host_reads": report["host_reads"],
            "host_reads_eager": eager["host_reads_eager"], "ops_eager": eager["ops_eager"], **bytes_facts(step.traffic()), "bytes_saved": 0, "bytes_saved_eager": eager["bytes_saved_eager"], "saved_ratio": None}, texts


def goals(rows: list[dict]) -> list[dict]:
    found = []

    def goal(what: str, where: str, asked: float, reached: float | None, met: bool | None) -> None:
        found.append({"what": what, "where": where, "goal": asked, "value": reached, "met": met})

    for row in rows:
        where = f"{row['part']}, {row['scale']}"
        for k in row["kernels"]:
            if "registers" not in k:
                goal("compiles", k["kernel"], 1, 0, False)
                continue
            archs = {ARCH: k, **k["also"]}
            for arch, facts in archs.items():
                if facts["spills"]:
                    goal(f"bytes spilled on {arch}, at most", k["kernel"], 0, facts["spills"], False)
            if k["gathers"]:
                most = max(archs[arch]["registers"] for arch in BUDGETED if arch in archs)
                goal(f"registers of a kernel that gathers on {', '.join(BUDGETED)}, at most", k["kernel"], REGISTERS, most, most <= REGISTERS)
                wide = k.get("sass_loads_128", k["ptx_loads_128"])
                goal("128-bit loads of a kernel that gathers, at least", k["kernel"], 1, wide, wide >= 1)
            adds, wide = (k.get("sass_adds", k["ptx_adds"]), k.get("sass_adds_v4", k["ptx_adds_v4"]))
            if adds:
                alone = adds - wide - k["adds_of_blocks"]
                goal("additions in memory that are neither of four nor of a block, at most", k["kernel"], 0, alone, alone <= 0)
        spills = sum(facts.get("spills") or 0 for k in row["kernels"] for facts in (k, *k.get("also", {}).values()))
        goal(f"bytes spilled by all kernels on {', '.join((ARCH, *ALSO))}, at most", where, 0, spills, spills == 0)
        ratio = row["bytes_ratio_of_kernels"]
        goal("bytes moved, of the least of kernels, at most", where, BYTES, ratio, ratio <= BYTES)
        goal("host reads, at most", where, 0, row["host_reads"], row["host_reads"] == 0)
        if row["saved_ratio"] is not None:
            goal("saved for the backward by eager's, at most", where, SAVED, row["saved_ratio"], row["saved_ratio"] <= SAVED)
        if row["part"] == "train_step":
            others = sum("dot" not in c for c in row["library_calls"])
            launches = row["kernels_forward"] + others
            goal("kernels and calls of a step but matrix products, at most", where, KERNELS, launches, launches <= KERNELS)
    return found


def show(rows: list[dict], asked: list[dict]) -> str:
    def count(k: dict, what: str) -> str:
        of = k.get(f"sass_{what}", k.get(f"ptx_{what}"))
        return "–" if of is None else str(of)

    def megabytes(r: dict, *keys: str) -> list[str]:
        return [f"{r[key] / 1e6:.1f}" for key in keys]

    def texts(row: dict, *keys: str) -> list[str]:
        return ["–" if row.get(key) is None else str(row[key]) for key in keys]

    def also(k: dict, what: str) -> str:
        return " ".join(str(facts[what]) for facts in (k, *k.get("also", {}).values()) if facts.get(what) is not None)

    def traffic(row: dict, k: dict) -> list[str]:
        of = row["bytes_of_kernels"].get(k["kernel"])
        return ["–"] * 3 if of is None else [f"{of['moved'] / 1e6:.2f}", f"{of['least'] / 1e6:.2f}", f"{of['moved'] / of['least']:.2f}" if of["least"] else "–"]

    kernels = [[k["kernel"], also(k, "registers"), also(k, "spills"), *texts(k, "shared"), "gathers" if k.get("gathers") else "", ", ".join(k["adds"]),
                *(count(k, what) for what in ("loads", "loads_128", "adds", "adds_v4")), *texts(k, "adds_of_blocks"), *traffic(row, k),
                k.get("error", "")[:60]] for row in rows for k in row["kernels"]]
    plans = [[f"{r['part']}, {r['scale']}", f"{r['kernels_forward']} + {r['kernels_backward']}",
              *texts(r, "calls", "ops_eager", "host_reads", "host_reads_eager"),
              *megabytes(r, "bytes_calls", "bytes_moved", "bytes_least_of_kernels"), f"{r['bytes_ratio_of_kernels']:.2f}", *megabytes(r, "bytes_least"),
              f"{r['bytes_ratio']:.2f}", *megabytes(r, "bytes_saved", "bytes_saved_eager"),
              "–" if r["saved_ratio"] is None else f"{r['saved_ratio']:.2f}"] for r in rows]
    missed = [[g["what"], g["where"], f"{g['goal']:g}", f"{g['value']:.3g}"] for g in asked if g["met"] is False]
    head = ["kernel", "registers", "spills", "shared", "", "adds to memory", "loads", "of 128 bits", "adds", "of four", "of blocks", "MB moved", "least", "ratio", ""]
    text = f"Kernels for {ARCH}; registers and spills also on {', '.join(ALSO)}\n" + text_table(head, kernels)
    head = ["part", "kernels", "calls", "eager ops", "host reads", "eager's", "MB of calls", "MB moved", "least of kernels", "ratio", "least of the part", "ratio", "MB saved", "eager's", "ratio"]
    text += "\n\nPlans, forward and backward\n" + text_table(head, plans)
    text += f"\n\n{sum(g['met'] is True for g in asked)} of {len(asked)} goals met"
    return text + ("; missed:\n" + text_table(["goal", "where", "asked", "reached"], missed) if missed else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scales", nargs="*", default=["first", "demo"], choices=list(hexplane.SCALES), metavar="SCALE",
                        help="demo and tiny with planes raised, so that colours are computed")
    parser.add_argument("--parts", nargs="*", metavar="PART")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "bench" / "results" / "static-sm90.json")
    o = parser.parse_args()
    rows = []
    for scale in o.scales:
        model = hexplane.HexPlane(hexplane.SCALES[scale])
        if scale in ("demo", "tiny"):
            model.thicken()
        wanted = {name: (lambda name=name, of=of: part_facts(name, *of, model)) for name, of in parts(model).items()}
        wanted["train_step"] = lambda: step_facts(model, rows[-1])
        for name, facts in wanted.items():
            if o.parts and name not in o.parts and not (name == "iteration" and "train_step" in o.parts):
                continue
            row, texts = facts()
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                row |= {"scale": scale, "kernels": list(pool.map(kernel_facts, texts, texts.values()))}
            rows.append(row)
            print(f"{scale}, {name}: {len(texts)} kernels", file=sys.stderr, flush=True)
    asked = goals(rows)
    print(show(rows, asked))
    o.json.write_text(json.dumps({"arch": ARCH, "also": ALSO, "bytes": " ".join(__doc__.split("\n\n")[3].split()), "torch": torch.__version__, "parts": rows, "goals": asked}, indent=1) + "\n")
    return 1 if any("error" in k for row in rows for k in row["kernels"]) else 0


if __name__ == "__main__":
    sys.exit(main())
