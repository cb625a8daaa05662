"""heddle.explain and heddle.dump: what becomes of a function, as text.

Law: neither changes anything: they run the function on copies of the inputs, in a capture of their own, and put the generator back.
"""

import copy
import os
import pathlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ._fuse import Door, door_of
from ._region import Region


def original(function: Any) -> Any:
    """What was given to heddle.fuse or torch.compile."""
    if (door := door_of(function)) is not None:
        return door.function
    for name in ("_torchdynamo_orig_callable", "_orig_mod"):
        function = getattr(function, name, function)
    return function


def copied(values: Any, dtype: torch.dtype | None = None) -> Any:
    """Inputs of their own: leaves where they are leaves, and of `dtype` where they are floats. Tensors given twice stay one."""
    made: dict[int, Tensor] = {}

    def one(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) not in made:
            to = dtype if dtype is not None and x.is_floating_point() else x.dtype
            made[id(x)] = x.detach().to(to).clone(memory_format=torch.preserve_format).requires_grad_(x.requires_grad)
        return made[id(x)]

    return pytree.tree_map(one, values)


def copied_module(function: Any) -> Any:
    """A module's copy, so that running it leaves buffers and gradients alone; a function as it is."""
    return copy.deepcopy(function) if isinstance(function, torch.nn.Module) else function


def floats(result: Any) -> list[Tensor]:
    """The results that a gradient can come from."""
    return [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor) and t.requires_grad]


class _Quiet:
    """The random generators and Dynamo's counters, put back."""

    def __enter__(self) -> "_Quiet":
        self.fork = torch.random.fork_rng()
        self.fork.__enter__()
        self.before = self.reasons()
        return self

    @staticmethod
    def reasons() -> dict[str, int]:
        from torch._dynamo.utils import counters

        return {reason: n for kind in ("graph_break", "unimplemented") for reason, n in counters[kind].items()}

    def __exit__(self, *error: object) -> None:
        self.fork.__exit__(*error)

    def breaks(self) -> list[str]:
        new = [reason.strip().splitlines() for reason, n in self.reasons().items() if n > self.before.get(reason, 0)]
        return [": ".join(line.strip().removeprefix("Explanation: ") for line in reason[:2]) for reason in new]


def opened(function: Any, args: tuple, kwargs: dict) -> tuple[Door, list[str]]:
    """A door of its own through which the function went once, forward and backward, and where Dynamo broke its graph."""
    door = door_of(function)
    options = dict(door.options) if door is not None else {"dynamic": None, "deterministic": False, "activation_memory_budget": 1.0, "static": False}
    fresh = Door(copied_module(original(function)), **options)
    with _Quiet() as quiet:
        inputs, named = copied((args, kwargs))
        if used := floats(fresh.call(*inputs, **named)):
            torch.autograd.backward(used, [torch.ones_like(t) for t in used])
    return fresh, quiet.breaks()


class Explanation(str):
    """The text of heddle.explain, with `regions` as data (their reports)."""

    regions: list[dict]


def _headline(region: Region) -> str:
    r = region.report()
    if r["eager_reason"]:
        return f"{region.name}: runs eagerly: {r['eager_reason']}"
    forward = f"{r['launches_forward']} kernels, {r['calls_forward']} library calls, {r['bytes_forward'] / 1e6:.3g} MB"
    backward = f"{r['launches_backward']} kernels, {r['calls_backward']} library calls, {r['bytes_backward'] / 1e6:.3g} MB"
    return f"{region.name}: forward {forward}; backward {backward}; {r['saved_bytes'] / 1e6:.3g} MB kept between; compiled in {r['compile_seconds']:.2f} s"


def explain(function: Callable, *args: Any, **kwargs: Any) -> Explanation:
    """Tells what heddle makes of `function(*args, **kwargs)`: regions, kernels, and for each value why it did or didn't join another's kernel.

    The function (fused or not) runs once, forward and backward, on copies of the inputs. Lines name the user's source. Returns a str.
    """
    door, breaks = opened(function, args, kwargs)
    regions, lines = door.regions(), []
    lines.append(f"{len(regions)} region{'s' * (len(regions) != 1)}, {len(breaks)} graph break{'s' * (len(breaks) != 1)}")
    lines += [f"graph break: {b}" for b in breaks]
    lines += [f"a graph of Dynamo runs eagerly: {reason}" for reason in door.reasons()]
    for region in regions:
        lines += ["", _headline(region), region.explain().rstrip()]
    text = Explanation("\n".join(lines))
    text.regions = [{"name": r.name, **r.report()} for r in regions]
    return text


def dump(function: Callable, *args: Any, to: str | os.PathLike, **kwargs: Any) -> list[str]:
    """Writes every stage of `function(*args, **kwargs)` as text into the folder `to`, and returns the files.

    Per region: the graph after each pass (`.hir`, heddle's IR, which parses back), the programs, loops, LLVM IR (`.ll`), CUDA (`.cu`, which
    compiles alone) and, where NVRTC is found, PTX; and Dynamo's graph as Python.
    """
    folder = pathlib.Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    door, _ = opened(function, args, kwargs)
    files: list[str] = []

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text)
        files.append(str(folder / name))

    for k, graph in enumerate([] if door.options["static"] else door.backend.graphs):
        name = graph.region.name if graph.region is not None else f"eager_{k}"
        write(f"{name}.py", ("" if graph.region is not None else f"# runs eagerly: {graph.reason}\n") + "# Dynamo's graph\n" + graph.gm.code.lstrip())
    for region in door.regions():
        if reason := region.report()["eager_reason"]:
            write(f"{region.name}.txt", f"runs eagerly: {reason}\n")
        else:
            files += region.dump(str(folder / region.name))
    return files
