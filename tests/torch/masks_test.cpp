// Boolean masks: no nonzero where it isn't needed, eager's values and gradients wherever the mask is false, and rows that stay rows with a reason.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "runtime/traffic.h"
#include "tests/torch/fused.h"

namespace heddle::testing {

namespace {

struct Form {
    std::string name;
    Callable run;               // of x [N, 4, 3], y the same, a mask [N, 4], w [3]
    std::int64_t reduction = 1000;
};
at::Tensor with_rows(at::Tensor out, const at::Tensor& m, const at::Tensor& v, bool accumulate = false) { return out.clone().index_put_({m}, v, accumulate); }

std::vector<Form> forms() {
    return {
        {"mean_of_selected", [](const Tensors& in) { return Tensors{(in[0] - in[1]).index({in[2]}).abs().mean()}; }},
        {"selected_apart", [](const Tensors& in) { return Tensors{(in[0].index({in[2]}) * in[1].index({in[2]})).sum(), in[0].index({in[2]}).square().mean(0)}; }},
        {"root_of_selected", [](const Tensors& in) { return Tensors{(in[0] - 0.5).index({in[0] > 0.5}).sqrt().sum()}; }},
        {"written_back", [](const Tensors& in) { return Tensors{with_rows(at::zeros_like(in[0]), in[2], at::log(in[0].index({in[2]})))}; }},
        {"over_another", [](const Tensors& in) { return Tensors{with_rows(in[1], in[2], at::exp(in[0].index({in[2]})) * 2) * in[0]}; }},
        {"added_to_another", [](const Tensors& in) { return Tensors{with_rows(in[1], in[2], in[0].index({in[2]}).sin(), true)}; }},
        {"parameter", [](const Tensors& in) { return Tensors{((in[0].index({in[2]}) * in[3]).sin() + in[3][0]).mean()}; }},
        {"selected_elements", [](const Tensors& in) { return Tensors{at::masked_select(in[0], in[2].unsqueeze(-1)).mean(), at::masked_select(in[0], in[1] > 1).square().sum()}; }},
        {"along_an_inner_axis", [](const Tensors& in) { return Tensors{in[0].permute({2, 0, 1}).index({at::indexing::Slice(), in[2]}).exp().sum(1)}; }},
        {"of_one_axis", [](const Tensors& in) { auto m = in[2].select(1, 0); return Tensors{(in[0].index({m}) - in[1].index({m})).norm(2, -1).mean(), in[0].index({m}).var()}; }},
        {"two_masks", [](const Tensors& in) { return Tensors{in[0].index({in[2]}).sum() / in[1].index({in[2].logical_not()}).sum()}; }},
        {"mask_of_selected", [](const Tensors& in) { auto x = in[0].index({in[2]}); return Tensors{x.index({x > 0.9}).mean()}; }},
        {"sums_so_far", [](const Tensors& in) { auto m = in[2].select(1, 1); return Tensors{with_rows(at::zeros_like(in[0]), m, in[0].index({m}).cumsum(0))}; }},
        {"divided_by_its_number", [](const Tensors& in) { auto x = in[0].index({in[2]}); return Tensors{x.sum() / (at::ones({x.size(0), 2}, x.options()).sum() + 1)}; }},
        {"products", [](const Tensors& in) { return Tensors{in[0].index({in[2].select(1, 0)}).prod(0)}; }},
        {"any_and_all", [](const Tensors& in) { auto x = in[0].index({in[2]}); return Tensors{(x > 1.2).any(), (x > 0).all(), at::count_nonzero(x > 1)}; }},
    };
}
Tensors inputs(std::int64_t n, double share) { return {real({n, 4, 3}), real({n, 4, 3}), at::rand({n, 4}) < share, real({3})}; }
const std::vector<Varying> kRows = [] {
    std::vector<Varying> v;
    for (int i = 0; i < 3; ++i) v.push_back({.input = i, .tensor = {}, .dim = 0, .name = "N"});
    return v;
}();

class Masks : public ::testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(Forms, Masks, ::testing::ValuesIn(forms()), [](const auto& i) { return i.param.name; });

TEST_P(Masks, EqualEager) {
    for (double share : {0.5, 0.0, 1.0}) {
        SCOPED_TRACE(share);
        check(GetParam().name, GetParam().run, inputs(9, 0.5), inputs(33, share), GetParam().reduction, kRows);
    }
}
TEST_P(Masks, NeedNoLibraryCall) {
    Tensors in = leaves(inputs(9, 0.5), at::kFloat);
    Fused f = strict(GetParam().run, in, kRows);
    gradients(f(in), in);
    EXPECT_EQ(f.report().calls_forward + f.report().calls_backward, 0) << f.explain();
}
// What isn't selected is an inf or a NaN, and so are the derivatives there: none of it is seen.
TEST_P(Masks, NothingLeaksFromWhereTheyAreFalse) {
    for (double bad : {0.0, -1.0, kInf, std::nan("")}) {
        SCOPED_TRACE(bad);
        Tensors in = inputs(12, 0.6);
        in[2] = in[2].slice(1, 0, 1).expand({12, 4}).contiguous();  // forms with a mask of rows select the same
        {
            at::NoGradGuard no_grad;
            in[0].index_put_({in[2].logical_not()}, at::scalar_tensor(bad, at::kDouble));
        }
        check(GetParam().name, GetParam().run, inputs(9, 0.5), in, GetParam().reduction, kRows);
    }
}

struct Kept {
    std::string name, why;
    Callable run;
};
class MasksKept : public ::testing::TestWithParam<Kept> {};
INSTANTIATE_TEST_SUITE_P(Forms, MasksKept, ::testing::ValuesIn(std::vector<Kept>{
    {"rows_returned", "its rows are a result", [](const Tensors& in) { return Tensors{in[0].index({in[2]}) * 2}; }},
    {"extremum", "amax of no rows is an error", [](const Tensors& in) { return Tensors{in[0].index({in[2]}).amax(0)}; }},
    {"product", "dot of its rows costs more than arithmetic", [](const Tensors& in) { return Tensors{at::mm(in[0].index({in[2]}), in[3].outer(in[3])).sum()}; }},
    {"look_up", "gather of its rows costs more than arithmetic", [](const Tensors& in) { return Tensors{in[3].index({in[0].index({in[2]}).gt(1).to(at::kLong)}).sum()}; }},
}), [](const auto& i) { return i.param.name; });

TEST_P(MasksKept, AreCompactedWithAReason) {
    for (double share : {0.4, 1.0}) check(GetParam().name, GetParam().run, inputs(9, 0.5), inputs(33, share), 1000, kRows);
    Tensors in = leaves(inputs(9, 0.5), at::kFloat);
    Fused f = strict(GetParam().run, in, kRows);
    f(in);
    EXPECT_THAT(f.report().library_calls, ::testing::Each("dot"));
    EXPECT_THAT(f.explain(), ::testing::HasSubstr("kept=\"" + GetParam().why + "\""));
    EXPECT_THAT(f.explain(), ::testing::HasSubstr(" host reads"));
}

// The rows themselves, of masks of any shape: eager's, bit by bit, none, one and all.
TEST(MasksOfAnyShape, SelectInTheOrderOfNonzero) {
    using Sizes = std::vector<std::int64_t>;
    for (const Sizes& shape : {Sizes{700}, Sizes{30, 41}, Sizes{9, 4, 25}, Sizes{70000}}) {
        auto run = [](const Tensors& in) { return Tensors{in[0].index({in[1]}), in[1].nonzero(), in[0].index({in[1]}).cumsum(0)}; };
        auto given = [&](double share) { return Tensors{at::rand(shape, at::kFloat), at::rand(shape) < share}; };
        Fused f = strict(run, given(0.5), {{.input = 0, .tensor = {}, .dim = 0, .name = "N"}, {.input = 1, .tensor = {}, .dim = 0, .name = "N"}});
        for (double share : {0.0, 0.02, 0.5, 0.98, 1.0, -1.0}) {
            Tensors in = given(share);
            if (share < 0) in[1].view(-1)[in[1].numel() - 1] = true;
            auto want = run(in), got = f(in);
            for (std::size_t k = 0; k < 2; ++k) EXPECT_TRUE(at::equal(want[k], got[k])) << shape[0] << " at " << share;
            EXPECT_TRUE(at::allclose(want[2], got[2], 1e-5));
        }
        EXPECT_EQ(f.report().calls_forward, 0) << f.explain();
    }
}

// Rows that are looked up: which of two schedules a mask gets is decided by how many of its places held in the example, for each machine; results
// are eager's at any share, whatever the places are where the mask doesn't hold.
Tensors looked_up(const Tensors& in) {
    at::Tensor at = (in[0].index({in[1]}) * 3).floor().to(at::kLong);
    return {with_rows(at::zeros_like(in[0]), in[1], in[2].index({at}).exp().sum(1) * in[0].index({in[1]}))};
}
Tensors places(std::int64_t n, double share) {
    Tensors in{real({n, 8}), at::rand({n, 8}) < share, real({6, 24})};
    in[0].detach().index_put_({in[1].logical_not()}, at::scalar_tensor(std::nan(""), at::kDouble));
    return in;
}
TEST(MasksOfRowsLookedUp, AreWhatTheExampleSays) {
    const std::vector<Varying> rows{{.input = 0, .tensor = {}, .dim = 0, .name = "N"}, {.input = 1, .tensor = {}, .dim = 0, .name = "N"}};
    for (double of_example : {0.1, 0.9}) {
        for (double share : {0.0, 0.01, 0.5, 0.9, 1.0}) check("looked up", looked_up, places(200, of_example), places(33, share), 1000, rows);
        Tensors in = leaves(places(200, of_example), at::kFloat);
        Fused f = strict(looked_up, in, rows);
        gradients(f(in), in);
        EXPECT_THAT(f.explain(), ::testing::ContainsRegex(of_example > 0.5 ? "^mask b1.N, 8.: dense: [0-9.]+ % of its places hold" : "^mask b1.N, 8.: rows are found: .*, [0-9.]+ % of its places hold"));
        std::string text;
        for (const auto& [name, kernel] : f.cuda_kernels()) text += kernel;
        EXPECT_EQ(text.find("sum_before") == std::string::npos, of_example > 0.5) << text;  // by which the places of rows are found
        for (const auto& t : f.cuda_traffic()) EXPECT_GE(t.moved, t.least);
    }
}

// A branch on a mask is decided by the number that sizes its rows; the way not taken is another capture, whose gradients are None.
TEST(MasksThatBranch, ReadOneNumber) {
    auto run = [](const Tensors& in) {
        auto m = in[0] > 1;
        auto out = in[0] * 2;
        if (m.any().item<bool>()) out = out.index_put({m}, at::mm(in[0].index({m}).unsqueeze(1), in[1]).sum(1));
        return Tensors{out.square().sum()};
    };
    auto given = [&](double shift) { return Tensors{(at::rand({40, 20}, at::kDouble) + shift).requires_grad_(), real({1, 5})}; };
    Fused f = fuse(run, leaves(given(0.5), at::kDouble), {.dynamic = rows(), .name = "f", .eager_if_uncapturable = false, .recapture = true});
    for (double shift : {0.5, -1.0, 0.2, -2.0, 1.0}) {
        Tensors a = given(shift), b = leaves(a, at::kDouble);
        auto want = run(a), got = f(b);
        expect_near(got[0], want[0], 1000, "loss");
        want[0].backward(), got[0].backward();
        expect_near(b[0].grad(), a[0].grad(), 1000, "gradient");
        EXPECT_EQ(b[1].grad().defined(), a[1].grad().defined()) << shift;
        if (a[1].grad().defined()) expect_near(b[1].grad(), a[1].grad(), 1000, "gradient in the branch");
    }
    EXPECT_THAT(f.explain(), ::testing::HasSubstr("1 host reads"));
}

// Where rows are cut depends on how many there are, which is known too late to choose another capture.
TEST(MasksThatDecide, AreEagerWithAReason) {
    auto ends = [](const Tensors& in) { auto x = in[0].index({in[2]}); return Tensors{(x.slice(0, 1) - x.slice(0, 0, -1)).abs().sum()}; };
    Tensors in = leaves(inputs(9, 0.5), at::kFloat);
    Fused f = fuse(ends, in, {.dynamic = kRows, .recapture = true});
    for (const Tensors& given : {inputs(9, 0.5), inputs(33, 0.4), inputs(5, 0.0)}) {
        in = leaves(given, at::kFloat);
        EXPECT_TRUE(at::equal(f(in)[0], ends(in)[0]));
    }
    EXPECT_THAT(f.report().eager_reason, ::testing::HasSubstr("u0 decides what runs, which no argument's size gives"));
}

}  // namespace
}  // namespace heddle::testing
