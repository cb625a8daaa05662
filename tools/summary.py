#!/usr/bin/env python3
"""summary.py BUILD EXPECTED: counts what the test programs of BUILD reported, and compares the skipped with the file EXPECTED.

A test that records "checked:ORACLE" = "f32 f64" has compared one op with that oracle in those types; "summary" is said as it is.
Fails when a test failed, a program that was built reported nothing, or the number of skipped tests isn't the expected one.
"""
import collections
import ctypes
import json
import pathlib
import sys
import xml.etree.ElementTree

build, expected_file = map(pathlib.Path, sys.argv[1:3])


def has_gpu():
    """Whether the CUDA driver is here and counts a device."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return False
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def gtest(report):
    """Names of all tests, of those that were skipped and of those that failed, and seconds, from GoogleTest's JSON."""
    data = json.loads(report.read_text())
    cases = [(f"{suite['name']}.{case['name']}", case) for suite in data["testsuites"] for case in suite["testsuite"]]
    ran = [name for name, case in cases if case.get("result") in ("COMPLETED", "SKIPPED")]
    return ran, [n for n, c in cases if c.get("result") == "SKIPPED"], [n for n, c in cases if c.get("failures")], float(data["time"].rstrip("s"))


def pytest(report):
    """The same from pytest's JUnit XML."""
    suites = xml.etree.ElementTree.parse(report).getroot()
    cases = [(f"{c.get('classname')}.{c.get('name')}", c) for c in suites.iter("testcase")]
    failed = [n for n, c in cases if c.find("failure") is not None or c.find("error") is not None]
    return [n for n, _ in cases], [n for n, c in cases if c.find("skipped") is not None], failed, sum(float(s.get("time")) for s in suites.iter("testsuite"))


def said(report):
    """What the program says of its run besides."""
    if report.suffix == ".xml":
        return [p.get("value") for p in xml.etree.ElementTree.parse(report).getroot().iter("property") if p.get("name") == "summary"]
    data = json.loads(report.read_text())
    cases = [case for suite in data["testsuites"] for case in suite["testsuite"]]
    for case in cases:
        for key in (k for k in case if k.startswith("checked:") and case[k]):
            checked[key.removeprefix("checked:")].append(len(case[key].split()))
    return [c["summary"] for c in (data, *cases) if "summary" in c]


expected = [line.split() for line in expected_file.read_text().splitlines() if line and not line.startswith("#")]
gpu, bad, checked = has_gpu(), [], collections.defaultdict(list)
print(f"\n  {'program':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'expected':>10}{'seconds':>9}   ({'a' if gpu else 'no'} GPU)")
for program, without, with_gpu in expected:
    want = int(with_gpu if gpu else without)
    report = next((r for r in (build / f"{program}.json", build / f"{program}.xml") if r.exists()), None)
    if report is None:
        if (build / program).exists() or program in ("mutants", "python_tests", "opinfo"):
            bad.append(f"{program} left no report: it crashed, or never ran")
        else:
            print(f"  {program:<14}  not built: no test files")
        continue
    ran, skipped, failures, seconds = (gtest if report.suffix == ".json" else pytest)(report)
    print(f"  {program:<14}{len(ran) - len(failures) - len(skipped):>8}{len(failures):>8}{len(skipped):>9}{want:>10}{seconds:>9.1f}")
    for text in said(report):
        print(f"  {'':<14}{text}")
    bad += [f"{name} failed" for name in failures]
    if len(skipped) != want:
        bad.append(f"{program}: {len(skipped)} tests were skipped, expected {want}: {', '.join(skipped[:8])}"
                   f"{' ...' if len(skipped) > 8 else ''}. Make them run, or write the new number into {expected_file}")
print(f"\n  {'ops of the table checked by':<44}{'ops':>6}{'ops x types':>13}")
for oracle, types in checked.items():
    print(f"  {oracle:<44}{len(types):>6}{sum(types):>13}")
print()
for line in bad:
    print(f"  {line}")
sys.exit(bool(bad))
