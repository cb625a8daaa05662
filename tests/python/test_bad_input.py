"""What can't be fused, or is wrong: the exception that eager raises, or eager's result, and never the end of the process."""

import json
import shutil
import subprocess
import sys
import pathlib

import pytest
import torch

import heddle
from conftest import DOORS
from heddle._fuse import door_of
from same import close, same


def r(*shape, grad=False, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


def double(x):
    return x * 2


def add(x, y):
    return x + y


def take(x, i):
    return x[i] * 2


FOREIGN = {  # kinds of tensors that heddle has no word for: eager's result
    "complex64": (double, lambda: [r(3, dtype=torch.complex64)]),
    "complex128 with a gradient": (lambda x: (x * 2).abs().sum(), lambda: [r(3, grad=True, dtype=torch.complex128)]),
    "complex inside": (lambda x: torch.fft.fft(x).abs(), lambda: [r(8, grad=True)]),
    "complex out": (lambda x: torch.complex(x, x + 1), lambda: [r(3)]),
    "conjugate": (lambda x: x + 1, lambda: [r(3, dtype=torch.complex64).conj()]),
    "uint8": (lambda x: x * 2 + 250, lambda: [torch.arange(5, dtype=torch.uint8)]),
    "int8": (lambda x: x * 100, lambda: [torch.arange(5, dtype=torch.int8)]),
    "int16": (lambda x: x * 20000, lambda: [torch.arange(5, dtype=torch.int16)]),
    "gather of int32": (lambda x, i: x.gather(0, i), lambda: [r(3), torch.tensor([0, 1], dtype=torch.int32)]),
    "float8": (lambda x: x.float() * 2, lambda: [r(4).to(torch.float8_e4m3fn)]),
    "float8 out": (lambda x: (x * 2).to(torch.float8_e5m2), lambda: [r(4)]),
    "quantised": (lambda x: x.dequantize() * 2, lambda: [torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)]),
    "sparse": (lambda x: (x * 2).to_dense(), lambda: [torch.eye(3).to_sparse()]),
    "sparse csr": (lambda x, y: x @ y, lambda: [torch.eye(3).to_sparse_csr(), r(3, 2)]),
    "sparse inside": (lambda x: torch.sparse.mm(x.to_sparse(), x), lambda: [torch.eye(3)]),
    "nested": (lambda x: x * 2, lambda: [torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)]),
    "mkldnn": (lambda x: x.to_dense() * 2, lambda: [torch.ones(2, 3).to_mkldnn()]),
    "strings": (lambda s, x: x * len(s), lambda: ["abc", r(3)]),
    "numpy": (lambda a, x: x + torch.as_tensor(a), lambda: [__import__("numpy").ones(3, "float32"), r(3)]),
}
OF_STRANGE_EQUALITY = ("sparse", "sparse csr", "nested", "quantised", "mkldnn", "numpy", "complex128 with a gradient")


@pytest.mark.parametrize("case", [c for c in FOREIGN if c not in OF_STRANGE_EQUALITY])
def test_foreign_types(door, case):
    same(door, *FOREIGN[case], eager=None)


@pytest.mark.parametrize("case", OF_STRANGE_EQUALITY)
def test_foreign_tensors(door, case):
    """As above, of tensors that same() can't take apart."""
    function, make = FOREIGN[case]
    fused = door(function)
    for _ in range(2):
        torch.manual_seed(1)
        a = make()
        torch.manual_seed(1)
        b = make()
        want, got = function(*a), fused(*b)
        if want.is_nested:
            assert got.is_nested
            want, got = want.values(), got.values()
        close(want, got, case)
        if want.requires_grad:
            want.backward(), got.backward()
            assert torch.equal(a[0].grad, b[0].grad)


