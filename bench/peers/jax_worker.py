"""The column JAX: each block jitted by XLA for the CPU, forward and backward in one program. Arguments: folder, column."""

import jax
import jax.numpy as jnp
import numpy as np
from work import ADAM, ADAM_STEPS, arrays, wanted
from worker import serve

jax.config.update("jax_platforms", "cpu")


def look_up(plane, a, b):
    """Bilinear, within [-1, 1]: plane [1, C, H, W] -> [C, M]."""
    _, _, height, width = plane.shape
    x, y = (a + 1) * 0.5 * (width - 1), (b + 1) * 0.5 * (height - 1)
    i, j = jnp.clip(jnp.floor(x), 0, width - 2).astype(jnp.int32), jnp.clip(jnp.floor(y), 0, height - 2).astype(jnp.int32)
    u, v = x - i, y - j
    p = plane[0]
    return p[:, j, i] * ((1 - u) * (1 - v)) + p[:, j, i + 1] * (u * (1 - v)) + p[:, j + 1, i] * ((1 - u) * v) + p[:, j + 1, i + 1] * (u * v)


def density_feature(xyz, t, plane_0, plane_1, plane_2, line_0, line_1, line_2, basis_0, basis_1, basis_2):
    x, y, z, t = xyz[:, 0], xyz[:, 1], xyz[:, 2], t[:, 0]
    return ((look_up(plane_0, x, y) * look_up(line_0, t, z) * basis_0).sum(0) + (look_up(plane_1, x, z) * look_up(line_1, t, y) * basis_1).sum(0)
            + (look_up(plane_2, y, z) * look_up(line_2, t, x) * basis_2).sum(0))


def volume_rendering(sigma, dist, rgb, target):
    alpha = 1 - jnp.exp(-jax.nn.softplus(sigma - 10) * dist)
    passed = jnp.cumprod(jnp.concatenate([jnp.ones((alpha.shape[0], 1)), 1 - alpha + 1e-10], -1), -1)
    weights = alpha * passed[:, :-1]
    picture = (weights[..., None] * rgb).sum(-2) + (1 - weights.sum(-1)[..., None])
    return ((jnp.clip(picture, 0, 1) - target) ** 2).mean()


def trajectory(coefficients, basis):
    rays, samples, _ = coefficients.shape
    return jnp.einsum("rsdl,ol->orsd", coefficients.reshape(rays, samples, 3, -1), basis)  # faster here than products and sums


def loss_chain(sigma, dist):
    alpha = 1 - jnp.exp(-jax.nn.softplus(sigma - 10) * dist)
    return (jnp.sqrt((alpha - 0.3) ** 2 + 1e-6) * jax.nn.sigmoid(sigma * 0.1)).mean()


def positional_encoding(x, frequencies):
    phase = (x[..., None] * frequencies).reshape(x.shape[0], -1)
    return jnp.concatenate([x, jnp.sin(phase), jnp.cos(phase)], -1)


def differentiated(block):
    function, given, names = globals()[block], arrays(block), wanted(block)
    cotangents = [jnp.asarray(a) for name, a in given.items() if name.startswith("d_")]
    inputs = {name: jnp.asarray(a) for name, a in given.items() if not name.startswith("d_")}

    @jax.jit
    def both(inputs, cotangents):
        leaves = {name: inputs[name] for name in names}
        out, back = jax.vjp(lambda leaves: function(**(inputs | leaves)), leaves)
        return out, back(cotangents[0] if cotangents else jnp.ones_like(out))[0]

    forward = jax.jit(lambda inputs, _: (function(**inputs), {}))
    program = both if names else forward

    def run():
        return jax.block_until_ready(program(inputs, cotangents))

    def results():
        out, gradients = run()
        return {"output": np.asarray(out)} | {f"d {name}": np.asarray(g) for name, g in gradients.items()}

    return run, results


def adam(_):
    given = arrays("adam")
    count = len(given) // 2
    gradients = [jnp.asarray(given[f"gradient_{k}"]) for k in range(count)]
    state = [(jnp.asarray(given[f"parameter_{k}"]), jnp.zeros_like(g), jnp.zeros_like(g)) for k, g in enumerate(gradients)]
    steps = 0

    def one(p, m, v, g, size, root):
        m, v = ADAM["beta1"] * m + (1 - ADAM["beta1"]) * g, ADAM["beta2"] * v + (1 - ADAM["beta2"]) * g * g
        return p - size * m / (jnp.sqrt(v) / root + ADAM["epsilon"]), m, v

    step = jax.jit(lambda state, gradients, size, root: [one(*s, g, size, root) for s, g in zip(state, gradients)], donate_argnums=0)

    def run():
        nonlocal state, steps
        steps += 1
        state = jax.block_until_ready(step(state, gradients, ADAM["rate"] / (1 - ADAM["beta1"] ** steps), (1 - ADAM["beta2"] ** steps) ** 0.5))

    def results():
        for _ in range(ADAM_STEPS):
            run()
        return {f"{kind} {k}": np.asarray(s[i]) for i, kind in enumerate(("parameter", "first", "second")) for k, s in enumerate(state)}

    return run, results


def column(block):
    if block == "iteration":
        raise NotImplementedError("not written for JAX")
    return adam(block) if block == "adam" else differentiated(block)


serve(column)
