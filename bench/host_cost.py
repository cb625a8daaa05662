"""What a call costs the host: a region of one element, `(x * 2).sin().sum()`, through each door, in turns in one process, one thread.

Law: all variants are timed in the same rounds; the table gives medians over rounds of the mean of a round, in microseconds.
"""

import argparse
import json
import pathlib
import platform
import statistics
import time

import torch

import heddle


def block(x):
    return (x * 2).sin().sum()


def identity(x):
    """What one autograd node costs that computes nothing: a view."""
    return x.view(())


def microseconds(call, times):
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers")
    parser.add_argument("--rounds", type=int, default=41)
    o = parser.parse_args()
    torch.set_num_threads(1)
    doors = {"eager": block, "Dynamo, eager ops": torch.compile(block, backend="eager"), "Dynamo and heddle": heddle.fuse(block),
             "heddle, static": heddle.fuse(block, static=True), "identity": identity, "Dynamo, identity": torch.compile(identity, backend="eager")}
    x, w = torch.ones(1), torch.ones(1, requires_grad=True)
    gradients = {}
    for name, f in doors.items():
        gradients[name], = torch.autograd.grad(f(w), w)
        f(x)
    assert all(torch.allclose(g, gradients["eager"]) for n, g in gradients.items() if "identity" not in n), gradients
    times = {name: ([], []) for name in doors}
    for k in range(o.rounds):
        for name, f in doors.items():
            forward, both = microseconds(lambda: f(x), 2000), microseconds(lambda: f(w).backward(), 500)
            if k:  # the first round warms up
                times[name][0].append(forward)
                times[name][1].append(both)
    median = {name: [statistics.median(t) for t in pair] for name, pair in times.items()}
    print(f"{'microseconds a call':<22}{'forward':>10}{'forward and backward':>24}")
    for name, (forward, both) in median.items():
        print(f"{name:<22}{forward:>10.2f}{both:>24.2f}")
    above = {"identity": [h - d for h, d in zip(median["Dynamo and heddle"], median["Dynamo, identity"])],
             "own": [h - (d - e) for h, d, e in zip(median["Dynamo and heddle"], median["Dynamo, eager ops"], median["eager"])]}
    print(f"heddle through Dynamo: {above['identity'][0]:.2f} and {above['identity'][1]:.2f} above an identity node through Dynamo; "
          f"{above['own'][0]:.2f} and {above['own'][1]:.2f} above what Dynamo adds to eager")
    if o.json:
        result = {"block": "(x * 2).sin().sum() of one float32", "threads": 1, "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
                  "microseconds": {n: {"forward": p[0], "forward_backward": p[1]} for n, p in median.items()},
                  "above": {n: {"forward": p[0], "forward_backward": p[1]} for n, p in above.items()}}
        o.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
