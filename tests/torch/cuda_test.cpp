// Fused functions of CUDA tensors equal eager PyTorch on the device, values and gradients. Only where there is a device.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "frontends/torch/fuse.h"

namespace heddle::testing {

namespace {
// Rows gathered and scattered back, a matrix product, sums of both kinds, a number that stays on the CPU.
Tensors example(const Tensors& in) {
    at::Tensor rows = in[0].index_select(0, in[2]), z = at::mm(rows.sigmoid(), in[1]);
    return {(z * in[3]).relu().sum(-1), (rows.pow(2) + 1e-6).sqrt().mean()};
}
Tensors inputs(std::int64_t n) {
    auto on = at::TensorOptions().device(at::kCUDA);
    return {at::randn({7, 16}, on).requires_grad_(), at::randn({16, 5}, on).requires_grad_(), at::randint(0, 7, {n}, on.dtype(at::kLong)), at::full({}, 0.5)};
}

TEST(Cuda, EqualsEager) {
    if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
    Fused fused = fuse(example, inputs(40), {.dynamic = {{.input = 2, .tensor = {}, .dim = 0, .name = "N"}}, .eager_if_uncapturable = false});
    for (std::int64_t n : {40, 1, 3000}) {
        Tensors in = inputs(n);
        auto run = [&](const Callable& f) {
            Tensors all = f(in), grads = torch::autograd::grad({all[0].sum() + all[1]}, {in[0], in[1]});
            all.insert(all.end(), grads.begin(), grads.end());
            return all;
        };
        Tensors got = run([&](const Tensors& x) { return fused(x); }), want = run(example);
        for (std::size_t k = 0; k < want.size(); ++k) {
            EXPECT_EQ(got[k].device(), want[k].device());
            EXPECT_TRUE(at::allclose(got[k], want[k], 1e-4, 1e-4)) << "n = " << n << ", value " << k;
        }
    }
    EXPECT_GT(fused.report().launches_forward, 0);
}
TEST(Cuda, AnotherDeviceIsCapturedAnew) {
    if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
    Fused fused = fuse([](const Tensors& in) { return Tensors{(in[0] * 2).sin()}; }, {at::rand({5})}, {.eager_if_uncapturable = false});
    at::Tensor x = at::rand({5}, at::TensorOptions().device(at::kCUDA));
    EXPECT_TRUE(at::allclose(fused({x})[0], (x * 2).sin(), 1e-5, 1e-6));
    EXPECT_TRUE(at::allclose(fused({x.cpu()})[0], (x.cpu() * 2).sin(), 1e-5, 1e-6));
}
TEST(Host, TensorsOnMetaAreEagers) {
    Callable f = [](const Tensors& in) { return Tensors{in[0] + in[1]}; };
    Fused fused = fuse(f, {at::rand({5}), at::rand({5})}, {.eager_if_uncapturable = false});
    auto outcome = [](auto&& g, const Tensors& in) -> std::string {
        try {
            return g(in)[0].toString();
        } catch (const std::exception& e) {
            return std::string(e.what()).substr(0, 40);
        }
    };
    const auto meta = at::TensorOptions().device(at::kMeta);
    for (const Tensors& in : {Tensors{at::rand({5}), at::rand({5}, meta)}, Tensors{at::rand({5}, meta), at::rand({5}, meta)}}) EXPECT_EQ(outcome(fused, in), outcome(f, in));
    EXPECT_THAT(fused.report().eager_reason, ::testing::HasSubstr("on meta"));
}

}  // namespace
}  // namespace heddle::testing
