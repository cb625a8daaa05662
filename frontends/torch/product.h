// Products of matrices, by the library that is fastest for them on this machine.
// Law: the arithmetic is that of ATen's product in the same dtype; what no other library is known to be faster at goes to ATen.
#pragma once
#include <ATen/core/Tensor.h>

namespace heddle {

// result = a x b, of [M, K] and [K, N] or of batches [B, M, K] and [B, K, N], into memory that is there. Nothing is recorded by autograd.
void product(at::Tensor& result, const at::Tensor& a, const at::Tensor& b);
// result = a x b + row, of [M, K], [K, N] and [N]; then relu, as PyTorch's: a NaN stays.
void linear(at::Tensor& result, const at::Tensor& row, const at::Tensor& a, const at::Tensor& b, bool relu);

}  // namespace heddle
