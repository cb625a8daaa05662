"""Sizes and numbers that change compile nothing: a training loop in which all of them change at each step."""

import pytest
import torch
from torch import nn

from heddle._fuse import door_of
from same import close


def compilations(fused):
    """Of all kinds, so far: heddle's captures and seconds of compilation, Dynamo's graphs."""
    reports = [region.report() for region in door_of(fused).regions()]
    return (sum(r["captures"] for r in reports), sum(r["compile_seconds"] for r in reports), len(reports), torch._dynamo.utils.counters["stats"]["unique_graphs"],
            torch._dynamo.utils.counters["frames"]["total"])


def eager_reasons(fused):
    return [r for r in (region.report()["eager_reason"] for region in door_of(fused).regions()) if r] + door_of(fused).reasons()


class Field(nn.Module):
    """Two planes of features, sampled at points in space and time, decoded; composited along rays: a small scene model."""

    def __init__(self):
        super().__init__()
        self.planes = nn.Parameter(torch.randn(2, 4, 8, 8) * 0.1)
        self.decode = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, points, times):
        xy = torch.stack([points[..., :2], torch.cat([points[..., 2:], times.expand_as(points[..., 2:])], -1)])
        flat = xy.reshape(2, 1, -1, 2)
        features = nn.functional.grid_sample(self.planes, flat, align_corners=True)  # 2, 4, 1, rays * samples
        return self.decode(features.reshape(8, -1).t()).reshape(*points.shape[:-1], 4)


def render(model, origins, directions, depths, times):
    points = origins[:, None] + directions[:, None] * depths[..., None]
    out = model(points, times[:, None, None])
    alpha = 1 - torch.exp(-nn.functional.softplus(out[..., 0]) * 0.1)
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1] + 1e-10], -1), -1)
    return ((alpha * passed)[..., None] * out[..., 1:].sigmoid()).sum(1)


class Loss(nn.Module):
    """Rays, samples, points and views of their own number; a mask; a weight and a step that change."""

    def __init__(self):
        super().__init__()
        self.field = Field()

    def forward(self, rays, target, mask, views, cloud, weight, step):
        picture = render(self.field, *rays)
        loss = (picture - target).abs()[mask].sum() / mask.sum().clamp(min=1)
        loss = loss + (views - views.mean(0)).square().mean() * weight
        tv = (self.field.planes[..., 1:] - self.field.planes[..., :-1]).square().mean()
        loss += tv * weight / step
        return loss + self.field(cloud, cloud[..., :1] * 0).square().mean() * 0.01


def batch(step):
    g = torch.Generator().manual_seed(step)
    n, s, v, c = 5 + 3 * step, 4 + step, 2 + step % 7, 11 + 2 * step
    rays = [torch.rand(n, 3, generator=g) * 2 - 1, torch.randn(n, 3, generator=g) * 0.1, torch.rand(n, s, generator=g), torch.rand(n, generator=g)]
    return rays, torch.rand(n, 3, generator=g), torch.rand(n, generator=g) > 0.3, torch.rand(v, 6, generator=g), torch.rand(c, 3, generator=g), 0.1 * 0.9 ** step, step + 2


def train(wrap, steps=20):
    torch.manual_seed(0)
    model = Loss()
    loss_of, opt = wrap(model), torch.optim.Adam(model.parameters(), lr=1e-2)
    losses, counts = [], []
    for step in range(steps):
        loss = loss_of(*batch(step))
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.detach())
        if door_of(loss_of) is not None:
            counts.append(compilations(loss_of))
    return torch.stack(losses), counts, loss_of


def test_twenty_iterations_in_which_every_dimension_changes(own_door):
    want, _, _ = train(lambda m: m)
    got, counts, fused = train(own_door)
    close(want, got, "losses", 1e-4)
    assert not eager_reasons(fused), eager_reasons(fused)
    assert counts[1] == counts[-1], f"(captures, seconds, regions, Dynamo's graphs, frames) by step: {counts}"


