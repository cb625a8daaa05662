"""The column "hand": bench/peers/hand.cpp, built with this machine's compiler when it's older than its source. Arguments: folder, column."""

import ctypes
import pathlib
import subprocess

import numpy as np
from work import ADAM, ADAM_STEPS, FRAMES, arrays, wanted
from worker import serve

SOURCE = pathlib.Path(__file__).with_name("hand.cpp")
LIBRARY = SOURCE.parents[2] / "out" / "peers-hand.so"


def library() -> ctypes.CDLL:
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < SOURCE.stat().st_mtime:
        LIBRARY.parent.mkdir(exist_ok=True)
        subprocess.run(["g++", "-std=c++20", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", SOURCE, "-o", LIBRARY], check=True)
    return ctypes.CDLL(str(LIBRARY))


C = library()


def pointer(a: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


def pointers(all_: list[np.ndarray]) -> ctypes.Array:
    return (ctypes.c_void_p * len(all_))(*(a.ctypes.data for a in all_))


def adam():
    given = arrays("adam")
    count = len(given) // 2
    gradients = [given[f"gradient_{k}"] for k in range(count)]
    state = [[given[f"parameter_{k}"], np.zeros_like(g), np.zeros_like(g)] for k, g in enumerate(gradients)]
    steps = 0

    def run():
        nonlocal steps
        steps += 1
        b1, b2 = ADAM["beta1"], ADAM["beta2"]
        numbers = [ctypes.c_float(x) for x in (ADAM["rate"] / (1 - b1**steps), (1 - b2**steps) ** 0.5, b1, 1 - b1, b2, 1 - b2, ADAM["epsilon"])]
        for s, g in zip(state, gradients):
            C.adam(ctypes.c_long(g.size), *map(pointer, s), pointer(g), *numbers)

    def results():
        for _ in range(ADAM_STEPS):
            run()
        return {f"{kind} {k}": s[i] for i, kind in enumerate(("parameter", "first", "second")) for k, s in enumerate(state)}

    return run, results


def column(block):
    if block == "adam":
        return adam()
    if block == "iteration":
        raise NotImplementedError("not written by hand")
    given = arrays(block)
    gradients = {f"d {name}": np.empty_like(given[name]) for name in wanted(block)}
    n = given[next(iter(given))].shape[0]
    if block == "trajectory":
        n *= given["coefficients"].shape[1]
    shape = {"density_feature": (n,), "positional_encoding": (n, 132)}.get(block, ())
    if block == "trajectory":
        shape = (FRAMES, *given["coefficients"].shape[:2], 3)
    out = np.empty(shape, np.float32)
    cotangent = [given.pop(name) for name in list(given) if name.startswith("d_")]
    arguments = [pointer(a) for a in given.values()]
    if block == "density_feature":
        arguments = [*arguments[:2], pointers(list(given.values())[2:])]
    after = [pointers(list(gradients.values()))] if block == "density_feature" else [pointer(g) for g in gradients.values()]

    def run(_kept=(given, cotangent)):  # what the pointers are of
        getattr(C, block)(ctypes.c_long(n), *arguments, *map(pointer, cotangent), pointer(out), *after)

    def results():
        run()
        return {"output": out} | gradients

    return run, results


serve(column)
