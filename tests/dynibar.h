// What the tests of DynIBaR share: random tensors in float64, comparisons, a small model.
#pragma once
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include "models/dynibar/parts.h"
#include "models/error.h"

namespace heddle::models {

using at::Tensor;
using Tensors = std::vector<Tensor>;

inline Tensor uniform(std::vector<int64_t> sizes, double low = 0, double high = 1) {
    return at::rand(sizes, at::kDouble) * (high - low) + low;
}
inline double number(const Tensor& t) { return t.item<double>(); }
inline bool near(const Tensor& a, const Tensor& b, double tolerance = 1e-12) {
    return a.sizes() == b.sizes() && at::allclose(a.to(at::kDouble), b.to(at::kDouble), tolerance, tolerance);
}
inline std::string message_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}
inline std::shared_ptr<Dynibar> make(at::ScalarType type = at::kDouble, bool moving = true) {
    torch::manual_seed(3);
    auto model = std::make_shared<Dynibar>(dynibar_config("tiny"));
    if (moving) stir(*model, 4);
    model->to(type);
    return model;
}
// Gradients of a number against central differences in a random direction, for each input.
inline void check_gradients(const std::function<Tensor(const Tensors&)>& f, const Tensors& at_point,
                            double tolerance = 1e-6) {
    Tensors x;
    for (const auto& t : at_point) x.push_back(t.detach().clone().requires_grad_());
    const auto got = torch::autograd::grad({f(x)}, x);
    for (size_t k = 0; k < x.size(); ++k) {
        const torch::NoGradGuard no_grad;
        const auto along = at::randn_like(x[k]);
        const double step = 1e-6;
        auto up = x, down = x;
        up[k] = x[k] + step * along, down[k] = x[k] - step * along;
        const double want = (number(f(up)) - number(f(down))) / (2 * step);
        EXPECT_NEAR(number((got[k] * along).sum()), want, tolerance * std::max(1.0, std::abs(want))) << "input " << k;
    }
}
// A number that depends on all elements of a tensor, each in its own way.
inline Tensor mixed(const Tensor& t) {
    return (t * at::sin(at::arange(t.numel(), at::kDouble) + 1).view(t.sizes())).sum();
}

}  // namespace heddle::models
