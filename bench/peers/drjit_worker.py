"""The column Dr.Jit (LLVM): arrays per coordinate, its own layout; turning inputs into it is not timed. Arguments: folder, column, threads."""

import sys

import drjit as dr
import numpy as np
from drjit.llvm.ad import Float
from work import ADAM, ADAM_STEPS, BASES, FRAMES, SAMPLES, arrays
from worker import serve


def of(a: np.ndarray) -> Float:
    return Float(np.ascontiguousarray(a.ravel()))


def leaf(x: Float) -> Float:
    x = Float(dr.detach(x))
    dr.enable_grad(x)
    return x


def trajectory():
    given = arrays("trajectory")
    rays, samples, width = given["coefficients"].shape
    coefficients = [of(given["coefficients"].reshape(-1, width)[:, k]) for k in range(width)]
    basis = [Float(float(v)) for v in given["basis"].ravel()]
    for b in basis:
        dr.make_opaque(b)
    cotangents = [of(given["d_points"].reshape(FRAMES, -1, 3)[f, :, k]) for f in range(FRAMES) for k in range(3)]
    dr.eval(coefficients, cotangents, basis)

    def compute():
        c, b, out = [leaf(x) for x in coefficients], [leaf(x) for x in basis], []
        for f in range(FRAMES):
            for k in range(3):
                total = Float(0)
                for i in range(BASES):
                    total = dr.fma(c[k * BASES + i], b[f * BASES + i], total)
                out.append(total)
        for x, g in zip(out, cotangents):
            dr.set_grad(x, g)
        dr.enqueue(dr.ADMode.Backward, *out)
        dr.traverse(dr.ADMode.Backward)
        gradients = [dr.grad(x) for x in c], [dr.grad(x) for x in b]
        dr.eval(out, *gradients)
        return out, *gradients

    def results():
        out, dc, db = compute()
        points = np.stack([np.stack([out[f * 3 + k].numpy() for k in range(3)], -1) for f in range(FRAMES)]).reshape(FRAMES, rays, samples, 3)
        return {"output": points, "d coefficients": np.stack([x.numpy() for x in dc], -1).reshape(rays, samples, width),
                "d basis": np.array([x.numpy()[0] for x in db]).reshape(FRAMES, BASES)}

    return compute, results


def loss_chain():
    given = arrays("loss_chain")
    sigma, dist = of(given["sigma"]), of(np.broadcast_to(given["dist"], given["sigma"].shape))
    dr.eval(sigma, dist)

    def compute():
        s = leaf(sigma)
        z = s - 10
        softplus = dr.maximum(z, 0) + dr.log(1 + dr.exp(-dr.abs(z)))
        alpha = 1 - dr.exp(-softplus * dist)
        loss = dr.mean(dr.sqrt((alpha - 0.3) ** 2 + 1e-6) * dr.rcp(1 + dr.exp(-s * 0.1)))
        dr.backward(loss)
        gradient = dr.grad(s)
        dr.eval(loss, gradient)
        return loss, gradient

    def results():
        loss, gradient = compute()
        return {"output": loss.numpy().reshape(()), "d sigma": gradient.numpy().reshape(-1, SAMPLES)}

    return compute, results


def positional_encoding():
    given = arrays("positional_encoding")
    x, frequencies = [of(given["x"][:, k]) for k in range(4)], [float(f) for f in given["frequencies"]]
    dr.eval(x)

    def compute():
        pairs = [dr.sincos(v * f) for v in x for f in frequencies]
        dr.eval(pairs)
        return pairs

    def results():
        pairs = compute()
        return {"output": np.concatenate([given["x"], np.stack([s.numpy() for s, _ in pairs], -1), np.stack([c.numpy() for _, c in pairs], -1)], -1)}

    return compute, results


def adam():
    given = arrays("adam")
    count = len(given) // 2
    shapes = [given[f"parameter_{k}"].shape for k in range(count)]
    gradients = [of(given[f"gradient_{k}"]) for k in range(count)]
    state = [[of(given[f"parameter_{k}"]), dr.zeros(Float, g.shape[0]), dr.zeros(Float, g.shape[0])] for k, g in enumerate(gradients)]
    dr.eval(state, gradients)
    steps = [0]

    def compute():
        steps[0] += 1
        size, root = Float(ADAM["rate"] / (1 - ADAM["beta1"] ** steps[0])), Float((1 - ADAM["beta2"] ** steps[0]) ** 0.5)
        dr.make_opaque(size, root)
        for s, g in zip(state, gradients):
            s[1] = ADAM["beta1"] * s[1] + (1 - ADAM["beta1"]) * g
            s[2] = ADAM["beta2"] * s[2] + (1 - ADAM["beta2"]) * g * g
            s[0] = s[0] - size * s[1] / (dr.sqrt(s[2]) / root + ADAM["epsilon"])
        dr.eval(state)

    def results():
        for _ in range(ADAM_STEPS):
            compute()
        return {f"{kind} {k}": s[i].numpy().reshape(shapes[k]) for i, kind in enumerate(("parameter", "first", "second")) for k, s in enumerate(state)}

    return compute, results


def column(block):
    make = {"trajectory": trajectory, "loss_chain": loss_chain, "positional_encoding": positional_encoding, "adam": adam}.get(block)
    if make is None:
        raise NotImplementedError("not written for Dr.Jit")
    compute, results = make()

    def run():
        compute()
        dr.sync_thread()

    return run, results


dr.set_thread_count(int(sys.argv[3]))
serve(column)
