"""What the disk cache saves: the first calls of all parts of HexPlane in a new process, with no cache, an empty one and a filled one.

Law: medians over fresh processes, the three ways in turns, and beside them the least, which a busy machine disturbs less; a filled cache must hit for every kernel, an empty one for none.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
WAYS = ("off", "empty", "filled")
TIMES = ("first_call_ms", "capture_ms", "passes_ms", "binaries_ms", "run_ms", "load_llvm_ms")


def start(folder, on, scale):
    """One process's report, with the cache in `folder`."""
    out = pathlib.Path(folder) / "report.json"
    environment = {**os.environ, "HEDDLE_CACHE": "1" if on else "0", "HEDDLE_CACHE_DIR": f"{folder}/entries"}
    subprocess.run([ROOT / "build/full/heddle", "bench", "hexplane", "--start", "--scale", scale, "--json", out], env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", default="demo")
    o = parser.parse_args()
    reports = {way: [] for way in WAYS}
    for _ in range(o.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                reports[way].append(start(folder, way != "off", o.scale))
            size = sum(f.stat().st_size for f in pathlib.Path(folder, "entries").iterdir())
        empty, filled = reports["empty"][-1], reports["filled"][-1]
        assert empty["misses"] and not empty["hits"] and not filled["misses"] and filled["hits"] == empty["misses"], (empty, filled)
    median, least = ({way: {name: of(r[name] for r in reports[way]) for name in TIMES} for way in WAYS} for of in (statistics.median, min))
    print(f"{'ms, all parts':<16}" + "".join(f"{name.removesuffix('_ms').replace('_', ' '):>14}" for name in TIMES))
    for way in WAYS:
        print(f"{'cache ' + way:<16}" + "".join(f"{median[way][name]:>14.1f}" for name in TIMES))
        print(f"{'  least':<16}" + "".join(f"{least[way][name]:>14.1f}" for name in TIMES))
    print(f"{filled['hits']} binaries, {size / 1024:.0f} KiB")
    if o.json:
        result = {"model": "hexplane", "scale": o.scale, "rounds": o.rounds, "threads": 1, "machine": platform.processor() or platform.machine(), "binaries": filled["hits"],
                  "bytes": size, "median": median, "least": least, "load": os.getloadavg(), "filled_parts": filled["parts"]}
        o.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
