"""bench/hexplane.py is the model of models/hexplane: the same loss and the same gradients from the same parameters and inputs, in float64."""

import pathlib
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import hexplane  # noqa: E402


def near(a, b):
    return (a - b).norm() <= 1e-12 * b.norm()


@pytest.fixture(scope="module", params=["--thin", ""], ids=["thin", "thick"])
def values(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("values") / "values.pt"
    subprocess.run([ROOT / "build/full/heddle", "dump", "hexplane", "--scale", "tiny", "--values", file, *request.param.split()], check=True)
    return torch.load(file, weights_only=False)  # a typed dictionary of C++, written above


@pytest.mark.parametrize("mask", ["whole", "masked"])
def test_equals_the_model(values, mask):
    model = hexplane.HexPlane(hexplane.SCALES["tiny"]).double()
    assert {n: p.shape for n, p in model.named_parameters()} == {n.partition(".")[2]: p.shape for n, p in values.items() if n.startswith("parameter.")}
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(values[f"parameter.{name}"])
    if mask == "masked":
        model.set_emptiness(values["emptiness"])
    losses = model(*(values[f"input.{k}"] for k in range(6)))
    for k, loss in enumerate(losses):
        assert near(loss, values[f"{mask}.loss.{k}"]), k
    names = dict(model.named_parameters())
    gradients = torch.autograd.grad(losses[0], list(names.values()), allow_unused=True)
    for name, g in zip(names, gradients):
        want = values.get(f"{mask}.gradient.{name}")
        assert (g is None) == (want is None), name
        assert g is None or near(g, want), name
    assert all(g is not None and g.abs().max() > 0 for g in gradients[:6])


def test_points_are_those_of_the_step():
    model = hexplane.HexPlane(hexplane.SCALES["tiny"]).fill()
    xyz, t = hexplane.points_on_rays(model, hexplane.step_inputs(model.scale))
    assert len(xyz) == len(t) and xyz.abs().max() <= 1 and 0 < len(xyz) < model.scale.rays * model.scale.samples


def test_a_tenth_of_the_late_samples_is_left():
    model = hexplane.HexPlane(hexplane.SCALES["late"]).fill()
    xyz, _ = hexplane.points_on_rays(model, hexplane.step_inputs(model.scale))
    assert abs(len(xyz) / (model.scale.rays * model.scale.samples) - model.scale.filled) < 0.01


def test_parameters_at_each_scale():
    counts = {name: sum(p.numel() for p in hexplane.HexPlane(s).parameters()) for name, s in hexplane.SCALES.items() if name != "late"}
    assert counts == {"first": 1146107, "third": 4652219, "demo": 226811, "tiny": 86843}
