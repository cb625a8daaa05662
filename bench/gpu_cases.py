"""The rows of bench/gpu: HexPlane's stages, the optimiser, whole iterations, DynIBaR's, the blocks of bench/blocks.py.

Law: a row is made anew for each column and element type from one seed, so that all of them compute on the same numbers.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import blocks
import dynibar
import dynibar_parts
import gpu_thesis
import hexplane


class Run:
    """Where and how large: set once, before a row is made."""

    device, dry = torch.device("cuda"), False


class Case:
    """What a row measures, in one element type: `make(wrap)` gives `both` and `forward`, to be called with the number of the input set."""

    sets = 1
    forward: Callable[[int], object] | None = None
    before: Callable[[], None] = staticmethod(lambda: None)

    def results(self) -> dict[str, Tensor | None]:
        raise NotImplementedError


class Differentiated(Case):
    """A function of tensors, forward and backward. Inputs are copied until the sets don't fit into the L2 cache together."""

    def __init__(self, function: Callable, inputs: tuple[Tensor, ...], wrap: Callable, dtype: torch.dtype, wanted: bool = True) -> None:
        self.function = wrap(function)
        size = sum(t.numel() * t.element_size() for t in inputs)
        self.sets = 1 if Run.device.type == "cpu" or dtype == torch.float64 else min(8, math.ceil(160e6 / max(size, 1)))
        to = [t.detach().to(Run.device, dtype if t.is_floating_point() else t.dtype) for t in inputs]
        self.inputs = [[t.clone().requires_grad_(given.requires_grad and wanted) for t, given in zip(to, inputs)] for _ in range(self.sets)]
        self.leaves = [[t for t in one if t.requires_grad] for one in self.inputs]
        self.seeds: list[Tensor] | None = None

    def roots(self, out: object) -> list[Tensor]:
        found = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor) and t.requires_grad]
        if self.seeds is None:
            g = torch.Generator().manual_seed(7)
            self.seeds = [torch.randn(t.shape, generator=g).to(t.device, t.dtype) if t.dim() else torch.ones_like(t) for t in found]
        return found

    def forward(self, k: int) -> object:
        return self.function(*self.inputs[k])

    def both(self, k: int) -> tuple:
        out = self.function(*self.inputs[k])
        roots = self.roots(out)
        return out, torch.autograd.grad(roots, self.leaves[k], self.seeds, allow_unused=True) if roots else ()

    def results(self) -> dict[str, Tensor | None]:
        out, gradients = self.both(0)
        named = {f"output {k}": t for k, t in enumerate(x for x in pytree.tree_leaves(out) if isinstance(x, Tensor))}
        return {k: v.detach() for k, v in named.items()} | {f"d {k}": g for k, g in enumerate(gradients)}


def whole_step(loss: Callable, optimiser: torch.optim.Optimizer, bounded: bool | None = None) -> Callable:
    """heddle.TrainStep. What can't be fused is an error: a time of heddle is one of heddle's kernels."""
    import heddle

    step = heddle.TrainStep(loss, optimiser, bounded=bounded)

    def run(*inputs: Tensor) -> object:
        out = step(*inputs)
        if step._reason:
            raise RuntimeError(f"runs eagerly: {step._reason}")
        return out

    return run


