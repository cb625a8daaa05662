"""What the benches share: facts of the machine, relative errors, medians, a text table.

Law: numpy at most, so that any bench may use it before it has decided what else to load.
"""

import math
import os
import pathlib
import platform
import re
import statistics

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cpu_facts() -> dict:
    """Name, cores, the widest vectors, caches, load."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.split("\n\n")[0].splitlines())}
    flags = found.get("flags", "").split()
    level = next((name for name in ("avx512f", "avx2", "avx", "sse4_2") if name in flags), "?")
    model = f"{found.get('cpu family', '?')}/{found.get('model', '?')}"
    return {"cpu": found.get("model name", platform.processor() or platform.machine()), "family_model": model, "cores": os.cpu_count(), "vectors": level,
            "cache": found.get("cache size", "?"), "kernel": platform.release(), "python": platform.python_version(),
            "load": [round(x, 2) for x in os.getloadavg()]}


ROUNDING = 1e-13  # of the largest result's norm: what is smaller is zero but for float64's rounding, as the gradient of a bias that a softmax takes back


def relative_error(got, want, largest: float = 0.0) -> float:
    """||got - want|| / ||want|| in float64; infinite for another shape or anything not finite; 0 for 0 and 0. By `largest` where want is rounding beside it."""
    import numpy as np

    if got.shape != want.shape or not np.isfinite(got).all():
        return math.inf
    a, b = got.astype(np.float64), want.astype(np.float64)
    off, scale = float(np.linalg.norm((a - b).ravel())), float(np.linalg.norm(b.ravel()))
    scale = largest if scale < ROUNDING * largest else scale
    return 0.0 if off == 0 else off / scale if scale > 0 else math.inf


TOLERANCE = 1e-5  # of a result's l2 norm; more only where eager in float32 itself is a quarter of it off


def check(got: dict, exact: dict, eager: dict | None) -> tuple[dict[str, float], list[str]]:
    """Errors of each result against float64, and what is wrong: over tolerance, missing, or there where float64 has none."""
    import numpy as np

    errors, wrong = {}, []
    largest = max((float(np.linalg.norm(want.astype(np.float64).ravel())) for want in exact.values()), default=0.0)
    for name, want in exact.items():
        if name not in got:
            wrong.append(f"{name} is missing")
            continue
        errors[name] = relative_error(got[name], want, largest)
        own = relative_error(eager[name], want, largest) if eager and name in eager else 0.0
        if not errors[name] <= max(TOLERANCE, 4 * own if math.isfinite(own) else 0.0):
            wrong.append(f"{name} is off by {errors[name]:.1e}")
    wrong += [f"{name} isn't there in float64" for name in got if name not in exact]
    return errors, wrong


def median(times: list[float]) -> float | None:
    return statistics.median(times) if times else None


def text_table(head: list[str], rows: list[list[str]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    out = ["  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths))) for line in lines]
    return "\n".join([out[0], "-" * len(out[0]), *out[1:]])


def safe(text: str) -> str:
    """One line, without the paths of this machine."""
    return re.sub(r"/[\w./+-]*/", "", text.strip().splitlines()[0] if text.strip() else "")[:300]
