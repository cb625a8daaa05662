"""The networks of bench/dynibar.py: DynIBaR's CNN, its motion MLP, and the two that make colours and densities of what views show.

Law: parameters under the names of models/dynibar; what is registered and never called is so there, too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEVER = -1e9  # before a softmax or a softplus
WIDTH, HEADS, STILL = 128, 4, 0.1
MOTION_FREQUENCIES = [1 + i * 16 / 15 for i in range(16)]


def embedding(x: Tensor, frequencies: list[float]) -> Tensor:
    return torch.cat([x, *(torch.cos(x * f) for f in frequencies), *(torch.sin(x * f) for f in frequencies)], -1)


def octaves(n: int) -> list[float]:
    return [2.0**k for k in range(n)]


def mlp(*widths: int, activated: bool = True) -> nn.Sequential:
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ELU(inplace=True))]
    return nn.Sequential(*layers[:None if activated else -1])


def shares(weight: Tensor) -> Tensor:
    return weight / (weight.sum(2, True) + 1e-8)


def mean_and_variance(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (x * weight).sum(2, True)
    return mean, (weight * (x - mean).pow(2)).sum(2, True)


def pooled_views(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each view's share, and its features behind the mean and variance of all: [R, S, V, 3 C]."""
    weight = shares(mask)
    together = torch.cat(mean_and_variance(features, weight), -1).expand(-1, -1, features.shape[2], -1)
    return weight, torch.cat([together, features], -1)


class RayAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.layer_norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x: Tensor, queries: Tensor) -> Tensor:
        r, s, c = x.shape
        query, key, value = (w(x).view(r, s, HEADS, c // HEADS).transpose(1, 2) for w in (self.w_qs, self.w_ks, self.w_vs))
        scores = torch.matmul(query / math.sqrt(c // HEADS), key.transpose(2, 3)).masked_fill(queries[:, None] == 0, NEVER)
        out = self.fc(torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2).contiguous().view(r, s, -1))
        return self.layer_norm(out + x)


class ViewAggregation(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.base_fc, self.vis_fc, self.vis_fc2 = mlp(3 * features, 256, WIDTH), mlp(WIDTH, WIDTH, WIDTH + 1), mlp(WIDTH, WIDTH, 1, activated=False)
        self.geometry_fc, self.out_geometry_fc = mlp(2 * WIDTH + 1, 256, WIDTH), mlp(WIDTH, WIDTH, 1, activated=False)
        self.ray_attention = RayAttention()

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, x = pooled_views(features, mask)
        x = self.base_fc(x)
        seen = self.vis_fc(x * weight)
        guess = torch.sigmoid(seen[..., WIDTH:]) * mask
        x = x + seen[..., :WIDTH]
        visible = torch.sigmoid(self.vis_fc2(x * guess)) * mask
        share = shares(visible)
        mean, variance = mean_and_variance(x, share)
        return x, visible, self.geometry_fc(torch.cat([mean.squeeze(2), variance.squeeze(2), share.mean(2)], -1))


class DynamicNet(ViewAggregation):
    def __init__(self, channels: int, samples: int, density_shift: float) -> None:
        super().__init__(channels + 3)
        self.shift = density_shift
        self.ray_dir_fc, self.ref_pts_fc = mlp(21, 256, channels + 3), mlp(33 + WIDTH, 256, WIDTH)
        self.rgb_fc = mlp(WIDTH + 27, WIDTH, 64, 3, activated=False)
        channel = torch.arange(WIDTH, dtype=torch.float64)
        phase = torch.arange(samples, dtype=torch.float64)[:, None] * 10000.0 ** (-2 * torch.floor(channel / 2) / WIDTH)
        self.register_buffer("pos_encoding", torch.where(channel % 2 == 0, torch.sin(phase), torch.cos(phase))[None].float())

    def forward(self, points: Tensor, rgb_feat: Tensor, ray_d: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        r, s, v, _ = rgb_feat.shape
        moments = embedding(time.view(1, 1, 1).repeat(r, s, 1), octaves(10))[:, :, None].repeat(1, 1, v, 1).to(points.dtype)
        geometry = self.pool(rgb_feat + self.ray_dir_fc(moments), mask)[2]
        seeing = mask.sum(2)
        along = self.ray_attention(geometry + self.pos_encoding, (seeing > 1).to(points.dtype))
        geometry = self.ref_pts_fc(torch.cat([along, embedding(points, octaves(5))], -1))
        sigma = (self.out_geometry_fc(geometry) - self.shift).masked_fill(seeing < 1, NEVER)
        direction = embedding(ray_d, octaves(4))[:, None].repeat(1, s, 1)
        rgb = torch.sigmoid(self.rgb_fc(torch.cat([geometry, direction], -1)))
        return torch.cat([rgb.masked_fill(mask.repeat(1, 1, 1, 3).sum(2) == 0, 0), sigma], -1)


class StaticNet(ViewAggregation):
    def __init__(self, channels: int) -> None:
        super().__init__(2 * (channels + 3))
        self.ray_dir_fc, self.ref_feature_fc = mlp(33 + 66 + 4, 256, channels + 3, activated=False), mlp(66, channels + 3, activated=False)
        self.rgb_fc = mlp(2 * WIDTH + 1 + 4, WIDTH, 64, 1, activated=False)

    def forward(self, points: Tensor, target_rays: Tensor, source_rays: Tensor, rgb_feat: Tensor, angles: Tensor, visible_mask: Tensor) -> Tensor:
        _, s, v, _ = source_rays.shape
        point = embedding(points, octaves(5))[:, :, None].expand(-1, -1, v, -1)
        from_source = self.ray_dir_fc(torch.cat([point, embedding(source_rays, octaves(5)), angles], -1))
        from_target = self.ref_feature_fc(embedding(target_rays, octaves(5))[:, None, None].expand(-1, s, v, -1))
        rgb_in = rgb_feat[..., :3]
        mask = visible_mask * (rgb_in.sum(-1, True) > 1e-3).to(points.dtype).detach()
        views, visible, geometry = self.pool(torch.cat([rgb_feat, from_source * from_target], -1), mask)
        seeing = mask.sum(2)
        geometry = self.ray_attention(geometry, (seeing > 1).to(points.dtype))
        sigma = self.out_geometry_fc(geometry).masked_fill(seeing < 1, NEVER)
        each = torch.cat([geometry[:, :, None].expand(-1, -1, v, -1), views, visible, angles], -1)
        blend = torch.softmax(self.rgb_fc(each).masked_fill(mask == 0, NEVER), 2)
        return torch.cat([(rgb_in * blend).sum(2), sigma], -1)


def convolution(a: int, b: int, edge: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(a, b, edge, stride, edge // 2, bias=bias, padding_mode="reflect")


def norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)


class ResidualBlock(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.bn1, self.bn2 = convolution(a, b, 3, stride), convolution(b, b, 3), norm(b), norm(b)
        if stride != 1 or a != b:
            self.downsample_conv, self.downsample_bn = convolution(a, b, 1, stride), norm(b)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        return F.relu_(out + (self.downsample_bn(self.downsample_conv(x)) if hasattr(self, "downsample_conv") else x))


class FeatureNet(nn.Module):
    """As in the original, the layers after the stem are registered though nothing calls them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv1, self.out_conv, self.bn1 = convolution(3, 64, 7, 2), convolution(2 * channels, 2 * channels, 1, bias=True), norm(64)
        for k, (a, b, count) in enumerate(((64, 2 * channels, 3), (64, 128, 4), (128, 256, 6)), 1):
            self.add_module(f"layer{k}", nn.ModuleList(ResidualBlock(a if i == 0 else b, b, 2 if i == 0 else 1) for i in range(count)))
        for name, a, b in (("upconv3", 256, 128), ("iconv3", 256, 128), ("upconv2", 128, 64), ("iconv2", 128, 2 * channels)):
            self.add_module(name, nn.ModuleDict({"conv": convolution(a, b, 3, bias=True), "bn": norm(b)}))

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(images)))
        for block in self.layer1:
            x = block(x)
        return self.out_conv(x)[:, :self.channels]


class MotionMlp(nn.Module):
    def __init__(self, basis: int) -> None:
        super().__init__()
        for i in range(8):
            self.add_module(f"linear_{i}", nn.Linear(132 if i == 0 else 256 + 132 if i == 5 else 256, 256))
        self.coeff_linear = nn.Linear(256, 3 * basis)

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        r, s, _ = points.shape
        x = h = embedding(torch.cat([points, time.view(1, 1, 1).repeat(r, s, 1)], -1).to(points.dtype), MOTION_FREQUENCIES)
        for i in range(8):
            h = F.relu(getattr(self, f"linear_{i}")(h))
            if i == 4:
                h = torch.cat([x, h], -1)
        coefficients = self.coeff_linear(h)
        coefficients[:, s - round(STILL * s):].mul_(0.0)
        return coefficients
