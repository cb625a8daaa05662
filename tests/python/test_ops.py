"""Single ops at their edges, in the smallest form: what opinfo.py, PyTorch's database of ops, found. Law: a row per finding, equal to eager in everything."""

import pytest
import torch
from torch import nn

from same import same


def leaf(*values):
    return torch.tensor(values, requires_grad=True)


EDGES = {
    "norms of orders below 1, of a zero": (lambda x: (x.norm(0.5), x.norm(-1), torch.dist(x, x * 2, 0.3)), lambda: [leaf(0.0, 1.0, -2.0)]),
    "norms of orders above 1, of a zero": (lambda x: (x.norm(1.5), x.norm(3), x.norm(1), x.norm(float("inf"))), lambda: [leaf(0.0, 1.0, -2.0)]),
    "normalised by an order below 1": (lambda x: nn.functional.normalize(x, p=-1.0, dim=0), lambda: [leaf(0.0, 1.0, -2.0)]),
    "a mask without dimensions": (lambda x, m: (x.masked_select(m), x[0].masked_select(m)), lambda: [leaf(1.0, 2.0), torch.tensor(True)]),
    "batch_norm of nothing": (lambda x, m, v: nn.functional.batch_norm(x, m, v), lambda: [torch.zeros(0, requires_grad=True), torch.zeros(0), torch.ones(0)]),
    "batch_norm of nothing, in training": (lambda x, m, v: nn.functional.batch_norm(x, m, v, training=True),
                                           lambda: [torch.zeros(0, 3, 2, requires_grad=True), torch.zeros(3), torch.ones(3)]),
}


@pytest.mark.parametrize("case", EDGES)
def test_edges(door, case):
    same(door, *EDGES[case], eager=None)
