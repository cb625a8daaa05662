"""The hot blocks of HexPlane, DynIBaR and 4D Gaussian splatting, from their formulas: eager, inductor and fused, forward and backward.

Law: all variants of a block get the same inputs and cotangents and are timed in turns in one process, one thread; times are medians, errors
are told against eager in float64, and a row counts only if every output and gradient is within tolerance.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_PROC_BIND", "true")
os.environ["HEDDLE_CACHE"] = "0"  # compile times are of compilers

import torch
import torch.nn.functional as F

import heddle


# ---- HexPlane
def density_feature(xyz, t, plane_xy, plane_xz, plane_yz, line_z, line_y, line_x, basis_0, basis_1, basis_2):
    """Sum over three pairs of planes of (space x space-time x basis), per point [M]."""
    def look_up(plane, a, b):
        return F.grid_sample(plane, torch.stack([a, b], -1)[None, :, None], align_corners=True)[0, :, :, 0]

    x, y, z, t = xyz[:, 0], xyz[:, 1], xyz[:, 2], t[:, 0]
    feature = (look_up(plane_xy, x, y) * look_up(line_z, t, z) * basis_0).sum(0)
    feature = feature + (look_up(plane_xz, x, z) * look_up(line_y, t, y) * basis_1).sum(0)
    return feature + (look_up(plane_yz, y, z) * look_up(line_x, t, x) * basis_2).sum(0)


def volume_rendering(sigma, rgb, dist, z):
    """Opacities to a picture on white and its depth: light that is left is a running product of what each sample lets pass."""
    alpha = 1.0 - torch.exp(-F.softplus(sigma - 10.0) * dist * 25.0)
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha + 1e-10], -1), -1)
    weights = alpha * passed[:, :-1]
    seen = weights.sum(-1)
    picture = (weights[..., None] * torch.sigmoid(rgb)).sum(-2) + (1.0 - seen[..., None])
    return picture.clamp(0, 1), (weights * z).sum(-1)


def total_variation(*planes):
    """Mean squared differences of neighbours along both axes of each plane."""
    total = 0.0
    for p in planes:
        height = ((p[:, :, 1:] - p[:, :, :-1]) ** 2).sum() / (p.shape[1] * (p.shape[2] - 1) * p.shape[3])
        width = ((p[..., 1:] - p[..., :-1]) ** 2).sum() / (p.shape[1] * p.shape[2] * (p.shape[3] - 1))
        total = total + 2.0 * (height + width)
    return total


# ---- DynIBaR
def charbonnier(x, y, mask):
    return torch.sum(torch.sqrt((x - y) ** 2 + 1e-6) * mask) / (torch.sum(mask) * 3.0 + 1e-6)


def distortion(weights, middle, interval):
    """Pairs of samples of a ray, far apart and both heavy, by running sums."""
    once = (1.0 / 3.0) * (interval * weights**2).sum(-1).mean()
    w, wm = weights.cumsum(-1), (weights * middle).cumsum(-1)
    pairs = weights[..., 1:] * middle[..., 1:] * w[..., :-1] - weights[..., 1:] * wm[..., :-1]
    return once + 2.0 * pairs.sum(-1).mean()


def trajectory(raw_coeff_xyz, trajectory_basis, ref_frame_idx):
    """Motion of each point at seven frames: 18 coefficients on 6 bases, sliced and concatenated as DynIBaR does."""
    num_basis = trajectory_basis.shape[1]
    raw_coeff_x = raw_coeff_xyz[..., 0:num_basis]
    raw_coeff_y = raw_coeff_xyz[..., num_basis:num_basis * 2]
    raw_coeff_z = raw_coeff_xyz[..., num_basis * 2:num_basis * 3]
    ref_traj_pts_dict = {}
    for offset in [-3, -2, -1, 0, 1, 2, 3]:
        traj_basis_i = trajectory_basis[None, None, ref_frame_idx + offset, :]
        ref_traj_pts_dict[offset] = torch.cat(
            [torch.sum(raw_coeff_x * traj_basis_i, axis=-1, keepdim=True), torch.sum(raw_coeff_y * traj_basis_i, axis=-1, keepdim=True),
             torch.sum(raw_coeff_z * traj_basis_i, axis=-1, keepdim=True)], dim=-1)
    return ref_traj_pts_dict


def trajectory_losses(coefficients, basis, points, anchor_points, occlusion, rgb, rgb_static, target, mask, depth, disparity, flow, flow_target, flow_mask,
                      weights_dynamic, weights_static, middle, interval):
    """The trajectories, and every term of DynIBaR's loss on them and on what was rendered."""
    moved = trajectory(coefficients, basis, 4)
    sequence = torch.stack([points + (moved[k] - moved[0]) for k in (-3, -2, -1, 1, 2, 3)], 0)
    loss = charbonnier(rgb, target, mask)
    loss = loss + 0.1 * torch.sum(torch.abs(1.0 / torch.clamp(depth, min=1e-2) - disparity) * mask[:, 0]) / (torch.sum(mask) + 1e-8)
    repeated = flow_mask.repeat(1, 1, 2)
    loss = loss + 0.01 * torch.sum(torch.abs(flow - flow_target) * repeated) / (torch.sum(repeated) + 1e-8)
    weight = occlusion[..., None].repeat(1, 1, 1, 3)
    loss = loss + 0.1 * torch.sum(torch.abs(sequence - anchor_points) * weight) / (torch.sum(weight) + 1e-8)
    scene_flow = torch.stack([moved[k + 1] - moved[k] for k in range(-3, 3)], 0)
    loss = loss + 0.05 * torch.mean(torch.abs(scene_flow)) + 0.05 * 0.5 * torch.mean((scene_flow[:-1] - scene_flow[1:]) ** 2)
    loss = loss + 0.05 * torch.mean(torch.abs(scene_flow[..., :-1, :] - scene_flow[..., 1:, :]))
    ratio = weights_dynamic / torch.clamp(weights_dynamic + weights_static, min=1e-9)
    loss = loss + 5e-4 * torch.mean(-(ratio * torch.log(ratio + 1e-9) + (1.0 - ratio) * torch.log(1.0 - ratio + 1e-9)))
    loss = loss + 1e-3 * distortion(weights_dynamic, middle, interval)
    still = (1.0 - mask) * (1.0 - ratio.mean(-1, keepdim=True)).detach()
    return loss + charbonnier(rgb_static, target, still)


