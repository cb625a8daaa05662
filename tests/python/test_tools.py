"""heddle.compare, explain and dump: they tell what is so, change nothing, and fail where they should."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import torch

import heddle


def masked_l1(x, y, m):
    return ((x - y).abs() * m[:, None]).sum() / m.sum().clamp(min=1)


def example(requires_grad=True):
    g = torch.Generator().manual_seed(0)
    return torch.rand(64, 3, generator=g).requires_grad_(requires_grad), torch.rand(64, 3, generator=g), (torch.rand(64, generator=g) > 0.5).float()


class Wrong(torch.autograd.Function):
    """The identity with twice the gradient, in float32 only."""

    @staticmethod
    def forward(ctx, x):
        ctx.wide = x.dtype == torch.float64
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g if ctx.wide else 2 * g


def test_compare_tells_times_launches_bytes_and_errors():
    found = heddle.compare(masked_l1, *example(), repeats=3, check=True)
    assert found.ok and [v.name for v in found.variants] == ["eager", "fused"]
    fused, eager = found.variant("fused"), found.variant("eager")
    assert fused.launches == (1, 1) and eager.launches[0] > 4
    assert fused.bytes[0] < eager.bytes[0] and len(fused.both) == 2 and fused.first > 0
    assert set(fused.errors) == {"output", "d input[0]"} and all(e < 1e-6 for e in fused.errors.values())
    assert json.loads(found.to_json())["ok"] is True
    assert "times as fast as eager; all within tolerance" in str(found)


def test_compare_of_a_module_compares_its_parameters_and_leaves_it_alone():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Softplus())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = heddle.compare(model, torch.randn(16, 4), repeats=1, check=True)
    assert {"d 0.weight", "d 0.bias", "d 1.weight", "d 1.bias", "output"} == set(found.variant("fused").errors)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model[0].weight.grad is None


def test_compare_sees_a_gradient_that_is_wrong():
    def f(x):
        return Wrong.apply(x.sin()).sum()

    x = torch.rand(5, requires_grad=True)
    with pytest.raises(heddle.Mismatch, match=r"d input\[0\]: error") as raised:
        heddle.compare(f, x, repeats=1, check=True, tolerance=1e-5)
    assert not raised.value.comparison.ok


def test_compare_sees_an_integer_that_differs():
    found = heddle.compare(lambda x: (x.floor().long() + int(torch.compiler.is_compiling()), x * 2), torch.rand(5), repeats=1)
    assert found.failures() == ["output[0]: error inf, over 0.00e+00"]


def test_compare_keeps_the_generator_and_says_when_numbers_are_drawn():
    x = torch.rand(8, requires_grad=True)
    state = torch.random.get_rng_state()
    found = heddle.compare(lambda x: (x * torch.rand_like(x)).sum(), x, repeats=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert found.ok and "random" in found.variant("eager").note


def test_explain_names_kernels_reasons_and_source_lines():
    text = heddle.explain(masked_l1, *example())
    assert re.search(r"masked_l1: forward 1 kernels, 0 library calls.*backward 1 kernels", text)
    assert "test_tools.py:" in text and "starts in" in text and text.regions[0]["launches_backward"] == 1


def test_explain_says_what_runs_eagerly_and_where_the_graph_breaks():
    text = heddle.explain(lambda x: Wrong.apply(x).sum(), torch.rand(3, requires_grad=True))
    assert "runs eagerly: " in text

    def branching(x):
        return x.sin() if x.sum() > 0 else x.cos()

    text = heddle.explain(branching, torch.rand(3))
    assert "2 regions, 1 graph break" in text


def test_dump_writes_every_stage(tmp_path):
    files = [pathlib.Path(f) for f in heddle.dump(masked_l1, *example(), to=tmp_path)]
    assert {".py", ".hir", ".ll", ".cu", ".ptx"} <= {f.suffix for f in files} and all(f.stat().st_size for f in files)
    cuda = next(f for f in files if f.suffix == ".cu").read_text()
    assert "__global__" in cuda


def test_a_dumped_graph_is_replayed_from_any_stage(tmp_path):
    command = pathlib.Path(__file__).parents[2] / "build" / "full" / "heddle"

    def replay(file, *more):
        return subprocess.run([command, "replay", file, "--runs", "1", *more], capture_output=True, text=True)

    graphs = [pathlib.Path(f) for f in heddle.dump(masked_l1, *example(), to=tmp_path) if str(f).endswith(".hir")]
    stages = [f for f in graphs if not f.name.endswith("program.hir")]
    assert len(stages) > 4
    for f in stages:
        done = replay(f)
        assert done.returncode == 0 and "largest difference" in done.stdout, f"{f.name}: {done.stderr}"
    wrong = stages[-1].with_name("wrong.hir")
    wrong.write_text(stages[-1].read_text().replace("return", "return %99,"))
    assert replay(wrong).returncode == 1
    program = next(f for f in graphs if f.name.endswith("program.hir"))
    assert "give the forward.hir" in replay(program).stderr
    assert replay(stages[1], "--backward").returncode == 0


def test_the_command_exits_with_1_when_an_error_is_over_tolerance(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text("import torch\ndef f(x): return (x.exp() / 3).sum()\ndef inputs(): return torch.rand(100, requires_grad=True)\n")

    def run(*more):
        return subprocess.run([sys.executable, "-m", "heddle", "compare", f"{source}:f", "--inputs", f"{source}:inputs", "--repeats", "1", *more],
                              capture_output=True, text=True)

    good, bad, missing = run("--json", str(tmp_path / "x.json")), run("--tolerance", "0"), run("--tolerance")
    assert good.returncode == 0 and "fused" in good.stdout and json.loads((tmp_path / "x.json").read_text())["ok"], good.stderr
    assert bad.returncode == 1 and "FAILED: " in bad.stdout
    assert missing.returncode == 2
