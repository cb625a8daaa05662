"""The columns that are PyTorch: eager, compile (inductor), heddle, deterministic (heddle's price for equal bits), fused (Adam alone), and exact, in float64.

Law: one text of each block; a column differs by what is put around it. Arguments: folder, column, threads, the scale of DynIBaR.
"""

import pathlib
import re
import sys
import time

import torch
import torch.nn.functional as F
from work import ADAM, ADAM_STEPS, DYNIBAR, arrays, wanted
from worker import serve

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import dynibar
import dynibar_parts
import hexplane

COLUMN = sys.argv[2]
DTYPE = torch.float64 if COLUMN == "exact" else torch.float32


def density_feature(xyz, t, plane_0, plane_1, plane_2, line_0, line_1, line_2, basis_0, basis_1, basis_2):
    return hexplane.density_feature(xyz, t, [plane_0, plane_1, plane_2], [line_0, line_1, line_2], [basis_0, basis_1, basis_2])


def volume_rendering(sigma, dist, rgb, target):
    weights = hexplane.raw2alpha(F.softplus(sigma - 10.0), dist)[1]
    picture = (weights[..., None] * rgb).sum(-2) + (1.0 - weights.sum(-1)[..., None])
    return ((picture.clamp(0, 1) - target) ** 2).mean()


def trajectory(coefficients, basis):
    """As DynIBaR writes it: coefficients sliced, one sum for each frame and axis."""
    width, frames = basis.shape[1], []
    axes = [coefficients[..., k * width:(k + 1) * width] for k in range(3)]
    for frame in range(basis.shape[0]):
        row = basis[None, None, frame, :]
        frames.append(torch.cat([torch.sum(axis * row, -1, keepdim=True) for axis in axes], -1))
    return torch.stack(frames, 0)


def loss_chain(sigma, dist):
    alpha = 1.0 - torch.exp(-F.softplus(sigma - 10.0) * dist)
    return (torch.sqrt((alpha - 0.3) ** 2 + 1e-6) * torch.sigmoid(sigma * 0.1)).mean()


def positional_encoding(x, frequencies):
    phase = (x[..., None] * frequencies).flatten(-2)
    return torch.cat([x, torch.sin(phase), torch.cos(phase)], -1)


def adam_exact(parameters, first, second, gradients, size, root):
    """A step in plain tensor maths, in place: `size` is rate / (1 - beta1^k), `root` sqrt(1 - beta2^k)."""
    for p, m, v, g in zip(parameters, first, second, gradients):
        m.copy_(ADAM["beta1"] * m + (1 - ADAM["beta1"]) * g)
        v.copy_(ADAM["beta2"] * v + (1 - ADAM["beta2"]) * g * g)
        p.copy_(p - size * m / (torch.sqrt(v) / root + ADAM["epsilon"]))


def fused_step(loss, optimiser):
    import heddle

    step = heddle.TrainStep(loss, optimiser)
    FUSED.append(step)
    return step


def wrapped(function, **options):
    if COLUMN == "compile":
        return torch.compile(function)
    if COLUMN in ("heddle", "deterministic"):
        import heddle

        fused = heddle.fuse(function, deterministic=COLUMN == "deterministic", **options)
        FUSED.append(fused)
        return fused
    return function


FUSED: list = []


def nothing_eager() -> None:
    """A time of heddle is one of heddle's kernels: what runs eagerly is an error here."""
    import heddle
    from heddle._fuse import door_of

    if isinstance(FUSED[-1], heddle.TrainStep):
        if reason := FUSED[-1].report()["eager_reason"]:
            raise RuntimeError(f"runs eagerly: {reason}")
        return
    door = door_of(FUSED[-1])
    reasons = [r for region in door.regions() if (r := region.report()["eager_reason"])] + door.reasons()
    if reasons:
        raise RuntimeError(f"runs eagerly: {reasons[0]}")


