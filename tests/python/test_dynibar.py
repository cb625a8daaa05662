"""bench/dynibar.py is the model of models/dynibar: the same losses and the same gradients from the same parameters and inputs, in float64."""

import pathlib
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import dynibar  # noqa: E402
import dynibar_parts  # noqa: E402


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    file = tmp_path_factory.mktemp("values") / "values.pt"
    subprocess.run([ROOT / "build/full/heddle", "dump", "dynibar", "--scale", "tiny", "--values", file], check=True)
    return torch.load(file, weights_only=False)  # a typed dictionary of C++, written above


@pytest.mark.parametrize("phase", ["bootstrap", "moving", "sparse"])
def test_equals_the_model(values, phase):
    model = dynibar.Dynibar(dynibar.SCALES["tiny"]).double()
    names = dict(model.named_parameters())
    assert {n: p.shape for n, p in names.items()} == {n.partition(".")[2]: p.shape for n, p in values.items() if n.startswith("parameter.")}
    with torch.no_grad():
        for name, p in names.items():
            p.copy_(values[f"parameter.{name}"])
    inputs = [values[f"input.{k}"] for k in range(sum(n.startswith("input.") for n in values))]
    losses = model(*inputs, phase=phase)
    for k, loss in enumerate(losses):
        assert (loss - values[f"{phase}.loss.{k}"]).abs() <= 1e-12 * (1 + loss.abs()), dynibar.TERMS[k]
    gradients = torch.autograd.grad(losses[0], list(names.values()), allow_unused=True)
    largest = max(g.norm() for g in gradients if g is not None)
    for name, g in zip(names, gradients):
        want = values.get(f"{phase}.gradient.{name}")
        assert (g is None) == (want is None), name
        assert g is None or (g - want).norm() <= 1e-10 * want.norm() + 1e-13 * largest, name
    if phase == "moving":
        assert sum(g is None for g in gradients) == 164 and len(gradients) == 313


def test_parts_take_what_a_step_has():
    scale = dynibar.SCALES["tiny"]
    flat = dynibar_parts.step_inputs(scale)
    losses = dynibar.Dynibar(scale)(*flat)
    assert all(torch.isfinite(loss) for loss in losses)
    for name, (function, inputs) in dynibar_parts.parts(scale).items():
        out = function(*inputs)
        roots = [t for t in ([out] if isinstance(out, torch.Tensor) else out) if t.requires_grad]
        gradients = torch.autograd.grad(roots, [t for t in inputs if t.requires_grad], [torch.ones_like(t) for t in roots], allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in gradients), name
