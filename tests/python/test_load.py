"""heddle.load: an exported program is the module it was made of, also while it's trained."""

import copy

import pytest
import torch

import heddle


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Softplus(), torch.nn.Linear(16, 1))
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x, target, *, weight=2.0):
        y = self.net(x)[:, 0] * self.scale
        return {"loss": ((y - target) ** 2).mean() * weight, "y": y}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = Model()
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    rows = torch.export.Dim("rows", min=2)
    torch.export.save(torch.export.export(copy.deepcopy(model), (torch.rand(6, 4), torch.rand(6)), {"weight": 2.0},
                                          dynamic_shapes={"x": {0: rows}, "target": {0: rows}, "weight": None}), path)
    return model, path


def test_results_names_and_training_are_the_modules(saved):
    model, path = saved
    model, program = copy.deepcopy(model), heddle.load(path)
    assert {n for n, _ in program.named_parameters()} == {n for n, _ in model.named_parameters()}
    assert set(program.state_dict()) == set(model.state_dict())
    optimisers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, program)]
    generator = torch.Generator().manual_seed(1)
    for step in range(8):
        x, target = torch.rand(8 + step, 4, generator=generator), torch.rand(8 + step, generator=generator)
        for m, o in zip((model, program), optimisers):
            o.zero_grad()
            out = m(x, target, weight=2.0)
            out["loss"].backward()
            o.step()
            if m is model:
                want = out
        torch.testing.assert_close(out["loss"], want["loss"])
        torch.testing.assert_close(out["y"], want["y"])
    for (name, a), (_, b) in zip(sorted(program.state_dict().items()), sorted(model.state_dict().items())):
        torch.testing.assert_close(a, b, msg=name)
    assert "kernels" in program.explain()


def test_what_was_constant_at_export_stays_so(saved):
    program = heddle.load(saved[1])
    with pytest.raises(ValueError, match="argument weight is 3.0, and was 2.0 at export"):
        program(torch.rand(3, 4), torch.rand(3), weight=3.0)
    with pytest.raises(TypeError, match="expected 3"):
        program(torch.rand(3, 4))


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.pt2").write_bytes(b"not a zip")
    for path in (tmp_path / "x.pt2", tmp_path / "absent.pt2"):
        with pytest.raises(RuntimeError) as raised:
            heddle.load(path)
        assert path.name in str(raised.value).splitlines()[0]