# ---- 4D Gaussian splatting
def deformation(xyz, dx, rotation, dr, scaling, ds, opacity, do, features_dc, features_rest):
    """Gaussians moved by the deformation field, as the rasteriser takes them."""
    return xyz + dx, F.normalize(rotation + dr), torch.exp(scaling + ds), torch.sigmoid(opacity + do), torch.cat([features_dc, features_rest], 1)


PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def deformation_field(xyz, time_, w0, b0, w1, b1, w2, b2, w3, b3, w4, b4, w5, b5, w6, b6, *planes):
    """Two levels of six planes sampled, multiplied, concatenated; one layer; three heads of two. Seven products."""
    points = torch.cat([xyz, time_], -1)
    levels = []
    for level in (planes[:6], planes[6:]):
        product = 1.0
        for plane, (a, b) in zip(level, PAIRS):
            grid = torch.stack([points[:, a], points[:, b]], -1)[None, None]
            product = product * F.grid_sample(plane, grid, align_corners=True, padding_mode="border")[0, :, 0].t()
        levels.append(product)
    hidden = F.linear(torch.cat(levels, -1), w0, b0)
    heads = [(w1, b1, w2, b2), (w3, b3, w4, b4), (w5, b5, w6, b6)]
    dx, ds, dr = (F.linear(F.relu(F.linear(F.relu(hidden), a, p)), b, q) for a, p, b, q in heads)
    return xyz + dx, ds, dr


