"""The trajectory as Beinlich's thesis fuses it by hand (section 6.2.2): one kernel, a block for an offset and a ray, a thread for a sample and an axis.

Law: the work is divided as in the thesis's listing 6.2, whose grid is 7 offsets x rays and whose block is 128 samples x 3 axes; it gives the forward alone.
The backward is the same division turned round: a block for a ray, a thread for a sample and an axis, which adds up the seven offsets; the basis's
gradient is a matrix product. On the CPU, for dry runs, the same numbers come from PyTorch.
"""

import functools

import torch
from torch import Tensor

OFFSETS, BASES, SAMPLES = 7, 6, 128
SOURCE = r"""
struct Frames { float* of[7]; };
struct Gradients { const float* of[7]; };

// Displacements [R, 128, 3] at 7 frames from coefficients [R, 128, 3, 6] and 7 rows of the basis.
extern "C" __global__ void thesis_forward(const float* __restrict__ rows, const float* __restrict__ coefficients, float* m3, float* m2, float* m1, float* at,
                                          float* p1, float* p2, float* p3) {
  const Frames frames = {{m3, m2, m1, at, p1, p2, p3}};
  const int offset = blockIdx.x, sample = blockIdx.y * 128 + threadIdx.x, axis = threadIdx.y;
  float sum = 0.0f;
  for (int k = 0; k < 6; ++k) sum += coefficients[sample * 18 + axis * 6 + k] * rows[offset * 6 + k];
  frames.of[offset][sample * 3 + axis] = sum;
}

// Gradients of the coefficients from those of the 7 displacements.
extern "C" __global__ void thesis_backward(const float* __restrict__ rows, float* __restrict__ d_coefficients, const float* m3, const float* m2, const float* m1,
                                           const float* at, const float* p1, const float* p2, const float* p3) {
  const Gradients gradients = {{m3, m2, m1, at, p1, p2, p3}};
  const int sample = blockIdx.x * 128 + threadIdx.x, axis = threadIdx.y;
  float sum[6] = {};
  for (int offset = 0; offset < 7; ++offset) {
    const float g = gradients.of[offset][sample * 3 + axis];
    for (int k = 0; k < 6; ++k) sum[k] += g * rows[offset * 6 + k];
  }
  for (int k = 0; k < 6; ++k) d_coefficients[sample * 18 + axis * 6 + k] = sum[k];
}
"""


@functools.cache
def kernel(name: str) -> object:
    return torch.cuda._compile_kernel(SOURCE, name)


class Trajectory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, coefficients: Tensor, basis: Tensor, frame: int) -> tuple[Tensor, ...]:
        rays = coefficients.shape[0]
        rows = basis[frame - 3:frame + 4]
        ctx.save_for_backward(coefficients, rows)
        ctx.frame, ctx.shape = frame, basis.shape
        if not coefficients.is_cuda:
            return tuple(torch.einsum("rsak,nk->nrsa", coefficients.view(rays, -1, 3, BASES), rows).contiguous().unbind(0))
        if coefficients.shape[1] != SAMPLES or coefficients.dtype != torch.float32 or not coefficients.is_contiguous():
            raise RuntimeError("expected float32, contiguous, 128 samples a ray")
        out = [coefficients.new_empty(rays, SAMPLES, 3) for _ in range(OFFSETS)]
        kernel("thesis_forward")(grid=(OFFSETS, rays, 1), block=(SAMPLES, 3, 1), args=[rows, coefficients, *out])
        return tuple(out)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        coefficients, rows = ctx.saved_tensors
        gradients = [g.contiguous() for g in gradients]
        if coefficients.is_cuda:
            d_coefficients = torch.empty_like(coefficients)
            kernel("thesis_backward")(grid=(coefficients.shape[0], 1, 1), block=(SAMPLES, 3, 1), args=[rows, d_coefficients, *gradients])
        else:
            d_coefficients = torch.einsum("nrsa,nk->rsak", torch.stack(gradients), rows).reshape(coefficients.shape)
        d_basis = coefficients.new_zeros(ctx.shape)
        d_basis[ctx.frame - 3:ctx.frame + 4] = torch.stack(gradients).view(OFFSETS, -1) @ coefficients.view(-1, BASES)
        return d_coefficients, d_basis, None


def trajectory(coefficients: Tensor, basis: Tensor, frame: int) -> dict[int, Tensor]:
    """As blocks.trajectory: coefficients [R, 128, 18], basis [F, 6] -> displacements [R, 128, 3] by offset."""
    return dict(zip(range(-3, 4), Trajectory.apply(coefficients, basis, frame)))
