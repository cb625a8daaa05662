"""python -m heddle: compare, explain and dump a function of a Python file, from the shell.

    python -m heddle compare train.py:loss --inputs train.py:example --inductor

The function that --inputs names returns the arguments: a tuple, or one value. Exit status 1 when an error is over tolerance.
"""

import argparse
import importlib.util
import pathlib
import sys
from typing import Any

import torch

import heddle

_modules: dict[str, Any] = {}


def _named(where: str) -> Any:
    file, _, name = where.partition(":")
    if not name:
        raise SystemExit(f"{where}: expected FILE.py:NAME")
    path = pathlib.Path(file).resolve()
    if not path.exists():
        raise SystemExit(f"{file}: no such file")
    if str(path) not in _modules:
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        _modules[str(path)] = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = _modules[str(path)]
        spec.loader.exec_module(_modules[str(path)])
    if not hasattr(_modules[str(path)], name):
        raise SystemExit(f"{where}: {file} defines no {name}")
    return getattr(_modules[str(path)], name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m heddle", description="Compare, explain or dump a function that heddle fuses.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("compare", "eager float64, eager, fused: times, launches, bytes, error of each output and gradient"),
                       ("explain", "regions, kernels, and why values did or didn't fuse"), ("dump", "every stage as text files")):
        p = commands.add_parser(name, help=what, description=what)
        p.add_argument("function", metavar="FILE.py:FUNCTION", help="a function or an nn.Module")
        p.add_argument("--inputs", metavar="FILE.py:FUNCTION", required=True, help="called for the arguments: a tuple, or one value")
        p.add_argument("--threads", type=int, help="threads of PyTorch")
        if name == "compare":
            p.add_argument("--inductor", action="store_true", help="also torch.compile's default backend")
            p.add_argument("--tolerance", type=float, help="largest relative error (default: from eager's own error and the element type)")
            p.add_argument("--repeats", type=int, help="timed runs of each (default: two seconds of them)")
            p.add_argument("--json", metavar="FILE", help="also write the numbers")
        if name == "dump":
            p.add_argument("--out", default="dump", help="folder (default: dump)")
    o = parser.parse_args(arguments)
    if o.threads:
        torch.set_num_threads(o.threads)
    function, inputs = _named(o.function), _named(o.inputs)()
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    if o.command == "explain":
        print(heddle.explain(function, *inputs))
    elif o.command == "dump":
        print(*heddle.dump(function, *inputs, to=o.out), sep="\n")
    else:
        found = heddle.compare(function, *inputs, inductor=o.inductor, tolerance=o.tolerance, repeats=o.repeats)
        print(found)
        if o.json:
            pathlib.Path(o.json).write_text(found.to_json())
        return 0 if found.ok else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
