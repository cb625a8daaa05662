"""Writes what tests/torch/export_test.cpp loads: programs exported by the PyTorch at hand, and what they compute, by PyTorch in float64.

    make_exports.py FOLDER

For each case NAME: NAME.pt2 is the training form in float32, NAME.core.pt2 the decomposed form in float64, NAME.expected.pt the calls.
The first output of every case is the loss that is differentiated.
"""
import copy
import json
import math
import pathlib
import sys
import warnings
import zipfile

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

warnings.filterwarnings("ignore")
B = Dim("B", min=2, max=64)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        self.layers[4].bias.requires_grad_(False)

    def forward(self, x, target):
        y = torch.sigmoid(self.layers(x))
        loss = F.mse_loss(y, target) + 0.1 * F.l1_loss(y, target) + 1e-3 * sum(p.square().sum() for p in self.parameters())
        return loss, y


class BatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)
        self.register_buffer("weights", torch.arange(6.0), persistent=False)

    def forward(self, x):
        h = self.norm(self.linear(x))
        return (h.tanh() * self.weights).sum(), h


class Masks(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 1.5, 1.0]))

    def forward(self, x, target, valid):
        y = x * self.scale
        error = (y - target).abs()[valid]
        far = y[y > 0.5]
        kept = y.clone()
        kept[kept < 0] = 0.0
        masked = y.masked_fill(valid.unsqueeze(-1), 0.25)
        return error.mean() + far.square().sum() / max(far.shape[0], 1) + kept.sum() * 0.01 + masked.mean(), error, kept


class Planes(nn.Module):
    def __init__(self):
        super().__init__()
        self.plane, self.tint = nn.Parameter(torch.rand(1, 4, 7, 9)), nn.Linear(4, 3)

    def forward(self, points, steps):
        f = F.grid_sample(self.plane, points.unsqueeze(0), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
        alpha = 1.0 - torch.exp(-F.softplus(f.sum(-1)) * steps)
        passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha + 1e-10], -1), -1)[:, :-1]
        picture = ((alpha * passed).unsqueeze(-1) * torch.sigmoid(self.tint(f))).sum(-2)
        tv = (self.plane[..., 1:, :] - self.plane[..., :-1, :]).square().mean()
        return picture.square().mean() + 0.1 * tv, picture


class Regions(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(4, 4))
        self.register_buffer("average", torch.zeros(4, 4))

    def forward(self, x):
        with torch.no_grad():
            size = (x @ self.w).abs().mean()
            self.average.copy_(0.5 * self.average + 0.5 * self.w)
        y = x @ self.w / (1 + size)
        with torch.autocast("cpu", torch.bfloat16):
            low = x @ self.w
        return (y * (x @ self.average)).sum() + (y.detach() * y).mean(), y, low


class Arguments(nn.Module):
    def forward(self, x, scale: float, count: int, flag: bool, other=None, *, mode="sin"):
        y = (torch.sin(x) if mode == "sin" else x) * scale
        if flag and other is None:
            y = y + count
        return {"loss": y.sum() / x.shape[0], "rest": (y, None, count, x.shape[0] * 3, mode), "half": x.shape[0] * 0.5}


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 1, bias=False)

    def forward(self, x):
        h = F.gelu(self.norm(self.a(x)))
        h = F.interpolate(F.avg_pool2d(h, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
        h = self.b(h)
        return h.square().mean(), h


class Sizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(3))

    def forward(self, x, pairs):
        n = x.shape[0]
        t = torch.arange(n, dtype=x.dtype) / n
        both = pairs.view(n, 2, 3) * self.w
        grown = torch.cat([x, both.sum(1)]).reshape(-1, 3)
        loss = (x * t.unsqueeze(-1) * (1.0 / n)).sum() + grown.sum() * (n ** 0.5) + both.mean()
        return loss, grown, both[:, 0]


class Pairs(nn.Module):  # an input whose size is only known as a multiple
    def forward(self, x):
        y = x.view(-1, 4, 2)
        return (y[..., 0] * y[..., 1].exp()).sum(), y.sum(0)


class Strided(nn.Module):  # sizes inside that are no polynomials of those outside
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)

    def forward(self, x):
        y = self.conv(x).relu()
        return y.square().sum(), y


class Shifted(nn.Module):  # an input whose size is only known plus one
    def forward(self, x):
        y = x[1:] * x[:-1].exp()
        return y.sum(), y


class Writes(nn.Module):
    def forward(self, x, state):
        state.mul_(0.5).add_(x.detach().mean(0))
        y = (x * state).sin()
        loss = y.sum()
        loss += (y * y).mean()
        return loss, y, y[:, 1:], y.t()


