"""The build backend of pip: setuptools, with the shared libraries built by CMake (or taken from build/full) put into the wheel.

Law: a wheel holds the libraries of one PyTorch release (heddle_build.json names it) and is good for every Python 3.
"""

import pathlib
import shutil
import subprocess
import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F401,F403  the hooks that need nothing of ours

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = ROOT / "build" / "full" / "lib"
PACKED = ROOT / "frontends" / "python" / "heddle" / "lib"
LIBRARIES = ("ir", "passes", "codegen", "runtime", "llvm", "frontends")


def get_requires_for_build_wheel(config_settings=None):
    if (BUILT / "libheddle_frontends.so").exists():
        return []
    return ["torch==2.11.0", "cmake>=3.25", "ninja"]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    if not (BUILT / "libheddle_frontends.so").exists():
        import torch

        facts = [f"-DHEDDLE_TORCH_DIR={pathlib.Path(torch.__file__).parent}", f"-DHEDDLE_TORCH_VERSION={torch.__version__}",
                 f"-DHEDDLE_TORCH_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
        subprocess.run(["cmake", "--preset", "full", "-DHEDDLE_TESTS=OFF", *facts], cwd=ROOT, check=True)
        subprocess.run(["cmake", "--build", "--preset", "full", "--target", *(f"heddle_{name}" for name in LIBRARIES)], cwd=ROOT, check=True)
    PACKED.mkdir(exist_ok=True)
    try:
        for name in LIBRARIES:
            library = PACKED / f"libheddle_{name}.so"
            shutil.copy(BUILT / library.name, library)
            if shutil.which("strip"):
                subprocess.run(["strip", "--strip-debug", str(library)], check=True)
        shutil.copy(BUILT / "heddle_build.json", PACKED)
        settings = dict(config_settings or {})
        platform = f"linux_{__import__('platform').machine()}"
        settings["--build-option"] = [f"--plat-name={platform}"]
        return build_meta.build_wheel(wheel_directory, settings, metadata_directory)
    finally:
        shutil.rmtree(PACKED)
        for left in ("build/lib", f"build/bdist.linux-{sys.platform}"):
            shutil.rmtree(ROOT / left, ignore_errors=True)