class Adam(Case):
    """A step of the optimiser over a model's 22 tensors. Eager and inductor: PyTorch's; heddle: a whole step, the loss included whose gradients these are."""

    rates = {"rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}

    def __init__(self, scale: hexplane.Scale, wrap: Callable, column: str, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(3)
        model = hexplane.HexPlane(scale)
        self.parameters = [p.detach().to(Run.device, dtype).clone() for p in model.parameters()]
        self.gradients = [torch.randn(p.shape, generator=g).to(Run.device, dtype) for p in self.parameters]
        self.steps, self.moments = 0, None
        if column == "exact":
            self.moments = [[torch.zeros_like(p) for p in self.parameters] for _ in range(2)]

            def run(_: int) -> None:
                self.steps += 1
                r = self.rates
                self.plain(self.parameters, *self.moments, self.gradients, r["rate"] / (1 - r["beta1"] ** self.steps), (1 - r["beta2"] ** self.steps) ** 0.5)
        elif column == "heddle":
            for p in self.parameters:
                p.requires_grad_()
            self.optimiser = torch.optim.Adam(self.parameters, lr=self.rates["rate"])
            step = whole_step(lambda *given: sum((p * grad).sum() for p, grad in zip(self.parameters, given)), self.optimiser)

            def run(_: int) -> None:
                step(*self.gradients)
        else:
            for p, grad in zip(self.parameters, self.gradients):
                p.requires_grad_().grad = grad
            capturable = column == "compile" and Run.device.type == "cuda"
            self.optimiser = torch.optim.Adam(self.parameters, lr=self.rates["rate"], fused=column == "eager", capturable=capturable)
            step = torch.compile(self.optimiser.step) if column == "compile" else self.optimiser.step

            def run(_: int) -> None:
                step()

        self.both = run

    @classmethod
    def plain(cls, parameters: list, first: list, second: list, gradients: list, size: float, root: float) -> None:
        r = cls.rates
        for p, m, v, g in zip(parameters, first, second, gradients):
            m.copy_(r["beta1"] * m + (1 - r["beta1"]) * g)
            v.copy_(r["beta2"] * v + (1 - r["beta2"]) * g * g)
            p.copy_(p - size * m / (torch.sqrt(v) / root + r["epsilon"]))

    def results(self) -> dict[str, Tensor | None]:
        for _ in range(3):
            self.both(0)
        moments = self.moments or [[self.optimiser.state[p][key] for p in self.parameters] for key in ("exp_avg", "exp_avg_sq")]
        kinds = zip(("parameter", "first", "second"), (self.parameters, *moments))
        return {f"{kind} {k}": t.detach().clone() for kind, tensors in kinds for k, t in enumerate(tensors)}


class Iteration(Case):
    """Render, loss, backward, Adam; parameters are put back before each, so that all do the same work. `graph`: heddle's step, replayed as a CUDA graph."""

    def __init__(self, model: torch.nn.Module, inputs: list[Tensor], adam: Callable, column: str, wrap: Callable) -> None:
        self.model, self.inputs, self.loss = model, inputs, wrap(model)
        graph = column == "graph"
        self.optimiser = adam(self.model, fused=column not in ("heddle", "graph"), capturable=graph)
        self.step = whole_step(self.model, self.optimiser, True if graph else None) if column in ("heddle", "graph") else None
        self.start = [p.detach().clone() for p in self.model.parameters()]
        self.replay = self.record() if graph else None

    def record(self) -> Callable:
        for _ in range(3):
            self.out = self.step(*self.inputs)

        def again() -> None:
            self.out = self.step(*self.inputs)

        if Run.device.type != "cuda":
            return again
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            again()
        return graph.replay

    def before(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list(self.model.parameters()), self.start)

    def forward(self, _: int) -> object:
        return self.loss(*self.inputs)

    def both(self, _: int) -> None:
        if self.replay is not None:
            return self.replay()
        if self.step is not None:
            self.step(*self.inputs)
            return
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(*self.inputs)[0].backward()
        self.optimiser.step()

    def results(self) -> dict[str, Tensor | None]:
        if self.step is not None:  # Adam's first average is (1 - beta1) of the gradient
            self.before()
            if self.replay is not None:
                torch._foreach_zero_([t for s in self.optimiser.state.values() for t in s.values()])
                self.replay()
                out = self.out
            else:
                self.optimiser.state.clear()
                out = self.step(*self.inputs)
            beta = self.optimiser.param_groups[0]["betas"][0]
            gradients = [self.optimiser.state[p]["exp_avg"] / (1 - beta) if p in self.optimiser.state else None for p in self.model.parameters()]
        else:
            out = self.loss(*self.inputs)
            gradients = torch.autograd.grad(out[0], list(self.model.parameters()), allow_unused=True)
        return {f"output {k}": t.detach() for k, t in enumerate(out)} | {f"d {name}": g for (name, _), g in zip(self.model.named_parameters(), gradients)}


def iteration(scale: hexplane.Scale, thick: bool, column: str, wrap: Callable, dtype: torch.dtype) -> Iteration:
    model = hexplane.HexPlane(scale).fill()
    model = (model.thicken() if thick else model).to(Run.device, dtype)
    return Iteration(model, [t.to(Run.device, dtype) for t in hexplane.step_inputs(scale)], hexplane.adam, column, wrap)


def dynibar_iteration(column: str, wrap: Callable, dtype: torch.dtype) -> Iteration:
    """A whole step at the thesis's batch, 64 rays of 128 samples. Not timed: the loss alone, which would be captured and compiled once more."""
    scale = dynibar.SCALES["tiny" if Run.dry else "thesis"]
    model = dynibar.Dynibar(scale).to(Run.device, dtype)
    case = Iteration(model, dynibar_parts.to(dynibar_parts.step_inputs(scale), dtype, Run.device), dynibar.adam, column, lambda f: f)
    case.forward = None
    return case


# ---- the rows
def scale_of(name: str) -> hexplane.Scale:
    s = hexplane.SCALES[name]
    return dataclasses.replace(hexplane.SCALES["tiny"], filled=s.filled) if Run.dry else s


def few(n: int) -> int:
    return max(32, n // 2000) if Run.dry else n


def density(random: bool) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        model = hexplane.HexPlane(scale_of("first"))
        xyz, t = hexplane.points_on_rays(model, hexplane.step_inputs(model.scale))
        g, m = torch.Generator().manual_seed(5), min(len(xyz), 642_000)
        xyz, t = (torch.rand(m, 3, generator=g) * 2 - 1, torch.rand(m, 1, generator=g) * 2 - 1) if random else (xyz[:m], t[:m])
        parameters = [p for kind in ("plane", "line_time", "basis_mat") for p in model.three(f"density_{kind}")]
        return Differentiated(blocks.density_feature, (xyz, t, *parameters), wrap, dtype)

    return make


def volume(samples: int) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        g, rays, n = torch.Generator().manual_seed(6), few(4096), 21 if Run.dry else samples
        sigma = torch.nn.functional.softplus(torch.randn(rays, n, generator=g) * 3 - 2).requires_grad_()
        rgb, target = torch.rand(rays, n, 3, generator=g).requires_grad_(), torch.rand(rays, 3, generator=g)

        def volume_rendering(sigma: Tensor, dist: Tensor, rgb: Tensor, target: Tensor) -> Tensor:
            return (hexplane.volume_rendering(sigma, dist, rgb) - target).pow(2).mean()

        return Differentiated(volume_rendering, (sigma, torch.full((1, n), 4.0 / n), rgb, target), wrap, dtype)

    return make


def losses(name: str) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        model = hexplane.HexPlane(scale_of(name))
        g = torch.Generator().manual_seed(8)
        picture, rgb = torch.rand(model.scale.rays, 3, generator=g).requires_grad_(), torch.rand(model.scale.rays, 3, generator=g)

        def loss_block(picture: Tensor, rgb: Tensor, weight: Tensor, *planes: Tensor) -> Tensor:
            density, app = (hexplane.planes_variation(list(planes[k:k + 3]), list(planes[k + 3:k + 6])) for k in (0, 6))
            return (picture - rgb).pow(2).mean() + density * weight + app * weight

        return Differentiated(loss_block, (picture, rgb, torch.tensor(hexplane.TV_WEIGHT), *model.planes()), wrap, dtype)

    return make


def trajectory(points: int) -> Callable:
    def make(column: str, wrap: Callable, dtype: torch.dtype) -> Case:
        g = torch.Generator().manual_seed(9)
        coefficients, basis = (torch.randn(*shape, generator=g).requires_grad_() for shape in ((few(points // 128), 128, 18), (12, 6)))

        def moved(coefficients: Tensor, basis: Tensor) -> dict:
            return blocks.trajectory(coefficients, basis, 5)

        def by_thesis(coefficients: Tensor, basis: Tensor) -> dict:
            return gpu_thesis.trajectory(coefficients, basis, 5)

        return Differentiated(by_thesis if column == "thesis" else moved, (coefficients, basis), wrap, dtype)

    return make


def of_block(block: blocks.Block) -> Callable:
    return lambda column, wrap, dtype: Differentiated(block.function, block.inputs(0.02 if Run.dry else 1.0), wrap, dtype)


DETERMINISTIC = "deterministic"  # ends the name of a row in which heddle's gradients are to be bit-equal from run to run

ROWS: dict[str, Callable[[str, Callable, torch.dtype], Case]] = {
    "density_on_rays": density(False),
    "volume_rendering_221": volume(221),
    "iteration_first": lambda column, wrap, dtype: iteration(scale_of("first"), False, column, wrap, dtype),
    "loss_first": losses("first"),
    "adam_first": lambda column, wrap, dtype: Adam(scale_of("first"), wrap, column, dtype),
    "density_random": density(True),
    "iteration_late": lambda column, wrap, dtype: iteration(scale_of("late"), True, column, wrap, dtype),
    "trajectory_8k": trajectory(8_192),  # the thesis's table 6.2: 64 rays of 128 samples
    "dynibar_iteration": dynibar_iteration,
    "loss_late": losses("late"),
    **{f"density_{points}_{DETERMINISTIC}": density(points == "random") for points in ("on_rays", "random")},
    "adam_late": lambda column, wrap, dtype: Adam(scale_of("late"), wrap, column, dtype),
    "volume_rendering_689": volume(689),
    "trajectory_65k": trajectory(65_536),
    "trajectory_197k": trajectory(196_608),
    **{f"block_{b.name}": of_block(b) for b in blocks.BLOCKS},
}
