"""Inputs for bench/dynibar.py: a whole step's, and the parts of a step as functions of tensors.

Law: made from a seed, in float32, so that every element type computes on the same numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dynibar import (FLOW_OFFSETS, REACH, Dynibar, Prediction, Scale, StepInputs, Views, composite, cosine_basis, losses, motion, project, render, sample_rays,
                     sample_views)
from dynibar_nets import pooled_views


def step_inputs(scale: Scale, seed: int = 0) -> list[Tensor]:
    """One whole step's, in float32: noise seen by cameras on a line, of which each is turned a little; the anchor is the next frame."""
    g = torch.Generator().manual_seed(seed)
    r, h, w = scale.rays, scale.height, scale.width

    def rand(*sizes: int) -> Tensor:
        return torch.rand(*sizes, generator=g)

    def views(frames: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        n = len(frames)
        intrinsics, to_world = torch.eye(4).repeat(n, 1, 1), torch.eye(4).repeat(n, 1, 1)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 0.9 * w
        intrinsics[:, 0, 2], intrinsics[:, 1, 2] = 0.5 * (w - 1), 0.5 * (h - 1)
        angle = 0.1 * rand(n) - 0.05
        to_world[:, 0, 0] = to_world[:, 2, 2] = angle.cos()
        to_world[:, 2, 0], to_world[:, 0, 2] = angle.sin(), -angle.sin()
        to_world[:, 0, 3] = 2.0 * torch.tensor(frames) / (scale.frames - 1) - 1.0
        return rand(n, 3, h, w), intrinsics, to_world

    frame = scale.frames // 2
    anchor, more = frame + 1, [0] * scale.virtual_views
    anchor_offsets = [d for d in range(-REACH, REACH + 1) if d != -1 and 0 <= anchor + d < scale.frames]
    pairs = [k for k, d in enumerate(anchor_offsets) if abs(anchor + d - frame) <= REACH]
    pixel = torch.stack([torch.randint(n, (r,), generator=g).float() for n in (w, h)], 1)
    in_camera = torch.cat([(pixel - torch.tensor([0.5 * (w - 1), 0.5 * (h - 1)])) / (0.9 * w), torch.ones(r, 1)], 1)
    eye = torch.tensor([2.0 * frame / (scale.frames - 1) - 1.0, 0.0, 0.0])
    far = [round(k) for k in torch.linspace(0, scale.frames - 1, scale.static_views).tolist()]
    static_images, *static_cameras = views(far)
    static_images[..., :w // 3] = 0
    return [eye.expand(r, 3).contiguous(), in_camera, pixel, rand(r, 3), 1 / (2 + 8 * rand(r)), (pixel[:, 0] < w // 3).float(), (pixel[:, 0] < w // 2).float(),
            4 * rand(6, r, 2) - 2, (rand(6, r, 1) < 0.8).float(), torch.tensor([1.0, 12.0]), eye, *views([frame + d for d in FLOW_OFFSETS] + [frame] * len(more)),
            *views([anchor + d for d in anchor_offsets] + [anchor] * len(more)), static_images, *static_cameras,
            *(torch.tensor([f / scale.frames], dtype=torch.float64) for f in (frame, anchor)), torch.tensor([frame]), torch.tensor([anchor]),
            torch.tensor([*FLOW_OFFSETS, *more]), torch.tensor(anchor_offsets + more), torch.tensor(pairs), torch.tensor(1.0), torch.tensor(0.1), rand(r, scale.samples)]


def to(inputs: list[Tensor], dtype: torch.dtype, device: torch.device | str = "cpu") -> list[Tensor]:
    """float32 in that dtype; moments stay float64, indices whole."""
    return [t.to(device, dtype if t.dtype == torch.float32 else t.dtype) for t in inputs]


def parts(scale: Scale, seed: int = 0) -> dict[str, tuple[Callable, list[Tensor]]]:
    """Functions of tensors, with inputs in float32, of which those require a gradient that one flows to in a step."""
    g = torch.Generator().manual_seed(seed + 1)
    flat = step_inputs(scale, seed)
    i, model = StepInputs.of(flat), Dynibar(scale, seed)
    r, s, v, n = scale.rays, scale.samples, len(i.offsets), len(i.pairs)
    points, depth, positions = sample_rays(i.ray_o, i.ray_d, i.depth_range, s, i.jitter)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=g)

    def raw() -> Tensor:
        return torch.cat([torch.rand(r, s, 3, generator=g), 2 * normal(r, s, 1) - 2], -1)

    def valid() -> Tensor:
        return torch.rand(r, s, generator=g) < 0.9

    def leaves(ts: list[Tensor]) -> list[Tensor]:
        return [t.detach().clone().requires_grad_() for t in ts]

    def trajectory(coefficients: Tensor, basis: Tensor, points: Tensor, frame: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        paths, moved = motion(points, coefficients, basis, frame, offsets)
        return moved, paths[1:] - paths[:-1]

    def projection(points: Tensor, features: Tensor, images: Tensor, intrinsics: Tensor, to_world: Tensor) -> tuple[Tensor, Tensor]:
        pixels, visible = project(points, Views(images, intrinsics, to_world))
        return sample_views(pixels, images, features[:, :scale.channels]), visible

    def compositing(raw_dynamic: Tensor, raw_static: Tensor, depth: Tensor, valid_dynamic: Tensor, valid_static: Tensor) -> list[Tensor]:
        return [*composite(raw_dynamic, raw_static, depth, valid_dynamic, valid_static), *render(raw_dynamic, depth, valid_dynamic)]

    def loss_block(*flat: Tensor) -> list[Tensor]:
        return losses(Prediction.of(flat[:32]), StepInputs.of(flat[32:]))

    names, network = zip(*((name, p.detach().clone().requires_grad_()) for name, p in model.feature_net.named_parameters()
                           if not name.startswith(("layer2", "layer3", "upconv", "iconv"))))

    def feature_net(images: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(model.feature_net, dict(zip(names, parameters)), (images,))

    raws, valids = [raw() for _ in range(3)], [valid() for _ in range(3)]
    here, anchor = composite(raws[0], raws[1], depth, valids[0], valids[1]), composite(raws[2], raws[1], depth, valids[2], valids[1])
    alone, anchor_alone = render(raws[0], depth, valids[0]), render(raws[2], depth, valids[2])
    path = normal(n, r, s, 3)
    rendered = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in (*here, *anchor, *alone, *anchor_alone)]
    fixed = [positions, *leaves([normal(6, r, 2)]), torch.rand(r, s, generator=g), torch.rand(r, generator=g), torch.rand(r, generator=g)]
    moves = leaves([0.1 * normal(6, r, s, 3), path, path + 0.1 * normal(n, r, s, 3)])
    return {"trajectory": (trajectory, [*leaves([0.1 * normal(r, s, 3 * scale.basis), cosine_basis(scale.frames, scale.basis), points]), i.frame, i.offsets]),
            "losses": (loss_block, [*rendered, *fixed, *moves, *flat]),
            "compositing": (compositing, [*leaves([raws[0], raws[1]]), depth, valids[0], valids[1]]),
            "projection": (projection, [*leaves([points[None] + 0.05 * normal(v, r, s, 3), normal(v, 2 * scale.channels, (scale.height + 3) // 4, (scale.width + 3) // 4)]),
                                        *i.sources]),
            "pooling": (pooled_views, [*leaves([normal(r, s, v, scale.channels + 3)]), (torch.rand(r, s, v, 1, generator=g) < 0.8).float()]),
            "feature_net": (feature_net, [i.sources.images, *network])}
