"""DynIBaR (Li et al. 2023) for monocular video in plain PyTorch: the step that models/dynibar computes, for what needs Python.

Law: stages, losses and constants are those of models/dynibar, under its names; tests/python/test_dynibar.py compares losses and every gradient with
it, and which gradients are None. Whatever changes from step to step is an input, in the order of its StepInputs; dtype and device follow them.
"""

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynibar_nets import DynamicNet, FeatureNet, MotionMlp, StaticNet

REACH, FLOW_OFFSETS, ENDLESS = 3, (1, 2, 3, -1, -2, -3), 1e10
TERMS = ("loss", "mse", "rgb", "cycle", "flow", "disparity", "scene_flow", "entropy", "distortion", "static")
DISPARITY_WEIGHT, FLOW_WEIGHT, SCENE_FLOW_WEIGHT, ENTROPY_WEIGHT, DISTORTION_WEIGHT, SPARSITY_WEIGHT = 0.1, 0.01, 0.05, 5e-4, 1e-3, 0.1
FEATURE_RATE, NETWORK_RATE, BASIS_RATE = 8e-4, 4e-4, 1e-4


@dataclasses.dataclass(frozen=True)
class Scale:
    rays: int
    samples: int
    static_views: int  # at most
    virtual_views: int
    frames: int
    height: int
    width: int
    channels: int = 32  # of a feature map that the networks read
    basis: int = 6
    density_shift: float = 5.0


SCALES = {
    "thesis": Scale(64, 128, 14, 3, 24, 288, 512),  # its batch and samples, the original's pictures and views
    "small": Scale(64, 128, 4, 1, 24, 72, 96),      # the same with fewer views and small pictures, where 24 GB are too many
    "demo": Scale(96, 32, 6, 1, 24, 72, 96),
    "tiny": Scale(12, 16, 4, 1, 12, 24, 32),
}


class Views(NamedTuple):
    images: Tensor      # [V, 3, H, W]
    intrinsics: Tensor  # [V, 4, 4]
    to_world: Tensor    # [V, 4, 4]


class StepInputs(NamedTuple):
    """models/dynibar/inputs.h says what each is."""

    ray_o: Tensor
    ray_d: Tensor
    pixel: Tensor
    rgb: Tensor
    disparity: Tensor
    motion_mask: Tensor
    static_mask: Tensor
    flows: Tensor
    flow_masks: Tensor
    depth_range: Tensor
    eye: Tensor
    sources: Views
    anchor_sources: Views
    static_sources: Views
    time: Tensor
    anchor_time: Tensor
    frame: Tensor
    anchor: Tensor
    offsets: Tensor
    anchor_offsets: Tensor
    pairs: Tensor
    data_weight: Tensor
    cycle_weight: Tensor
    jitter: Tensor

    @classmethod
    def of(cls, flat: tuple[Tensor, ...] | list[Tensor]) -> "StepInputs":
        return cls(*flat[:11], Views(*flat[11:14]), Views(*flat[14:17]), Views(*flat[17:20]), *flat[20:])


class Rendering(NamedTuple):
    rgb: Tensor
    depth: Tensor
    weights: Tensor
    mask: Tensor


class Composite(NamedTuple):
    rgb: Tensor
    depth: Tensor
    weights: Tensor
    mask: Tensor
    rgb_static: Tensor
    rgb_dynamic: Tensor
    weights_static: Tensor
    weights_dynamic: Tensor


class Prediction(NamedTuple):
    here: Composite
    anchor: Composite
    dynamic_alone: Rendering
    anchor_dynamic_alone: Rendering
    positions: Tensor
    flow: Tensor
    seen: Tensor
    seen_rays: Tensor
    seen_rays_alone: Tensor
    scene_flow: Tensor
    path: Tensor
    anchor_path: Tensor

    @classmethod
    def of(cls, flat: tuple[Tensor, ...]) -> "Prediction":
        return cls(Composite(*flat[:8]), Composite(*flat[8:16]), Rendering(*flat[16:20]), Rendering(*flat[20:24]), *flat[24:])


# ---- rays and cameras
def unit(x: Tensor) -> Tensor:
    return x / x.norm(2, -1, True).clamp_min(1e-12)


