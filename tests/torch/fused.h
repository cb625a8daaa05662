// A callable fused and eager, side by side. Law: eager runs in float64, and the fused one must agree in every type it is asked for.
#pragma once
#include <torch/csrc/autograd/autograd.h>

#include "frontends/torch/fuse.h"
#include "tests/torch/close.h"

namespace heddle::testing {

inline at::Tensor real(std::vector<std::int64_t> s, at::ScalarType t = at::kDouble, bool grad = true) { return (at::rand(s, at::kDouble) * 1.5 + 0.25).to(t).set_requires_grad(grad); }
inline Fused strict(Callable f, const Tensors& example, std::vector<Varying> dynamic = {}) {
    return fuse(std::move(f), example, {.dynamic = std::move(dynamic), .name = "f", .eager_if_uncapturable = false});
}
inline std::vector<Varying> rows(int inputs = 1) {
    std::vector<Varying> v;
    for (int i = 0; i < inputs; ++i) v.push_back({.input = i, .tensor = {}, .dim = 0, .name = "B"});
    return v;
}
inline at::Tensor leaf(const at::Tensor& t, at::ScalarType type) { return t.detach().to(at::isFloatingType(t.scalar_type()) ? type : t.scalar_type()).clone().set_requires_grad(t.requires_grad()); }
inline Tensors leaves(const Tensors& in, at::ScalarType type) {
    Tensors out;
    for (const auto& t : in) out.push_back(leaf(t, type));
    return out;
}
// Gradients for each input, of the outputs in `which` (all that require grad if empty), seeded alike for all callers.
inline Tensors gradients(const Tensors& outs, const Tensors& in, const std::vector<std::size_t>& which = {}) {
    Tensors used, seeds, wanted;
    for (std::size_t k = 0; k < outs.size(); ++k)
        if (outs[k].requires_grad() && (which.empty() || std::find(which.begin(), which.end(), k) != which.end()))
            used.push_back(outs[k]), seeds.push_back(at::sin(at::arange(outs[k].numel(), at::kDouble) + static_cast<double>(k + 1)).reshape(outs[k].sizes()).to(outs[k].scalar_type()));
    for (const auto& t : in)
        if (t.requires_grad()) wanted.push_back(t);
    if (used.empty()) return Tensors(wanted.size());
    return torch::autograd::grad(used, wanted, seeds, true, false, true);
}
// Fused in `type` against eager in float64: values, which outputs require grad, gradients, None.
inline void check(const std::string& what, const Callable& f, const Tensors& example, const Tensors& in, std::int64_t reduction = 1, std::vector<Varying> dynamic = {}, const std::vector<std::size_t>& which = {},
           std::vector<at::ScalarType> types = {at::kDouble, at::kFloat}) {
    for (auto type : types) {
        SCOPED_TRACE(what + " " + c10::toString(type));
        Fused g = strict(f, leaves(example, type), dynamic);
        Tensors exact = leaves(in, at::kDouble), mine = leaves(leaves(in, type), type);
        if (type != at::kDouble) exact = leaves(leaves(in, type), at::kDouble);
        Tensors want = f(exact), got = g(mine);
        ASSERT_EQ(want.size(), got.size());
        for (std::size_t k = 0; k < want.size(); ++k) {
            expect_near(got[k], want[k], reduction, "output " + std::to_string(k));
            EXPECT_EQ(got[k].requires_grad(), want[k].requires_grad()) << "output " << k;
        }
        Tensors a = gradients(want, exact, which), b = gradients(got, mine, which);
        for (std::size_t k = 0; k < a.size(); ++k) expect_near(b[k], a[k], reduction, "gradient " + std::to_string(k));
    }
}
inline std::string error_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const std::exception& e) {
        return e.what();
    }
    return "none";
}

}  // namespace heddle::testing
