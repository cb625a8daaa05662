"""Tables of ops for the sweep over special values: name -> what is computed.

Law: whatever frontends/aten_*.cpp lowers to arithmetic stands in one of them. Operands have one axis in front that no op touches; others are counted from the end.
"""

import torch
import torch.nn.functional as F

INF, NAN = float("inf"), float("nan")


def named(module, names):
    return {n: getattr(module, n) for n in names.split()}


UNARY = {
    **named(torch, "abs neg sign sgn exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc"
            " floor ceil round trunc frac square reciprocal isnan isinf isfinite isposinf isneginf signbit nan_to_num deg2rad rad2deg sinc logit positive logical_not"),
    **named(F, "relu relu6 leaky_relu elu celu selu softplus logsigmoid silu mish gelu hardtanh hardsigmoid hardswish softshrink hardshrink tanhshrink softsign"),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "leaky_relu -2": lambda x: F.leaky_relu(x, -2.0), "elu 2": lambda x: F.elu(x, 2.0), "celu 2": lambda x: F.celu(x, 2.0),
    "softplus 2": lambda x: F.softplus(x, 2.0, 5.0), "hardtanh 0 6": lambda x: F.hardtanh(x, 0.0, 6.0), "threshold": lambda x: F.threshold(x, 0.5, 7.0),
    "threshold nan": lambda x: F.threshold(x, 0.5, NAN), "softshrink 0": lambda x: F.softshrink(x, 0.0), "hardshrink 0": lambda x: F.hardshrink(x, 0.0),
    "logit eps": lambda x: torch.logit(x, 0.1), "logit eps 0": lambda x: torch.logit(x, 0.0), "clamp": lambda x: x.clamp(-1, 1), "clamp_min": lambda x: x.clamp(min=0),
    "clamp_max": lambda x: x.clamp(max=0), "clamp inf": lambda x: x.clamp(-INF, INF), "clamp nan": lambda x: x.clamp(NAN, 1), "clamp max nan": lambda x: x.clamp(max=NAN),
    "clamp crossed": lambda x: x.clamp(2, 1), "where": lambda x: torch.where(x > 0, x, -x), "where hides": lambda x: torch.where(x.isfinite(), x, torch.zeros_like(x)),
    "masked_fill": lambda x: x.masked_fill(x.isnan(), 0.0), "masked_fill inf": lambda x: x.masked_fill(x > 1, -INF), "nan_to_num 1 2 3": lambda x: torch.nan_to_num(x, 1.0, 2.0, 3.0),
    **{f"pow {e}": lambda x, e=e: x**e for e in (0, 1, 2, 3, 4, 5, -1, -2, -3, 0.5, -0.5, 1.5, 2.5, INF, -INF, NAN)},
    **{f"{b} pow": lambda x, b=b: b**x for b in (2, 0, 1, 0.5, -1, INF)},
    **{f"times {v}": lambda x, v=v: x * v for v in (0, -1, INF, 0.5)}, **{f"plus {v}": lambda x, v=v: x + v for v in (0, 1, INF)}, "minus 0": lambda x: x - 0, "0 minus": lambda x: 0 - x,
    **{f"over {v}": lambda x, v=v: x / v for v in (0, 3, INF)}, **{f"{v} over": lambda x, v=v: v / x for v in (0, 1, INF)}, "less itself": lambda x: x - x, "over itself": lambda x: x / x,
    "doubled": lambda x: x + x, "remainder 2": lambda x: torch.remainder(x, 2.0), "remainder -0.7": lambda x: torch.remainder(x, -0.7), "fmod 2": lambda x: torch.fmod(x, 2.0),
    "floor_divide 2": lambda x: torch.floor_divide(x.detach(), 2.0), "floor_divide -0.7": lambda x: torch.floor_divide(x.detach(), -0.7), "div floor 0": lambda x: torch.div(x, 0.0, rounding_mode="floor"),
    "div trunc 3": lambda x: torch.div(x, 3.0, rounding_mode="trunc"), "compare": lambda x: (x > 0, x >= 0, x < 0, x <= 0, x == 0, x != 0, x > -INF, x == x, x != x),
    "lerp 0.5": lambda x: torch.lerp(x, x.flip(-1), 0.5), "copysign": lambda x: torch.copysign(torch.ones_like(x), x), "copysign 1": lambda x: torch.copysign(x, 1.0),
    "heaviside": lambda x: torch.heaviside(x.detach(), torch.tensor(0.5, dtype=x.dtype)), "xlogy 2": lambda x: torch.xlogy(2.0, x), "xlogy of 0": lambda x: torch.xlogy(x, 0.0),
    "bool": lambda x: x.bool(), "and": lambda x: torch.logical_and(x, x), "cast": lambda x: x.double().float(), "entropy": lambda x: torch.special.entr(x),
    "pad": lambda x: F.pad(x, (1, 2)), "pad -0": lambda x: F.pad(x, (1, 2), value=-0.0), "pad nan": lambda x: F.pad(x, (1, 2), value=NAN), "reflect": lambda x: F.pad(x, (2, 1), "reflect"),
    "replicate": lambda x: F.pad(x, (2, 1), "replicate"), "circular": lambda x: F.pad(x, (2, 1), "circular"), "cut": lambda x: F.pad(x, (-1, -2)), "roll": lambda x: x.roll(3, -1),
    "flip": lambda x: x.flip(-1), "diff": lambda x: x.diff(dim=-1), "triu": lambda x: x.triu(1),
    "max_pool": lambda x: F.max_pool1d(x, 3, 2), "avg_pool": lambda x: F.avg_pool1d(x, 3, 2), "cat": lambda x: torch.cat([x, -x], -1),
}
BINARY = {
    **named(torch, "add sub mul div pow atan2 maximum minimum fmax fmin hypot logaddexp logaddexp2 xlogy copysign remainder fmod lt le gt ge eq ne logical_and logical_or logical_xor"),
    "floor_divide": lambda x, y: torch.floor_divide(x.detach(), y.detach()), "xlog1py": torch.special.xlog1py, "div floor": lambda x, y: torch.div(x, y, rounding_mode="floor"), "div trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "rsub": torch.rsub, "add alpha": lambda x, y: torch.add(x, y, alpha=-2), "lerp 0.3": lambda x, y: torch.lerp(x, y, 0.3), "lerp 0.7": lambda x, y: torch.lerp(x, y, 0.7), "clamp_min": lambda x, y: torch.clamp(x, min=y),
    "clamp_max": lambda x, y: torch.clamp(x, max=y), "where": lambda x, y: torch.where(x > y, x, y), "prelu": lambda x, w: torch.ops.aten._prelu_kernel(x, w), "bce": lambda x, t: F.binary_cross_entropy(x.nan_to_num(0.5).clamp(0, 1), t.nan_to_num(0.25).clamp(0, 1), reduction="none"),
    "mse": lambda x, y: F.mse_loss(x, y, reduction="none"), "l1": lambda x, y: F.l1_loss(x, y, reduction="none"),
    "smooth_l1": lambda x, y: F.smooth_l1_loss(x, y, reduction="none"), "smooth_l1 0": lambda x, y: F.smooth_l1_loss(x, y, reduction="none", beta=0.0),
    "smooth_l1 0.5": lambda x, y: F.smooth_l1_loss(x, y, reduction="none", beta=0.5), "huber": lambda x, y: F.huber_loss(x, y, reduction="none"),
    "huber 2": lambda x, y: F.huber_loss(x, y, reduction="none", delta=2.0), "bce with logits": lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
    "soft_margin": lambda x, y: F.soft_margin_loss(x, y.detach(), reduction="none"), "kl_div": lambda x, y: F.kl_div(x, y, reduction="none"),
    "kl_div log": lambda x, y: F.kl_div(x, y, reduction="none", log_target=True), "glu": lambda x, y: F.glu(torch.cat([x, y], -1), -1), "poisson_nll": lambda x, y: F.poisson_nll_loss(x, y, reduction="none"),
    "gaussian_nll like": lambda x, y: 0.5 * (torch.log(y.clamp(min=1e-6)) + x**2 / y.clamp(min=1e-6)), "charbonnier": lambda x, y: torch.sqrt((x - y) ** 2 + 1e-6),
}
TERNARY = {
    "clamp": torch.clamp, "lerp": torch.lerp, "addcmul": lambda x, y, z: torch.addcmul(x, y, z, value=-2), "addcdiv": lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), "addcmul 1": torch.addcmul,
    "addcdiv 1": torch.addcdiv, "where": lambda x, y, z: torch.where(x > 0, y, z), "bce weight": lambda x, t, w: F.binary_cross_entropy_with_logits(x, t, w.detach(), reduction="none"),
    "bce pos_weight": lambda x, t, w: F.binary_cross_entropy_with_logits(x, t, pos_weight=w.detach(), reduction="none"), "fma": lambda x, y, z: x * y + z,
}
# With places along the last axis, each once.
INDEXED = {
    "gather": lambda x, y, i: x.gather(-1, i), "take_along_dim": lambda x, y, i: torch.take_along_dim(x, i, -1), "scatter": lambda x, y, i: x.scatter(-1, i, y), "scatter_add": lambda x, y, i: x.scatter_add(-1, i // 2, y),
    "scatter value": lambda x, y, i: x.scatter(-1, i[..., ::2], NAN), "index_select": lambda x, y, i: x.index_select(-1, torch.arange(8, -1, -2)), "index_add": lambda x, y, i: x.index_add(-1, torch.arange(9) // 2, y[..., :9]),
    "index_copy": lambda x, y, i: x.index_copy(-1, torch.arange(9), y[..., :9]), "index_fill": lambda x, y, i: x.index_fill(-1, torch.arange(3), -INF), "index": lambda x, y, i: x[..., torch.arange(9) // 3],
    "masked_fill": lambda x, y, i: x.masked_fill(y > 0, -0.0), "masked_scatter": lambda x, y, i: x.masked_scatter(y > 0, y), "where nan": lambda x, y, i: torch.where(x.isnan(), y, x), "where apart": lambda x, y, i: torch.where(y > 0, x.log(), x.sqrt()),
    "where guarded": lambda x, y, i: torch.where(x > 0, torch.where(x > 0, x, torch.ones_like(x)).log(), torch.zeros_like(x)), "searchsorted": lambda x, y, i: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype)),
    "none masked": lambda x, y, i: x.masked_fill(torch.zeros_like(x, dtype=torch.bool), NAN), "all masked": lambda x, y, i: x.masked_fill(torch.ones_like(x, dtype=torch.bool), 2.0) * y,
}
# Over the last axis but one.
COLUMNS = {
    **{n: lambda x, n=n: getattr(x, n)(-2) for n in "sum prod argmax argmin softmax log_softmax cumsum max min sort".split()}, "norm": lambda x: torch.linalg.vector_norm(x, 2, -2), "norm inf": lambda x: torch.linalg.vector_norm(x, INF, -2),
    "logsumexp": lambda x: torch.logsumexp(x, -2), "normalize": lambda x: F.normalize(x, dim=-2), "topk": lambda x: x.topk(2, -2),
}
# Over the last axis.
ROWS = {
    **{n: lambda x, n=n: getattr(x, n)(-1) for n in "sum mean prod amax amin argmax argmin var std softmax log_softmax cumsum cumprod nansum nanmean median cummax cummin logcumsumexp max min sort".split()},
    "logsumexp": lambda x: torch.logsumexp(x, -1), "keepdim": lambda x: x.sum(-1, keepdim=True), "any": lambda x: x.any(-1), "all": lambda x: x.all(-1), "count_nonzero": lambda x: x.count_nonzero(-1), "var 0": lambda x: x.var(-1, unbiased=False),
    "std 0": lambda x: x.std(-1, unbiased=False), "var_mean": lambda x: torch.var_mean(x, -1), "std_mean": lambda x: torch.std_mean(x, -1), "aminmax": lambda x: tuple(torch.aminmax(x.detach(), dim=-1)),
    **{f"norm {p}": lambda x, p=p: torch.linalg.vector_norm(x, p, -1) for p in (0, 0.5, 1, 1.5, 2, 3, 4, -1, INF, -INF)}, "normalize": lambda x: F.normalize(x, dim=-1), "normalize 1": lambda x: F.normalize(x, 1, -1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]), "softmin": lambda x: F.softmin(x, -1), "topk": lambda x: x.topk(1, -1), "topk least": lambda x: x.topk(1, -1, largest=False), "sort down": lambda x: x.sort(-1, descending=True),
    "kthvalue": lambda x: x.kthvalue(1, -1), "cumsum back": lambda x: x.flip(-1).cumsum(-1).flip(-1), "transmittance": lambda x: x * torch.cumprod(torch.cat([torch.ones_like(x[..., :1]), 1 - x], -1), -1)[..., :-1],
    "cosine": lambda x: F.cosine_similarity(x, x.flip(-1), dim=-1), "dist like": lambda x: (x - x.flip(-1)).norm(dim=-1), "masked softmax": lambda x: x.masked_fill(x > 0, -INF).softmax(-1),
    "logcumsum": lambda x: torch.exp(torch.cumsum(torch.log1p(-x), -1)), "gather": lambda x: x.gather(-1, torch.zeros_like(x, dtype=torch.long)), "dot": lambda x: (x * x).sum(-1),
}
