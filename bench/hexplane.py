"""HexPlane (Cao and Johnson 2023) in plain PyTorch: the function that models/hexplane computes, for what needs Python.

Law: rendering, losses and constants are those of models/hexplane/hexplane.cpp, mask for mask; tests/python/test_hexplane.py compares
loss and every gradient with it. Everything that a step reads is an argument or a parameter, and dtype and device follow the inputs.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BOX, NEAR, FAR = 1.5, 2.0, 6.0
DENSITY_SHIFT, DISTANCE_SCALE, WEIGHT_FLOOR = -10.0, 25.0, 1e-4
DENSITY_CHANNELS, APP_CHANNELS, APP_FEATURES, HIDDEN, FREQUENCIES = 24, 48, 27, 128, 2
INIT_SCALE, TV_WEIGHT = 0.1, 1e-4
PLANE_RATE, NETWORK_RATE = 0.02, 0.001
PLANES = ("density_plane", "density_line_time", "app_plane", "app_line_time")


@dataclasses.dataclass(frozen=True)
class Scale:
    """A point of training: rays of a step, cells of the grid and of the time axis, samples per cell diagonal, and what the emptiness mask leaves."""

    rays: int
    grid: int
    time: int
    step_ratio: float = 0.5
    filled: float | None = None  # of all samples; None: there is no mask yet

    @property
    def samples(self) -> int:
        return int(self.grid * math.sqrt(3.0) / self.step_ratio)


SCALES = {
    "first": Scale(4096, 64, 16),                # the first 3,000 iterations of `dnerf_slim`: 221 samples a ray, no mask
    "third": Scale(4096, 136, 21),               # 4,652,219 parameters
    "late": Scale(4096, 199, 24, filled=0.1056), # from iteration 9,000 on: 689 samples a ray, 10.56 % of them not in empty space
    "demo": Scale(768, 24, 12, step_ratio=1.0),
    "tiny": Scale(64, 12, 6),
}


def look_up(plane: Tensor, coordinates: Tensor) -> Tensor:
    """Bilinear, of plane [1, C, H, W] at [M, 2] (along W, along H) -> [C, M]."""
    return F.grid_sample(plane, coordinates[None, :, None], align_corners=True)[0, :, :, 0]


def plane_coordinates(xyz: Tensor, i: int) -> Tensor:
    return (xyz[:, 0:2], xyz[:, 0:3:2], xyz[:, 1:3])[i]


def line_coordinates(xyz: Tensor, t: Tensor, i: int) -> Tensor:
    return torch.cat([t, xyz[:, 2 - i:3 - i]], 1)


def density_feature(xyz: Tensor, t: Tensor, planes: list[Tensor], lines: list[Tensor], bases: list[Tensor]) -> Tensor:
    """Over three pairs of planes, the sum of space x space-time x basis [M]."""
    total = None
    for i in range(3):
        term = (look_up(planes[i], plane_coordinates(xyz, i)) * look_up(lines[i], line_coordinates(xyz, t, i)) * bases[i]).sum(0)
        total = term if total is None else total + term
    return total


def raw2alpha(sigma: Tensor, dist: Tensor) -> tuple[Tensor, Tensor]:
    """Opacities [B, N] and weights: what a sample takes of the light that the samples before it let pass."""
    alpha = 1.0 - torch.exp(-sigma * dist)
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha + 1e-10], -1), -1)
    return alpha, alpha * passed[:, :-1]


def volume_rendering(sigma: Tensor, dist: Tensor, rgb: Tensor) -> Tensor:
    """The colours on white [B, 3]; `dist` [1, N]."""
    weights = raw2alpha(sigma, dist * DISTANCE_SCALE)[1]
    return ((weights[..., None] * rgb).sum(-2) + (1.0 - weights.sum(-1)[..., None])).clamp(0, 1)


def total_variation(plane: Tensor, weight_h: float, weight_w: float) -> Tensor:
    _, channels, height, width = plane.shape
    h = (plane[:, :, 1:] - plane[:, :, :height - 1]).pow(2).sum() * weight_h
    w = (plane[..., 1:] - plane[..., :width - 1]).pow(2).sum() * weight_w
    return 2 * (h / float(channels * (height - 1) * width) + w / float(channels * height * (width - 1))) / plane.shape[0]


def planes_variation(planes: list[Tensor], lines: list[Tensor]) -> Tensor:
    total = None
    for plane, line in zip(planes, lines):
        term = total_variation(plane, 1, 1) + total_variation(line, 1, 2)
        total = term if total is None else total + term
    return total


def positional_encoding(x: Tensor, frequencies: int) -> Tensor:
    phase = torch.stack([x * 2.0**k for k in range(frequencies)], -1).flatten(-2)
    return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class HexPlane(nn.Module):
    """Parameters under the names of the C++ module, in its order."""

    emptiness: Tensor | None

    def __init__(self, scale: Scale, seed: int = 0) -> None:
        super().__init__()
        self.scale = scale
        g = torch.Generator().manual_seed(seed)
        shapes = [(channels, width) for channels in (DENSITY_CHANNELS, APP_CHANNELS) for width in (scale.grid, scale.time)]
        for name, (channels, width) in zip(PLANES, shapes):
            for i in range(3):
                self.register_parameter(f"{name}_{i}", nn.Parameter(INIT_SCALE * torch.randn(1, channels, scale.grid, width, generator=g)))
        for i in range(3):
            self.register_parameter(f"density_basis_mat_{i}", nn.Parameter(torch.ones(DENSITY_CHANNELS, 1)))
        encoded = (APP_FEATURES + 3) * (1 + 2 * FREQUENCIES)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.app_basis_mat = nn.Linear(3 * APP_CHANNELS, APP_FEATURES, bias=False)
            self.mlp_0, self.mlp_1, self.mlp_2 = nn.Linear(encoded, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 3)
        nn.init.zeros_(self.mlp_2.bias)
        self.register_buffer("emptiness", None)

    def three(self, name: str) -> list[Tensor]:
        return [getattr(self, f"{name}_{i}") for i in range(3)]

    def planes(self) -> list[Tensor]:
        """The twelve planes: the group with the higher rate."""
        return [p for name in PLANES for p in self.three(name)]

    def network(self) -> list[Tensor]:
        return self.three("density_basis_mat") + [p for m in (self.app_basis_mat, self.mlp_0, self.mlp_1, self.mlp_2) for p in m.parameters()]

    @torch.no_grad()
    def thicken(self, seed: int = 0) -> "HexPlane":
        """Raises the density planes until the scene is partly opaque, so that the colour branch is taken."""
        g = torch.Generator().manual_seed(seed)
        for i in range(3):
            for p in (self.three("density_plane")[i], self.three("density_line_time")[i]):
                p.copy_(torch.randn(p.shape, generator=g) * 0.3 + 0.33)
        return self

    def set_emptiness(self, volume: Tensor | None) -> None:
        """[1, 1, R, R, R], 1 where something is."""
        self.emptiness = volume

    def fill(self, seed: int = 0) -> "HexPlane":
        """A mask as D-NeRF's scenes have: an object in the middle, with holes; about `scale.filled` of all samples isn't in empty space."""
        if self.scale.filled is None:
            return self
        axis = torch.linspace(-1, 1, self.scale.grid)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        inside = (x * x + y * y + z * z).sqrt() < MASK_RADIUS
        noise = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(seed))
        noise = F.interpolate(noise, size=[self.scale.grid] * 3, mode="trilinear", align_corners=True)
        self.set_emptiness((inside & (noise[0, 0] > 0.5)).float()[None, None].to(self.mlp_0.weight))
        return self

    # ---- the parts of a step
    def sample_rays(self, rays: Tensor, jitter: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """Points [B, N, 3] in world units, distances [1, N], and whether they lie in the box [B, N]."""
        distance = torch.linspace(NEAR, FAR, samples, dtype=rays.dtype, device=rays.device)[None] + jitter * ((FAR - NEAR) / samples)
        points = rays[:, None, 0:3] + rays[:, None, 3:6] * distance[..., None]
        outside = ((points < -BOX) | (points > BOX)).any(-1)
        return points, distance, ~outside

    def normalise(self, points: Tensor) -> Tensor:
        return (points + BOX) * (1.0 / BOX) - 1.0

    def density_feature(self, xyz: Tensor, t: Tensor) -> Tensor:
        return density_feature(xyz, t, self.three("density_plane"), self.three("density_line_time"), self.three("density_basis_mat"))

    def app_feature(self, xyz: Tensor, t: Tensor) -> Tensor:
        space = [look_up(p, plane_coordinates(xyz, i)) for i, p in enumerate(self.three("app_plane"))]
        space_time = [look_up(p, line_coordinates(xyz, t, i)) for i, p in enumerate(self.three("app_line_time"))]
        return self.app_basis_mat((torch.cat(space) * torch.cat(space_time)).t())

    def colour(self, features: Tensor, directions: Tensor) -> Tensor:
        x = torch.cat([features, positional_encoding(features, FREQUENCIES), directions, positional_encoding(directions, FREQUENCIES)], -1)
        return torch.sigmoid(self.mlp_2(F.relu(self.mlp_1(F.relu(self.mlp_0(x))))))

    @torch.no_grad()
    def occupied(self, xyz: Tensor) -> Tensor:
        return F.grid_sample(self.emptiness, xyz[None, :, None, None], align_corners=True).flatten() > 0

    def render(self, rays: Tensor, times: Tensor, jitter: Tensor) -> Tensor:
        """As in training, on white: rays [B, 6], times [B, 1], jitter [1, N] -> rgb [B, 3]."""
        samples = jitter.shape[1]
        points, distance, inside = self.sample_rays(rays, jitter, samples)
        dist = torch.cat([distance[:, 1:] - distance[:, :-1], torch.zeros_like(distance[:, :1])], -1)
        direction = rays[:, 3:6]
        directions = (direction / direction.norm(2, -1, True))[:, None].expand_as(points)
        t = times[:, None].expand(-1, samples, 1)
        xyz = self.normalise(points)
        valid = inside
        if self.emptiness is not None:
            valid = inside.clone()
            valid[inside] = self.occupied(xyz[inside])
        sigma, rgb = torch.zeros_like(points[..., 0]), torch.zeros_like(points)
        if valid.any():
            sigma[valid] = F.softplus(self.density_feature(xyz[valid], t[valid]) + DENSITY_SHIFT)
        weights = raw2alpha(sigma, dist * DISTANCE_SCALE)[1]
        shown = weights > WEIGHT_FLOOR
        if shown.any():
            rgb[shown] = self.colour(self.app_feature(xyz[shown], t[shown]), directions[shown])
        return ((weights[..., None] * rgb).sum(-2) + (1.0 - weights.sum(-1)[..., None])).clamp(0, 1)

    def tv(self, kind: str) -> Tensor:
        return planes_variation(self.three(f"{kind}_plane"), self.three(f"{kind}_line_time"))

    def loss(self, rays: Tensor, rgb: Tensor, time: Tensor, tv_density: Tensor, tv_app: Tensor, jitter: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss and the terms it's the sum of: squared error, weighted variation of the density and of the appearance planes."""
        mse = (self.render(rays, time, jitter) - rgb).pow(2).mean()
        density_term, app_term = self.tv("density") * tv_density, self.tv("app") * tv_app
        return mse + density_term + app_term, mse, density_term, app_term

    forward = loss

    def loss_block(self, picture: Tensor, rgb: Tensor, tv_density: Tensor, tv_app: Tensor) -> Tensor:
        return (picture - rgb).pow(2).mean() + self.tv("density") * tv_density + self.tv("app") * tv_app


