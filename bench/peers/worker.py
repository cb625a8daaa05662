"""One column's process: it makes a block ready when told to, and runs it on each "go", so that columns take turns.

Law: a line of JSON in, a line of JSON out, on what was standard output at the start; what libraries print goes to standard error.
A column is a function of a block's name that returns (run, results): `run()` once is what is timed, `results()` are named arrays to compare;
`run.before()`, if there, comes before each, and `run.facts()` are counts to report.
"""

import ctypes
import gc
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

Column = Callable[[str], tuple[Callable[[], object], Callable[[], dict[str, np.ndarray]]]]


def release() -> None:
    """What was freed goes back to the system, whatever the allocator's settings."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def serve(column: Column, set_threads: Callable[[int], object] | None = None) -> None:
    """Answers until standard input ends. Arguments: a folder for results, the column's name."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    ready: dict[str, tuple] = {}
    for line in sys.stdin:
        order = json.loads(line)
        block, answer = order.get("block"), {}
        try:
            if order["do"] == "prepare":
                start = time.perf_counter()
                ready[block] = column(block)
                results = ready[block][1]()
                answer["first_s"] = time.perf_counter() - start
                np.savez(folder / f"{block}-{name}.npz", **results)
                del results
                ready[block][0]()
                answer["facts"] = getattr(ready[block][0], "facts", dict)()
            elif order["do"] == "go":
                if set_threads is not None:
                    set_threads(order["threads"])
                run, cpu, wall = ready[block][0], [], []
                before = getattr(run, "before", lambda: None)
                for _ in range(order["times"]):
                    before()
                    c, w = time.process_time(), time.perf_counter()
                    run()
                    wall.append(time.perf_counter() - w)
                    cpu.append(time.process_time() - c)
                answer |= {"cpu": cpu, "wall": wall}
            elif order["do"] == "drop":
                ready.pop(block, None)
                release()
        except Exception as error:  # told to whoever asked; the other columns go on
            ready.pop(block, None)
            answer["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        replies.write(json.dumps(answer) + "\n")
        replies.flush()
