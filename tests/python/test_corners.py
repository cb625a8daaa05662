"""Where arithmetic has corners: opacity of 0 and 1, coordinates on texels, borders and nowhere, integers divided, zeros of both signs, denormals, ties, empty masks.

Law: equal to eager in results and gradients, NaN for NaN. One door: what is captured is the same through all, test_ops.py and others go through each.
"""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

import heddle
from same import same

INF, NAN = float("inf"), float("nan")
static = functools.partial(heddle.fuse, static=True)
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def leaf(values, dtype=torch.float32):
    return torch.as_tensor(values, dtype=dtype).clone().requires_grad_()


# ---- volume rendering


def exclusive_product(alpha, rgb):
    passed = torch.cumprod(torch.cat([alpha.new_ones(alpha.shape[0], 1), 1 - alpha], -1), -1)
    weights = alpha * passed[:, :-1]
    return (weights[..., None] * rgb).sum(-2)


def with_an_epsilon(alpha, rgb):
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)
    return ((alpha * passed[:, :-1])[..., None] * rgb).sum(-2)


def inclusive_product(alpha, rgb):
    return ((1 - alpha).cumprod(-1)[..., None] * rgb).sum(-2)


def of_a_sum_of_densities(sigma, rgb):
    passed = torch.exp(-torch.cumsum(torch.cat([torch.zeros_like(sigma[:, :1]), sigma], -1), -1))
    alpha = 1 - torch.exp(-sigma)
    return ((alpha * passed[:, :-1])[..., None] * rgb).sum(-2)


def of_a_sum_of_logarithms(alpha, rgb):
    passed = torch.exp(torch.cumsum(torch.log1p(-alpha), -1))
    return (passed[..., None] * rgb).sum(-2)


def backwards(alpha, rgb):
    return ((1 - alpha).flip(-1).cumprod(-1).flip(-1)[..., None] * rgb).sum(-2)


RAYS = {
    "clear": [[0.0, 0.0, 0.0, 0.0]],
    "opaque": [[1.0, 1.0, 1.0, 1.0]],
    "opaque first": [[1.0, 0.5, 0.25, 0.0]],
    "opaque last": [[0.0, 0.5, 0.25, 1.0]],
    "one opaque, two opaque": [[0.2, 1.0, 0.3, 0.4], [1.0, 0.5, 1.0, 0.1], [0.5, 0.0, 0.0, 0.5]],
    "one sample": [[0.0], [1.0], [0.5]],
    "no sample": [[], []],
    "no ray": torch.zeros(0, 4),
}


@both_types
@pytest.mark.parametrize("rays", RAYS)
@pytest.mark.parametrize("form", [exclusive_product, with_an_epsilon, inclusive_product, of_a_sum_of_densities, of_a_sum_of_logarithms, backwards])
def test_transmittance(form, rays, dtype):
    def arguments():
        alpha = leaf(RAYS[rays], dtype)
        return [alpha, leaf(torch.rand((*alpha.shape, 3), generator=torch.Generator().manual_seed(1)), dtype)]

    same(static, form, arguments)


def test_dense_media_of_density_beyond_exp():
    same(static, of_a_sum_of_densities, lambda: [leaf([[0.0, 1e4, 1.0, INF], [1e-40, 88.0, 104.0, 0.0]]), leaf(torch.ones(2, 4, 3))])


# ---- grid_sample on texels, borders, between and beyond


def coordinates(sizes, align):
    """Along each axis: all texels, borders, halves between texels, and outside by little and by much."""
    axes = []
    for n in reversed(sizes):
        k = torch.arange(n, dtype=torch.float64)
        texels = 2 * k / (n - 1) - 1 if align else (2 * k + 1) / n - 1
        axes.append(torch.cat([texels, (texels[1:] + texels[:-1]) / 2, torch.tensor([-1.0, 1.0, -1.25, 1.25, 3.0, -3.0, 0.0])]))
    length = max(len(a) for a in axes)
    columns = [a[torch.arange(length) % len(a)] for a in axes]
    shifted = [torch.roll(c, 3 * i) for i, c in enumerate(columns)]
    points = torch.cat([torch.stack(columns, -1), torch.stack(shifted, -1), torch.stack([c * (-1) ** i for i, c in enumerate(columns)], -1)])
    return points.reshape(1, *[1] * (len(sizes) - 1), -1, len(sizes))


