"""Sizes as a captured function of Python sees them: integers that tell what is decided by them.

Law: a function that decides by sizes is captured together with what it decided, and the capture answers only calls that decide the same.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from . import _library  # noqa: F401  loads the ops

_LESS, _EQUAL, _MOD, _DIV, _VALUE = range(5)  # Choice::Of of frontends/capture/capture.h
_decide = torch.ops.heddle.decide.default


def _decided(of: int, a: Any, b: Any) -> int:
    return _decide(of, int(a), int(b))


def _whole(x: Any) -> Any:
    """An integer of Python, or None."""
    return int(x) if isinstance(x, int) else None


class Size(int):
    """An integer that came of a size."""

    __slots__ = ()
    __hash__ = int.__hash__

    def __bool__(self) -> bool:
        return not _decided(_EQUAL, self, 0)

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, float):
            other = int(other) if other.is_integer() else other
        elif _whole(other) is None:
            return NotImplemented
        return isinstance(other, int) and bool(_decided(_EQUAL, self, other))

    def __ne__(self, other: Any) -> Any:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __lt__(self, other: Any) -> Any:
        if isinstance(other, float) and math.isfinite(other):
            other = math.ceil(other)
        return NotImplemented if _whole(other) is None else bool(_decided(_LESS, self, other))

    def __gt__(self, other: Any) -> Any:
        if isinstance(other, float) and math.isfinite(other):
            other = math.floor(other)
        return NotImplemented if _whole(other) is None else bool(_decided(_LESS, other, self))

    def __le__(self, other: Any) -> Any:
        more = self.__gt__(other)
        return more if more is NotImplemented else not more

    def __ge__(self, other: Any) -> Any:
        less = self.__lt__(other)
        return less if less is NotImplemented else not less


def _keeps(name: str) -> Callable:
    """Sums, differences and products of sizes are sizes."""
    plain = getattr(int, name)

    def method(self: Size, *other: Any) -> Any:
        if other and isinstance(other[0], float):
            _decided(_VALUE, self, 0)
        made = plain(int(self), *other)
        return Size(made) if type(made) is int else made

    return method


def _tells(name: str, of: int) -> Callable:
    """Quotients and remainders are sizes, and tell that they were taken."""
    plain = getattr(int, name)

    def method(self: Size, other: Any) -> Any:
        if _whole(other):
            a, b = (other, self) if name.startswith("__r") else (self, other)
            _decided(of, a, b)
        elif isinstance(other, float):
            _decided(_VALUE, self, 0)
        made = plain(int(self), other)
        return Size(made) if type(made) is int else made

    return method


def _ends(name: str) -> Callable:
    """Anything else makes a plain number of it, that no other size may have."""
    plain = getattr(int, name)

    def method(self: Size, *other: Any) -> Any:
        if not other or isinstance(other[0], (int, float)):
            _decided(_VALUE, self, 0)
        return plain(int(self), *other)

    return method


for _names, _make in [("add radd sub rsub mul rmul neg pos", _keeps), ("floordiv rfloordiv", lambda n: _tells(n, _DIV)), ("mod rmod", lambda n: _tells(n, _MOD)),
                      ("truediv rtruediv float round trunc floor ceil abs pow rpow divmod rdivmod and rand or ror xor rxor lshift rlshift rshift rrshift invert", _ends)]:
    for _name in _names.split():
        setattr(Size, f"__{_name}__", _make(f"__{_name}__"))


def told(x: Any) -> Any:
    """A size, or all of a shape, as integers that tell."""
    return torch.Size(map(Size, x)) if isinstance(x, torch.Size) else Size(x) if type(x) is int else x
