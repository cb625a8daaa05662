"""Tests of the Python package, of this checkout whatever else is installed. `door` is each way in: a test that asks for it runs once per door."""

import functools
import pathlib
import sys

import pytest
import torch

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


# What isn't as it should be yet, and why. Each is expected to fail: one that passes is red until its line is gone.
UNFINISHED = {
    "test_sizes.py::test_a_branch_on_a_size[static]": "with static=True a Python branch on a size isn't seen once the size has a name",
    "test_sizes.py::test_twenty_iterations_in_which_every_dimension_changes[static]": "captured a third time where sizes came to be equal",
    "test_sizes.py::test_one_size[static-chunks]": "half of a size is no polynomial of it: captured for each size",
    "test_sizes.py::test_one_size[fuse-chunks]": "half of a size is no polynomial of it: runs eagerly",
    "test_sizes.py::test_one_size[fuse-neighbours]": "Dynamo compiles again for rows of one",
    "test_sizes.py::test_two_sizes[fuse-ones]": "Dynamo compiles again for sizes of one",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if reason := UNFINISHED.get(item.nodeid.rpartition("tests/python/")[2]):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
