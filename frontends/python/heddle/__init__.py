"""heddle: fused forward and backward kernels for any PyTorch code, made while it runs.

    loss_fn = heddle.fuse(loss_fn)                      # any function or nn.Module
    model   = torch.compile(model, backend="heddle")    # the same through PyTorch's own door
"""

from ._fuse import fuse

__all__ = ["fuse"]
