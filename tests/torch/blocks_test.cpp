// The hot blocks of the three models: as many kernels as planned, and eager's values and gradients. bench/blocks.py times the same blocks.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "tests/torch/fused.h"

namespace heddle::testing {

namespace {

struct Block {
    std::string name;
    int forward, backward;       // kernels, at most
    Callable run;
    std::function<Tensors(std::int64_t)> inputs;  // at a scale
    std::vector<Varying> dynamic;
    std::int64_t reduction;      // length of the longest sum
};
std::vector<Varying> named(std::initializer_list<std::tuple<int, int, const char*>> sizes) {
    std::vector<Varying> v;
    for (auto [input, dim, name] : sizes) v.push_back({.input = input, .tensor = {}, .dim = dim, .name = name});
    return v;
}
at::Tensor signed_real(std::vector<std::int64_t> s, bool grad = true) { return (at::rand(s, at::kDouble) * 2 - 1).set_requires_grad(grad); }
at::Tensor charbonnier(const at::Tensor& x, const at::Tensor& y) { return ((x - y).square() + 1e-6).sqrt(); }

Tensors four_l1(const Tensors& in) {
    at::Tensor sum;
    for (std::size_t k = 0; k < in.size(); k += 2) {
        at::Tensor term = (in[k] - in[k + 1]).abs().mean();
        sum = k == 0 ? term : sum + term;
    }
    return {sum};
}
Tensors masked_l1(const Tensors& in) { return {((in[0] - in[1]).abs() * in[2].unsqueeze(1)).sum() / in[2].sum().clamp_min(1)}; }
Tensors boolean_l1(const Tensors& in) { return {(in[0] - in[1]).index({in[2]}).abs().mean()}; }
Tensors masked_put(const Tensors& in) {
    at::Tensor out = at::zeros_like(in[0]);
    out.index_put_({in[1]}, at::softplus(in[2].index({in[1]})));
    return {out * in[0]};
}
Tensors variation(const Tensors& planes) {
    at::Tensor sum;
    for (const at::Tensor& p : planes) {
        const auto h = (p.slice(2, 1) - p.slice(2, 0, -1)).square().sum() / static_cast<double>(p.numel());
        const auto w = (p.slice(3, 1) - p.slice(3, 0, -1)).square().sum() / static_cast<double>(p.numel());
        sum = sum.defined() ? sum + 2 * (h + w) : 2 * (h + w);
    }
    return {sum};
}
// Coefficients [R, S, 18] on a basis [F, 6] at seven frames around the third; losses as DynIBaR's.
Tensors trajectory(const Tensors& in) {
    const auto &coefficients = in[0], &basis = in[1], &points = in[2], &target = in[3], &weight = in[4];
    Tensors at_offset;
    for (std::int64_t offset = 0; offset < 7; ++offset) {
        const auto b = basis.select(0, offset);
        Tensors axes;
        for (std::int64_t a = 0; a < 3; ++a) axes.push_back((coefficients.slice(2, 6 * a, 6 * a + 6) * b).sum(-1, true));
        at_offset.push_back(at::cat(axes, -1));
    }
    const auto all = at::stack(at_offset, 0);
    const auto moved = points + (all - all[3]);
    const auto w = weight.unsqueeze(-1);
    const auto rgb = (charbonnier(moved[4], target) * w).sum() / (weight.sum() * 3 + 1e-6);
    const auto cycle = ((moved[2] - target).abs() * w).sum() / (weight.sum() + 1e-8);
    const auto flow = all.slice(0, 1) - all.slice(0, 0, -1);
    const auto still = flow.abs().mean(), smooth = 0.5 * (flow.slice(0, 1) - flow.slice(0, 0, -1)).square().mean();
    const auto along = (flow.slice(2, 1) - flow.slice(2, 0, -1)).abs().mean();
    return {rgb + 0.1 * cycle + 0.05 * (still + smooth + along), all};
}
Tensors deformation(const Tensors& in) {
    const auto rotation = in[2] + in[3];
    const auto norm = rotation.norm(2, -1, true).clamp_min(1e-12);
    return {in[0] + in[1], rotation / norm, at::exp(in[4] + in[5]), at::sigmoid(in[6] + in[7]), at::cat({in[8], in[9]}, 1)};
}
Tensors rendering(const Tensors& in) {
    const auto alpha = 1 - at::exp(-at::softplus(in[0] - 1) * in[2] * 25);
    const auto passed = at::cumprod(at::cat({at::ones_like(alpha.slice(1, 0, 1)), 1 - alpha + 1e-10}, -1), -1);
    const auto weights = alpha * passed.slice(1, 0, -1), seen = weights.sum(-1);
    const auto colour = (weights.unsqueeze(-1) * at::sigmoid(in[1])).sum(-2) + (1 - seen.unsqueeze(-1));
    return {colour.clamp(0, 1), (weights * in[3]).sum(-1)};
}
at::Tensor look_up(const at::Tensor& plane, const at::Tensor& a, const at::Tensor& b) {
    return at::grid_sampler(plane, at::stack({a, b}, -1).view({1, -1, 1, 2}), 0, 0, true).view({plane.size(1), -1});
}
// Points [M, 3] at times [M, 1] in three planes of space and three of time, summed over channels.
Tensors density(const Tensors& in) {
    const auto x = in[0].select(1, 0), y = in[0].select(1, 1), z = in[0].select(1, 2), t = in[1].select(1, 0);
    const at::Tensor first[] = {x, x, y}, second[] = {y, z, z}, other[] = {z, y, x};
    at::Tensor sum;
    for (std::size_t i = 0; i < 3; ++i) {
        const auto term = (look_up(in[2 + i], first[i], second[i]) * look_up(in[5 + i], t, other[i])).sum(0);
        sum = i == 0 ? term : sum + term;
    }
    return {sum};
}

std::vector<Block> blocks() {
    std::vector<Block> all;
    auto add = [&](Block b) { all.push_back(std::move(b)); };
    add({"density_feature", 1, 2, density,
         [](std::int64_t n) {
             Tensors in{signed_real({40 * n, 3}, false), signed_real({40 * n, 1}, false)};
             for (int k = 0; k < 3; ++k) in.push_back(signed_real({1, 24, 7, 7}));
             for (int k = 0; k < 3; ++k) in.push_back(signed_real({1, 24, 7, 5}));
             return in;
         },
         named({{0, 0, "M"}, {1, 0, "M"}}), 2000});
    add({"volume_rendering", 1, 1, rendering,
         [](std::int64_t n) { return Tensors{signed_real({5 * n, 13}), signed_real({5 * n, 13, 3}), real({5 * n, 13}, at::kDouble, false), real({5 * n, 13}, at::kDouble, false)}; },
         named({{0, 0, "B"}, {1, 0, "B"}, {2, 0, "B"}, {3, 0, "B"}}), 64});
    add({"trajectory", 2, 2, trajectory,
         [](std::int64_t n) { return Tensors{signed_real({5 * n, 8, 18}), signed_real({7, 6}), signed_real({5 * n, 8, 3}), signed_real({5 * n, 8, 3}, false), real({5 * n, 8}, at::kDouble, false)}; },
         named({{0, 0, "R"}, {2, 0, "R"}, {3, 0, "R"}, {4, 0, "R"}}), 4000});
    add({"deformation", 2, 2, deformation,
         [](std::int64_t n) {
             Tensors in;
             for (std::int64_t width : {3, 3, 4, 4, 3, 3, 1, 1}) in.push_back(signed_real({50 * n, width}));
             in.push_back(signed_real({50 * n, 1, 3})), in.push_back(signed_real({50 * n, 15, 3}));
             return in;
         },
         [] {
             std::vector<Varying> v;
             for (int k = 0; k < 10; ++k) v.push_back({.input = k, .tensor = {}, .dim = 0, .name = "N"});
             return v;
         }(), 4});
    add({"variation", 2, 2, variation,
         [](std::int64_t n) {
             Tensors in;
             for (int k = 0; k < 6; ++k) in.push_back(signed_real({1, 4, 9 * n, k < 3 ? 9 * n : 5}));
             return in;
         },
         {}, 4000});
    add({"four_l1", 1, 1, four_l1,
         [](std::int64_t n) {
             Tensors in;
             for (std::int64_t k = 0; k < 3; ++k)
                 for (int i = 0; i < 2; ++i) in.push_back(signed_real({16 * n * (k + 1), 3}));
             for (int i = 0; i < 2; ++i) in.push_back(signed_real({10, 7}));
             return in;
         },
         named({{0, 0, "A"}, {1, 0, "A"}, {2, 0, "B"}, {3, 0, "B"}, {4, 0, "C"}, {5, 0, "C"}}), 2000});
    add({"masked_l1", 2, 1, masked_l1,
         [](std::int64_t n) { return Tensors{signed_real({60 * n, 3}), signed_real({60 * n, 3}, false), (at::rand({60 * n}) > 0.5).to(at::kDouble)}; },
         named({{0, 0, "N"}, {1, 0, "N"}, {2, 0, "N"}}), 2000});
    add({"boolean_l1", 2, 1, boolean_l1,
         [](std::int64_t n) { return Tensors{signed_real({60 * n, 3}), signed_real({60 * n, 3}, false), at::rand({60 * n}) > 0.5}; },
         named({{0, 0, "N"}, {1, 0, "N"}, {2, 0, "N"}}), 2000});
    add({"masked_put", 1, 1, masked_put,
         [](std::int64_t n) { return Tensors{signed_real({20 * n, 7}), at::rand({20 * n, 7}) > 0.5, signed_real({20 * n, 7})}; },
         named({{0, 0, "N"}, {1, 0, "N"}, {2, 0, "N"}}), 4});
    return all;
}

class Blocks : public ::testing::TestWithParam<Block> {};
INSTANTIATE_TEST_SUITE_P(All, Blocks, ::testing::ValuesIn(blocks()), [](const auto& i) { return i.param.name; });

TEST_P(Blocks, EqualEager) {
    const Block& b = GetParam();
    for (std::int64_t scale : {2, 9}) check(b.name, b.run, b.inputs(2), b.inputs(b.dynamic.empty() ? 2 : scale), b.reduction, b.dynamic);
}
TEST_P(Blocks, TakeAsManyKernelsAsPlanned) {
    const Block& b = GetParam();
    Tensors in = leaves(b.inputs(2), at::kFloat);
    Fused f = fuse(b.run, in, {.dynamic = b.dynamic, .name = b.name, .eager_if_uncapturable = false});
    gradients(f(in), in);
    const Report& r = f.report();
    fmt::print("{:<18} {} forward and {} backward kernels, {} calls\n", b.name, r.launches_forward, r.launches_backward, r.calls_forward + r.calls_backward);
    EXPECT_LE(r.launches_forward, b.forward) << f.explain();
    EXPECT_LE(r.launches_backward, b.backward) << f.explain();
    EXPECT_EQ(r.calls_forward + r.calls_backward, 0) << f.explain();
}

}  // namespace
}  // namespace heddle::testing
