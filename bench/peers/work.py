"""What all columns of bench/peers.py compute: the inputs of each block, as arrays, and the names of what comes out.

Law: numpy alone, so that every peer's Python can read it; inputs depend on the block's name and the scale alone.
"""

import zlib

import numpy as np

FRAMES, BASES, SAMPLES, FREQUENCIES = 7, 6, 221, 16
ADAM = {"rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
ADAM_STEPS = 3  # after which parameters and moments are compared

# block: (what is measured, what it's counted in)
BLOCKS = {
    "density_feature": "six planes of 24 channels looked up on rays, multiplied, summed; forward and backward",
    "volume_rendering": "opacity, transmittance, picture and squared error, 221 samples a ray; forward and backward",
    "trajectory": "7 frames x 3 axes from 18 coefficients and 6 bases; forward and backward",
    "loss_chain": "softplus, exp, Charbonnier, sigmoid, mean; forward and backward",
    "positional_encoding": "sine and cosine of 4 coordinates at 16 frequencies; forward",
    "adam": "one step of Adam over HexPlane's 22 tensors, 4.65 M parameters",
    "iteration": "HexPlane at the start of training: render, loss, backward, Adam (fused in every column)",
}
# Of the step that the thesis profiled, 64 rays of 128 samples; their inputs are made by bench/dynibar_parts.py, for PyTorch's columns alone.
DYNIBAR = {
    "dynibar_trajectory": "7 frames x 3 axes from 18 coefficients and 6 bases, points displaced to 9 views, scene flow; forward and backward",
    "dynibar_losses": "all losses of the phase `moving` and their weights; forward and backward",
    "dynibar_compositing": "both parts along a ray together, and the dynamic one alone; forward and backward",
    "dynibar_projection": "points into 9 views, colours and 32 features looked up there; forward and backward",
    "dynibar_pooling": "weighted mean and variance over 9 views, 35 channels; forward and backward",
    "dynibar_feature_net": "the CNN over 9 pictures of 512 x 288; forward and backward",
    "dynibar_iteration": "a whole step: CNNs, rendering at two moments, losses, backward, Adam (fused in every column)",
}


def arrays(block: str, scale: float = 1.0) -> dict[str, np.ndarray]:
    """float32; what is named `d_...` is the cotangent of an output. Those in `wanted` get a gradient."""
    g = np.random.default_rng(zlib.crc32(block.encode()))

    def n(size: int) -> int:
        return max(2, round(size * scale))

    def normal(*shape: int) -> np.ndarray:
        return g.standard_normal(shape, dtype=np.float32)

    def uniform(*shape: int) -> np.ndarray:
        return g.random(shape, dtype=np.float32)

    if block == "density_feature":
        rays, samples = n(1024), 96  # in the box, marching: neighbours look up the same cells, as in HexPlane
        direction = normal(rays, 1, 3)
        direction *= 0.012 / np.linalg.norm(direction, axis=-1, keepdims=True)
        xyz = np.clip(uniform(rays, 1, 3) * 1.6 - 0.8 + direction * np.arange(samples, dtype=np.float32)[None, :, None], -1, 1).reshape(-1, 3)
        t = np.broadcast_to(uniform(rays, 1) * 2 - 1, (rays, samples)).reshape(-1, 1).copy()
        tables = {f"plane_{i}": 0.1 * normal(1, 24, 64, 64) for i in range(3)} | {f"line_{i}": 0.1 * normal(1, 24, 64, 16) for i in range(3)}
        tables |= {f"basis_{i}": 1 + 0.1 * normal(24, 1) for i in range(3)}
        return {"xyz": xyz.astype(np.float32), "t": t, **tables, "d_feature": normal(rays * samples)}
    if block == "volume_rendering":
        rays = n(4096)
        dist = np.full((1, SAMPLES), 25 * 4 / SAMPLES, np.float32)
        return {"sigma": normal(rays, SAMPLES) * 3 + 8, "dist": dist, "rgb": uniform(rays, SAMPLES, 3), "target": uniform(rays, 3)}
    if block == "trajectory":
        rays = n(1536)
        return {"coefficients": normal(rays, 64, 3 * BASES), "basis": normal(FRAMES, BASES), "d_points": normal(FRAMES, rays, 64, 3)}
    if block == "loss_chain":
        return {"sigma": normal(n(4096), SAMPLES) * 3 + 8, "dist": np.full((1, SAMPLES), 25 * 4 / SAMPLES, np.float32)}
    if block == "positional_encoding":
        return {"x": normal(n(98304), 4), "frequencies": (2.0 ** np.linspace(0, 6, FREQUENCIES)).astype(np.float32)}
    if block == "adam":
        shapes = [(c, n(136), w) for c in (24, 48) for w in (n(136), n(21)) for _ in range(3)]
        shapes += [(24, 1)] * 3 + [(27, 144), (128, 150), (128,), (128, 128), (128,), (3, 128), (3,)]
        return {f"{kind}_{k}": normal(*shape) for kind in ("parameter", "gradient") for k, shape in enumerate(shapes)}
    raise KeyError(block)


def wanted(block: str) -> list[str]:
    """Inputs whose gradients are computed and compared."""
    return {"density_feature": [f"{kind}_{i}" for kind in ("plane", "line", "basis") for i in range(3)], "volume_rendering": ["sigma", "rgb"],
            "trajectory": ["coefficients", "basis"], "loss_chain": ["sigma"]}.get(block, [])
