"""heddle.fuse: one line around a function or a module.

Law: what is returned is called, copied, saved and trained like what was given; only its arithmetic is fused.
"""

import functools
from typing import Any, TypeVar

import torch
from torch.nn.modules.module import _has_any_global_hook

from ._dynamo import Backend
from ._region import Region
from ._static import Static
from ._watch import inline

F = TypeVar("F")

# Boolean masks stay in the graph: their number of rows is a size that Dynamo doesn't know. A hook added to a part of a module is seen.
_CAPTURE = {"capture_dynamic_output_shape_ops": True, "skip_nnmodule_hook_guards": False}
_FAILURES = 4  # of Dynamo on one piece of code, after which it isn't asked again


def _name(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_") or "f"


class _Frames:
    """Dynamo's compilation of one function's frames: under _CAPTURE, and what it can't compile runs as it is, with the reason kept."""

    def __init__(self) -> None:
        self.reasons: dict[str, None] = {}
        self.failures: dict[Any, int] = {}

    def around(self, context: Any) -> Any:
        """Dynamo's context, compiling through this. Calls that are compiled already don't come here."""
        convert = context.callback._torchdynamo_orig_backend

        @functools.wraps(convert)
        def compile_frame(frame: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                with torch._dynamo.config.patch(_CAPTURE):
                    return convert(frame, *args, **kwargs)
            except torch._dynamo.exc.ResumePrologueTracingError:
                raise
            except Exception as error:  # the user's own error comes again, as itself, where the code runs as it is
                self.reasons[f"Dynamo can't compile {frame.f_code.co_name}: {str(error).strip().partition(chr(10))[0]}"] = None
                failures = self.failures[frame.f_code] = self.failures.get(frame.f_code, 0) + 1
                return torch._dynamo.types.ConvertFrameReturn(apply_to_code=failures >= _FAILURES)

        compile_frame._torchdynamo_orig_backend = convert._torchdynamo_orig_backend
        compile_frame._clone_with_backend = convert._clone_with_backend
        context.callback._torchdynamo_orig_backend = compile_frame
        return context


class Door:
    """How calls of one function reach heddle: `call`, and the regions that came of it."""

    def __init__(self, function: Any, dynamic: bool | None, deterministic: bool, activation_memory_budget: float, static: bool) -> None:
        self.function, self.options = function, {"dynamic": dynamic, "deterministic": deterministic, "activation_memory_budget": activation_memory_budget, "static": static}
        name = _name(function)
        if static:
            self.call = self.static = Static(function, name, deterministic, activation_memory_budget)
            return
        self.backend, self.frames = Backend(name, deterministic, activation_memory_budget), _Frames()
        compiled = self.frames.around(torch._dynamo.optimize(self.backend, dynamic=dynamic))(function)
        self.call = lambda *args, **kwargs: (function if inline.depth else compiled)(*args, **kwargs)

    def regions(self) -> list[Region]:
        """All regions so far, in the order of their capture."""
        if self.options["static"]:
            return self.static.regions()
        return [g.region for g in self.backend.graphs if g.region is not None]

    def reasons(self) -> list[str]:
        """Why calls or graphs of Dynamo didn't become regions."""
        return self.static.reasons() if self.options["static"] else [g.reason for g in self.backend.graphs if g.region is None] + list(self.frames.reasons)


class FusedFunction:
    """A function whose arithmetic heddle fuses. Called like the function."""

    def __init__(self, function: Any, **options: Any) -> None:
        self._door = Door(function, **options)
        self._call = self._door.call
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __reduce__(self) -> Any:
        return _again, (self._door.function, self._door.options)


def _again(function: Any, options: dict[str, Any]) -> Any:
    return fuse(function, **options)


@functools.cache
def _fused_class(cls: type) -> type:
    """A subclass of a module's class whose call is fused. Its instances share the `__dict__` of the module they were made of."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _has_any_global_hook():  # they want to see every module
            return self._heddle.function(*args, **kwargs)
        return self._heddle.call(*args, **kwargs)

    def reduce(self: Any, protocol: Any = None) -> Any:
        return _again, (self._heddle.function, self._heddle.options)

    return type(cls.__name__, (cls,), {"__slots__": ("_heddle",), "__call__": call, "__reduce_ex__": reduce,
                                       "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__})


def door_of(function: Any) -> Door | None:
    """The door of something that heddle.fuse returned, else None."""
    if isinstance(function, FusedFunction):
        return function._door
    return getattr(function, "_heddle", None) if isinstance(function, torch.nn.Module) else None


def fuse(function: F, *, dynamic: bool | None = None, deterministic: bool = False, activation_memory_budget: float = 1.0, static: bool = False) -> F:
    """Fuses the arithmetic of a function or an `nn.Module`, forward and backward.

    Works as a decorator. Outputs and gradients are eager's within the rounding of the element type. What can't be fused runs as it is;
    `heddle.explain` says why. A module stays one of its class: parameters, hooks and `state_dict` are those of the module given.

    Args:
        function: any callable over tensors (and whatever else it takes), or a module.
        dynamic: as for torch.compile: None lets a size that changed vary from then on, True from the first call, False never.
        deterministic: bit-equal results from run to run, on the CPU whatever the number of threads too. On CUDA, floats that several threads
            add to one element are added as whole numbers, which computes them twice and takes 12 more bytes an element (20 of float64).
        activation_memory_budget: the most that is kept from forward to backward, as a share of what costs least time, from 0 to 1. Below 1,
            encodings and matrix products are computed again in the backward, the cheapest for each byte first, until that much is left.
        static: capture by running, without Dynamo: calls cost less, but what the function reads besides its arguments (globals, attributes,
            closures) is bound at the first call with arguments of a kind, and what it does to Python's objects isn't done again. A module's
            parameters, buffers and mode may change.

    Returns:
        a callable like `function`.
    """
    if door_of(function) is not None:
        return function
    if not callable(function):
        raise TypeError(f"heddle.fuse: got a {type(function).__name__}, expected a function or an nn.Module")
    if not 0 <= activation_memory_budget <= 1:
        raise ValueError(f"heddle.fuse: activation_memory_budget is {activation_memory_budget}, expected a share from 0 to 1")
    options = {"dynamic": dynamic, "deterministic": deterministic, "activation_memory_budget": activation_memory_budget, "static": static}
    if not isinstance(function, torch.nn.Module):
        return FusedFunction(function, **options)
    fused = object.__new__(_fused_class(type(function)))
    object.__setattr__(fused, "__dict__", function.__dict__)
    object.__setattr__(fused, "_heddle", Door(function, **options))
    return fused