WRONG = {  # the same exception as eager's, again and again
    "shapes that don't fit": (add, lambda: [r(3), r(4)]),
    "matmul that doesn't fit": (torch.matmul, lambda: [r(3, 4), r(3, 4)]),
    "an index out of range": (lambda x: x[7], lambda: [r(3)]),
    "an index tensor out of range": (take, lambda: [r(3), torch.tensor([0, 5])]),
    "a negative index out of range": (take, lambda: [r(3), torch.tensor([0, -4])]),
    "an index of floats": (take, lambda: [r(3), torch.tensor([0.0, 1.0])]),
    "uint16": (lambda x: x + 0, lambda: [torch.arange(5, dtype=torch.int32).to(torch.uint16)]),
    "gather out of range": (lambda x, i: x.gather(0, i), lambda: [r(3), torch.tensor([0, 3])]),
    "scatter out of range": (lambda x, i: x.scatter(0, i, 1.0), lambda: [r(3), torch.tensor([0, 3])]),
    "index_add out of range": (lambda x, i: x.index_add(0, i, torch.ones(2)), lambda: [r(3), torch.tensor([0, 3])]),
    "embedding out of range": (torch.nn.functional.embedding, lambda: [torch.tensor([0, 9]), r(3, 2)]),
    "one_hot out of range": (lambda i: torch.nn.functional.one_hot(i, 3), lambda: [torch.tensor([0, 9])]),
    "a mask of another size": (take, lambda: [r(3), torch.tensor([True, False])]),
    "view of what can't be viewed": (lambda x: x.t().view(-1) * 2, lambda: [r(3, 4)]),
    "reshape to another number": (lambda x: x.reshape(5) * 2, lambda: [r(3)]),
    "no such dimension": (lambda x: x.sum(2), lambda: [r(3)]),
    "cat of other sizes": (lambda x, y: torch.cat([x, y]), lambda: [r(3, 2), r(3, 3)]),
    "stack of nothing": (lambda x: torch.stack([]), lambda: [r(3)]),
    "in place on a leaf": (lambda x: x.add_(1), lambda: [r(3, grad=True)]),
    "in place, too small": (lambda x, y: x.add_(y), lambda: [r(1), r(3)]),
    "in place, to an integer": (lambda x, y: x.add_(y), lambda: [torch.arange(3), r(3)]),
    "bool minus bool": (lambda x: x - x, lambda: [torch.tensor([True])]),
    "a linear layer of another size": (torch.nn.functional.linear, lambda: [r(2, 3), r(5, 4)]),
    "a convolution of another size": (torch.nn.functional.conv2d, lambda: [r(1, 3, 4, 4), r(2, 4, 3, 3)]),
    "integers have no mean": (lambda x: x.mean(), lambda: [torch.arange(3)]),
    "a probability over one": (lambda x: torch.bernoulli(x), lambda: [torch.full((3,), 2.0)]),
    "not positive definite": (lambda x: torch.linalg.cholesky(x).sum(), lambda: [-torch.eye(3)]),
    "no tensor": (lambda x: x.sin(), lambda: [3]),
    "None": (lambda x: x + 1, lambda: [None]),
    "a string": (lambda x: torch.sin(x), lambda: ["3"]),
    "a list of tensors": (lambda x: torch.sin(x), lambda: [[torch.ones(2)]]),
    "divided by zero": (lambda i: i // 0, lambda: [torch.arange(3)]),
    "float16 and float32": (torch.matmul, lambda: [r(2, 2), r(2, 2, dtype=torch.float64)]),
    "a key that isn't there": (lambda d: d["b"] * 2, lambda: [{"a": r(3)}]),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_same_exception(own_door, case):
    function, make = WRONG[case]
    kinds = []
    fused = own_door(function)
    for f in (function, fused, fused):
        torch.manual_seed(1)
        with pytest.raises(Exception) as e:
            f(*make())
        kinds.append(e.type)
    assert len(set(kinds)) == 1, kinds


def test_through_torch_compile_too():
    """Dynamo raises its own kind of RuntimeError there; something is raised, and nothing crashes."""
    for case in ("shapes that don't fit", "an index out of range", "an index tensor out of range", "gather out of range", "no tensor"):
        function, make = WRONG[case]
        torch._dynamo.reset()
        with pytest.raises(Exception):
            torch.compile(function, backend="heddle")(*make())


def test_good_calls_after_bad_ones(door):
    """A call that fails leaves nothing behind: not its sizes, not a slow way."""
    fused = door(add)
    for _ in range(3):
        close(torch.full((3,), 2.0), fused(torch.ones(3), torch.ones(3)), "good")
        with pytest.raises(RuntimeError):
            fused(torch.ones(3), torch.ones(4))
        close(torch.full((5,), 2.0), fused(torch.ones(5), torch.ones(5)), "good, another size")
    if heddle._fuse.door_of(fused) is not None:
        reasons = [region.report()["eager_reason"] for region in heddle._fuse.door_of(fused).regions()]
        assert "" in reasons and not any(reasons), reasons


def test_a_bad_call_first(door):
    fused = door(add)
    for bad in ((torch.ones(3), torch.ones(4)), (None, torch.ones(2))):
        with pytest.raises((RuntimeError, TypeError)):
            fused(*bad)
    close(torch.full((3,), 2.0), fused(torch.ones(3), torch.ones(3)), "good")


def test_meta(door):
    fused = door(lambda x, w: (x @ w).relu())
    for _ in range(2):
        y = fused(torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta"))
        assert y.is_meta and y.shape == (3, 5)
        close(torch.full((2, 2), 2.0), fused(torch.ones(2, 2), torch.ones(2, 2)), "after meta")


def test_devices_that_differ(door):
    fused = door(add)
    for x, y in [(torch.ones(3), torch.ones(3, device="meta")), (torch.ones(3, device="meta"), torch.ones(3))]:
        kinds = []
        for f in (add, fused, fused):
            with pytest.raises(Exception) as e:
                f(x, y)
            kinds.append(isinstance(e.value, RuntimeError))
        assert all(kinds)
    close(torch.full((3,), 2.0), fused(torch.ones(3), torch.ones(3)), "after it")


def test_fake_tensors(own_door):
    from torch._subclasses.fake_tensor import FakeTensorMode

    fused = own_door(lambda x, w: (x @ w).relu())
    with FakeTensorMode() as mode:
        a, b = torch.empty(3, 4), torch.empty(4, 5)
        y = fused(a, b)
        assert y.shape == (3, 5) and type(y).__name__ == "FakeTensor" and mode is not None
    close(torch.full((2, 2), 2.0), fused(torch.ones(2, 2), torch.ones(2, 2)), "after it")


def test_dispatch_modes_see_every_op(own_door):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    f = lambda x: x.sin().cos()  # noqa: E731
    fused, x = own_door(f), r(3)
    fused(x)
    with Count() as counted:
        close(f(x), fused(x), "under the mode")
    assert counted.seen[:2] == ["sin", "cos"] and "sin" in counted.seen[2:]


def test_flops_are_counted(own_door):
    from torch.utils.flop_counter import FlopCounterMode

    fused = own_door(torch.nn.Linear(4, 5))
    with FlopCounterMode(display=False) as counted:
        fused(r(3, 4))
    assert counted.get_total_flops() == 2 * 3 * 4 * 5


def test_function_modes_see_every_call(own_door):
    from torch.overrides import TorchFunctionMode

    class See(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen += func is torch.sin
            return func(*args, **(kwargs or {}))

    fused, x = own_door(lambda x: torch.sin(x) * 2), r(3)
    fused(x)
    with See() as see:
        close(torch.sin(x) * 2, fused(x), "under the mode")
    if own_door is not DOORS["fuse"]:  # Dynamo runs a mode's code as part of what it compiles
        assert see.seen >= 1


def test_a_device_as_context(door):
    fused, x = door(lambda x: x + torch.ones(3)), r(3)
    close(x + 1, fused(x), "before")
    with torch.device("meta"):
        with pytest.raises(RuntimeError):
            fused(x)
    close(x + 1, fused(x), "after")


class Tagged(torch.Tensor):
    """A subclass that does nothing but stay itself."""


class Doubling(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        return out * 2 if func is torch.sin else out


@pytest.mark.parametrize("kind", [Tagged, Doubling])
def test_subclasses(own_door, kind):
    f = lambda x: torch.sin(x) + 1  # noqa: E731
    fused, x = own_door(f), r(3)
    # Dynamo of PyTorch 2.15 returns a plain tensor where eager returns the subclass.
    reference = torch.compile(f, backend="eager") if own_door is DOORS["fuse"] else f
    for _ in range(2):
        want, got = f(x.as_subclass(kind)), fused(x.as_subclass(kind))
        assert type(got) is type(reference(x.as_subclass(kind)))
        close(want.as_subclass(torch.Tensor), got.as_subclass(torch.Tensor), kind.__name__)
        close(f(x), fused(x), "a plain one")


class Own(Exception):
    pass


class RaisesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, g):
        raise Own("backward")


def raises(x):
    if x.shape[0] == 3:
        raise Own("forward")
    return x * 2


def raises_after_a_write(x, log):
    x.add_(1)
    if len(log) > 0:
        raise Own("late")
    return x * 2


def test_exceptions_in_the_forward(door):
    fused = door(raises)
    for n in (2, 3, 4, 3):
        if n == 3:
            with pytest.raises(Own, match="forward"):
                fused(torch.ones(n))
        else:
            close(torch.full((n,), 2.0), fused(torch.ones(n)), "others")


def test_what_was_written_before_an_exception(door):
    """Stays written once, as eager leaves it."""
    x = torch.zeros(2)
    with pytest.raises(Own, match="late"):
        door(raises_after_a_write)(x, [1])
    assert torch.equal(x, torch.ones(2))


def test_exceptions_in_the_backward(door):
    fused = door(lambda x: RaisesBackward.apply(x.sin()) * 2)
    for _ in range(2):
        y = fused(r(3, grad=True))
        with pytest.raises(Own, match="backward"):
            y.sum().backward()


def test_exceptions_of_hooks_in_the_backward(door):
    fused, x = door(lambda x: x.sin()), r(3, grad=True)

    def hook(g):
        raise Own("hook")

    h = x * 2
    h.register_hook(hook)
    with pytest.raises(Own, match="hook"):
        fused(h).sum().backward()
    x.grad = None
    fused(x).sum().backward()
    close(x.cos(), x.grad, "afterwards")


RISKY = """
import sys; sys.path.insert(0, {path!r})
import torch, heddle, functools
for door in (heddle.fuse, functools.partial(heddle.fuse, static=True), functools.partial(torch.compile, backend="heddle")):
    for f, args in [
        (lambda x: x[1:] * 2, [torch.empty(0)]),
        (lambda x, i: x[i] * 2, [torch.ones(3), torch.tensor([2 ** 40])]),
        (lambda x, i: x.scatter(0, i, 1.0), [torch.ones(3), torch.tensor([-(2 ** 40)])]),
        (lambda x, i: torch.zeros(2).index_add(0, i, x), [torch.ones(3), torch.tensor([0, 1, 2 ** 33])]),
        (lambda x: x.as_strided((2 ** 20,), (2 ** 20,)) * 2, [torch.ones(3)]),
        (lambda x: torch.empty(2 ** 62) + x, [torch.ones(1)]),
        (lambda x: x.expand(2 ** 16, 3).sum(0)[:0], [torch.ones(3)]),
        (lambda x: x.reshape(-1, 0) * 2, [torch.ones(3)]),
        (lambda x: x / torch.zeros(3, dtype=torch.long), [torch.ones(3, dtype=torch.long)]),
        (lambda x: x // torch.zeros(3, dtype=torch.long), [torch.ones(3, dtype=torch.long)]),
        (lambda x: x % torch.zeros(3, dtype=torch.long), [torch.ones(3, dtype=torch.long)]),
        (lambda x: (x * 1e30).long() + (x / 0).int(), [torch.ones(3)]),
        (lambda x, s: x << s, [torch.ones(3, dtype=torch.long), torch.tensor([64, -1, 200])]),
        (lambda x: torch.nn.functional.grid_sample(x, torch.full((1, 2, 2, 2), float("nan"))), [torch.ones(1, 1, 3, 3)]),
        (lambda x: torch.nn.functional.grid_sample(x, torch.full((1, 2, 2, 2), 1e30)), [torch.ones(1, 1, 3, 3)]),
        (lambda x: torch.nn.functional.interpolate(x, size=0), [torch.ones(1, 1, 3)]),
    ]:
        for _ in range(2):
            try: f(*args)
            except Exception as e: want = type(e).__name__
            else: want = "fine"
            try: door(f)(*args)
            except Exception as e: got = type(e).__name__
            else: got = "fine"
            if got != want and "compile" not in str(door): print("DIFFERS", want, got)
        torch._dynamo.reset()
print("alive")
"""


def test_nothing_ends_the_process():
    path = str(pathlib.Path(heddle.__file__).parents[1])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", RISKY.format(path=path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "alive" in done.stdout, (done.returncode, done.stdout[-500:], done.stderr[-1500:])
    assert "DIFFERS" not in done.stdout, done.stdout


def test_a_library_built_for_another_torch(tmp_path):
    """One line that names both versions and says what to do."""
    package = pathlib.Path(heddle.__file__).parent
    copied = tmp_path / "heddle"
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__", "lib"))
    (copied / "lib").mkdir()
    (copied / "lib" / "libheddle_frontends.so").write_bytes(b"")
    (copied / "lib" / "heddle_build.json").write_text(json.dumps({"torch": "1.12.1+cu113"}))
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport heddle"], capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and last.startswith("ImportError: heddle") and "1.12.1" in last and torch.__version__.split("+")[0] in last, done.stderr[-800:]


def test_no_library_at_all(tmp_path):
    package = pathlib.Path(heddle.__file__).parent
    shutil.copytree(package, tmp_path / "a" / "b" / "heddle", ignore=shutil.ignore_patterns("__pycache__", "lib"))
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'a' / 'b')!r})\nimport heddle"], capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and last.startswith("ImportError: heddle") and "build it with" in last, done.stderr[-800:]


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic(deterministic):
    """Scatters and reductions add in one order: bit-equal from run to run, and PyTorch's own flag changes nothing about that."""
    f = heddle.fuse(lambda x, i: torch.zeros(4).index_add(0, i, x) + x.sum(), deterministic=deterministic)
    x, i = r(1000, grad=True), torch.randint(0, 4, (1000,))
    outs = []
    for k in range(4):
        torch.use_deterministic_algorithms(k % 2 == 1)
        try:
            x.grad = None
            y = f(x, i)
            y.sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        outs.append((y.detach(), x.grad))
    assert all(torch.equal(y, outs[0][0]) and torch.equal(g, outs[0][1]) for y, g in outs)


@pytest.mark.parametrize("deterministic", [False, True])
def test_kernels_for_cuda_add_as_asked(deterministic):
    """What a device would run; a step's kernels too."""
    def loss(x, i):
        return (torch.zeros(4).index_add(0, i, x) ** 2).sum()

    f, x, i = heddle.fuse(loss, deterministic=deterministic), torch.nn.Parameter(r(100)), torch.randint(0, 4, (100,))
    f(x, i).backward()
    step = heddle.TrainStep(loss, torch.optim.Adam([x]), deterministic=deterministic)
    step(x, i)
    for texts in ([t for region in door_of(f).regions() for t in region.kernels().values()], list(step.kernels().values())):
        added = [t for t in texts if ", adds " in t]
        assert added and all((", adds ordered" in t) == deterministic and ("void add_to(float* p" in t) != deterministic for t in added)