def numpy(named):
    return {name: t.detach().numpy() for name, t in named.items() if t is not None}


def differentiated(block):
    """Forward and, where something is wanted, backward."""
    function = wrapped(globals()[block])
    inputs = {name: torch.from_numpy(a).to(DTYPE) for name, a in arrays(block).items()}
    cotangents = [inputs.pop(name) for name in list(inputs) if name.startswith("d_")]
    leaves = [inputs[name].requires_grad_() for name in wanted(block)]

    def run():
        out = function(*inputs.values())
        return out, torch.autograd.grad(out, leaves, *(cotangents and [cotangents])) if leaves else ()

    def results():
        out, gradients = run()
        return numpy({"output": out} | {f"d {name}": g for name, g in zip(wanted(block), gradients)})

    return run, results


def adam(_):
    given = arrays("adam")
    count, moments = len(given) // 2, None
    parameters, gradients = ([torch.from_numpy(given[f"{kind}_{k}"]).to(DTYPE) for k in range(count)] for kind in ("parameter", "gradient"))
    betas = (ADAM["beta1"], ADAM["beta2"])
    if COLUMN == "exact":
        first, second = moments = [[torch.zeros_like(p) for p in parameters] for _ in range(2)]
        steps = [0]

        def run():
            steps[0] += 1
            adam_exact(parameters, first, second, gradients, ADAM["rate"] / (1 - ADAM["beta1"] ** steps[0]), (1 - ADAM["beta2"] ** steps[0]) ** 0.5)
    elif COLUMN == "heddle":  # a whole step: it also computes the loss whose gradients these are
        for p in parameters:
            p.requires_grad_()
        optimiser = torch.optim.Adam(parameters, lr=ADAM["rate"], betas=betas, eps=ADAM["epsilon"])
        step = fused_step(lambda *given: sum((p * g).sum() for p, g in zip(parameters, given)), optimiser)

        def run():
            step(*gradients)
    else:
        for p, g in zip(parameters, gradients):
            p.requires_grad_().grad = g
        way = {"fused": True} if COLUMN == "fused" else {"foreach": True}
        optimiser = torch.optim.Adam(parameters, lr=ADAM["rate"], betas=betas, eps=ADAM["epsilon"], **way)
        run = torch.compile(optimiser.step) if COLUMN == "compile" else optimiser.step

    def results():
        for _ in range(ADAM_STEPS):
            run()
        state = moments or [[optimiser.state[p][key] for p in parameters] for key in ("exp_avg", "exp_avg_sq")]
        return numpy({f"{kind} {k}": t.detach().clone() for kind, tensors in zip(("parameter", "first", "second"), (parameters, *state)) for k, t in enumerate(tensors)})

    return run, results


def whole_step(model, loss, inputs, optimiser):
    """Forward, loss, backward and Adam; `loss`: the model as the column has it, where that isn't a step of heddle's."""
    start = [p.detach().clone() for p in model.parameters()]
    step = fused_step(model, optimiser) if COLUMN == "heddle" else None

    def run():
        if step is not None:
            return step(*inputs)
        optimiser.zero_grad(set_to_none=True)
        loss(*inputs)[0].backward()
        optimiser.step()

    @torch.no_grad()
    def before():  # parameters as initialised: each step does the same work
        for p, s in zip(model.parameters(), start):
            p.copy_(s)

    def results():
        if step is not None:  # Adam's first average is (1 - beta1) of the gradient
            before()
            optimiser.state.clear()
            out = step(*inputs)
            beta = optimiser.param_groups[0]["betas"][0]
            gradients = [optimiser.state[p]["exp_avg"] / (1 - beta) if p in optimiser.state else None for p in model.parameters()]
        else:
            out = loss(*inputs)
            gradients = torch.autograd.grad(out[0], list(model.parameters()), allow_unused=True)
        return numpy({f"output {k}": t for k, t in enumerate(out)} | {f"d {name}": g for (name, _), g in zip(model.named_parameters(), gradients)})

    run.before = before
    return run, results


