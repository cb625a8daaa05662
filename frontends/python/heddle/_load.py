"""heddle.load: a program that torch.export.save wrote, read by C++, fused and trainable.

Law: parameters and buffers are those of the C++ program: an optimiser's steps and load_state_dict are seen by the next call.
"""

import json
import os
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import _library  # noqa: F401  loads torch.classes.heddle


class Program(torch.nn.Module):
    """An exported program as a module: called like what was exported, with its parameters and buffers under their names."""

    def __init__(self, path: str, device: str = "") -> None:
        super().__init__()
        object.__setattr__(self, "_handle", torch.classes.heddle.Program(path, device))
        about = json.loads(self._handle.about())
        self._arguments, self._results = about["arguments"], about["results"]
        self._in, self._out = pytree.treespec_loads(about["in"]), pytree.treespec_loads(about["out"])
        for name, t in zip(about["parameters"], self._handle.parameters()):
            t._is_param = True  # what makes a tensor a parameter, with no second tensor object around its memory
            self._owner(name).register_parameter(name.rpartition(".")[2], t)
        for name, t in zip(about["buffers"], self._handle.buffers()):
            self._owner(name).register_buffer(name.rpartition(".")[2], t)

    def _owner(self, name: str) -> torch.nn.Module:
        module: torch.nn.Module = self
        for part in name.split(".")[:-1]:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        return module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self._in or len(leaves) != len(self._arguments):
            wanted = ", ".join(a["name"] for a in self._arguments)
            raise TypeError(f"heddle.load: arguments don't nest as at export: got {len(leaves)} values, expected {len(self._arguments)} ({wanted})")
        inputs = []
        for k, (leaf, argument) in enumerate(zip(leaves, self._arguments)):
            if argument["input"]:
                inputs.append(leaf if isinstance(leaf, Tensor) else torch.tensor(leaf))
            elif leaf != (fixed := self._handle.fixed_argument(k)):
                raise ValueError(f"heddle.load: argument {argument['name']} is {leaf!r}, and was {fixed!r} at export, where it became a constant")
        results = iter(self._handle.run(inputs))
        out = [next(results) if is_result else self._handle.fixed_result(k) for k, is_result in enumerate(self._results)]
        return pytree.tree_unflatten(out, self._out)

    def explain(self) -> str:
        """Kernels, and why values did or didn't fuse; after the first call."""
        return self._handle.explain()

    def example(self) -> list[Tensor]:
        """Inputs with which it was exported, flat; empty if the file has none."""
        return self._handle.example()


def load(path: str | os.PathLike, *, device: str | torch.device | None = None) -> Program:
    """Reads a `.pt2` file as torch.export.save writes it.

    Args:
        path: the file. Export with `torch.export.export(module, inputs, dynamic_shapes=...)`: a size that is dynamic there compiles nothing when it changes.
        device: where weights lie, instead of where they were at export.

    Returns:
        a module, whose calls run fused, forward and backward. Raises RuntimeError, in one line: no such file, not a .pt2, of a schema or
        with an op that this PyTorch doesn't know.
    """
    return Program(os.fspath(path), "" if device is None else str(device))
