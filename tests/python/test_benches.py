"""The benches judge rightly: what is wrong shows no time, and the GPU's script goes from end to end on the CPU."""

import ctypes
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import blocks  # noqa: E402
import gpu_thesis  # noqa: E402
import static  # noqa: E402
from measure import check  # noqa: E402


def test_a_result_that_is_off_missing_or_too_many_is_wrong():
    exact = {"output": np.float64(2.0).reshape(()), "d x": np.linspace(1, 2, 50)}
    good = {k: v.astype(np.float32) for k, v in exact.items()}
    assert check(good, exact, None)[1] == []
    assert check(good | {"d x": good["d x"] * np.float32(1.001)}, exact, good)[1] == ["d x is off by 1.0e-03"]
    assert check(good | {"d x": good["d x"][:-1]}, exact, good)[1] == ["d x is off by inf"]
    assert check(good | {"d x": good["d x"] * np.nan}, exact, good)[1] == ["d x is off by inf"]
    assert check({"output": good["output"]}, exact, good)[1] == ["d x is missing"]
    assert check(good | {"d y": good["d x"]}, exact, good)[1] == ["d y isn't there in float64"]
    off = {"output": good["output"], "d x": good["d x"] * np.float32(1.001)}  # eager itself is no better
    assert check(good | {"d x": good["d x"] * np.float32(1.002)}, exact, off)[1] == []


def test_the_script_for_the_gpu_runs_dry(tmp_path):
    rows = ["density_on_rays", "density_on_rays_deterministic", "iteration_late", "trajectory_8k", "dynibar_iteration", "adam_first", "block_selected_l1"]
    command = [sys.executable, ROOT / "bench" / "gpu", "--dry", "--out", tmp_path, "--compile-seconds", "0", "--rows", *rows]
    p = subprocess.run(command, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    found = {r["row"]: r["columns"] for r in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    assert set(found) == set(rows)
    for columns in found.values():
        assert all(columns[c]["ok"] and columns[c]["both_event_ms"] > 0 for c in ("eager", "heddle")) and columns["compile"]["skipped"]
    assert found["trajectory_8k"]["thesis"]["ok"]


SHIM = """
#define __global__
struct Place { int x, y; };
static Place blockIdx, threadIdx;
%s
template <class F> static void every(int blocks_x, int blocks_y, F f) {
  for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y) for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x)
    for (threadIdx.y = 0; threadIdx.y < 3; ++threadIdx.y) for (threadIdx.x = 0; threadIdx.x < 128; ++threadIdx.x) f();
}
extern "C" void forward(int rays, const float* rows, const float* c, float** out) {
  every(7, rays, [&] { thesis_forward(rows, c, out[0], out[1], out[2], out[3], out[4], out[5], out[6]); });
}
extern "C" void backward(int rays, const float* rows, float* d, const float** g) {
  every(rays, 1, [&] { thesis_backward(rows, d, g[0], g[1], g[2], g[3], g[4], g[5], g[6]); });
}
"""


def test_the_thesis_kernels_compute_the_trajectory(tmp_path):
    """Their text as C++, a thread after the other; and as CUDA, for sm_90."""
    source, library = tmp_path / "thesis.cpp", tmp_path / "thesis.so"
    source.write_text(SHIM % gpu_thesis.SOURCE)
    subprocess.run(["c++", "-O1", "-shared", "-fPIC", "-std=c++17", source, "-o", library], check=True)
    run = ctypes.CDLL(str(library))
    rays, frame, g = 2, 5, torch.Generator().manual_seed(1)
    coefficients, basis = torch.randn(rays, 128, 18, generator=g).requires_grad_(), torch.randn(12, 6, generator=g).requires_grad_()
    want = list(blocks.trajectory(coefficients, basis, frame).values())
    seeds = [torch.randn(w.shape, generator=g) for w in want]
    d_coefficients, d_basis = torch.autograd.grad(want, [coefficients, basis], seeds)

    def pointers(ts):
        return (ctypes.c_void_p * len(ts))(*(t.data_ptr() for t in ts))

    rows = basis.detach()[frame - 3:frame + 4].contiguous()
    out, d = [torch.full((rays, 128, 3), torch.nan) for _ in want], torch.full_like(d_coefficients, torch.nan)
    run.forward(rays, ctypes.c_void_p(rows.data_ptr()), ctypes.c_void_p(coefficients.data_ptr()), pointers(out))
    run.backward(rays, ctypes.c_void_p(rows.data_ptr()), ctypes.c_void_p(d.data_ptr()), pointers(seeds))
    for a, b in zip([*out, d], [*want, d_coefficients]):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(list(gpu_thesis.trajectory(coefficients, basis, frame).values()), [coefficients, basis], seeds)
    for a, b in zip(mine, (d_coefficients, d_basis)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for name in ("thesis_forward", "thesis_backward"):
        log = static.nvrtc_compile(name, gpu_thesis.SOURCE, "sm_90")[1]
        assert static.number(r"Used (\d+) registers", log) <= 64 and static.spilled(log) == 0
    assert "_compile_kernel" in vars(torch.cuda)


def test_peers_take_turns_and_are_compared(tmp_path):
    file = tmp_path / "peers.json"
    command = [sys.executable, ROOT / "bench" / "peers.py", "--blocks", "loss_chain", "--columns", "eager", "heddle", "--seconds", "0.1", "--turns", "3", "--json", file]
    p = subprocess.run(command, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    found = json.loads(file.read_text())
    columns = found["blocks"][0]["columns"]
    assert set(columns) == {"eager", "heddle"} and all(c["ok"] and c["runs"] == 3 and c["cpu_ms"] > 0 for c in columns.values())
    assert set(columns["heddle"]["errors"]) == {"output", "d sigma"} and {g["met"] for g in found["goals"] if g["block"] != "loss_chain"} == {None}


def test_dynibars_blocks_are_compared(tmp_path):
    file = tmp_path / "peers.json"
    command = [sys.executable, ROOT / "bench" / "peers.py", "--model", "dynibar", "--scale", "tiny", "--blocks", "dynibar_losses", "--columns", "eager", "heddle",
               "--seconds", "0.1", "--turns", "3", "--json", file]
    p = subprocess.run(command, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    columns = json.loads(file.read_text())["blocks"][0]["columns"]
    assert columns["heddle"]["ok"] and columns["heddle"]["kernels"] <= 3 and columns["heddle"]["library_calls"] == 0 and columns["heddle"]["worst_error"] < 1e-5


def test_zero_but_for_rounding_is_measured_by_the_largest():
    exact = {"d x": np.linspace(1, 2, 50), "d zero": np.full(3, 1e-17)}
    assert check(exact | {"d zero": np.full(3, 1e-9)}, exact, None)[1] == []
    assert check(exact | {"d zero": np.full(3, 1e-3)}, exact, None)[1] != []
