"""heddle.TrainStep trains as eager code does: parameters, the optimiser's state, schedulers, checkpoints, growing planes."""

import copy
import math

import pytest
import torch
from torch import nn

import heddle


def mlp(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def loss_of(model: nn.Module):
    def loss(x: torch.Tensor, y: torch.Tensor, weight: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        out = model(x)
        return weight * ((out - y) ** 2).mean(), out

    return loss


def batch(i: int, n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(i)
    return torch.randn(n, 5, generator=g, dtype=torch.float64), torch.randn(n, 3, generator=g, dtype=torch.float64)


def eager(loss, optimizer, *args):
    optimizer.zero_grad()
    out = loss(*args)
    (out[0] if isinstance(out, tuple) else out).backward()
    optimizer.step()
    return out


def same(a: nn.Module, b: nn.Module, tolerance: float = 1e-12) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters()):
        torch.testing.assert_close(q, p, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def same_state(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    x, y = a.state_dict()["state"], b.state_dict()["state"]
    assert x.keys() == y.keys()
    for k in x:
        assert x[k].keys() == y[k].keys()
        for name in x[k]:
            torch.testing.assert_close(y[k][name], x[k][name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}, {"betas": (0.8, 0.9), "eps": 1e-5}, {"foreach": True}, {"fused": True}])
def test_forms_of_adam(kind, options):
    a = mlp()
    b = copy.deepcopy(a)
    oa, ob = kind(a.parameters(), lr=1e-2, **options), kind(b.parameters(), lr=1e-2, **options)
    sa, sb = torch.optim.lr_scheduler.ExponentialLR(oa, 0.9), torch.optim.lr_scheduler.ExponentialLR(ob, 0.9)
    step = heddle.TrainStep(loss_of(b), ob)
    for i in range(5):
        want, out = eager(loss_of(a), oa, *batch(i))
        got, picture = step(*batch(i))
        assert step.report()["eager_reason"] == ""
        assert not got.requires_grad and got == pytest.approx(want.item(), rel=1e-12)
        torch.testing.assert_close(picture, out.detach(), rtol=1e-12, atol=1e-12)
        sa.step(), sb.step()
        same(a, b)
    same_state(oa, ob)
    assert all(p.grad is None for p in b.parameters())


def test_modules_that_are_their_own_loss_and_numbers_that_change():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))

        def forward(self, x, scale):
            return (self.w * x * scale).square().sum() + self.w.abs().sum() * scale

    a = Model()
    b = copy.deepcopy(a)
    oa, ob = torch.optim.Adam(a.parameters(), lr=0.1), torch.optim.Adam(b.parameters(), lr=0.1)
    step = heddle.TrainStep(b, ob)
    for i in range(8):
        x = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        want = eager(a, oa, x, 0.5 + i)
        assert step(x, 0.5 + i).item() == pytest.approx(want.item(), rel=1e-12)
        assert step.report()["eager_reason"] == ""
        same(a, b)
    assert sum(e.region.report()["captures"] for e in step._captures.entries.values()) <= 3


def test_batches_of_other_sizes_are_captured_once_more():
    a = mlp()
    b = copy.deepcopy(a)
    oa, ob = torch.optim.Adam(a.parameters()), torch.optim.Adam(b.parameters())
    step = heddle.TrainStep(loss_of(b), ob)
    for i, n in enumerate([7, 9, 4, 12, 1, 30]):
        eager(loss_of(a), oa, *batch(i, n))
        step(*batch(i, n))
        same(a, b)
    assert step.report()["captures"] == 2


def test_saved_and_resumed():
    a = mlp()
    b, c = copy.deepcopy(a), copy.deepcopy(a)
    oa, ob, oc = (torch.optim.Adam(m.parameters(), lr=1e-2) for m in (a, b, c))
    step = heddle.TrainStep(loss_of(b), ob)
    for i in range(3):
        eager(loss_of(a), oa, *batch(i))
        step(*batch(i))
    c.load_state_dict(b.state_dict())
    oc.load_state_dict(copy.deepcopy(ob.state_dict()))
    resumed = heddle.TrainStep(loss_of(c), oc)
    for i in range(3, 6):
        eager(loss_of(a), oa, *batch(i))
        resumed(*batch(i))
        assert resumed.report()["eager_reason"] == ""
        same(a, c)
    same_state(oa, oc)
    ob.load_state_dict(oc.state_dict())  # under a step that has run
    b.load_state_dict(c.state_dict())
    for i in range(6, 9):
        eager(loss_of(a), oa, *batch(i))
        step(*batch(i))
        same(a, b)
    same_state(oa, ob)


def test_eager_steps_in_between():
    a = mlp()
    b = copy.deepcopy(a)
    oa, ob = torch.optim.Adam(a.parameters(), lr=1e-2), torch.optim.Adam(b.parameters(), lr=1e-2)
    step = heddle.TrainStep(loss_of(b), ob)
    for i in range(6):
        eager(loss_of(a), oa, *batch(i))
        eager(loss_of(b), ob, *batch(i)) if i % 2 else step(*batch(i))
        same(a, b)
    same_state(oa, ob)


class Planes(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        torch.manual_seed(1)
        self.planes = nn.ParameterList(torch.randn(1, 8, size, size + 3, dtype=torch.float64) for _ in range(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        features = [torch.nn.functional.grid_sample(p, x.view(1, -1, 1, 2), align_corners=True).view(8, -1) for p in self.planes]
        tv = sum((p[:, :, 1:] - p[:, :, :-1]).square().mean() + (p[..., 1:] - p[..., :-1]).square().mean() for p in self.planes)
        return ((features[0] * features[1]).sum(0) - y).square().mean() + 0.1 * tv

    def grow(self, size: int) -> None:
        grown = [torch.nn.functional.interpolate(p.detach(), (size, size + 3), mode="bilinear", align_corners=True) for p in self.planes]
        self.planes = nn.ParameterList(nn.Parameter(g) for g in grown)


def test_planes_are_laid_out_once_and_may_grow():
    a = Planes(6)
    b = copy.deepcopy(a)
    for size in (6, 9):
        if size != 6:
            a.grow(size), b.grow(size)
        oa, ob = torch.optim.Adam(a.parameters(), lr=1e-2), torch.optim.Adam(b.parameters(), lr=1e-2)
        step = heddle.TrainStep(b, ob)
        for i in range(4):
            g = torch.Generator().manual_seed(i)
            x, y = torch.rand(50, 2, generator=g, dtype=torch.float64) * 2.2 - 1.1, torch.randn(50, generator=g, dtype=torch.float64)
            want = eager(a, oa, x, y)
            assert step(x, y).item() == pytest.approx(want.item(), rel=1e-12)
            assert step.report()["eager_reason"] == ""
            same(a, b)
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in b.parameters())
        assert "copied" in step.report() and step.report()["copied"] == 0
        same_state(oa, ob)


class Scene(Planes):
    """Planes, samples along rays whose number and step follow from the planes' size, and a mask of what is empty that has a size of its own."""

    def __init__(self, size: int):
        super().__init__(size)
        self.register_buffer("mask", None)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        size = self.planes[0].shape[2]
        samples = int(size * math.sqrt(3.0))
        along = torch.linspace(-1, 1, samples, dtype=x.dtype)
        at = (x[:, None, :] * along[None, :, None]).reshape(-1, 2)
        inside = (at.abs() <= 1).all(-1)
        if self.mask is not None:
            inside = inside.clone()
            with torch.no_grad():
                inside[inside.clone()] = nn.functional.grid_sample(self.mask, at[inside][None, :, None], align_corners=True).flatten() > 0
        density = torch.zeros_like(at[:, 0])
        if inside.any():
            a, b = (nn.functional.grid_sample(p, at[inside][None, :, None], align_corners=True)[0, :, :, 0] for p in self.planes)
            density[inside] = (a * b).sum(0)
        light = torch.exp(-nn.functional.softplus(density).view(-1, samples) * (4.0 / samples)).cumprod(-1)
        tv = sum((p[:, :, 1:] - p[:, :, :-1]).square().sum() / float(8 * (p.shape[2] - 1) * p.shape[3]) for p in self.planes)
        return (light.mean(-1) - y).square().mean() + 0.1 * tv

    def look_for_empty_space(self) -> None:
        size = self.planes[0].shape[2]
        self.mask = (torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(size)) > 0.3).double()


def test_no_size_of_a_schedule_compiles_anything():
    a = Scene(7)
    b = copy.deepcopy(a)
    oa = ob = step = None
    compiles, captures = [], []
    schedule = ["start", 9, 12, "mask", 14, "mask", "save", 17]  # planes grow three times, twice beneath a mask that doesn't; it's made anew in between
    for k, change in enumerate(schedule):
        if isinstance(change, int):
            a.grow(change), b.grow(change)
        elif change == "mask":
            a.look_for_empty_space(), b.look_for_empty_space()
        if isinstance(change, int) or change == "start":
            oa, ob = torch.optim.Adam(a.parameters(), lr=1e-2), torch.optim.Adam(b.parameters(), lr=1e-2)
        if change == "save":  # everything anew, from what was saved
            state, model = copy.deepcopy(ob.state_dict()), b.state_dict()
            b = Scene(14)
            b.look_for_empty_space()
            b.load_state_dict(model)
            ob = torch.optim.Adam(b.parameters(), lr=1e-2)
            ob.load_state_dict(state)
        step = heddle.TrainStep(b, ob)
        for i in range(3):
            g = torch.Generator().manual_seed(10 * k + i)
            x, y = torch.rand(20, 2, generator=g, dtype=torch.float64) * 2.4 - 1.2, torch.rand(20, generator=g, dtype=torch.float64)
            want = eager(a, oa, x, y)
            assert step(x, y).item() == pytest.approx(want.item(), rel=1e-9)
            assert step.report()["eager_reason"] == ""
            same(a, b, 1e-9)
        compiles.append(step.report()["compiles"])
        captures.append(step.report()["captures"])
    assert compiles == [1, 0, 0, 1, 0, 0, 0, 0]  # without a mask and with one
    assert captures == [1] * len(schedule)


def test_an_optimiser_that_takes_new_parameters():
    """The step stays, its optimiser is given planes that have grown."""
    a = Scene(8)
    b = copy.deepcopy(a)
    oa, ob = torch.optim.Adam(a.parameters(), lr=1e-2), torch.optim.Adam(b.parameters(), lr=1e-2)
    step = heddle.TrainStep(lambda x, y: b(x, y), ob)
    for size in (8, 11, 13):
        if size != 8:
            a.grow(size), b.grow(size)
            for o, m in ((oa, a), (ob, b)):
                o.state.clear()
                o.param_groups[0]["params"] = list(m.parameters())
        for i in range(2):
            g = torch.Generator().manual_seed(i)
            x, y = torch.rand(20, 2, generator=g, dtype=torch.float64) * 2.4 - 1.2, torch.rand(20, generator=g, dtype=torch.float64)
            want = eager(a, oa, x, y)
            assert step(x, y).item() == pytest.approx(want.item(), rel=1e-9)
            assert step.report()["eager_reason"] == ""
            same(a, b, 1e-9)
    assert (step.report()["captures"], step.report()["compiles"]) == (3, 1)


def masked(model: nn.Module):
    def loss(x: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
        y = model[:2](x)
        total = (y ** 2).mean()
        chosen = y[:, 0] > over
        if chosen.any():
            total = total + model[2](y[chosen]).relu().pow(2).sum() / 50
        return total

    return loss


def test_bounded_steps_repeat_what_did_not_hold():
    """Rows that grow, and a branch that is taken or not, without a kernel that waits for the host."""
    a = mlp()
    b = copy.deepcopy(a)
    oa, ob = torch.optim.Adam(a.parameters(), lr=1e-2), torch.optim.Adam(b.parameters(), lr=1e-2)
    step = heddle.TrainStep(masked(b), ob, bounded=True)
    for i, over in enumerate([0.9, 0.9, -0.5, -0.5, 5.0, 0.0, 5.0, 0.9]):
        x, over = batch(i, 2000)[0], torch.tensor(over, dtype=torch.float64)
        want = eager(masked(a), oa, x, over)
        assert step(x, over).item() == pytest.approx(want.item(), rel=1e-11)
        report = step.report()
        assert report["eager_reason"] == "" and report["bounded"] and report["host_reads"] == 0, report
        same(a, b, 1e-11)
    assert report["repeated"] == 1 and report["captures"] == 2
    assert step.failed()[0] == 0


@pytest.mark.parametrize("bounded", [False, True])
def test_capturable_optimisers_count_in_the_plan(bounded):
    """Their numbers of steps are float32 and views of one tensor; state_dict saves them, load_state_dict replaces them."""
    a = mlp()
    b = copy.deepcopy(a)
    oa = torch.optim.AdamW(a.parameters(), lr=1e-2)
    ob = torch.optim.AdamW(b.parameters(), lr=1e-2, capturable=True)
    step = heddle.TrainStep(masked(b), ob, bounded=bounded)
    over = torch.tensor(0.1, dtype=torch.float64)
    for i in range(8):
        want = eager(masked(a), oa, batch(i, 60)[0], over)
        assert step(batch(i, 60)[0], over).item() == pytest.approx(want.item(), rel=1e-11)
        assert step.report()["eager_reason"] == ""
        same(a, b, 1e-11)
        assert [s["step"].item() for s in ob.state.values()] == [i + 1] * 4
        if i == 3:
            saved = copy.deepcopy(ob.state_dict())
            ob.load_state_dict(saved)
        if i == 5:
            ob.param_groups[0]["lr"] = oa.param_groups[0]["lr"] = 3e-3
    assert all(s["step"].dtype == torch.float32 for s in ob.state.values())
    before = step.report()
    for i in range(3):
        step(batch(i, 60)[0], over)
    assert step.report()["allocations"] == before["allocations"]


def test_what_cannot_be_fused_runs_eagerly_and_says_why():
    a = mlp()
    b = copy.deepcopy(a)
    oa, ob = torch.optim.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
    step = heddle.TrainStep(loss_of(b), ob)
    for i in range(2):
        eager(loss_of(a), oa, *batch(i))
        step(*batch(i))
        same(a, b)
    assert "SGD" in step.report()["eager_reason"]

    oa, ob = torch.optim.Adam(a.parameters()), torch.optim.Adam(b.parameters())

    def reads(model):
        return lambda x, y: (model(x) - y).square().mean() * float(torch.from_numpy(x.numpy()).sum() > -1e9)

    step = heddle.TrainStep(reads(b), ob)
    for i in range(2):
        eager(reads(a), oa, *batch(i))
        step(*batch(i))
        same(a, b)
    assert "numpy" in step.report()["eager_reason"]


def test_errors_of_the_function_are_its_own():
    m = mlp()
    step = heddle.TrainStep(loss_of(m), torch.optim.Adam(m.parameters()))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        step(torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match="expected an optimiser"):
        heddle.TrainStep(m, None)
    with pytest.raises(TypeError, match="expected a function"):
        heddle.TrainStep(None, torch.optim.Adam(m.parameters()))


class LookUp(nn.Module):
    """Features of cells that points fall into; points outside of the box have none."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.cells = nn.Parameter(torch.randn(7, 16, generator=g, dtype=torch.float64))
        self.scale = nn.Parameter(torch.ones(16, dtype=torch.float64))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        inside, out = (x >= 0) & (x < 7), torch.zeros_like(x)
        if inside.any():
            out[inside] = (self.cells[x[inside].floor().long()] * self.scale).sum(-1).tanh()
        return ((out - y) ** 2).mean()


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_masks_of_rows_looked_up(share, bounded):
    """For a GPU a mask that mostly holds is no list of rows, so that no room for them is needed."""
    a = LookUp()
    b = copy.deepcopy(a)
    oa, ob = torch.optim.Adam(a.parameters(), lr=1e-2), torch.optim.Adam(b.parameters(), lr=1e-2)
    step = heddle.TrainStep(b, ob, bounded=bounded)
    g = torch.Generator().manual_seed(1)
    for now in (share, share, 0.5, 0.05, 1.0, share):
        x, y = torch.rand(30, 9, generator=g, dtype=torch.float64) * 7, torch.rand(30, 9, generator=g, dtype=torch.float64)
        x[torch.rand(30, 9, generator=g) > now] = math.nan
        want, got = eager(a, oa, x, y), step(x, y)
        assert step.report()["eager_reason"] == ""
        assert got == pytest.approx(want.item(), rel=1e-12)
    same(a, b), same_state(oa, ob)
    assert ("sum_before" in "".join(step.kernels().values())) == (share < 0.5)
    assert " % of its places hold" in step.explain()
    assert all(d["moved"] >= d["least"] > 0 for d in step.traffic())