def inverted(m: Tensor) -> Tensor:
    return torch.linalg.inv_ex(m)[0]


def sample_rays(ray_o: Tensor, ray_d: Tensor, depth_range: Tensor, samples: int, jitter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points [R, S, 3], depths [R, S], places between near and far in disparity [R, S]."""
    near = depth_range[0] * torch.ones_like(ray_d[:, 0])
    far = depth_range[1] * torch.ones_like(near)
    start = 1.0 / near
    step = (1.0 / far - start) / (samples - 1)
    z = 1.0 / (start[:, None] + step[:, None] * torch.arange(samples, dtype=near.dtype, device=near.device))
    middle = 0.5 * (z[:, 1:] + z[:, :-1])
    upper, lower = torch.cat([middle, z[:, -1:]], -1), torch.cat([z[:, :1], middle], -1)
    z = lower + (upper - lower) * jitter
    points = z[..., None] * ray_d[:, None] + ray_o[:, None]
    return points, z, (1.0 / z - 1.0 / depth_range[0]) / (1.0 / depth_range[1] - 1.0 / depth_range[0])


def project(points: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Points [V, R, S, 3] -> pixels [V, R, S, 2], and whether they are in the picture [R, S, V, 1]."""
    v, r, s, _ = points.shape
    height, width = views.images.shape[2:]
    flat = points.reshape(v, r * s, 3)
    homogeneous = torch.cat([flat, torch.ones_like(flat[..., :1])], -1)
    seen = views.intrinsics.bmm(inverted(views.to_world)).bmm(homogeneous.transpose(1, 2)).transpose(1, 2)
    depth = seen[..., 2:3]
    pixels = (seen[..., :2] / depth.clamp_min(1e-8)).clamp(-1e6, 1e6).view(v, r, s, 2)
    x, y = pixels[..., 0], pixels[..., 1]
    visible = (x <= width - 1) & (x >= 0) & (y <= height - 1) & (y >= 0) & (depth > 0).view(v, r, s)
    return pixels, visible.to(points.dtype).permute(1, 2, 0)[..., None]


def sample_views(pixels: Tensor, images: Tensor, features: Tensor) -> Tensor:
    """What views show at pixels: [R, S, V, 3 + C]."""
    height, width = images.shape[2:]
    grid = torch.stack([2 * pixels[..., 0] / (width - 1) - 1.0, 2 * pixels[..., 1] / (height - 1) - 1.0], -1)
    return torch.cat([F.grid_sample(maps, grid, align_corners=True).permute(2, 3, 0, 1) for maps in (images, features)], -1)


def angle_difference(points: Tensor, eye: Tensor, views: Views) -> Tensor:
    to_target = unit(eye - points)[None]
    to_source = unit(views.to_world[:, :3, 3][:, None, None] - points[None])
    cosine = (to_target * to_source).sum(-1, True)
    return torch.cat([unit(to_target - to_source), cosine], -1).detach().permute(1, 2, 0, 3)


def ray_coordinates(ray_o: Tensor, ray_d: Tensor) -> Tensor:
    direction = unit(ray_d)
    return torch.cat([direction, torch.cross(ray_o, direction, -1)], -1)


def source_ray_coordinates(points: Tensor, views: Views) -> Tensor:
    origin = views.to_world[:, :3, 3][:, None, None]
    direction = unit(points[None] - origin)
    return torch.cat([direction, torch.cross(origin.expand_as(direction), direction, -1)], -1).permute(1, 2, 0, 3)


def optical_flow(weights: Tensor, points: Tensor, views: Views, pixel: Tensor) -> Tensor:
    expected = (weights[None, ..., None] * points).sum(-2)[..., None]
    to_camera = inverted(views.to_world)[:, :3][:, None]
    in_camera = torch.matmul(to_camera[..., :3], expected) + to_camera[..., 3:]
    seen = torch.matmul(views.intrinsics[:, :3, :3][:, None], in_camera)
    return (seen / seen[:, :, 2:])[:, :, :2].squeeze(3) - pixel[None]


# ---- motion
def cosine_basis(frames: int, count: int) -> Tensor:
    f, k = torch.arange(frames, dtype=torch.float64)[:, None], torch.arange(1, count + 1, dtype=torch.float64)
    return (math.sqrt(2 / frames) * torch.cos(math.pi / (2 * frames) * (2 * f + 1) * k)).float()


def trajectories(coefficients: Tensor, basis: Tensor, frames: Tensor) -> Tensor:
    """Coefficients [R, S, 3 K] of the axes one after the other -> displacements [n, R, S, 3] at `frames` [n]."""
    rows = basis.index_select(0, frames)[:, None, None, None]
    return (coefficients.unflatten(-1, (3, basis.shape[1]))[None] * rows).sum(-1)


def motion(points: Tensor, coefficients: Tensor, basis: Tensor, frame: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Paths [7, R, S, 3] from 3 frames before to 3 after, and where the points are in their sources' frames [V, R, S, 3]."""
    reach = torch.arange(-REACH, REACH + 1, dtype=frame.dtype, device=frame.device)
    paths = trajectories(coefficients, basis, frame + reach)
    return paths, points + (paths.index_select(0, offsets + REACH) - paths[REACH])


# ---- compositing
def opacity(raw: Tensor) -> Tensor:
    sigma = raw[..., 3]
    length = torch.cat([torch.ones_like(sigma[:, 1:]), torch.full_like(sigma[:, :1], ENDLESS)], -1)
    return 1.0 - torch.exp(-F.softplus(sigma) * length)


def transmittance(alpha: Tensor) -> Tensor:
    passed = torch.cumprod(1.0 - alpha + 1e-10, -1)[:, :-1]
    return torch.cat([torch.ones_like(passed[:, :1]), passed], -1)


def colour(weights: Tensor, raw: Tensor) -> Tensor:
    return (weights[..., None] * raw[..., :3]).sum(1)


def enough(valid: Tensor) -> Tensor:
    return valid.float().sum(1) > 8


def render(raw: Tensor, depth: Tensor, valid: Tensor) -> Rendering:
    alpha = opacity(raw)
    weights = alpha * transmittance(alpha)
    return Rendering(colour(weights, raw), (weights * depth).sum(-1), weights, enough(valid))


def composite(raw_dynamic: Tensor, raw_static: Tensor, depth: Tensor, valid_dynamic: Tensor, valid_static: Tensor) -> Composite:
    alpha_dynamic, alpha_static = opacity(raw_dynamic), opacity(raw_static)
    alpha = 1 - (1 - alpha_static) * (1 - alpha_dynamic)
    passed = transmittance(alpha)
    dynamic, static, weights = alpha_dynamic * passed, alpha_static * passed, alpha * passed
    rgb_dynamic, rgb_static = colour(dynamic, raw_dynamic), colour(static, raw_static)
    return Composite(rgb_dynamic + rgb_static, (weights * depth).sum(-1), weights, enough(valid_dynamic) | enough(valid_static), rgb_static, rgb_dynamic, static, dynamic)


# ---- losses, in the formulas of models/dynibar/losses.h
def smooth_difference(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt((x - y).pow(2) + 1e-6)


def charbonnier(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    return (smooth_difference(x, y) * mask[..., None]).sum() / (mask.sum() * float(x.shape[-1]) + 1e-6)


def cross_time_colour(x: Tensor, y: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
    weight = (mask * seen)[..., None].repeat(1, 3)
    return (weight * smooth_difference(x, y)).sum() / (weight.sum() + 1e-8)


def masked_mean(x: Tensor, weight: Tensor) -> Tensor:
    return (x.abs() * weight).sum() / (weight.sum() + 1e-8)


def scene_flow_loss(f: Tensor) -> Tensor:
    return f.abs().mean() + 0.5 * (f[:-1] - f[1:]).pow(2).mean() + (f[:, :, 1:] - f[:, :, :-1]).abs().mean()


def distortion_loss(w: Tensor, positions: Tensor) -> Tensor:
    m, length = (positions[:, 1:] + positions[:, :-1]) * 0.5, positions[:, 1:] - positions[:, :-1]
    wm = w * m
    pairs = wm[:, 1:] * w.cumsum(-1)[:, :-1] - w[:, 1:] * wm.cumsum(-1)[:, :-1]
    return 2.0 * pairs.sum(-1).mean() + 1.0 / 3.0 * (length * w.pow(2)).sum(-1).mean()


def losses(p: Prediction, i: StepInputs, phase: str = "moving") -> list[Tensor]:
    kind = i.rgb.dtype
    mask, anchor_mask = p.here.mask.to(kind), p.anchor.mask.to(kind)
    rgb = charbonnier(p.here.rgb, i.rgb, mask) + cross_time_colour(p.anchor.rgb, i.rgb, anchor_mask, p.seen_rays)
    if phase == "moving":
        rgb = rgb + charbonnier(p.here.rgb_dynamic, i.rgb, mask * i.motion_mask)
    rgb = rgb + charbonnier(p.dynamic_alone.rgb, i.rgb, p.dynamic_alone.mask.to(kind) * i.motion_mask) * i.data_weight
    rgb = rgb + cross_time_colour(p.anchor_dynamic_alone.rgb, i.rgb, p.anchor_dynamic_alone.mask.to(kind) * i.motion_mask, p.seen_rays_alone) * i.data_weight
    disparity = i.data_weight * DISPARITY_WEIGHT * masked_mean(1.0 / p.here.depth.clamp_min(1e-2) - i.disparity, p.here.mask)
    flow_mask = (p.here.mask[None, :, None] * i.flow_masks).repeat(1, 1, 2)
    flow = i.data_weight * FLOW_WEIGHT * masked_mean(p.flow - i.flows, flow_mask)
    cycle = i.cycle_weight * masked_mean(p.path - p.anchor_path, p.seen[None, ..., None].repeat(p.path.shape[0], 1, 1, 3))
    scene_flow = SCENE_FLOW_WEIGHT * scene_flow_loss(p.scene_flow)
    of_dynamic, of_static = p.here.weights_dynamic.sum(-1), p.here.weights_static.sum(-1)
    share = of_dynamic / (of_dynamic + of_static).clamp_min(1e-9)
    entropy = ENTROPY_WEIGHT * -(share * torch.log(share + 1e-9) + (1.0 - share) * torch.log(1.0 - share + 1e-9)).mean()
    distortion = DISTORTION_WEIGHT * distortion_loss(p.here.weights[:, :-1], p.positions)
    static_mask = (1.0 - i.static_mask) * mask * (1.0 - share).detach()
    still = charbonnier(p.here.rgb_static, i.rgb, static_mask)
    if phase == "sparse":
        surely = (static_mask * (share < 0.1).to(kind)).detach()
        still = still + SPARSITY_WEIGHT * ((of_dynamic * surely).abs().sum() / (surely + 1e-8).sum())
    total = rgb + cycle + flow + disparity + scene_flow + entropy + distortion + still
    return [total, (p.here.rgb.detach() - i.rgb).pow(2).mean(), rgb, cycle, flow, disparity, scene_flow, entropy, distortion, still]


# ---- the step
class Dynibar(nn.Module):
    """Parameters under the names of the C++ module. Points move from the start, as in the midst of training."""

    def __init__(self, scale: Scale, seed: int = 0) -> None:
        super().__init__()
        self.scale = scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net_static, self.net_dynamic = StaticNet(scale.channels), DynamicNet(scale.channels, scale.samples, scale.density_shift)
            self.feature_net, self.feature_net_static = FeatureNet(scale.channels), FeatureNet(scale.channels)
            self.motion_mlp = MotionMlp(scale.basis)
            for p in self.motion_mlp.coeff_linear.parameters():
                nn.init.normal_(p, std=0.1)
        self.trajectory_basis = nn.Parameter(cosine_basis(scale.frames, scale.basis))

    def static_part(self, points: Tensor, i: StepInputs, maps: Tensor) -> tuple[Tensor, Tensor]:
        views = i.static_sources
        pixels, visible = project(points[None].expand(views.images.shape[0], -1, -1, -1), views)
        raw = self.net_static(points, ray_coordinates(i.ray_o, i.ray_d), source_ray_coordinates(points, views), sample_views(pixels, views.images, maps),
                              angle_difference(points, i.eye, views), visible)
        return raw, visible[..., 0].sum(2) > 1

    def predict(self, i: StepInputs) -> Prediction:
        v = i.sources.images.shape[0]
        maps = self.feature_net(torch.cat([i.sources.images, i.anchor_sources.images]))
        static_maps = self.feature_net_static(i.static_sources.images)
        points, depth, positions = sample_rays(i.ray_o, i.ray_d, i.depth_range, self.scale.samples, i.jitter)
        direction = unit(i.ray_d)

        paths, moved = motion(points, self.motion_mlp(points, i.time), self.trajectory_basis, i.frame, i.offsets)
        start = paths[REACH]
        pixels, visible = project(moved, i.sources)
        raw = self.net_dynamic(points, sample_views(pixels, i.sources.images, maps[:v]), direction, visible, i.time)
        valid = visible[..., 0].sum(2) > 1
        still, still_valid = self.static_part(points, i, static_maps)
        here, alone = composite(raw, still, depth, valid, still_valid), render(raw, depth, valid)
        n = len(FLOW_OFFSETS)
        flow = optical_flow(here.weights, moved[:n], Views(*(t[:n] for t in i.sources)), i.pixel)

        anchor_time = i.anchor_time.to(points.dtype)
        anchor_points = points + (paths.index_select(0, i.anchor - i.frame + REACH).squeeze(0) - start)
        coefficients = self.motion_mlp(anchor_points, anchor_time)
        anchor_start = trajectories(coefficients, self.trajectory_basis, i.anchor)
        anchor_moved = anchor_points + (trajectories(coefficients, self.trajectory_basis, i.anchor + i.anchor_offsets) - anchor_start)
        path = points + paths.index_select(0, i.anchor + i.anchor_offsets.index_select(0, i.pairs) - i.frame + REACH) - start
        anchor_pixels, anchor_visible = project(anchor_moved, i.anchor_sources)
        anchor_raw = self.net_dynamic(anchor_points, sample_views(anchor_pixels, i.anchor_sources.images, maps[v:]), direction, anchor_visible, anchor_time)
        anchor_valid = anchor_visible[..., 0].sum(2) > 0
        anchor, anchor_alone = composite(anchor_raw, still, depth, anchor_valid, still_valid), render(anchor_raw, depth, anchor_valid)

        far = (i.frame - i.anchor).abs() > 1
        difference = torch.where(far, here.weights_dynamic - anchor.weights_dynamic, here.weights - anchor.weights).detach()
        apart = (alone.weights - anchor_alone.weights).detach()
        return Prediction(here, anchor, alone, anchor_alone, positions, flow, 1.0 - difference.abs(), 1.0 - difference.sum(1).abs(), 1.0 - apart.sum(1).abs(),
                          paths[1:] - paths[:-1], path, anchor_moved.index_select(0, i.pairs))

    def bootstrap(self, i: StepInputs) -> list[Tensor]:
        points, depth, _ = sample_rays(i.ray_o, i.ray_d, i.depth_range, self.scale.samples, i.jitter)
        moved = motion(points, self.motion_mlp(points, i.time), self.trajectory_basis, i.frame, i.offsets)[1]
        valid = project(moved, i.sources)[1][..., 0].sum(2) > 1
        still, still_valid = self.static_part(points, i, self.feature_net_static(i.static_sources.images))
        rgb = render(still, depth, still_valid).rgb
        loss = charbonnier(rgb, i.rgb, (1.0 - i.static_mask) * (enough(valid) | enough(still_valid)).to(i.rgb.dtype))
        zero = torch.zeros((), dtype=i.rgb.dtype, device=i.rgb.device)
        return [loss, (rgb.detach() - i.rgb).pow(2).mean(), *[zero] * 7, loss]

    def forward(self, *flat: Tensor, phase: str = "moving") -> list[Tensor]:
        """The losses in the order of TERMS."""
        i = StepInputs.of(flat)
        return self.bootstrap(i) if phase == "bootstrap" else losses(self.predict(i), i, phase)


def adam(model: Dynibar, **options: object) -> torch.optim.Adam:
    rates = ((model.net_static, NETWORK_RATE / 2), (model.feature_net_static, FEATURE_RATE / 2), (model.net_dynamic, NETWORK_RATE), (model.feature_net, FEATURE_RATE),
             (model.motion_mlp, NETWORK_RATE))
    return torch.optim.Adam([{"params": list(m.parameters()), "lr": lr} for m, lr in rates] + [{"params": [model.trajectory_basis], "lr": BASIS_RATE}], **options)