@both_types
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [True, False], ids=["aligned", "not_aligned"])
@pytest.mark.parametrize("sizes", [(4, 5), (2, 9), (3, 2, 5)], ids=["4x5", "2x9", "3x2x5"])
def test_grid_sample(sizes, align, padding, mode, dtype):
    def sample(x, grid):
        return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=align)

    def arguments():
        g = torch.Generator().manual_seed(2)
        return [leaf(torch.rand((1, 3, *sizes), generator=g, dtype=torch.float64), dtype), leaf(coordinates(sizes, align), dtype)]

    same(static, sample, arguments)


BEYOND = [0.0, -0.0, 1.0, -1.0, 1.25, 3e38, -3e38, 1e10, 1e-40, 0.25, NAN, INF, -INF]


@both_types
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [True, False], ids=["aligned", "not_aligned"])
def test_grid_sample_nowhere(align, padding, mode, dtype):
    """Eager's lanes multiply a weight that is NaN by the zero around; its plain loop, that of three dimensions, does not, nor do we."""

    def sample(x, grid):
        return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=align)

    def arguments():
        x = torch.rand((1, 2, 4, 5), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        along = BEYOND if padding == "zeros" or mode == "nearest" else BEYOND[:5]  # eager's derivative writes outside of its memory there
        return [leaf(x, dtype), leaf(torch.tensor(list(itertools.product(along, along)), dtype=dtype).reshape(1, len(along), len(along), 2), dtype)]

    if (mode, padding) != ("bilinear", "zeros"):
        same(static, sample, arguments)
        return
    want, fused, (x, grid) = sample(*arguments()), static(sample)(*arguments()), arguments()
    plain = F.grid_sample(x[:, :, None], torch.cat([grid, torch.zeros_like(grid[..., :1])], -1)[:, None], mode=mode, padding_mode=padding, align_corners=align)[:, :, 0]
    assert not torch.equal(want.isnan(), plain.isnan()), "eager's lanes are like its plain loop: compare as the others"
    torch.testing.assert_close(fused, plain, equal_nan=True)


# ---- integers


def integers(x, y):
    z = y.where(y != 0, 3)
    return x // z, x % z, torch.fmod(x, z), torch.div(x, z, rounding_mode="trunc"), torch.div(x, z, rounding_mode="floor"), torch.remainder(x, z), x / z, x // 2, x // -2, x % 4, x % -4, -7 // z, x.sign(), x.abs()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=["i32", "i64"])
def test_integers_divide_as_eagers(dtype):
    values = [-1000003, -8, -7, -3, -2, -1, 0, 1, 2, 3, 7, 8, 1000003, torch.iinfo(dtype).max // 2]

    def arguments():
        return [torch.tensor(v, dtype=dtype) for v in zip(*itertools.product(values, values))]

    same(static, integers, arguments)


# ---- zeros of both signs, denormals (NaN, infinity and all else that is special: test_special_values.py)


@both_types
@pytest.mark.parametrize("value", [-0.0, 0.0], ids=["minus", "plus"])
def test_the_sign_of_a_zero(value, dtype):
    def f(x, y):
        return 1 / x, 1 / (-x), 1 / (x * y), 1 / torch.sqrt(x), torch.atan2(x, -y), 1 / (x * -1), 1 / x.abs(), 1 / torch.trunc(x * 0.5), 1 / torch.where(y > 0, x, y)

    same(static, f, lambda: [leaf([value] * 5, dtype), leaf([1.0] * 5, dtype)], backward=False)


@both_types
def test_denormals_are_kept(dtype):
    least = torch.finfo(dtype).tiny

    def f(x):
        return x * 1, x * 0.5, x + x, x * 1e10, x > 0, x == 0, x.sum(), x.abs(), x.amax()

    same(static, f, lambda: [leaf([least, least / 2, least / 1024, -least / 2, torch.finfo(dtype).smallest_normal / 3], dtype)], backward=False)


# ---- ties


TIES = {
    "max": lambda x: x.max(-1)[0], "min": lambda x: x.min(-1)[0], "max of all": lambda x: x.max(), "min of all": lambda x: x.min(), "amax": lambda x: x.amax(-1), "amin": lambda x: x.amin((0, 1)), "amax of all": lambda x: x.amax(),
    "topk": lambda x: x.topk(2, -1)[0], "topk least": lambda x: x.topk(2, -1, largest=False)[0], "kthvalue": lambda x: x.kthvalue(2, -1)[0], "median": lambda x: x.median(-1)[0],
    "maximum": lambda x: torch.maximum(x, x.flip(0)), "minimum": lambda x: torch.minimum(x, x * 1), "itself": lambda x: torch.maximum(x, x), "relu": lambda x: F.relu(x - 1), "abs": lambda x: (x - 1).abs(),
    "clamp": lambda x: x.clamp(1, 2), "clamp by tensors": lambda x: torch.clamp(x, torch.ones_like(x), torch.ones_like(x) * 2), "hardtanh": lambda x: F.hardtanh(x, 1, 2), "max_pool": lambda x: F.max_pool1d(x[None], 2),
    "cummax": lambda x: x.cummax(-1)[0], "cummin": lambda x: x.cummin(-1)[0], "norm": lambda x: (x - x).norm(dim=-1), "norm inf": lambda x: x.norm(INF, dim=-1), "l1": lambda x: F.l1_loss(x, x.flip(0).detach()),
    "huber": lambda x: F.huber_loss(x, torch.zeros_like(x)), "argmax": lambda x: x.argmax(-1), "leaky_relu": lambda x: F.leaky_relu(x - 1), "where": lambda x: torch.where(x > 1, x, 2 - x),
    "prod": lambda x: (x - 1).prod(-1), "softshrink": lambda x: F.softshrink(x, 1.0), "hardshrink": lambda x: F.hardshrink(x, 1.0), "dist": lambda x: torch.dist(x, x), "max, both": lambda x: x.max(0)[0] + x.amax(0),
}


@both_types
@pytest.mark.parametrize("op", TIES)
def test_ties(op, dtype):
    same(static, TIES[op], lambda: [leaf([[1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 2.0, 0.0], [0.0, 2.0, 1.0, 2.0]], dtype)], eager=None)


# ---- masks that hold nowhere, everywhere, once


def written(x, m):
    out = torch.zeros_like(x)
    out[m] = x[m] * 2 + 1
    return out


MASKED = {
    "sum": lambda x, m: x[m].sum(), "mean": lambda x, m: x[m].mean(), "prod": lambda x, m: x[m].prod(), "written": written, "selected": lambda x, m: x[m] * 2, "masked_select": lambda x, m: x.masked_select(m).exp(),
    "guarded mean": lambda x, m: (x[m] ** 2).sum() / m.sum().clamp(min=1), "mean of a product": lambda x, m: (x * m).sum() / m.sum(), "log hidden": lambda x, m: torch.where(m, x, torch.ones_like(x)).log().sum(),
    "filled": lambda x, m: x.masked_fill(m, -INF).softmax(-1), "filled by scatter": lambda x, m: x.masked_scatter(m, x.flip(0)), "any": lambda x, m: (x * m.any(), x * m.all(), m.sum()), "inverse": lambda x, m: x[~m].sum(),
    "twice": lambda x, m: x[m][x[m] > 0.5].sum(), "max of": lambda x, m: x[m].max(), "rows": lambda x, m: x[m[:, 0]].sum(0), "columns": lambda x, m: x[:, m[0]].sum(1), "added": lambda x, m: torch.zeros_like(x).index_put((m,), x[m], accumulate=True),
    "std": lambda x, m: x[m].std(), "where": lambda x, m: x[torch.where(m)].sum(),
}
MASKS = {
    "nowhere": [[False] * 3] * 2, "everywhere": [[True] * 3] * 2, "once": [[False] * 3, [False, True, False]], "all but once": [[True] * 3, [True, False, True]],
    "of one": [[True]], "not of one": [[False]], "of none": torch.zeros((0, 3), dtype=torch.bool),
}
FAILS = {("max of", m) for m in ("nowhere", "not of one", "of none")} | {("columns", "of none")}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("form", MASKED)
def test_masks(form, mask):
    def arguments():
        m = torch.as_tensor(MASKS[mask])
        return [leaf(torch.rand(m.shape, generator=torch.Generator().manual_seed(3)) + 0.1), m]

    raises = "IndexError" if (form, mask) == ("columns", "of none") else "RuntimeError" if (form, mask) in FAILS else None
    same(static, MASKED[form], arguments, eager=None, raises=raises)


def test_the_number_of_places_changes():
    fused = heddle.fuse(lambda x, m: (x[m] * 2).sum() / m.sum().clamp(min=1), static=True)
    for count in [3, 0, 1, 6, 0, 2, 1]:
        x, m = leaf(torch.rand(6)), torch.arange(6) < count
        fused(x, m).backward()
        want = leaf(x.detach())
        ((want[m] * 2).sum() / m.sum().clamp(min=1)).backward()
        torch.testing.assert_close(x.grad, want.grad)
