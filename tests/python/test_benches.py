"""The benches judge rightly: what is wrong shows no time, and the GPU's script goes from end to end on the CPU."""

import json
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
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
    rows = ["density_on_rays", "density_on_rays_deterministic", "iteration_late", "adam_first", "block_selected_l1"]
    command = [sys.executable, ROOT / "bench" / "gpu", "--dry", "--out", tmp_path, "--compile-seconds", "0", "--rows", *rows]
    p = subprocess.run(command, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    found = {r["row"]: r["columns"] for r in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    assert set(found) == set(rows)
    for columns in found.values():
        assert all(columns[c]["ok"] and columns[c]["both_event_ms"] > 0 for c in ("eager", "heddle")) and columns["compile"]["skipped"]


def test_peers_take_turns_and_are_compared(tmp_path):
    file = tmp_path / "peers.json"
    command = [sys.executable, ROOT / "bench" / "peers.py", "--blocks", "loss_chain", "--columns", "eager", "heddle", "--seconds", "0.1", "--turns", "3", "--json", file]
    p = subprocess.run(command, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    found = json.loads(file.read_text())
    columns = found["blocks"][0]["columns"]
    assert set(columns) == {"eager", "heddle"} and all(c["ok"] and c["runs"] == 3 and c["cpu_ms"] > 0 for c in columns.values())
    assert set(columns["heddle"]["errors"]) == {"output", "d sigma"} and {g["met"] for g in found["goals"] if g["block"] != "loss_chain"} == {None}
