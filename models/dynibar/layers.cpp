// Embeddings are written band by band, as the original does: merging them is the compiler's work.
#include "models/dynibar/layers.h"

#include <ATen/ATen.h>

#include <cmath>

namespace heddle::models {

at::Tensor periodic_embedding(const at::Tensor& x, const std::vector<double>& frequencies) {
    std::vector<at::Tensor> bands = {x};
    for (double f : frequencies) bands.push_back(at::cos(x * f));
    for (double f : frequencies) bands.push_back(at::sin(x * f));
    return at::cat(bands, -1);
}

std::vector<double> octaves(int64_t n) {
    std::vector<double> out;
    for (int64_t k = 0; k < n; ++k) out.push_back(std::ldexp(1.0, static_cast<int>(k)));
    return out;
}

Mlp::Mlp(const std::vector<int64_t>& widths, bool activated) : activated_(activated) {
    for (size_t i = 0; i + 1 < widths.size(); ++i)
        linears_.push_back(register_module(std::to_string(2 * i), torch::nn::Linear(widths[i], widths[i + 1])));
}

at::Tensor Mlp::forward(at::Tensor x) {
    for (size_t i = 0; i < linears_.size(); ++i) {
        x = linears_[i]->forward(x);
        if (activated_ || i + 1 < linears_.size()) at::elu_(x);
    }
    return x;
}

}  // namespace heddle::models