class Ties(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode, self.fixed = nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Parameter(torch.rand(4), requires_grad=False)
        self.decode.weight = self.encode.weight
        self.table = torch.linspace(0, 1, 4)

    def forward(self, x):
        y = self.decode(self.encode(x).relu() * self.fixed) + self.table
        return y.square().mean(), y


class Integers(nn.Module):
    def forward(self, x, shift):
        y = x * shift + torch.arange(x.shape[1]) / (shift + 1)
        return (y * y).mean(), y


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(3))

    def forward(self, x):
        y = torch.cond(x.sum() > 0, lambda a, w: (a * w).sin(), lambda a, w: a.exp() + w, (x, self.w))
        return y.sum(), y


class Draws(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(4))

    def forward(self, x):
        noise = torch.rand(x.shape, dtype=torch.float32).to(x.dtype)
        y = x * self.w + 0.1 * noise
        return (y * torch.randn(4, dtype=torch.float32).to(x.dtype)).sum(), y


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm, self.attend, self.out = nn.Embedding(11, 8), nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 11)

    def forward(self, words, wanted):
        h = self.words(words)
        h = h + self.attend(*[self.norm(h)] * 3, need_weights=False)[0]
        scores = self.out(h)
        return F.cross_entropy(scores.flatten(0, 1), wanted.flatten()), scores


def real(*size):
    return torch.rand(size, dtype=torch.float64) * 2 - 0.75


def points(n):
    return torch.rand(n, 6, 2, dtype=torch.float64) * 1.9 - 0.95


def grad(t):
    return t.requires_grad_()


def words(n):
    return torch.randint(0, 11, (n, 5))


# The inputs of a call with batch n, and which of their sizes vary.
CASES = {
    "mlp": (Mlp, lambda n: [real(n, 5), torch.rand(n, 3, dtype=torch.float64)], ({0: B}, {0: B})),
    "batch_norm": (BatchNorm, lambda n: [grad(real(n, 4))], ({0: B},)),
    "masks": (Masks, lambda n: [grad(real(n, 3)), real(n, 3), torch.rand(n) > 0.4], ({0: B}, {0: B}, {0: B})),
    "planes": (Planes, lambda n: [points(n), torch.rand(n, 6, dtype=torch.float64)], ({0: B}, {0: B})),
    "regions": (Regions, lambda n: [grad(real(n, 4))], ({0: B},)),
    "arguments": (Arguments, lambda n: [grad(real(n, 3))], ({0: B}, None, None, None, None, None)),
    "convolutions": (Convolutions, lambda n: [grad(real(n, 3, 8, 8))], ({0: B},)),
    "sizes": (Sizes, lambda n: [grad(real(n, 3)), grad(real(2 * n, 3))], ({0: B}, {0: 2 * B})),
    "pairs": (Pairs, lambda n: [grad(real(8 * n))], ({0: 8 * B},)),
    "strided": (Strided, lambda n: [grad(real(2, 2, 8 + n, 12))], ({2: Dim.AUTO},)),
    "shifted": (Shifted, lambda n: [grad(real(n + 1))], ({0: B + 1},)),
    "writes": (Writes, lambda n: [grad(real(n, 3)), real(3)], ({0: B}, None)),
    "ties": (Ties, lambda n: [real(n, 4)], ({0: B},)),
    "integers": (Integers, lambda n: [grad(real(4, 3)), n], (None, Dim.DYNAMIC)),
    "branches": (Branches, lambda n: [grad(real(n, 3) + (1 if n % 2 else -1))], ({0: B},)),
    "draws": (Draws, lambda n: [grad(real(n, 4))], ({0: B},)),
    "attention": (Attention, lambda n: [words(n), words(n)], ({0: B}, {0: B})),
}
FIXED = {"arguments": ((1.5, 2, True), {"other": None, "mode": "sin"})}  # arguments after the inputs
PLAIN = {"regions", "writes"}  # no_grad and detach are lost in the decomposed form
BATCHES = (6, 3, 17)


def cast(values, dtype):
    def one(v):
        if not torch.is_tensor(v):
            return v
        return v.detach().to(dtype if v.is_floating_point() else v.dtype).clone().requires_grad_(v.requires_grad)
    return [one(v) for v in values]


def tensors(out):
    return [v if torch.is_tensor(v) else torch.tensor(v) for v in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(v) or isinstance(v, (int, float))]