def plane_regularisers(*planes):
    """Smooth along the first axis of each plane, and time planes near 1."""
    total = 0.0
    for k, p in enumerate(planes):
        first = p[..., 1:, :] - p[..., :-1, :]
        second = first[..., 1:, :] - first[..., :-1, :]
        total = total + (0.01 if k % 6 in (2, 4, 5) else 1e-4) * torch.square(second).mean()
    for k, p in enumerate(planes):
        if k % 6 in (2, 4, 5):
            total = total + 1e-4 * torch.abs(1.0 - p).mean()
    return total


# ---- losses of all kinds
def four_l1(*pairs):
    """Four mean absolute errors of different sizes."""
    return sum((a - b).abs().mean() for a, b in zip(pairs[::2], pairs[1::2]))


def masked_l1(a, b, mask):
    """Under a mask of floats."""
    return ((a - b).abs() * mask[:, None]).sum() / mask.sum().clamp(min=1)


def selected_l1(a, b, mask):
    """Under a mask of booleans, that selects rows."""
    return (a - b)[mask].abs().mean()


def masked_write(sigma, mask, feature):
    """What a mask selects is computed and put in place."""
    out = torch.zeros_like(sigma)
    out[mask] = F.softplus(feature[mask])
    return out * sigma


# ---- inputs. `scale` multiplies the sizes in `varies`
class Make:
    """Tensors of one seed: `r` uniform in [-1, 1), `p` in [0, 1); `g` and `q` the same, with a gradient."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def p(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator)

    def r(self, *shape: int) -> torch.Tensor:
        return self.p(*shape) * 2 - 1

    def g(self, *shape: int) -> torch.Tensor:
        return self.r(*shape).requires_grad_()

    def q(self, *shape: int) -> torch.Tensor:
        return self.p(*shape).requires_grad_()

    def mask(self, *shape: int) -> torch.Tensor:
        return self.p(*shape) < 0.5


def of_density_feature(m, n):
    points = n(98304)
    return (m.r(points, 3), m.r(points, 1), *(m.g(1, 24, n(64, 4), n(64, 4)) for _ in range(3)), *(m.g(1, 24, n(64, 4), n(16, 4)) for _ in range(3)),
            *(m.g(24, 1) for _ in range(3)))


def of_volume_rendering(m, n):
    shape = n(4096), 221
    return (m.r(*shape) * 3 + 8).requires_grad_(), m.g(*shape, 3), m.p(*shape) * 4 / 221, m.p(*shape)


def of_trajectory_losses(m, n):
    rays, s = n(1536), 64
    return (m.g(rays, s, 18), m.g(8, 6), m.r(rays, s, 3), m.r(6, rays, s, 3), m.p(6, rays, s), m.q(rays, 3), m.q(rays, 3), m.p(rays, 3), m.mask(rays, 1).float(),
            m.q(rays), m.p(rays), m.g(6, rays, 2), m.r(6, rays, 2), m.mask(6, rays, 1).float(), m.q(rays, s), m.q(rays, s), m.p(rays, s), m.p(rays, s))


def of_deformation(m, n):
    k = n(50000)
    return (*(m.g(k, w) for w in (3, 3, 4, 4, 3, 3, 1, 1)), m.g(k, 1, 3), m.g(k, 15, 3))


def planes_of_field(m, n, channels=32):
    sizes = [n(64 * level, 4) for level in (1, 2)]
    times = n(75, 4)
    return [m.q(1, channels, times if b == 3 else s, s) for s in sizes for a, b in PAIRS]


def of_deformation_field(m, n):
    k = n(20000)
    layers = [(64, 64), (64, 64), (3, 64), (64, 64), (3, 64), (64, 64), (4, 64)]
    return m.r(k, 3), m.r(k, 1), *(t for o, i in layers for t in (m.g(o, i), m.g(o))), *planes_of_field(m, n)


def of_total_variation(m, n):
    return tuple(m.g(1, 24, n(200, 4), n(200, 4)) for _ in range(3)) + tuple(m.g(1, 24, n(200, 4), n(48, 4)) for _ in range(3))


@dataclasses.dataclass
class Block:
    function: Callable
    make: Callable                # of Make and n(size, least=1), the size at the scale asked for
    kernels: tuple[int, int] | None = None  # forward and backward besides products, at most
    varies: str = ""              # which sizes vary from step to step

    @property
    def name(self) -> str:
        return self.function.__name__

    def inputs(self, scale: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, ...]:
        return tuple(self.make(Make(seed), lambda size, least=1: max(least, round(size * scale))))


BLOCKS = [
    Block(density_feature, of_density_feature, (1, 2), "points"),
    Block(volume_rendering, of_volume_rendering, (1, 1), "rays, samples"),
    Block(trajectory_losses, of_trajectory_losses, (2, 2), "rays"),
    Block(deformation, of_deformation, (2, 2), "Gaussians"),
    Block(deformation_field, of_deformation_field, None, "Gaussians"),
    Block(plane_regularisers, planes_of_field, None, "resolution"),
    Block(total_variation, of_total_variation, (2, 2), "resolution"),
    Block(four_l1, lambda m, n: [m.g(*s) for s in ((n(4096), 3), (n(8192), 3), (n(12288), 3), (n(1000), 7)) for _ in range(2)], (1, 1), "rays"),
    Block(masked_l1, lambda m, n: (m.g(n(4096), 3), m.r(n(4096), 3), m.mask(n(4096)).float()), (2, 1), "rays"),
    Block(selected_l1, lambda m, n: (m.g(n(4096), 3), m.r(n(4096), 3), m.mask(n(4096))), (2, 1), "rays"),
    Block(masked_write, lambda m, n: (m.g(n(4096), 256), m.mask(n(4096), 256), m.g(n(4096), 256)), None, "rays, samples"),
]


# ---- one block: counts, errors, times
def first_call_of_dynamo(function: Callable, inputs: tuple) -> float:
    """Seconds until a first call returns that is only captured: what every compiler behind Dynamo pays."""
    torch._dynamo.reset()
    start = time.perf_counter()
    torch.compile(function, backend="eager")(*inputs)
    return time.perf_counter() - start


def measure(block: Block, scale: float, inductor: bool, seconds: float) -> dict:
    inputs = block.inputs(scale)
    dynamo = first_call_of_dynamo(block.function, inputs)
    torch._dynamo.reset()
    found = heddle.compare(block.function, *inputs, inductor=inductor, seconds=seconds)
    regions = heddle.explain(block.function, *inputs).regions
    row = {"block": block.name, "varies": block.varies, "elements": sum(t.numel() for t in inputs), "dynamo_first_call_s": dynamo,
           "kernels": [sum(r[f"launches_{d}"] for r in regions) for d in ("forward", "backward")],
           "calls": [sum(r[f"calls_{d}"] for r in regions) for d in ("forward", "backward")],
           "library_calls": [c for r in regions for c in r["library_calls"]], "kernels_at_most": block.kernels,
           "compile_s": sum(r["compile_seconds"] for r in regions), **found.to_dict()}
    row["as_planned"] = block.kernels is None or (all(k <= most for k, most in zip(row["kernels"], block.kernels)) and not row["library_calls"])
    both = {v["name"]: v["both_median_s"] for v in row["variants"]}
    row["times_eager"] = both["eager"] / both["fused"]
    row["times_inductor"] = both["inductor"] / both["fused"] if inductor else None
    row["beyond_dynamo_s"] = found.variant("fused").first - dynamo
    return row


def table(rows: list[dict]) -> str:
    def variant(row: dict, name: str) -> dict:
        return next((v for v in row["variants"] if v["name"] == name), {})

    def number(x: float | None, scale: float = 1.0, digits: int = 3) -> str:
        return "–" if x is None else f"{x * scale:.{digits}f}"

    def pair(p: list[int] | None) -> str:
        return "–" if p is None else f"{p[0]} + {p[1]}"

    head = (f"{'block':<20}{'kernels':>9}{'most':>8}{'calls':>8}{'inductor':>10}{'eager ops':>11} |{'MB':>9}{'eager MB':>10} |{'forward ms':>12}{'eager':>9}{'ind.':>9}"
            f" |{'both ms':>9}{'eager':>9}{'ind.':>9} |{'x eager':>8}{'x ind.':>8} |{'first s':>9}{'ind.':>7} |{'error':>9}{'eager':>9}")
    lines = [head, "-" * len(head)]
    for row in rows:
        fused, eager, inductor = (variant(row, n) for n in ("fused", "eager", "inductor"))
        worst = [max((e for e in v["errors"].values() if e is not None), default=0.0) for v in (fused, eager)]
        lines.append(f"{row['block']:<20}{pair(row['kernels']):>9}{pair(row['kernels_at_most']):>8}{pair(row['calls']):>8}{pair(inductor.get('launches')):>10}{pair(eager['launches']):>11}"
                     f" |{sum(fused['bytes']) / 1e6:>9.2f}{sum(eager['bytes']) / 1e6:>10.2f} |{number(fused['forward_median_s'], 1e3):>12}{number(eager['forward_median_s'], 1e3):>9}"
                     f"{number(inductor.get('forward_median_s'), 1e3):>9} |{number(fused['both_median_s'], 1e3):>9}{number(eager['both_median_s'], 1e3):>9}"
                     f"{number(inductor.get('both_median_s'), 1e3):>9} |{row['times_eager']:>8.2f}{number(row['times_inductor'], digits=2):>8} |{row['beyond_dynamo_s']:>9.2f}"
                     f"{number(inductor.get('first_call_s'), digits=1):>7} |{worst[0]:>9.1e}{worst[1]:>9.1e}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", nargs="*", choices=[b.name for b in BLOCKS], metavar="BLOCK", help="only these; all: " + ", ".join(b.name for b in BLOCKS))
    parser.add_argument("--no-inductor", action="store_true", help="leave inductor out (it takes most of the time)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing for each block")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    rows = []
    for block in BLOCKS:
        if o.blocks and block.name not in o.blocks:
            continue
        rows.append(measure(block, o.scale, not o.no_inductor, o.seconds))
        print(f"{block.name}: {'; '.join(rows[-1]['failures']) or 'ok'}", file=sys.stderr, flush=True)
    print(table(rows))
    summary = {"median_times_eager": statistics.median(r["times_eager"] for r in rows), "least_times_eager": min(r["times_eager"] for r in rows),
               "median_times_inductor": None if o.no_inductor else statistics.median(r["times_inductor"] for r in rows),
               "median_first_call_beyond_dynamo_s": statistics.median(r["beyond_dynamo_s"] for r in rows),
               "most_first_call_beyond_dynamo_s": max(r["beyond_dynamo_s"] for r in rows),
               "kernels_as_planned": all(r["as_planned"] for r in rows), "within_tolerance": all(r["ok"] for r in rows)}
    print("\n" + "\n".join(f"{k.replace('_', ' ')}: {v if isinstance(v, bool) or v is None else round(v, 2)}" for k, v in summary.items()))
    if o.json:
        o.json.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": o.threads, "scale": o.scale,
                                      "summary": summary, "blocks": rows}, indent=1) + "\n")
    return 0 if summary["kernels_as_planned"] and summary["within_tolerance"] else 1


if __name__ == "__main__":
    sys.exit(main())
