"""Tests of the Python package, of this checkout whatever else is installed. `door` is each way in: a test that asks for it runs once per door."""

import functools
import os
import pathlib
import sys

import pytest
import torch

os.environ.setdefault("HEDDLE_CACHE", "0")  # compilers are really run
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "frontends" / "python"))
import heddle  # noqa: E402

DOORS = {
    "fuse": heddle.fuse,
    "static": functools.partial(heddle.fuse, static=True),
    "compile": functools.partial(torch.compile, backend="heddle"),
}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


@pytest.fixture(params=["fuse", "static"])
def own_door(request):
    """The doors whose regions can be asked: those of heddle's own function."""
    return DOORS[request.param]


@pytest.fixture(autouse=True)
def fresh():
    """Each test starts as a new process would: the same numbers, nothing compiled by Dynamo."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
