// heddle::fuse is its callable: values, layouts, types, draws, errors and side effects are eager's.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/torch/fused.h"

namespace heddle::testing {
namespace {

using ::testing::HasSubstr;
using at::Tensor;

TEST(Fuse, ValuesAndGradients) {
    Callable f = [](const Tensors& x) { return Tensors{(x[0] * x[1].exp()).sum(1), x[0].softmax(-1), x[0] > x[1]}; };
    check("softmax", f, {real({4, 6}), real({4, 6})}, {real({9, 6}), real({9, 6})}, 16, rows(2));
}
// A saved value may be an output: writing into that is an error too, or it was saved apart.
TEST(Fuse, OutputsThatAreInputs) {
    Tensor x = real({2, 3});
    Callable f = [](const Tensors& in) { return Tensors{in[0], in[0] * 1, in[0].t(), in[0].contiguous(), in[0].view({6}), in[0].detach()}; };
    check("views", f, {x}, {x});
    Tensors out = strict(f, {x})({x});
    EXPECT_TRUE(out[0].is_same(x));
    EXPECT_TRUE(out[3].is_same(x));
    EXPECT_NE(out[1].data_ptr(), x.data_ptr());
    Tensor before = x.detach().clone();
    out[1].detach().add_(5);
    EXPECT_TRUE(at::equal(x, before));
}
TEST(Fuse, EqualOutputsAreApart) {
    Tensor x = real({3});
    Fused g = strict([](const Tensors& in) { return Tensors{in[0].exp(), in[0].exp()}; }, {x});
    Tensors out = g({x});
    out[0].detach().zero_();
    expect_near(out[1], x.exp(), 1, "second");
    check("equal", [](const Tensors& in) { return Tensors{in[0].exp(), in[0].exp()}; }, {x}, {x}, 1, {}, {1});
}
TEST(Fuse, InputMutation) {
    Callable f = [](const Tensors& in) {
        Tensor y = in[1] * in[0].add_(1).sin();
        return Tensors{y, in[0], in[0] * 2};
    };
    for (auto type : {at::kDouble, at::kFloat}) {
        Tensor x = real({4}, type, false), w = real({4}, type), x64 = leaf(x, at::kDouble), w64 = leaf(w, at::kDouble);
        Fused g = strict(f, {x, w});
        expect_near(x, x64, 1, "capture puts back");
        for (int round = 0; round < 2; ++round) {
            Tensors got = g({x, w}), want = f({x64, w64});
            for (std::size_t k = 0; k < 3; ++k) expect_near(got[k], want[k], 1, "output " + std::to_string(k));
            EXPECT_TRUE(got[1].is_same(x));
            expect_near(x, x64, 1, "written");
            expect_near(torch::autograd::grad({got[0].sum()}, {w})[0], torch::autograd::grad({want[0].sum()}, {w64})[0], 1, "gradient");
        }
        // With create_graph the callable runs again on what it was given, and writes nothing twice.
        Tensors got = g({x, w}), want = f({x64, w64});
        expect_near(torch::autograd::grad({got[0].sum()}, {w}, {}, true, true)[0], torch::autograd::grad({want[0].sum()}, {w64}, {}, true, true)[0], 1, "create_graph");
        expect_near(x, x64, 1, "written once");
        Tensors tangled{x, x.detach()}, eager{x64, x64.detach()};
        expect_near(g(tangled)[0], f(eager)[0], 1, "memory that two inputs share");
    }
}
TEST(Fuse, OneTensorTwice) {
    Tensor x = real({3}), y = real({3});
    Callable f = [x](const Tensors& in) { return Tensors{in[0] * in[1] + x}; };
    Fused g = strict(f, {x, x});
    expect_near(g({x, y})[0], x * y + x, 1, "apart");
    expect_near(g({y, y})[0], y * y + x, 1, "the same");
    expect_near(torch::autograd::grad({g({x, x})[0].sum()}, {x})[0], 2 * x + 1, 1, "gradient");
}
TEST(Fuse, LayoutsAndSizes) {
    Callable f = [](const Tensors& in) { return Tensors{(in[0] * in[1]).sum(0), in[0].mean() + in[1].max(), at::cat({in[0], in[1]}, 0)}; };
    check("transposed", f, {real({4, 5}), real({4, 5})}, {real({5, 4}).detach().t().set_requires_grad(true), real({4, 5})}, 20);
    Tensor wide = real({5}).detach().expand({4, 5});
    for (auto type : {at::kDouble, at::kFloat}) {
        Tensor a = wide.to(type), b = real({4, 5}, type), s = at::rand({8, 10}, type).slice(0, 0, 8, 2).slice(1, 0, 10, 2);
        Fused g = strict(f, {b, b});
        for (const Tensor& t : {a, s, s.t().contiguous().t()})
            for (std::size_t k = 0; k < 3; ++k) expect_near(g({t, b})[k], f({t.to(at::kDouble), b.to(at::kDouble)})[k], 20, "layout");
    }
    check("empty", [](const Tensors& in) { return Tensors{in[0].sum(), in[0].exp(), in[0].sum(0), in[0].cumsum(0)}; }, {real({4, 3})}, {real({0, 3})}, 1, rows());
    check("scalar", [](const Tensors& in) { return Tensors{in[0] * in[1], in[1].exp().sum() - in[0]}; }, {real({}), real({3})}, {real({}), real({3})}, 3);
}
TEST(Fuse, IntegersAndBoolsAreExact) {
    Tensor a = at::randint(-1000, 1000, {50, 3}, at::kLong), b = at::randint(1, 9, {50, 3}, at::kInt), c = at::rand({50, 3}) > 0.5;
    Callable f = [](const Tensors& in) {
        return Tensors{in[0] + in[1], in[0] * 3 - 1, at::floor_divide(in[0], in[1]), in[0].remainder(in[1]), in[0].sum(), in[2].sum(), in[2].any(), in[2].all(0), in[0] > in[1], at::where(in[2], in[0], 0), in[1].cumsum(0), in[0].amax(1), in[2].to(at::kInt)};
    };
    Fused g = strict(f, {a, b, c});
    Tensors want = f({a, b, c}), got = g({a, b, c});
    for (std::size_t k = 0; k < want.size(); ++k) {
        EXPECT_EQ(got[k].scalar_type(), want[k].scalar_type()) << k;
        EXPECT_TRUE(at::equal(got[k], want[k])) << k;
    }
}
TEST(Fuse, PromotionIsEagers) {
    Tensor f32 = real({4}, at::kFloat), f64 = real({4}), i = at::arange(4), zero = at::scalar_tensor(2.5, at::kDouble);
    Callable f = [](const Tensors& in) { return Tensors{in[0] + in[1], in[0] * in[2], in[0] * in[3], in[2] / 3, in[0] * 2.5, in[2] * 2.5, in[0].sum() + in[2].sum()}; };
    Fused g = strict(f, {f32, f64, i, zero});
    Tensors want = f({f32, f64, i, zero}), got = g({f32, f64, i, zero});
    for (std::size_t k = 0; k < want.size(); ++k) {
        EXPECT_EQ(got[k].scalar_type(), want[k].scalar_type()) << k;
        if (want[k].scalar_type() == got[k].scalar_type()) expect_near(got[k], want[k], 4, "output " + std::to_string(k));
    }
    Tensors a = gradients(want, {f32, f64}), b = gradients(got, {f32, f64});
    for (std::size_t k = 0; k < 2; ++k) {
        EXPECT_EQ(a[k].scalar_type(), b[k].scalar_type());
        EXPECT_TRUE(at::allclose(a[k], b[k], 1e-6, 1e-6)) << k;
    }
}
TEST(Fuse, RandomDrawsAreEagers) {
    Tensor x = real({6});
    Callable f = [](const Tensors& in) { return Tensors{in[0] * at::rand({6}, at::kDouble), at::randn_like(in[0].detach()) + in[0]}; };
    Fused g = strict(f, {x});
    auto run = [&](auto call) {
        at::manual_seed(5);
        Tensors out = call(Tensors{x});
        out.push_back(torch::autograd::grad({out[0].sum()}, {x})[0]);
        out.push_back(at::rand({3}));
        return out;
    };
    Tensors want = run(f), got = run(g), again = run(g);
    for (std::size_t k = 0; k < want.size(); ++k) {
        expect_near(got[k], want[k], 1, "drawn " + std::to_string(k));
        EXPECT_TRUE(at::equal(got[k], again[k])) << k;
    }
}
TEST(Fuse, OpsWithoutALoweringStayCalls) {
    Tensor x = real({7}, at::kDouble, false);
    Callable f = [](const Tensors& in) { return Tensors{at::special_i0(in[0] * 2) + 1, std::get<0>(in[0].kthvalue(3))}; };
    Fused g = strict(f, {x});
    Tensors want = f({x}), got = g({x});
    for (std::size_t k = 0; k < 2; ++k) expect_near(got[k], want[k], 1, "call");
    EXPECT_THAT(g.report().library_calls, ::testing::Contains(HasSubstr("aten.i0")));
}
TEST(Fuse, LargeIntegersAreExact) {
    at::manual_seed(9);
    Tensor big = at::randint(std::numeric_limits<std::int64_t>::min() + 1, std::numeric_limits<std::int64_t>::max(), {1000}, at::kLong);
    Tensor small = at::randint(-9, 9, {1000}, at::kLong), any = at::randint(-(1LL << 40), 1LL << 40, {1000}, at::kLong);
    small = at::where(small == 0, 3, small), any = at::where(any == 0, 7, any);
    Callable f = [](const Tensors& in) {
        Tensors out;
        for (std::size_t k = 1; k < 4; ++k) out.insert(out.end(), {in[0].floor_divide(in[k]), in[0].remainder(in[k]), in[0].div(in[k], "trunc"), in[0].fmod(in[k])});
        out.push_back(in[0] * 2654435761 + 9007199254740993);
        out.push_back(in[0].masked_fill(in[1] > 0, std::numeric_limits<std::int64_t>::max()).amin());
        out.push_back(at::full({3}, std::numeric_limits<std::int64_t>::min()).amax());
        return out;
    };
    Tensors in{big, small, any, big.flip(0)}, want = f(in), got = strict(f, in)(in);
    for (std::size_t k = 0; k < want.size(); ++k) EXPECT_TRUE(at::equal(got[k], want[k])) << k;
}
TEST(Fuse, DivisionOfIntegersByZeroIsEagersError) {
    Tensor x = at::arange(5);
    FuseOptions options;
    options.recapture = true;
    Fused g = fuse([](const Tensors& in) { return Tensors{in[0].floor_divide(in[1]) + in[0] % in[1]}; }, options);
    EXPECT_TRUE(at::equal(g({x, x + 1})[0], x.floor_divide(x + 1) + x % (x + 1)));
    EXPECT_THAT(error_of([&] { g({x, x}); }), HasSubstr("ZeroDivisionError"));
    EXPECT_TRUE(at::equal(g({x, x + 2})[0], x.floor_divide(x + 2) + x % (x + 2)));
}
TEST(Fuse, UncapturableRunsEagerly) {
    Tensor x = real({4});
    Callable f = [](const Tensors& in) { return Tensors{in[0] * in[0].sum().item<double>()}; };
    Fused g = fuse(f, {x});
    EXPECT_THAT(g.report().eager_reason, HasSubstr("aten.item"));
    EXPECT_THAT(g.explain(), HasSubstr("runs eagerly"));
    expect_near(g({x})[0], f({x})[0], 4, "eager");
    EXPECT_THAT(error_of([&] { strict(f, {x}); }), HasSubstr("aten.item"));
}
TEST(Fuse, ABranchThatCannotBeCapturedLaterRunsEagerly) {
    Callable f = [](const Tensors& in) { return Tensors{(in[0] > 1).any().item<bool>() ? in[0] * in[0].sum().item<double>() : in[0] * 2}; };
    Tensor low = at::full({3}, 0.5, at::kDouble).set_requires_grad(true), high = at::full({3}, 2.0, at::kDouble).set_requires_grad(true);
    Fused g = fuse(f, {low});
    EXPECT_EQ(g.report().eager_reason, "");
    expect_near(g({low})[0], low * 2, 1, "captured");
    expect_near(g({high})[0], high * 6, 1, "eager");
    EXPECT_THAT(g.report().eager_reason, HasSubstr("aten.item"));
}
TEST(Fuse, GuardsChooseTheBranch) {
    Callable f = [](const Tensors& in) { return Tensors{((in[0] > 1).any().item<bool>() ? in[0].exp() : in[0] * 2) * at::rand({}, at::kDouble)}; };
    Fused g = strict(f, {real({3})});
    for (double v : {0.5, 2.0, 0.25, 3.0}) {
        Tensor x = at::full({3}, v, at::kDouble).set_requires_grad(true);
        at::manual_seed(1);
        Tensor got = g({x})[0];
        at::manual_seed(1);
        Tensor want = f({x})[0];
        expect_near(got, want, 1, "value");
        expect_near(torch::autograd::grad({got.sum()}, {x})[0], torch::autograd::grad({want.sum()}, {x})[0], 1, "gradient");
    }
}
TEST(Fuse, Contradictions) {
    Fused g = strict([](const Tensors& in) { return Tensors{in[0] * 2}; }, {real({4, 3}, at::kFloat)}, rows());
    auto line = [&](const Tensors& in) {
        std::string e = error_of([&] { g(in); });
        EXPECT_EQ(e.find('\n'), e.npos) << e;
        return e;
    };
    EXPECT_THAT(line({real({4, 3})}), HasSubstr("input in0: got f64, expected f32"));
    EXPECT_THAT(line({real({4}, at::kFloat)}), HasSubstr("input in0"));
    EXPECT_THAT(line({real({4, 5}, at::kFloat)}), HasSubstr("input in0"));
    EXPECT_THAT(line({}), HasSubstr("got 0 inputs, expected 1"));
}
TEST(Fuse, ExceptionsAreTheCallables) {
    EXPECT_THAT(error_of([] { strict([](const Tensors&) -> Tensors { throw std::runtime_error("mine"); }, {real({4})}); }), HasSubstr("mine"));
    Fused g = fuse([](const Tensors&) -> Tensors { throw std::runtime_error("mine"); }, {real({4})});
    EXPECT_THAT(error_of([&] { g({real({4})}); }), HasSubstr("mine"));
}
TEST(Fuse, FusedInsideFused) {
    Tensor x = real({4}), w = real({4});
    auto inner = std::make_shared<Fused>(strict([w](const Tensors& in) { return Tensors{in[0].exp() * w}; }, {x}));
    Callable f = [inner](const Tensors& in) { return Tensors{(*inner)({in[0] * 2})[0].sum()}; };
    Fused g = strict(f, {x});
    for (const Tensor& y : {x, real({4})}) {
        Tensors want = torch::autograd::grad({f({y})[0]}, {y, w}), got = torch::autograd::grad({g({y})[0]}, {y, w});
        for (std::size_t k = 0; k < 2; ++k) expect_near(got[k], want[k], 4, "nested");
    }
}
TEST(Fuse, ReplacedTensorsAreAnError) {
    auto w = std::make_shared<Tensor>(real({3}));
    Fused g = strict([w](const Tensors& in) { return Tensors{(in[0] > 1).any().item<bool>() ? in[0] * *w : in[0] + *w}; }, {real({3})});
    g({at::full({3}, 0.5, at::kDouble)});
    g({at::full({3}, 2.0, at::kDouble)})[0].sum().backward();
    *w = real({3});
    EXPECT_THAT(error_of([&] { g({at::full({3}, 0.5, at::kDouble)}); }), HasSubstr("f: a tensor that the callable held at capture (f64[3]) is gone; fuse again after replacing parameters"));
}
TEST(Fuse, SeveralThreads) {
    Tensor w = real({5});
    Callable f = [w](const Tensors& in) { return Tensors{(in[0] * w).exp().sum(1)}; };
    Fused g = strict(f, {real({4, 5})}, rows());
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 20; ++i) {
                Tensor x = (at::ones({1 + t * 3 + i, 5}, at::kDouble) * (0.1 * i)).set_requires_grad(true);
                Tensor a = g({x})[0], b = f({x})[0];
                wrong += !at::allclose(a, b, 1e-12, 1e-12);
                wrong += !at::allclose(torch::autograd::grad({a.sum()}, {x})[0], torch::autograd::grad({b.sum()}, {x})[0], 1e-12, 1e-12);
            }
        });
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0);
}