def calls(module, case):
    """What each call in a row gives: float64 in, float64 out."""
    _, make, _ = CASES[case]
    args, kwargs = FIXED.get(case, ((), {}))
    done = []
    for k, n in enumerate(BATCHES):
        torch.manual_seed(100 + k)
        given = make(n)
        torch.manual_seed(200 + k)
        inputs = cast(given, torch.float64)
        for p in module.parameters():
            p.grad = None
        out = module(*inputs, *args, **kwargs)
        flat = tensors(out)
        flat[0].backward()
        done.append({
            "inputs": [torch.tensor(v) if isinstance(v, int) else v for v in given],
            "outputs": [v.detach() for v in flat],
            "after": [v.detach() for v in inputs if torch.is_tensor(v)],
            "input_gradients": [v.grad for v in inputs if torch.is_tensor(v) and v.requires_grad],
            "gradients": {k: p.grad for k, p in module.named_parameters() if p.grad is not None},
            "buffers": {k: b.detach().clone() for k, b in module.named_buffers()},
        })
    return done


def export(case, folder):
    make_module, make, dynamic = CASES[case]
    torch.manual_seed(len(case))
    module = make_module()
    args, kwargs = FIXED.get(case, ((), {}))
    given = make(BATCHES[0])

    def exported(m, dtype):
        names = None if not kwargs else dict(zip(["x", "scale", "count", "flag", *kwargs], dynamic))
        return torch.export.export(m, (*cast(given, dtype), *args), kwargs, dynamic_shapes=names or dynamic)

    torch.export.save(exported(module, torch.float32), folder / f"{case}.pt2")
    wide = copy.deepcopy(module).double()
    if case not in PLAIN:
        torch.export.save(exported(wide, torch.float64).run_decompositions(), folder / f"{case}.core.pt2")
    torch.save(calls(wide, case), folder / f"{case}.expected.pt")


def training(folder):
    """The losses of 20 steps of SGD."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1)).double()

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = module

        def forward(self, x, y):
            return F.mse_loss(self.net(x), y)

    loss, x = Loss(), real(32, 3)
    y = x.prod(-1, keepdim=True).sin()
    torch.export.save(torch.export.export(loss, (x, y), dynamic_shapes=({0: B}, {0: B})), folder / "training.pt2")
    losses = []
    for step in range(20):
        n = 32 - step
        for p in loss.parameters():
            p.grad = None
        value = loss(x[:n], y[:n])
        value.backward()
        losses.append(value.item())
        with torch.no_grad():
            for p in loss.parameters():
                p -= 0.2 * p.grad
    torch.save({"x": x, "y": y, "losses": torch.tensor(losses, dtype=torch.float64)}, folder / "training.expected.pt")


def rewritten(source, target, edit, leave_out=()):
    """A copy of an archive with its program, as JSON, edited."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                program = json.loads(data)
                edit(program)
                data = json.dumps(program).encode()
            if not any(part in name for part in leave_out):
                new.writestr(name, data)


def broken(folder):
    source = folder / "ties.pt2"

    def newer(p):
        p["schema_version"]["major"] = 99
        p["torch_version"] = "7.0"

    def unknown_op(p):
        p["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.weave.default"

    def unknown_number(p):
        p["graph_module"]["graph"]["nodes"][0]["target"] = "math.cosh"

    rewritten(source, folder / "newer.pt2.bad", newer)
    rewritten(source, folder / "op.pt2.bad", unknown_op)
    rewritten(source, folder / "number.pt2.bad", unknown_number)
    rewritten(source, folder / "weights.pt2.bad", lambda p: None, ["weight_0"])
    rewritten(source, folder / "model.pt2.bad", lambda p: None, ["models/"])
    rewritten(source, folder / "format.pt2.bad", lambda p: None, ["archive_format"])
    (folder / "text.pt2.bad").write_text("weft " * 100)
    (folder / "empty.pt2.bad").write_bytes(b"")


def several(folder):
    """Two programs in one file, and one with weights pickled, as PyTorch 2.8 wrote them."""
    from torch.export.pt2_archive._package import PT2ArchiveWriter, package_pt2
    programs = {name: torch.export.load(folder / f"{name}.pt2") for name in ("ties", "mlp")}
    package_pt2(folder / "several.pt2", exported_programs=programs)
    with zipfile.ZipFile(folder / "mlp.pt2") as old, PT2ArchiveWriter(str(folder / "pickled.pt2")) as new:
        import io
        for name in old.namelist():
            record = name.split("/", 1)[1]
            if record.startswith(("models/", "data/sample_inputs/")):
                new.write_bytes(record, old.read(name))
        for record, state in (("data/weights/model.pt", programs["mlp"].state_dict), ("data/constants/model.pt", programs["mlp"].constants)):
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            new.write_bytes(record, buffer.getvalue())


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        export(case, folder)
    training(folder)
    several(folder)
    broken(folder)


if __name__ == "__main__":
    main()
