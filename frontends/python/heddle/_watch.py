"""What a capture by running watches of a Python function: the lines it's at, and what it does past PyTorch's ops.

Law: what the ops don't show is either put as ops or raises Unseen, and then the function runs as it is.
"""

import contextlib
import functools
import sys
import sysconfig
import threading
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import eval_frame
from torch.overrides import TorchFunctionMode
from torch.utils import _device, _pytree as pytree

from . import _region
from ._sizes import told


class Unseen(RuntimeError):
    """The function does something that a list of ops doesn't show."""


_HOOK = "a hook on a tensor inside; register it on what is passed or returned"
_READ = "reads values past PyTorch's ops; keep it a tensor"
_STATE = "reads what autograd does outside; pass its value"
_NAMES = {
    "register_hook": _HOOK, "register_post_accumulate_grad_hook": _HOOK, "retain_grad": _HOOK,
    "numpy": _READ, "tolist": _READ, "data_ptr": _READ, "untyped_storage": _READ, "__array__": _READ, "__dlpack__": _READ, "__reduce_ex__": _READ, "__deepcopy__": _READ,
    "backward": "takes a derivative inside; fuse the function it is of",
}
_UNSEEN = {getattr(Tensor, name): f"Tensor.{name}: {why}" for name, why in _NAMES.items()}
_UNSEEN |= {getattr(Tensor, name).__get__: f"Tensor.{name}: {_STATE}" for name in ("grad", "grad_fn", "_version")}
_UNSEEN |= {getattr(Tensor, name).__set__: f"Tensor.{name} is set: use ops that write" for name in ("grad", "data", "requires_grad")}
_SIZES = {Tensor.shape.__get__, Tensor.size, Tensor.numel, Tensor.nelement, Tensor.__len__, torch.numel}


_STANDARD, _INSTALLED = sysconfig.get_path("stdlib") + "/", sysconfig.get_path("purelib") + "/"
_LIBRARIES = (torch.__path__[0] + "/", __file__.rsplit("/", 1)[0] + "/", "<frozen ")


@functools.cache
def _of_libraries(file: str) -> bool:
    """Is a file part of PyTorch, heddle or Python, whose lines tell a user nothing?"""
    return file.startswith(_LIBRARIES) or (file.startswith(_STANDARD) and not file.startswith(_INSTALLED))


_watches = [0, None]  # how many there are, in all threads; Dynamo's stance before the first
_watching = threading.Lock()


def _compile_nothing(more: int) -> None:
    """Functions inside that are compiled by Dynamo run as they are: their ops are wanted, and Dynamo fills tables of its own as it
    compiles, wrongly if a torch function mode is on."""
    with _watching:
        first = _watches[0] == 0
        _watches[0] += more
        if not first and _watches[0]:
            return
        compiling = eval_frame.set_eval_frame(None)  # a stance can only be set outside
        try:
            if first:
                _watches[1] = eval_frame._set_stance(eval_frame.DynamoStance("force_eager"))
            else:
                eval_frame._set_stance(_watches[1])
        finally:
            eval_frame.set_eval_frame(compiling)


class Watch(TorchFunctionMode):
    """Around a run that is captured. `numbers`: tensors that stand for Python's numbers; so do those that are made of nothing else."""

    def __init__(self, numbers: list[Tensor]) -> None:
        super().__init__()
        self.numbers = {id(t): t for t in numbers}

    def __enter__(self) -> "Watch":
        _compile_nothing(1)
        self.outer, inline.depth = inline.depth, inline.depth + 1
        self.traced = sys.gettrace()
        sys.settrace(self.call)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        sys.settrace(self.traced)
        inline.depth = self.outer
        _compile_nothing(-1)

    def call(self, frame: Any, event: str, arg: Any) -> Any:
        return None if _of_libraries(frame.f_code.co_filename) else self.line

    def line(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "return":  # what follows is of the line that called
            frame = frame.f_back
        if event in ("line", "return") and frame is not None and not _of_libraries(frame.f_code.co_filename):
            _region.place(f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}")
        return self.line

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in _UNSEEN:
            raise Unseen(_UNSEEN[function])
        if function == Tensor.data.__get__:
            return args[0].detach()
        made = function(*args, **kwargs or {})
        if function in _SIZES:
            return told(made)
        if self.numbers and isinstance(made, Tensor) and made.dim() == 0 and id(made) not in self.numbers:
            of = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            if of and all(id(x) in self.numbers for x in of):
                made = _region.number(made)
                self.numbers[id(made)] = made
        return made


class _Inline(threading.local):
    depth = 0


inline = _Inline()  # .depth > 0: this thread captures by running, and what else is fused becomes part of that


def modes() -> tuple | None:
    """The torch function modes around this call as something to compare: (), the default devices; None for any other."""
    if not torch._C._len_torch_function_stack():
        return ()
    stack = torch.overrides._get_current_function_mode_stack()
    return tuple(str(m.device) for m in stack) if all(type(m) is _device.DeviceContext for m in stack) else None


def under(devices: tuple, function: Any) -> Any:
    """The function with these default devices: while an op of ours runs, PyTorch has taken off the mode that it was called under."""
    if not devices:
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for device in devices:
                stack.enter_context(torch.device(device))
            return function(*args, **kwargs)

    return call
