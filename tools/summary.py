#!/usr/bin/env python3
"""summary.py BUILD EXPECTED: counts what the test programs of BUILD reported, and compares the skipped with the file EXPECTED.

Fails when a test failed, a program that was built reported nothing, or the number of skipped tests isn't the expected one.
"""
import ctypes
import json
import pathlib
import sys

build, expected_file = map(pathlib.Path, sys.argv[1:3])


def has_gpu():
    """Whether the CUDA driver is here and counts a device."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return False
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


expected = dict(line.split() for line in expected_file.read_text().splitlines() if line and not line.startswith("#"))
gpu, bad = has_gpu(), []
print(f"\n  {'program':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'expected':>10}{'seconds':>9}   ({'a' if gpu else 'no'} GPU)")
for program, allowed in expected.items():
    report, want = build / f"{program}.json", 0 if gpu else int(allowed)
    if not report.exists():
        if (build / program).exists():
            bad.append(f"{program} left no report: it crashed, or never ran")
        else:
            print(f"  {program:<14}  not built: no test files")
        continue
    data = json.loads(report.read_text())
    cases = [(f"{suite['name']}.{case['name']}", case) for suite in data["testsuites"] for case in suite["testsuite"]]
    skipped = [name for name, case in cases if case.get("result") == "SKIPPED"]
    failures = [name for name, case in cases if case.get("failures")]
    ran = sum(case.get("result") == "COMPLETED" for _, case in cases)
    print(f"  {program:<14}{ran - len(failures):>8}{len(failures):>8}{len(skipped):>9}{want:>10}{float(data['time'].rstrip('s')):>9.1f}")
    bad += [f"{name} failed" for name in failures]
    if len(skipped) != want:
        bad.append(f"{program}: {len(skipped)} tests were skipped, expected {want}: {', '.join(skipped[:8])}"
                   f"{' ...' if len(skipped) > 8 else ''}. Make them run, or write the new number into {expected_file}")
print()
for line in bad:
    print(f"  {line}")
sys.exit(bool(bad))
