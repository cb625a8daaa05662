// Volume rendering of one component, and of a static and a dynamic one along the same samples.
// Law: an interval's length doesn't count, except that the last sample's is endless; what a ray's losses may trust is in its mask.
// Source: DynIBaR section 3.3, equations 5 to 7; NeRF (Mildenhall et al. 2020), equation 3.
#pragma once

#include <ATen/core/Tensor.h>

namespace heddle::models {

struct Rendering {
    at::Tensor rgb;      // [R, 3]
    at::Tensor depth;    // [R]
    at::Tensor weights;  // [R, S]
    at::Tensor mask;     // [R], bool: more than 8 samples are valid
};

// Which rays [R] have more than 8 of their samples valid [R, S].
at::Tensor enough(const at::Tensor& valid);

// raw [R, S, 4]: colours, density before the softplus; depth [R, S]; valid [R, S], bool.
Rendering render(const at::Tensor& raw, const at::Tensor& depth, const at::Tensor& valid);

// Both: `rgb`, `depth` and `weights` of the whole, and the parts that add up to it.
struct Composite : Rendering {
    at::Tensor rgb_static, rgb_dynamic;          // [R, 3]
    at::Tensor weights_static, weights_dynamic;  // [R, S]
};

Composite composite(const at::Tensor& raw_dynamic, const at::Tensor& raw_static, const at::Tensor& depth,
                    const at::Tensor& valid_dynamic, const at::Tensor& valid_static);

}  // namespace heddle::models
