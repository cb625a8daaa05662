"""bench/gpu --pack: a folder with all that a bare machine with a GPU lacks, stripped; and the check that it needs nothing else.

Law: nothing in it needs LLVM or a library of this machine beyond glibc and libstdc++; PyTorch is the one of the Python that runs it.
"""

import os
import pathlib
import re
import shutil
import subprocess

from measure import ROOT

PACK = ROOT / "out" / "gpu-pack"
MOST_MB = 64
BASE = re.compile(r"(?:libc|libm|libdl|librt|libutil|libpthread|libstdc\+\+|libgcc_s|ld-linux\S*|linux-vdso)\.so")  # every machine has these
PACKED = ("gpu", "gpu_pack.py", "gpu_report.py", "gpu_rows.py", "gpu_cases.py", "gpu_limits.cu", "measure.py", "hexplane.py", "blocks.py",
          "dynibar.py", "dynibar_nets.py", "dynibar_parts.py", "gpu_thesis.py")


def pack(facts: dict, programs: list[str]) -> int:
    """`facts` of PyTorch here, `programs` of tests."""
    shutil.rmtree(PACK, ignore_errors=True)
    for folder in ("lib", "also"):  # for all; for the test programs alone
        (PACK / "heddle" / folder).mkdir(parents=True)
    (PACK / "bench").mkdir()
    for name in PACKED:
        shutil.copy2(ROOT / "bench" / name, PACK / "bench" / name)
    for file in (ROOT / "frontends" / "python" / "heddle").glob("*.py"):
        shutil.copy2(file, PACK / "heddle" / file.name)
    built = ROOT / "build" / "full"
    wanted = [*sorted((built / "lib").glob("libheddle_*.so")), *(built / name for name in programs if (built / name).exists())]
    wanted = [f for f in wanted if f.name != "libheddle_llvm.so"]
    shutil.copy2(built / "lib" / "heddle_build.json", PACK / "heddle" / "lib")
    own = {f.name for f in wanted}

    def lacking(file: pathlib.Path) -> dict[str, str]:
        """What `file` loads that a bare machine lacks: fmt, png and the like."""
        out = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
        site = pathlib.Path(facts["lib"]).resolve().parents[1]
        return {name: path for name, path in re.findall(r"^\s+(\S+) => (/\S+)", out, re.M)
                if not BASE.match(name) and name not in own and not pathlib.Path(path).resolve().is_relative_to(site)}

    for_all = lacking(built / "lib" / "libheddle_frontends.so")
    for file in wanted:
        to = (PACK / "heddle" / "lib" if file.suffix == ".so" else PACK / "heddle") / file.name
        subprocess.run(["strip", "--strip-unneeded", "-o", to, file], check=True)
        for name, path in lacking(file).items():
            shutil.copy2(pathlib.Path(path).resolve(), PACK / "heddle" / ("lib" if name in for_all else "also") / name)
    problems = check_pack(facts, programs)
    size = sum(f.stat().st_size for f in PACK.rglob("*") if f.is_file()) / 1e6
    if size >= MOST_MB:
        problems.append(f"{size:.1f} MB, over {MOST_MB}")
    files = sorted(str(f.relative_to(PACK)) for f in PACK.rglob("*") if f.is_file())
    print(f"{PACK.relative_to(ROOT)}: {size:.1f} MB, {len(files)} files: " + ", ".join(f for f in files if f.endswith((".so", "_tests")) or ".so." in f))
    print("\n".join(problems) or "sound: needs no LLVM, no library of this machine's but glibc and libstdc++, and finds the PyTorch of the Python that runs it")
    return 1 if problems else 0


def check_pack(facts: dict, programs: list[str]) -> list[str]:
    """Everything resolves within the pack, the system's base, or torch's folder, with the environment that bench/gpu makes."""
    problems, folders = [], (facts["lib"], PACK / "heddle" / "lib", PACK / "heddle" / "also")
    env = {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders)), "PATH": os.environ["PATH"]}
    site = pathlib.Path(facts["lib"]).resolve().parents[1]
    for file in [*(PACK / "heddle").glob("*/*.so*"), *(PACK / "heddle" / name for name in programs)]:
        if not file.exists():
            problems.append(f"{file.name} isn't built")
            continue
        out = subprocess.run(["ldd", file], capture_output=True, text=True, env=env).stdout
        for line in out.splitlines():
            name, _, path = (part.strip() for part in line.partition("=>"))
            path = path.split(" (")[0]
            if "LLVM" in name:
                problems.append(f"{file.name} needs {name}")
            if path == "not found":
                problems.append(f"{file.name}: {name} not found")
            elif path and not BASE.match(name):
                at = pathlib.Path(path).resolve()
                if not at.is_relative_to(PACK) and not at.is_relative_to(site):
                    problems.append(f"{file.name}: {name} comes from this machine")
    return problems
