// What several of DynIBaR's networks are made of: small perceptrons with ELU, and periodic embeddings.
// Law: constants follow the inputs' dtype; activations overwrite what only they read.
#pragma once

#include <torch/nn/modules/linear.h>

#include <vector>

namespace heddle::models {

// x, cos(f x) for each frequency f, sin(f x) for each: [..., C] -> [..., C * (1 + 2 * frequencies)].
at::Tensor periodic_embedding(const at::Tensor& x, const std::vector<double>& frequencies);

// 1, 2, 4, ... 2^(n-1).
std::vector<double> octaves(int64_t n);

// Linear layers of these widths with ELU between them, and after the last one if `activated`. Parameters are named as in
// a sequence of layers and activations: 0.weight, 2.weight, ...
class Mlp : public torch::nn::Module {
public:
    explicit Mlp(const std::vector<int64_t>& widths, bool activated = true);
    at::Tensor forward(at::Tensor x);

private:
    std::vector<torch::nn::Linear> linears_;
    bool activated_;
};

}  // namespace heddle::models