ROWS = {
    "pointwise": lambda x: (x * 2).sin(),
    "a sum": lambda x: (x * x).sum(0),
    "neighbours": lambda x: (x[1:] - x[:-1]).abs().mean(),
    "reshaped": lambda x: x.reshape(-1).cumsum(0),
    "chunks": lambda x: x[: x.shape[0] // 2] * 2,
    "its size as a number": lambda x: x.sum() / x.shape[0],
    "made of its size": lambda x: torch.arange(x.shape[0]) * 2.0 + x[:, 0],
    "outer": lambda x: x[:, None] * x[None],
    "cat": lambda x: torch.cat([x, x[:1]]),
    "a matrix product": lambda x: x.t() @ x,
    "softmax": lambda x: x.softmax(0),
}


@pytest.mark.parametrize("case", ROWS)
def test_one_size(own_door, case):
    fused, counts = own_door(ROWS[case]), []
    for n in (5, 8, 4, 12, 7, 6, 30):
        x = torch.randn(n, 3)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        want, got = ROWS[case](a), fused(b)
        close(want, got, f"{n}")
        want.sum().backward(), got.sum().backward()
        close(a.grad, b.grad, f"gradient {n}")
        counts.append(compilations(fused))
    assert counts[2] == counts[-1], counts
    assert not eager_reasons(fused), eager_reasons(fused)


@pytest.mark.parametrize("order", [[(4, 5), (4, 6), (7, 6), (8, 9), (2, 3), (5, 5)], [(3, 3), (4, 4), (5, 5), (6, 6), (3, 4), (5, 7)], [(1, 5), (4, 5), (1, 1), (3, 3), (1, 4)]],
                         ids=["one after the other", "equal at first", "ones"])
def test_two_sizes(own_door, order):
    f = lambda x, y: (x[:, None] * y[None]).sin().sum(0)  # noqa: E731
    fused = own_door(f)
    for n, m in order:
        x, y = torch.randn(n), torch.randn(m)
        close(f(x, y), fused(x, y), f"{n} {m}")
    assert compilations(fused)[0] <= 5  # Dynamo compiles sizes of 1 by themselves
    before = compilations(fused)
    for n, m in [(9, 8), (11, 6)]:
        x, y = torch.randn(n), torch.randn(m)
        close(f(x, y), fused(x, y), f"{n} {m}")
    assert compilations(fused)[0] - before[0] <= 1


def test_a_branch_on_a_size(own_door):
    f = lambda x: x.sin() if x.shape[0] > 5 else x.cos()  # noqa: E731
    fused = own_door(f)
    for n in (3, 8, 4, 9, 5, 6, 30, 1):
        x = torch.randn(n)
        close(f(x), fused(x), f"{n}")


def test_dynamic_false_and_true():
    import heddle

    f = lambda x: (x * 2).sin().sum()  # noqa: E731
    for dynamic, most in ((True, 1), (None, 2), (False, 4)):
        torch._dynamo.reset()
        fused = heddle.fuse(f, dynamic=dynamic)
        for n in (4, 5, 6, 7):
            x = torch.randn(n)
            close(f(x), fused(x), f"{n}")
        assert compilations(fused)[2] <= most


def test_one_of_many_shapes_is_remembered(own_door):
    """Turns among three shapes that share nothing capture each once."""
    f = lambda x: (x * 2).sin()  # noqa: E731
    fused, shapes = own_door(f), [(4,), (2, 3), (2, 2, 2)]
    for _ in range(3):
        for s in shapes:
            x = torch.randn(s)
            close(f(x), fused(x), f"{s}")
    assert compilations(fused)[0] == 3


@pytest.mark.parametrize("other", [float("inf"), float("-inf"), float("nan"), 2.5, 3.0])
def test_a_size_beside_a_float(own_door, other):
    def f(x):
        n = x.shape[0]
        return x * 2 if n == other else x * (3 if n < other else 5)

    fused = own_door(f)
    for n in (4, 4, 3, 2, 6):
        assert torch.equal(f(torch.ones(n)), fused(torch.ones(n))), n