TEST(Fuse, SeveralThreadsThatCapture) {  // types, ranks, sizes and branches of its own in each thread; one asks for reports
    Callable f = [](const Tensors& in) {
        Tensor y = in[0].sum().gt(0).item<bool>() ? in[0].exp() : in[0].sin();
        return Tensors{(y * in[0]).sum(-1), y};
    };
    Fused g = fuse(f, {.name = "f", .recapture = true});
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0}, running{4};
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 12; ++i) {
                auto type = t % 2 ? at::kDouble : at::kFloat;
                Tensor x = (t < 2 ? at::ones({1 + i, 3}, type) : at::ones({2 + i}, type)).mul(i % 3 ? 0.3 : -0.3).set_requires_grad(true);
                Tensors a = g({x}), b = f({x});
                for (std::size_t k = 0; k < 2; ++k) wrong += a[k].scalar_type() != type || !at::allclose(a[k], b[k], 1e-5, 1e-6);
                wrong += !at::allclose(torch::autograd::grad({a[0].sum()}, {x})[0], torch::autograd::grad({b[0].sum()}, {x})[0], 1e-5, 1e-6);
            }
            --running;
        });
    while (running > 0) {
        wrong += g.report().launches_forward < 0;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_LE(g.report().captures, 4 * 5) << g.explain();  // per thread: the first, sizes that change, the other branch
}
}  // namespace
}  // namespace heddle::testing
