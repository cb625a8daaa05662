"""heddle.TrainStep: forward, loss, backward, zero_grad and Adam as one plan.

Law: after a step, parameters and the optimiser's state are what eager PyTorch would have made of them; a step that can't be fused runs as eager
code does, and the reason is kept. Gradients exist only within a fused step: `Tensor.grad` is neither read nor written.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._fuse import _name
from ._region import Compiled, step as _step
from ._static import Opaque, Static
from ._watch import modes

_OPTIMISERS = (torch.optim.Adam, torch.optim.AdamW)
_STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


class _NotFused(Exception):
    pass


class _Step(Compiled):
    _kind = staticmethod(torch.classes.heddle.Step)

    def __init__(self, of: "TrainStep", function: Callable, **options: Any) -> None:
        super().__init__(function, restride=of.restride, bounded=of.bounded, capturable=of._capturable(), **options)
        self.known: list[Any] = []  # the optimiser's tensors, as C++ was given them
        self.fresh = False          # some have no state yet: C++ makes it
        self.counts = False         # C++ may have made other numbers of steps of them

    def report(self) -> dict:
        return json.loads(self._handle.report())


class _Captures(Static):
    """The loss function, captured by running it; each capture is a step."""

    def __init__(self, of: "TrainStep", function: Any, deterministic: bool) -> None:
        super().__init__(function, _name(function), deterministic)
        self.of, self.made = of, lambda *args, **options: _Step(of, *args, **options)

    def run(self, number: int, tensors: Any) -> list[Tensor]:
        return self.run_with_numbers(number, tensors, [], [])

    def run_with_numbers(self, number: int, tensors: Any, integers: list[int], floats: list[float]) -> list[Tensor]:
        fused, results = self.of._before(number), None
        wait = not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
        done, results = _step(number, tensors, integers, floats, self.of._numbers(), wait)
        if not done:
            raise _NotFused(fused.report()["eager_reason"])
        self.of._after(fused)
        return results

    def slow(self, args: tuple, kwargs: dict) -> Any:
        """As for a fused function, but what can't be captured isn't run here."""
        around = modes()
        if around is None:
            raise Opaque("a torch function mode is on that wants to see every call")
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if any(isinstance(x, Tensor) and type(x) not in (Tensor, nn.Parameter) for x in leaves):
            raise Opaque("an argument is a subclass of a tensor, which may do anything")
        return self.entry(leaves, spec, around)(leaves, args, kwargs)

    __call__ = lambda self, *args, **kwargs: self.slow(args, kwargs)  # noqa: E731


class TrainStep:
    """One call trains once: `loss = step(*args)` is

        optimizer.zero_grad(); loss = loss_fn(*args); loss.backward(); optimizer.step()

    with forward, backward and update fused and parameters and the optimiser's state written in place. No gradient is kept: where the step is
    fused, `Tensor.grad` is neither read nor written, and hooks of the optimiser's don't run.

    Args:
        loss_fn: a function or module that returns the loss (one floating-point number), or a tuple that begins with it. Captured as
            `heddle.fuse(..., static=True)` does: what it reads besides its arguments is bound at the first call with arguments of a kind.
        optimizer: `torch.optim.Adam` or `AdamW`. Learning rates and other numbers may change between steps, by hand or by a scheduler; its state
            is kept where it always is, so that `state_dict` and `load_state_dict` save and resume. With another optimiser steps run eagerly.
        deterministic: bit-equal steps from run to run, as `heddle.fuse(..., deterministic=True)` has them.
        bounded: no kernel waits for the host: numbers of rows of masks stay on the device, in memory with room for some more than were seen, and
            branches on values are taken as at capture. The host looks at both while the step runs and repeats a step that didn't hold, which has
            changed nothing. None: on CUDA, if the loss allows; `report()["waits"]` says why not.
        restride: lay out anew, once, parameters that are looked up by rows which don't lie together: their values and sizes stay, their strides
            change, as with `Tensor.to(memory_format=...)`.

    An optimiser that is `capturable` counts its steps on the device, whatever the device; with `bounded` a step can then be recorded by
    `torch.cuda.graph`, after a few steps outside of it. What is replayed is not looked at by the host: `failed()` says whether it held.

    Calling it returns what `loss_fn` returns, detached. Raises what `loss_fn` raises.
    """

    def __init__(self, loss_fn: Callable, optimizer: torch.optim.Optimizer, *, deterministic: bool = False, restride: bool = True, bounded: bool | None = None) -> None:
        if not callable(loss_fn):
            raise TypeError(f"heddle.TrainStep: got a {type(loss_fn).__name__}, expected a function or an nn.Module")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"heddle.TrainStep: got a {type(optimizer).__name__}, expected an optimiser of torch.optim")
        self.loss_fn, self.optimizer, self.restride, self.bounded = loss_fn, optimizer, restride, bounded
        self._captures = _Captures(self, loss_fn, deterministic)
        self._last: _Step | None = None
        self._reason = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._reason = self._unfit()
        if not self._reason:
            try:
                return self._captures(*args, **kwargs)
            except (Opaque, _NotFused) as reason:
                self._reason = str(reason)
        with torch.enable_grad():
            self.optimizer.zero_grad()
            result = self.loss_fn(*args, **kwargs)
            loss = result[0] if isinstance(result, (tuple, list)) else result
            loss.backward()
            self.optimizer.step()
        return pytree.tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, result)

    def _unfit(self) -> str:
        o = self.optimizer
        if type(o) not in _OPTIMISERS:
            return f"the optimiser is a {type(o).__name__}, neither torch.optim.Adam nor AdamW"
        for g in o.param_groups:
            if g.get("differentiable"):
                return "the optimiser is differentiable"
            if isinstance(g["lr"], Tensor) or any(isinstance(b, Tensor) for b in g["betas"]):
                return "a learning rate is a tensor"
        if any(p.requires_grad is False for g in o.param_groups for p in g["params"]):
            return "a parameter of the optimiser doesn't require a gradient"
        return ""

    def _capturable(self) -> bool:
        return any(g.get("capturable", False) for g in self.optimizer.param_groups)

    def _numbers(self) -> list[float]:
        numbers: list[float] = []
        for g in self.optimizer.param_groups:
            decoupled = g.get("decoupled_weight_decay", isinstance(self.optimizer, torch.optim.AdamW))
            numbers += (float(g["lr"]), *map(float, g["betas"]), float(g["eps"]), float(g["weight_decay"]), float(bool(decoupled)), float(bool(g["amsgrad"])), float(bool(g["maximize"])))
        return numbers

    def _tensors(self) -> list[Any]:
        """Per parameter: itself and its state, as the optimiser holds them now."""
        state, found = self.optimizer.state, []
        for g in self.optimizer.param_groups:
            for p in g["params"]:
                s = state.get(p) or {}
                found += (p, s.get("step"), *map(s.get, _STATES))
        return found

    def _before(self, number: int) -> _Step:
        fused = next(e.region for e in self._captures.entries.values() if e.region.id == number)
        held = self._tensors()
        if len(held) != len(fused.known) or any(a is not b for a, b in zip(held, fused.known)):
            none = torch.empty(0)
            given = [torch.zeros((), dtype=torch.float32) if x is None and k % 5 == 1 else none if x is None else x for k, x in enumerate(held)]
            groups = [k for k, g in enumerate(self.optimizer.param_groups) for _ in g["params"]]
            fused._handle.parameters(given, groups)
            fused.steps, fused.known, fused.counts = given[1::5], held, self._capturable()
            fused.fresh = any(average is None for average in held[2::5])
        return fused

    def _after(self, fused: _Step) -> None:
        """States that the step made become the optimiser's."""
        self._last = fused
        self.optimizer._opt_called = True  # a scheduler asks
        if fused.fresh or fused.counts:
            states = fused._handle.states()
            for k, p in enumerate(fused.known[::5]):
                step, *own = (t for t in states[4 * k:4 * k + 4] if t.numel() > 0 or t.dim() > 1)
                if own and fused.known[5 * k + 2] is None:
                    self.optimizer.state[p] = {"step": fused.steps[k], **dict(zip(_STATES, own))}
                if own and fused.counts:  # a view of all numbers of steps
                    self.optimizer.state[p]["step"] = step
            fused.known, fused.fresh, fused.counts = self._tensors(), False, False

    def report(self) -> dict:
        """Of the last step: launches, library calls, host reads, bytes, and why it ran eagerly if it did."""
        found = self._last.report() if self._last else {}
        return {**found, "eager_reason": self._reason}

    def failed(self) -> Tensor | None:
        """Of the last step, on its device: int64 `[1 + masks]`, whether it didn't hold and so changed nothing (not 0), then the rows of each mask.
        None if nothing in it can fail. For steps that a CUDA graph replays; others are repeated until they hold."""
        told = self._last._handle.failed() if self._last else None
        return None if told is None or told.numel() == 0 else told

    def explain(self) -> str:
        """The plan of each capture: kernels, library calls, and what is written in place."""
        return "\n".join(e.region.explain() for e in list(self._captures.entries.values()))

    def traffic(self) -> list[dict]:
        """Bytes that the last step's CUDA kernels move beside the least they can (runtime/traffic.h)."""
        return self._last.traffic() if self._last else []

    def kernels(self) -> dict[str, str]:
        """CUDA text of the last step's kernels, by name."""
        return self._last.kernels() if self._last else {}
