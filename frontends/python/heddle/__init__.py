"""heddle: fused forward and backward kernels for any PyTorch code, made while it runs.

    loss_fn = heddle.fuse(loss_fn)                      # any function or nn.Module
    model   = torch.compile(model, backend="heddle")    # the same through PyTorch's own door
    print(heddle.explain(loss_fn, *inputs))             # regions, kernels, and why values did or didn't fuse
    step    = heddle.TrainStep(loss_fn, optimizer)      # forward, loss, backward and Adam in one: loss = step(*inputs)
    program = heddle.load("loss.pt2")                   # an exported program, fused and trainable
    heddle.dump(loss_fn, *inputs, to="dump/")           # every stage as text
    print(heddle.compare(loss_fn, *inputs))             # eager float64, eager, fused: times, launches, bytes, errors
"""

from ._compare import Comparison, Mismatch, compare
from ._explain import Explanation, dump, explain
from ._fuse import fuse
from ._load import Program, load
from ._train import TrainStep

__all__ = ["Comparison", "Explanation", "Mismatch", "Program", "TrainStep", "compare", "dump", "explain", "fuse", "load"]
