#!/usr/bin/env python3
"""PyTorch's own database of ops (OpInfo) through heddle.fuse: every sample of every op, forward and gradient, against eager on the CPU.

    opinfo.py                    # LIMIT samples of each op and element type, ops shared out to 2 processes
    opinfo.py --all              # every sample
    opinfo.py --ops 'nn.func.*pool'  --dtypes float32 --verbose

Law: a sample agrees if values, element types, shapes, strides (of results that are dense in memory), which results require grad, which
gradients are None, and the exceptions are eager's. It is run twice, the second time with other values, so that nothing of the first is a constant. No op is left
out. Exit status 1 if a sample disagrees. An op of which no sample was fused counts as skipped, with the reason.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
import xml.etree.ElementTree

os.environ.setdefault("HEDDLE_CACHE", "0")  # compilers are really run

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "frontends" / "python"))

LIMIT = 3          # samples of an op and element type, unless --all
SECONDS = 120      # of CPU time: a sample that takes more is reported as hung; a machine may have more to do than this
WAIT = 1800        # on the clock: so is an op that takes longer
DTYPES = ("float32", "float64", "int64", "int32", "bool")
OTHERS = ("float16", "bfloat16", "uint8", "int8", "int16")  # when asked for

# By name of the OpInfo: all is compared but values, those of empty memory, which are undefined.
UNDEFINED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
# By name of the OpInfo: how many roundings of 1 gradients may differ by, whatever their size, and why.
WIDER = {
    "nn_functional_hardsigmoid": (2**29, "eager multiplies the gradient by 1/6 rounded to float32, also in float64"),
    "nn_functional_group_norm": (4, "over a group of two elements the gradient is zero but for the rounding of terms of about 1"),
    "nn_functional_layer_norm": (4, "over two elements the gradient is zero but for the rounding of terms of about 1"),
}
# By name of the OpInfo: where eager's gradient is None, zeros are as good, and why.
ZEROS_FOR_NONE = dict.fromkeys(("norm", "linalg_norm", "linalg_norm_subgradients_at_zero", "linalg_vector_norm", "masked_norm"),
                               "a norm of order 0 counts elements: it requires grad and has no gradient")
ZEROS_FOR_NONE["linalg_householder_product"] = "with no reflectors its derivative leaves the input out"


def same_but_values(a, b):
    """Do two samples differ in nothing but the values of their tensors?"""
    import torch
    from torch.utils import _pytree as pytree

    x, s = pytree.tree_flatten((a.input, a.args, a.kwargs))
    y, t = pytree.tree_flatten((b.input, b.args, b.kwargs))
    if s != t:
        return False
    for p, q in zip(x, y):
        if isinstance(p, torch.Tensor) != isinstance(q, torch.Tensor):
            return False
        if isinstance(p, torch.Tensor):
            if p.layout != torch.strided or (p.shape, p.dtype, p.stride()) != (q.shape, q.dtype, q.stride()):
                return False
        elif type(p) is not type(q) or not (p is q or p == q or p != p):
            return False
    return True


def order(t):
    """Strides of a tensor whose elements fill their memory, each standing once, without those of size 1, which say nothing; else None."""
    kept = [(s, n) for s, n in zip(t.stride(), t.shape) if n > 1]
    filled = 1 if t.numel() else -1
    for s, n in sorted(kept):
        if s != filled:
            return None
        filled *= n
    return [s for s, _ in kept]


def spread(samples, limit):
    """`limit` of them, from the first to the last; all of them if it's 0."""
    if not limit or len(samples) <= limit:
        return samples
    return [samples[k * (len(samples) - 1) // (limit - 1)] for k in range(limit)] if limit > 1 else samples[:1]


def largest(t):
    """Of the absolute values, without NaN and infinities."""
    return float(t.detach().abs().nan_to_num(0, 0, 0).max()) if t.numel() else 0.0


def tolerance(dtype, length):
    """From element type and the length of the longest reduction: additions round at random, 16 leaves room for a chain of ops around them."""
    import torch

    return 16 * torch.finfo(dtype).eps * max(1, length) ** 0.5


class Checker:
    """One sample, eager and fused."""

    def __init__(self, op, dtype):
        import torch

        self.op, self.dtype, self.half = op, dtype, dtype in (torch.float16, torch.bfloat16)

    def outcome(self, function, sample, gradients):
        """What a call gives: ("raised", type, text), or ("gave", results, gradients or their error)."""
        import torch
        from torch.utils import _pytree as pytree

        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_(x.requires_grad and gradients) if isinstance(x, torch.Tensor) and x.layout == torch.strided else x
                  for x in leaves]
        given, args, kwargs = pytree.tree_unflatten(leaves, spec)
        torch.manual_seed(7)
        try:
            out = function(given, *args, **kwargs)
        except Exception as e:  # noqa: BLE001  whatever eager raises is what must be raised
            return "raised", type(e), str(e).split("\n")[0]
        results = pytree.tree_leaves(out)
        if not gradients:
            return "gave", results, None
        processed = sample.output_process_fn_grad(out)
        roots = [x for x in pytree.tree_leaves(processed) if isinstance(x, torch.Tensor) and x.requires_grad]
        wanted = [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]
        if not roots or not wanted:
            return "gave", results, None
        seeds = [torch.sin(torch.arange(x.numel(), dtype=torch.float64) + k).reshape(x.shape).to(x.dtype) for k, x in enumerate(roots)]
        try:
            return "gave", results, list(torch.autograd.grad(roots, wanted, seeds, allow_unused=True))
        except Exception as e:  # noqa: BLE001
            return "gave", results, (type(e), str(e).split("\n")[0])

    def values(self, got, want, exact, length, what):
        """Where two tensors differ, in words; None if they don't."""
        import torch

        if not isinstance(want, torch.Tensor):
            same = type(got) is type(want) and (got == want or (got != got and want != want))
            if isinstance(want, float) and isinstance(got, float) and not same:
                same = abs(got - want) <= tolerance(torch.float64, length) * max(abs(want), 1e-30)
            return None if same else f"{what}: got {got!r}, expected {want!r}"
        if not isinstance(got, torch.Tensor):
            return f"{what}: got a {type(got).__name__}, expected a tensor"
        if got.layout != torch.strided or want.layout != torch.strided:
            return None if got.layout == want.layout else f"{what}: layout {got.layout}, expected {want.layout}"
        for name in ("dtype", "shape", "requires_grad"):
            if getattr(got, name) != getattr(want, name):
                return f"{what}: {name} {getattr(got, name)}, expected {getattr(want, name)}"
        if what.startswith("result") and order(want) is not None and order(got) != order(want):
            return f"{what}: strides {got.stride()}, expected {want.stride()} for {tuple(want.shape)}"
        if self.op.formatted_name in UNDEFINED:
            return None
        if not want.is_floating_point():
            same = torch.allclose(got, want, 0, 0, True) if want.is_complex() else torch.equal(got, want)
            return None if same else f"{what}: {int((got != want).sum())} of {want.numel()} elements differ"
        a, b = got.detach().double(), want.detach().double()
        if self.half and exact is not None and exact[0].shape == want.shape:
            return self.rounded(a, b, *exact, want.dtype, what)
        finite = b[b.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 1.0
        rtol = tolerance(want.dtype, length)
        more = WIDER.get(self.op.formatted_name, (0, ""))[0] * torch.finfo(want.dtype).eps if what.startswith("gradient") else 0
        if torch.allclose(a, b, rtol, max(rtol * scale, more), True):
            return None
        worst = largest(a - b)
        text = f"{what}: differs by {worst:.3g} where eager's largest is {scale:.3g} (allowed {rtol * scale:.3g}); got {a.flatten()[:4].tolist()}, expected {b.flatten()[:4].tolist()}"
        if exact is None or exact[0].shape != want.shape or not torch.equal(a.isfinite(), b.isfinite()):
            return text
        # It may be 4 times as far from the exact value as eager's is hereabouts; float64 rounds 2^29 times as finely as float32.
        truth, error = exact
        if want.dtype != torch.float64:
            return None if largest(a - truth) <= max(rtol * scale, 4 * error) else text
        return None if largest(a - b) <= max(rtol * scale, 4 * error * 2**-29) else text

    def rounded(self, a, b, truth, error, dtype, what):
        """A half is as near to the exact value as eager's, which rounds after each op; where eager overflows on the way, it need not."""
        import torch

        limit = torch.finfo(dtype)
        inside = truth.abs() < limit.max
        scale = largest(truth[inside])
        allowed = max(4 * limit.eps * scale, 4 * error, 4 * limit.smallest_normal)
        far = torch.where(inside, (a - truth).abs().nan_to_num(math.inf) > allowed, ~torch.isclose(a, truth.to(dtype).double(), equal_nan=True))
        far &= ~torch.isclose(a, b, limit.eps, 0, True)
        k = int(far.flatten().nonzero()[0]) if far.any() else None
        return None if k is None else f"{what}: element {k} is {a.flatten()[k]:.6g}, eager {b.flatten()[k]:.6g}, exactly {truth.flatten()[k]:.6g}, allowed {allowed:.3g}"

    def errors(self, sample, gradients):
        """Eager's results and gradients in float64, and how far from these it is in float32 (or the sample's own half) at worst, over inputs that differ by a rounding."""
        import torch
        from torch.utils import _pytree as pytree

        def at(dtype, leaves, spec):
            cast = [x.to(dtype).requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) and x.is_floating_point() else
                    dtype if isinstance(x, torch.dtype) and x.is_floating_point else x for x in leaves]
            given, args, kwargs = pytree.tree_unflatten(cast, spec)
            got = self.outcome(self.op, type(sample)(given, args=args, kwargs=kwargs, output_process_fn_grad=sample.output_process_fn_grad), gradients)
            return [*got[1], *(got[2] if isinstance(got[2], list) else [])] if got[0] == "gave" else []

        short = self.dtype if self.half else torch.float32
        eps = torch.finfo(short).eps
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        truth, worst = at(torch.float64, leaves, spec), []
        for k in range(8):
            moved = [(x.detach() * (1 + (k > 0) * eps * torch.randn(x.shape, dtype=torch.float64))).to(short).requires_grad_(x.requires_grad)
                     if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in leaves]
            narrow, wide = at(short, moved, spec), at(torch.float64, moved, spec)
            if len(narrow) != len(truth) or len(wide) != len(truth):
                return {}
            worst.append([largest(n.double() - w.double()) if isinstance(n, torch.Tensor) and n.is_floating_point() and n.shape == w.shape else 0 for n, w in zip(narrow, wide)])
        return {j: (t.detach().double(), max(w[j] for w in worst)) for j, t in enumerate(truth) if isinstance(t, torch.Tensor) and t.is_floating_point()}

    def compare(self, fused, sample, gradients):
        import torch
        from torch.utils import _pytree as pytree

        want = self.outcome(self.op, sample, gradients)
        got = self.outcome(fused, sample, gradients)
        if want[0] != got[0]:
            return f"{got[0]} {got[1:] if got[0] == 'raised' else ''}, eager {want[0]} {want[1:] if want[0] == 'raised' else ''}"
        if want[0] == "raised":
            return None if want == got else f"raised {got[1:]}, eager {want[1:]}"
        tensors = [x for x in pytree.tree_leaves((sample.input, sample.args, sample.kwargs)) if isinstance(x, torch.Tensor)]
        length = max([x.numel() for x in tensors] + [1])
        if len(want[1]) != len(got[1]):
            return f"gave {len(got[1])} results, eager {len(want[1])}"

        def differences(exact):
            found = [self.values(g, w, exact.get(k), length, f"result {k}") for k, (g, w) in enumerate(zip(got[1], want[1]))]
            if isinstance(want[2], tuple) or isinstance(got[2], tuple) or want[2] is None or got[2] is None:
                if want[2] != got[2]:
                    found.append(f"gradients: {got[2]}, eager {want[2]}")
                return [x for x in found if x]
            terms = length * max(1, *[x.numel() for x in want[1] if isinstance(x, torch.Tensor)])
            for k, (g, w) in enumerate(zip(got[2], want[2])):
                if (g is None) != (w is None):
                    if w is None and self.op.formatted_name in ZEROS_FOR_NONE and not g.any():
                        continue
                    if (w if g is None else g).numel():  # of no elements, None and a tensor are the same to whoever takes it
                        found.append(f"gradient {k}: {'None' if g is None else 'a tensor'}, eager {'None' if w is None else 'a tensor'}")
                elif w is not None:
                    found.append(self.values(g, w, exact.get(len(want[1]) + k), terms, f"gradient {k}"))
            return [x for x in found if x]

        found = differences({})
        if (found or self.half) and self.dtype.is_floating_point:
            found = differences(self.errors(sample, gradients))
        return "; ".join(found) or None


def check_op(op, dtypes, limits):
    """All samples of one op: counts, disagreements, and why samples ran eagerly."""
    import torch

    import heddle
    from heddle._fuse import door_of

    row = {"op": op.formatted_name, "samples": {}, "fused": 0, "calls": 0, "eager": 0, "library": [], "reasons": {}, "wrong": [], "seconds": 0}
    start = time.process_time()
    supported = op.supported_dtypes("cpu")
    for name, limit in zip(dtypes, [*limits, *limits[-1:] * len(dtypes)]):
        dtype = getattr(torch, name)
        if dtype not in supported:
            continue
        gradients = dtype.is_floating_point and op.supports_autograd
        checker = Checker(op, dtype)
        try:
            torch.manual_seed(1)
            samples = spread(list(op.sample_inputs("cpu", dtype, requires_grad=gradients)), limit)
            torch.manual_seed(2)
            others = spread(list(op.sample_inputs("cpu", dtype, requires_grad=gradients)), limit)
        except Exception as e:  # noqa: BLE001
            row["wrong"].append(f"{name}: its samples can't be made: {e}")
            continue
        for k, sample in enumerate(samples):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # then the process ends
            fused = heddle.fuse(op.op, static=True)
            wrong = checker.compare(fused, sample, gradients)
            if not wrong and k < len(others) and same_but_values(sample, others[k]):
                wrong = checker.compare(fused, others[k], gradients)
                wrong = wrong and "other values: " + wrong
            row["samples"][name] = row["samples"].get(name, 0) + 1
            if wrong:
                row["wrong"].append(f"{name} sample {k}: {wrong}")
            reports = [r.report() for r in door_of(fused).regions()]
            reason = next((r["eager_reason"] for r in reports if r["eager_reason"]), "" if reports else "no region was made")
            if reason:
                row["eager"] += 1
                row["reasons"][reason] = row["reasons"].get(reason, 0) + 1
            else:
                calls = [c for r in reports for c in r["library_calls"] if c not in ("dot", "heddle.guard")]
                row["calls" if calls else "fused"] += 1
                row["library"] = sorted({*row["library"], *calls})
    if op.error_inputs_func is not None:
        check_errors(op, row)
    row["seconds"] = round(time.process_time() - start, 2)
    return row


def check_errors(op, row):
    """What eager refuses is refused with eager's error."""
    import heddle

    try:
        refused = list(op.error_inputs("cpu"))
    except Exception as e:  # noqa: BLE001
        row["wrong"].append(f"its wrong inputs can't be made: {e}")
        return
    for k, error in enumerate(refused):
        sample, checker = error.sample_input, Checker(op, None)
        want = checker.outcome(op.op, sample, False)
        fused = heddle.fuse(op.op, static=True)
        for _ in range(2):  # the second time there may be a capture
            got = checker.outcome(fused, sample, False)
            if want[:1] + (want[1:] if want[0] == "raised" else ()) != got[:1] + (got[1:] if got[0] == "raised" else ()):
                row["wrong"].append(f"wrong input {k}: {got[0]} {got[1:] if got[0] == 'raised' else ''}, eager {want[0]} {want[1:] if want[0] == 'raised' else ''}")
                break
        row["errors"] = row.get("errors", 0) + 1


def database(pattern):
    from torch.testing._internal.common_methods_invocations import op_db

    return [k for k, op in enumerate(op_db) if re.search(pattern, op.formatted_name)]


def worker(options):
    """Reads positions in the database, a line each, and writes a row for each."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    from torch.testing._internal import common_methods_invocations

    # Ops that draw are called as they are; their wrapper would seed the generator inside the function.
    common_methods_invocations.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        op = op_db[int(line)]
        try:
            row = check_op(op, options.dtypes, [0] if options.all else options.limit)
        except Exception:  # noqa: BLE001
            row = {"op": op.formatted_name, "wrong": [traceback.format_exc(limit=-2)]}
        out.write(json.dumps(row) + "\n")
        out.flush()


class Workers:
    """Hands ops out to processes; one that dies or hangs costs its op and is started again."""

    def __init__(self, count, arguments):
        self.count, self.command = count, [sys.executable, __file__, "--worker", *arguments]

    def start(self):
        return subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def rows(self, positions, names):
        left, busy = list(positions)[::-1], {}
        processes = [self.start() for _ in range(min(self.count, len(left)))]

        def give(p):
            if left:
                k = left.pop()
                busy[p] = k, time.time()
                p.stdin.write(f"{k}\n")
                p.stdin.flush()
            else:
                p.stdin.close()

        for p in processes:
            give(p)
        while busy:
            ready, _, _ = select.select([p.stdout for p in busy], [], [], 1)
            for p in list(busy):
                k, since = busy[p]
                line = p.stdout.readline() if p.stdout in ready else None
                if line:
                    del busy[p]
                    give(p)
                    yield json.loads(line)
                elif line == "" or time.time() - since > WAIT:
                    p.kill()
                    del busy[p]
                    hung = line is None or p.wait() == -signal.SIGPROF
                    yield {"op": names[k], "wrong": [f"a sample hung for {SECONDS} s" if hung else "the process died"]}
                    fresh = self.start()
                    give(fresh)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every sample, not the first --limit of each op and element type")
    parser.add_argument("--limit", type=int, nargs="+", default=[LIMIT], help="samples of each op, by element type; the last number holds for the types after it")
    parser.add_argument("--ops", default="", help="a regular expression that names of ops match")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES + OTHERS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", default="1/1", help="k/n: the k-th of n parts of the ops")
    parser.add_argument("--json", help="write the rows into this file")
    parser.add_argument("--junit", help="write what passed, failed and was skipped into this file, as JUnit XML")
    parser.add_argument("--log", help="write a line for each op and the summary into this file")
    parser.add_argument("--verbose", action="store_true", help="a line for each op, not only a summary and what disagrees")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options)

    from torch.testing._internal.common_methods_invocations import op_db

    part, parts = map(int, options.part.split("/"))
    names = [op.formatted_name for op in op_db]
    positions = database(options.ops)[part - 1::parts]
    arguments = ["--limit", *map(str, options.limit), "--dtypes", *options.dtypes] + (["--all"] if options.all else [])
    start, rows = time.time(), []
    with contextlib.ExitStack() as files:
        log = None
        if options.log:
            pathlib.Path(options.log).parent.mkdir(parents=True, exist_ok=True)
            log = files.enter_context(open(options.log, "w"))

        def say(text, aloud=True):
            for file in [sys.stdout] * aloud + [log] * (log is not None):
                print(text, file=file, flush=True)

        for row in Workers(options.processes, arguments).rows(positions, names):
            rows.append(row)
            say("\n    ".join([line_of(row), *row["wrong"]]), bool(row["wrong"]) or options.verbose)
        say(summary(rows, options, time.time() - start))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))
    if options.junit:
        junit(rows, options.junit, time.time() - start)
    return 1 if any(r["wrong"] for r in rows) or not rows else 0


def line_of(row):
    counts = " ".join(f"{t} {n}" for t, n in row.get("samples", {}).items())
    how = ", ".join(f"{row.get(k, 0)} {text}" for k, text in (("fused", "fused"), ("calls", "with library calls"), ("eager", "eager")) if row.get(k))
    text = f"{row['op']:<52} {counts:<60} {how}"
    if row.get("library"):
        text += f"  calls: {' '.join(row['library'])}"
    for reason, n in row.get("reasons", {}).items():
        text += f"  eager {n}: {reason}"
    return text + ("  WRONG" if row["wrong"] else "")


def totals(rows):
    """The run in one line."""
    count = {k: sum(r.get(k, 0) for r in rows) for k in ("fused", "calls", "eager", "errors")}
    samples = sum(sum(r.get("samples", {}).values()) for r in rows)
    return (f"{len(rows)} ops, {samples} samples: {count['fused']} in kernels alone, {count['calls']} with library calls, {count['eager']} eagerly; "
            f"{count['errors']} wrong inputs")


def summary(rows, options, seconds):
    total = {t: sum(r.get("samples", {}).get(t, 0) for r in rows) for t in options.dtypes}
    lines = [f"\n{totals(rows)}", f"each sample ran twice; {', '.join(f'{t} {n}' for t, n in total.items())}; {seconds:.0f} s"]
    for k, text in (("fused", "ran fused with no library call"), ("calls", "ran with library calls inside"), ("eager", "ran eagerly")):
        lines.append(f"  {sum(r.get(k, 0) for r in rows):6} samples of {sum(1 for r in rows if r.get(k))} ops {text}")
    reasons = {}
    for r in rows:
        for reason, n in r.get("reasons", {}).items():
            short = re.sub(r"\b\d+(\.\d+)?\b", "N", re.sub(r"(\S+: )?\S+:\d+: ", "", reason))
            reasons.setdefault(short, [0, set()])
            reasons[short][0] += n
            reasons[short][1].add(r["op"])
    for reason, (n, ops) in sorted(reasons.items(), key=lambda x: -x[1][0]):
        lines.append(f"    eager {n}: {reason} ({', '.join(sorted(ops)[:6])}{', ..' if len(ops) > 6 else ''})")
    wrong = [r for r in rows if r["wrong"]]
    lines.append(f"  {sum(r.get('errors', 0) for r in rows):6} wrong inputs of {sum(1 for r in rows if r.get('errors'))} ops raised eager's error")
    lines.append(f"  {sum(len(r['wrong']) for r in wrong)} disagreements in {len(wrong)} ops")
    return "\n".join(lines)


def junit(rows, file, seconds):
    """A case for each op: failed if a sample disagrees, skipped if none was fused."""
    suite = xml.etree.ElementTree.Element("testsuite", name="opinfo", tests=str(len(rows)), time=f"{seconds:.1f}")
    xml.etree.ElementTree.SubElement(xml.etree.ElementTree.SubElement(suite, "properties"), "property", name="summary", value=totals(rows))
    for row in rows:
        case = xml.etree.ElementTree.SubElement(suite, "testcase", classname="opinfo", name=row["op"], time=str(row.get("seconds", 0)))
        if row["wrong"]:
            xml.etree.ElementTree.SubElement(case, "failure", message="; ".join(row["wrong"]))
        elif row["eager"] == sum(row["samples"].values()):
            xml.etree.ElementTree.SubElement(case, "skipped", message="; ".join(row["reasons"]) or "it has no sample of these element types")
    xml.etree.ElementTree.ElementTree(suite).write(file, encoding="unicode")


if __name__ == "__main__":
    sys.exit(main())