MASK_RADIUS = 0.48  # of half the box: with half of what lies inside filled, a tenth of all samples of `step_inputs` is


def unit(v: Tensor) -> Tensor:
    return v / v.norm(2, -1, True)


def step_inputs(scale: Scale, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """One whole step's: rays, rgb, time, the two TV weights, jitter. Cameras on a sphere of radius 4 look at the middle."""
    g = torch.Generator().manual_seed(seed)
    origin = unit(torch.randn(scale.rays, 3, generator=g)) * 4.0
    target = torch.rand(scale.rays, 3, generator=g) * 1.6 - 0.8
    rays = torch.cat([origin, unit(target - origin)], 1)
    rgb, time = torch.rand(scale.rays, 3, generator=g), torch.rand(scale.rays, 1, generator=g) * 2.0 - 1.0
    jitter = torch.rand(1, scale.samples, generator=g)
    return [t.to(dtype) for t in (rays, rgb, time, torch.tensor(TV_WEIGHT), torch.tensor(TV_WEIGHT), jitter)]


def points_on_rays(model: HexPlane, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Where a step looks up densities: xyz [M, 3] and t [M, 1], in the order of the rays."""
    rays, _, time, _, _, jitter = inputs
    points, _, inside = model.sample_rays(rays, jitter, jitter.shape[1])
    xyz = model.normalise(points)
    if model.emptiness is not None:
        inside = inside.clone()
        inside[inside.clone()] = model.occupied(xyz[inside])
    return xyz[inside].contiguous(), time[:, None].expand(-1, jitter.shape[1], 1)[inside].contiguous()


def adam(model: HexPlane, **options: object) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": model.planes(), "lr": PLANE_RATE}, {"params": model.network(), "lr": NETWORK_RATE}], **options)
