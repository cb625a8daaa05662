#!/usr/bin/env python3
"""Checks of the tree that a compiler doesn't make. Prints `file:line: what` for each violation; exit status 1 if there is any.

Looks at files that git tracks or would track, so that build outputs and ignored files don't matter.
"""
import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A file includes only from its own folder or from those before it.
LAYERS = ["ir", "passes", "codegen", "runtime", "frontends", "models", "tools", "tests", "bench"]
TORCH_FOLDERS = ("frontends/", "models/", "tools/", "bench/", "tests/")
TORCH_FREE = ("tests/core/",)
TORCH_HEADER = re.compile(r"(torch|ATen|c10|caffe2)/")
LONG = 400  # lines; longer files are named, not refused
CODE = {".h", ".cpp", ".def", ".cuh", ".cu"}
OPENS_WITH = {".h": "//", ".cpp": "//", ".def": "//", ".cuh": "//", ".cu": "//", ".sh": "#", ".py": ("#", '"""'), ".txt": "#",
              ".hir": "#", ".md": ("#", "<!--")}
MACHINE_PATH = re.compile(r"(?<![\w.$})*~/-])/(?:home|root|work|Users|tmp|mnt|data|scratch)/[A-Za-z0-9_.-]")
ENV_READ = re.compile(r"""(?:getenv|environ(?:\.get)?|env)\W{0,3}["'](HEDDLE_\w+)["']|\$\{?(HEDDLE_\w+)""")
SWITCH, CASE_OF_OP, REASON = re.compile(r"\bswitch\s*\("), re.compile(r"\bcase\s+(?:heddle::)?Op::\w+\s*:"), "// lists ops: "

violations, warnings = [], []


def tracked():
    """The files of the tree, as paths below ROOT. git decides, also for files not yet added."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink()})


def report(name, line, what):
    violations.append(f"{name}:{line}: {what}")


def without_comments(text):
    """C++ text with comments blanked, lines kept, so that prose about a switch isn't one. Strings stay."""
    token = re.compile(r'R"([^( ]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.S)
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m[0]) if m[0].startswith(("//", "/*")) else m[0], text)


def check_includes(name, text):
    folder = name.split("/")[0]
    if folder not in LAYERS:
        return
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not found:
            continue
        path = found[2]
        if TORCH_HEADER.match(path) and (not name.startswith(TORCH_FOLDERS) or name.startswith(TORCH_FREE)):
            report(name, number, f"includes {path}: torch headers belong in {' '.join(TORCH_FOLDERS)}(not {TORCH_FREE[0]})")
        target = path.split("/")[0]
        if target in LAYERS and (ROOT / path).exists() or found[1] == '"' and target in LAYERS:
            if LAYERS.index(target) > LAYERS.index(folder):
                report(name, number, f"includes {path}: {folder}/ is above {target}/ (order: {' '.join(LAYERS)})")
            elif not (ROOT / path).exists():
                report(name, number, f"includes {path}: no such file")
        elif found[1] == '"':
            report(name, number, f'includes "{path}": project files by path from the root, others in <>')


def check_switches(name, text):
    """One table of ops: outside ir/ nothing enumerates them by hand, unless the switch says why (REASON, on its line)."""
    if name.startswith("ir/"):
        return
    lines, switch = text.splitlines(), None
    for number, line in enumerate(without_comments(text).splitlines(), 1):
        if SWITCH.search(line):
            switch = number
        if switch and CASE_OF_OP.search(line):
            if REASON not in lines[switch - 1]:
                report(name, switch, f"a switch over ops outside ir/: put the fact into the op's row, or say why not: `{REASON}...`")
            switch = None


def check_opening(name, text):
    path = pathlib.PurePath(name)
    opens = OPENS_WITH.get(path.suffix, "#" if text.startswith("#!") else None)
    if opens is None or not text.strip():
        return
    lines = text.splitlines()
    first = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
    if not first.strip().startswith(opens):
        report(name, 1, "opens with no comment: one to three lines, what it is and the law it keeps")


def check_paths(name, text):
    for number, line in enumerate(text.splitlines(), 1):
        found = MACHINE_PATH.search(line)
        if found and not line.lstrip().startswith("#!"):
            report(name, number, f"a machine's path: {line[found.start():found.start() + 40].strip()}")


def check_environment(texts):
    readme = texts.get("README.md", "")
    documented = set(re.findall(r"HEDDLE_\w+", readme))
    for name, text in texts.items():
        if name in ("README.md", "tools/check.py", "CMakeLists.txt"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for groups in ENV_READ.findall(line):
                variable = groups[0] or groups[1]
                if variable not in documented:
                    report(name, number, f"reads {variable}, which README.md doesn't name")


def main():
    texts = {}
    for name in tracked():
        try:
            texts[name] = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue  # pictures
    for name, text in texts.items():
        suffix = pathlib.PurePath(name).suffix
        if suffix in CODE:
            check_includes(name, text)
            check_switches(name, text)
        if suffix == ".py":
            try:
                ast.parse(text)
            except SyntaxError as error:
                report(name, error.lineno, error.msg)
        check_opening(name, text)
        if name != "tools/check.py":
            check_paths(name, text)
        count = text.count("\n")
        if count > LONG and suffix in CODE | {".py", ".sh"}:
            warnings.append(f"{name}:1: warning: {count} lines, over {LONG}")
    check_environment(texts)
    for line in warnings + violations:
        print(line)
    print(f"{len(texts)} files: {len(violations)} violations, {len(warnings)} warnings")
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
