// The gradients of a fused callable are eager's: None, first and second, accumulated, after writes, from any mode of capture.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/torch/fused.h"

namespace heddle::testing {
namespace {

using ::testing::HasSubstr;
using at::Tensor;

TEST(Fuse, GradientsThatNoGivenOutputReachesAreNone) {
    Callable f = [](const Tensors& x) { return Tensors{x[0] * 2, x[1].sin(), x[0] * x[2].detach()}; };
    Tensors in{real({3}), real({3}), real({3})};
    check("all", f, in, in);
    check("first", f, in, in, 1, {}, {0});
    check("second", f, in, in, 1, {}, {1});
}
TEST(Fuse, PathsWithoutFlowAreZerosAsInEager) {
    Callable f = [](const Tensors& x) { return Tensors{at::where(at::ones({3}, at::kBool), x[0], x[1]), x[0] + x[1] * 0, x[0].floor()}; };
    Tensors in{real({3}), real({3})};
    check("where", f, in, in);
    check("where", f, in, in, 1, {}, {0});
    check("floor", f, in, in, 1, {}, {2});
}
TEST(Fuse, FewerInputsRequireGradThanAtCapture) {
    Callable f = [](const Tensors& x) { return Tensors{x[0] * x[1], x[1].exp()}; };
    check("second only", f, {real({3}), real({3})}, {real({3}, at::kDouble, false), real({3})});
    check("first only", f, {real({3}), real({3})}, {real({3}), real({3}, at::kDouble, false)});
    check("none", f, {real({3}), real({3})}, {real({3}, at::kDouble, false), real({3}, at::kDouble, false)});
}
TEST(Fuse, MoreInputsRequireGradThanAtCapture) {
    Callable f = [](const Tensors& x) { return Tensors{x[0] * x[1], x[1].exp()}; };
    check("none at capture", f, {real({3}, at::kDouble, false), real({3}, at::kDouble, false)}, {real({3}), real({3})});
}
TEST(Fuse, CapturedUnderNoGradStillDifferentiates) {
    Tensor x = real({3}), w = real({3});
    Callable f = [w](const Tensors& in) { return Tensors{in[0] * w}; };
    auto make = [&] {
        at::NoGradGuard no_grad;
        return strict(f, {x});
    };
    Fused g = make();
    Tensors d = torch::autograd::grad({g({x})[0].sum()}, {x, w});
    expect_near(d[0], w, 1, "x");
    expect_near(d[1], x, 1, "w");
    c10::InferenceMode inference;
    EXPECT_FALSE(strict(f, {x})({x})[0].requires_grad());
}
TEST(Fuse, NoGradAndInferenceMode) {
    Tensor x = real({3});
    Fused g = strict([](const Tensors& in) { return Tensors{in[0].exp()}; }, {x});
    {
        at::NoGradGuard no_grad;
        EXPECT_FALSE(g({x})[0].requires_grad());
    }
    {
        c10::InferenceMode inference;
        Tensor y = g({x})[0];
        EXPECT_TRUE(y.is_inference());
        expect_near(y.clone(), x.exp(), 1, "inference");
        expect_near(g({at::ones({3}, at::kDouble)})[0], at::ones({3}, at::kDouble).exp(), 1, "inference input");
    }
    EXPECT_TRUE(g({x})[0].requires_grad());
}
TEST(Fuse, SecondBackward) {
    Tensor x = real({3});
    Callable f = [](const Tensors& in) { return Tensors{(in[0].exp() * in[0]).sum()}; };
    Fused g = strict(f, {x});
    Tensor y = g({x})[0];
    y.backward({}, true);
    Tensor once = x.grad().clone();
    y.backward();
    expect_near(x.grad(), once * 2, 1, "accumulated");
    EXPECT_THAT(error_of([&] { y.backward(); }), HasSubstr("Trying to backward through the graph a second time"));
    // One that reads nothing may go again, as in eager.
    Tensor z = strict([](const Tensors& in) { return Tensors{in[0].sum() * 3}; }, {x})({x})[0];
    x.mutable_grad() = Tensor();
    z.backward();
    z.backward();
    expect_near(x.grad(), at::full({3}, 6.0, at::kDouble), 1, "twice");
}
TEST(Fuse, DoubleBackward) {
    Tensor w = real({3});
    Callable f = [w](const Tensors& in) { return Tensors{(in[0].pow(3) * in[1] * w).sum(), in[1] * in[0]}; };
    Tensor x = real({3});
    Fused g = strict(f, {x, real({3})});
    auto second = [&](auto call) {
        Tensor y = x * 2;  // an input that is computed from another
        Tensors out = call(Tensors{x, y});
        Tensors first = torch::autograd::grad({out[0], out[1].sum()}, {x, w}, {}, true, true);
        Tensors all = torch::autograd::grad({first[0].pow(2).sum() + first[1].sin().sum()}, {x, w});
        all.insert(all.end(), first.begin(), first.end());
        return all;
    };
    Tensors want = second(f), got = second(g);
    for (std::size_t k = 0; k < want.size(); ++k) expect_near(got[k], want[k], 4, "second " + std::to_string(k));
}
TEST(Fuse, DoubleBackwardRepeatsWhatWasDrawn) {
    Tensor x = real({5});
    Callable f = [](const Tensors& in) { return Tensors{(in[0].pow(2) * at::rand_like(in[0].detach())).sum()}; };
    Fused g = strict(f, {x});
    auto second = [&](auto call) {
        at::manual_seed(11);
        Tensor y = call(Tensors{x})[0];
        Tensor first = torch::autograd::grad({y}, {x}, {}, true, true)[0];
        return Tensors{first, torch::autograd::grad({first.sum()}, {x})[0], at::rand({2})};
    };
    Tensors want = second(f), got = second(g);
    for (std::size_t k = 0; k < 3; ++k) expect_near(got[k], want[k], 1, "drawn " + std::to_string(k));
}
TEST(Fuse, DoubleBackwardThroughAHeldTensorThatLeadsToAnInputIsAnError) {
    Tensor w = real({3});
    Callable f = [w](const Tensors& in) { return Tensors{(in[0] * w).sum()}; };
    Fused g = strict(f, {real({3})});
    Tensor y = g({w * 2})[0];
    expect_near(torch::autograd::grad({y}, {w}, {}, true)[0], w * 4, 1, "first");
    EXPECT_THAT(error_of([&] { torch::autograd::grad({y}, {w}, {}, true, true); }), HasSubstr("pass it as an input"));
}
TEST(Fuse, HooksAndAccumulation) {
    Tensor x = real({3}), w = real({3});
    Fused g = strict([w](const Tensors& in) { return Tensors{in[0] * w}; }, {x});
    int hooks = 0;
    w.register_hook([&](Tensor d) { return ++hooks, d * 10; });
    Tensor y = g({x})[0];
    y.register_hook([&](Tensor d) { return ++hooks, d * 2; });
    y.sum().backward();
    g({x})[0].sum().backward();
    EXPECT_EQ(hooks, 3);
    expect_near(x.grad(), w * 3, 1, "x");
    expect_near(w.grad(), x * 30, 1, "w");
}
TEST(Fuse, WritesBetweenForwardAndBackwardAreErrors) {
    Tensor x = real({3}), w = real({3});
    Fused g = strict([w](const Tensors& in) { return Tensors{in[0] * w, in[0].sum() / in[0]}; }, {x});
    Tensor y = g({x})[0];
    {
        at::NoGradGuard no_grad;
        w.add_(1);
    }
    EXPECT_THAT(error_of([&] { y.sum().backward(); }), HasSubstr("modified by an inplace operation"));
    Tensor q = real({3}) * 1;
    y = g({q})[0];
    q.mul_(2);
    EXPECT_THAT(error_of([&] { y.sum().backward(); }), HasSubstr("modified by an inplace operation"));
}
TEST(Fuse, WritesIntoOutputs) {
    Callable f = [](const Tensors& in) {
        Tensor s = in[0].sum(0);
        return Tensors{(in[0] / s).sum(1), s, in[0].cumprod(0)};
    };
    Tensor x = real({40, 3});
    Fused g = strict(f, {x});
    for (std::size_t k = 1; k < 3; ++k) {
        Tensors out = g({x}), eager = f({x});
        out[k].mul_(3);
        Tensor want = torch::autograd::grad({(eager[0] * eager[0].detach()).sum()}, {x})[0], got;
        std::string error = error_of([&] { got = torch::autograd::grad({(out[0] * out[0].detach()).sum()}, {x})[0]; });
        if (error == "none") expect_near(got, want, 40, "after a write");
        else EXPECT_THAT(error, HasSubstr("modified by an inplace operation"));
    }
}

TEST(Fuse, CallsWithoutABackwardAreFreed) {  // also where the backward reads a result, which leads to the node that reads it
    for (bool backward : {false, true}) {
        Tensor x = real({400, 30});
        c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> input(x.getIntrusivePtr()), result(input);
        Fused g = strict(
            [](const Tensors& in) {
                Tensor s = in[0].sum(0);
                return Tensors{s, (in[0] / s).sin()};
            },
            {x});
        {
            Tensors out = g({x});
            ASSERT_GT(g.report().saved_bytes, 0);
            result = out[0].getIntrusivePtr();
            if (backward) out[1].sum().backward();
        }
        x.reset();
        EXPECT_TRUE(result.expired()) << backward;
        EXPECT_TRUE(input.expired()) << backward;
    }
}
TEST(Fuse, GradientsAreMemoryOfTheirOwn) {  // one value may be the gradient of several inputs, or be the incoming gradient itself
    Callable f = [](const Tensors& in) { return Tensors{in[0] + in[1], in[0] * 1}; };
    Tensor x = real({3}), y = real({3}), seed = at::ones({3}, at::kDouble);
    Fused g = strict(f, {x, y});
    g({x, y})[0].backward(seed);
    EXPECT_NE(x.grad().data_ptr(), y.grad().data_ptr());
    EXPECT_NE(x.grad().data_ptr(), seed.data_ptr());
    EXPECT_NE(y.grad().data_ptr(), seed.data_ptr());
    x.mutable_grad().mul_(5);
    expect_near(y.grad(), at::ones({3}, at::kDouble), 1, "y");
    expect_near(seed, at::ones({3}, at::kDouble), 1, "seed");
    g({x, y})[0].backward(seed);
    expect_near(x.grad(), at::full({3}, 6.0, at::kDouble), 1, "x");
    expect_near(y.grad(), at::full({3}, 2.0, at::kDouble), 1, "y");
}
TEST(Fuse, CallsInsideABackward) {
    Tensor x = real({3}), z = real({3});
    Fused g = strict([](const Tensors& in) { return Tensors{(in[0].exp() * in[0]).sum()}; }, {x});
    Tensor inner;
    x.register_hook([&](Tensor) {
        at::AutoGradMode grad(true);
        inner = torch::autograd::grad({g({z})[0]}, {z})[0];
    });
    Tensor got = torch::autograd::grad({g({x})[0]}, {x})[0];
    expect_near(got, (x.exp() * (x + 1)).detach(), 1, "outer");
    expect_near(inner, (z.exp() * (z + 1)).detach(), 1, "inner");
}
TEST(Fuse, AnExceptionInABackwardLeavesTheRestAsItWas) {
    Tensor x = real({3});
    Fused g = strict([](const Tensors& in) { return Tensors{in[0].exp() * in[0]}; }, {x});
    Tensor q = x * 1, y = g({q})[0], other = g({q})[0];
    q.register_hook([](Tensor) { throw std::runtime_error("a hook's"); });
    EXPECT_THAT(error_of([&] { y.sum().backward({}, true); }), HasSubstr("a hook's"));
    EXPECT_FALSE(x.grad().defined());
    Tensor p = x * 1;
    g({p})[0].sum().backward();
    expect_near(x.grad(), (x.exp() * (x + 1)).detach(), 1, "x");
}
}  // namespace
}  // namespace heddle::testing
