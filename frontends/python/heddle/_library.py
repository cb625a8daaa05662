"""The shared libraries: found, checked against the PyTorch at hand, loaded once.

Law: after `import heddle` the ops `torch.ops.heddle.*` exist, or an ImportError of one line says what to do.
"""

import json
import pathlib

import torch


def _folder() -> pathlib.Path:
    package = pathlib.Path(__file__).resolve().parent
    for folder in (package / "lib", package.parents[2] / "build" / "full" / "lib"):
        if (folder / "libheddle_frontends.so").exists():
            return folder
    raise ImportError(f"heddle: libheddle_frontends.so is not in {package / 'lib'}: build it with ./test, or install with pip install .")


def _load() -> pathlib.Path:
    folder = _folder()
    built = json.loads((folder / "heddle_build.json").read_text())["torch"].split("+")[0]
    here = torch.__version__.split("+")[0]
    if built.split(".")[:2] != here.split(".")[:2]:
        raise ImportError(f"heddle was built for PyTorch {built}, this is PyTorch {here}: build it again with this one (./test, or pip install .)")
    torch.ops.load_library(str(folder / "libheddle_frontends.so"))
    return folder


folder = _load()