def iteration(_):
    scale = hexplane.SCALES["first"]
    model = hexplane.HexPlane(scale).to(DTYPE)
    loss = wrapped(model, static=True) if COLUMN != "heddle" else model
    return whole_step(model, loss, hexplane.step_inputs(scale, dtype=DTYPE), hexplane.adam(model, fused=COLUMN != "heddle"))


def dynibar_part(block):
    """A part of bench/dynibar_parts.py, forward and backward with cotangents that differ."""
    function, given = dynibar_parts.parts(dynibar.SCALES[DYNIBAR_SCALE])[block.removeprefix("dynibar_")]
    function = wrapped(function)
    inputs = [t.detach().to(DTYPE if t.dtype == torch.float32 else t.dtype).requires_grad_(t.requires_grad) for t in given]
    leaves = [t for t in inputs if t.requires_grad]
    seeds = []

    def run():
        out = function(*inputs)
        out = [out] if isinstance(out, torch.Tensor) else list(out)
        roots = [t for t in out if t.requires_grad]
        if not seeds:
            seeds.extend(torch.sin(torch.arange(t.numel(), dtype=torch.float64) + 1).reshape(t.shape).to(t.dtype) for t in roots)
        return out, torch.autograd.grad(roots, leaves, seeds, allow_unused=True)

    def results():
        out, gradients = run()
        return numpy({f"output {k}": t for k, t in enumerate(out)} | {f"d {k}": g for k, g in enumerate(gradients)})

    run.facts = lambda: fused_facts() if COLUMN == "heddle" else {}
    return run, results


def dynibar_iteration(_):
    scale = dynibar.SCALES[DYNIBAR_SCALE]
    model, inputs = dynibar.Dynibar(scale).to(DTYPE), dynibar_parts.to(dynibar_parts.step_inputs(scale), DTYPE)
    run, results = whole_step(model, model, inputs, dynibar.adam(model, fused=COLUMN != "heddle"))
    run.facts = lambda: fused_facts() if COLUMN == "heddle" else {"library_share": library_share(run)}
    return run, results


def fused_facts():
    """Of what was fused last: kernels, library calls, captures."""
    import heddle
    from heddle._fuse import door_of

    if isinstance(FUSED[-1], heddle.TrainStep):
        r = FUSED[-1].report()
        return {"kernels": r["launches"], "library_calls": r["calls"], "captures": r["captures"], "compiles": r["compiles"]}
    reports = [region.report() for region in door_of(FUSED[-1]).regions()]
    return {"kernels": sum(r["launches_forward"] + r["launches_backward"] for r in reports), "library_calls": sum(r["calls_forward"] + r["calls_backward"] for r in reports),
            "captures": sum(r["captures"] for r in reports)}


def library_share(run):
    """How much of an eager run's time is inside matrix products and convolutions. Both by the clock, as the profiler has it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as p:
        start = time.perf_counter()
        run()
        whole = time.perf_counter() - start
    inside = sum(e.self_cpu_time_total for e in p.key_averages() if re.fullmatch(r"aten::(mm|addmm|bmm|baddbmm|.*convolution.*)", e.key))
    return inside / 1e6 / whole


DYNIBAR_SCALE = sys.argv[4]  # of bench/dynibar.py


def column(block):
    makers = {"adam": adam, "iteration": iteration, "dynibar_iteration": dynibar_iteration}
    run, results = makers.get(block, dynibar_part if block in DYNIBAR else differentiated)(block)

    def checked():
        found = results()
        if COLUMN in ("heddle", "deterministic"):
            nothing_eager()
        if COLUMN == "deterministic" and any((found[k] != again).any() for k, again in results().items()):
            raise RuntimeError("bits differ from run to run")
        return found

    return run, checked


torch.set_num_threads(int(sys.argv[3]))
serve(column, torch.set_num_threads)
