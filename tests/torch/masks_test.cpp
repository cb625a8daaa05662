// Boolean masks: no nonzero where it isn't needed, eager's values and gradients wherever the mask is false, and calls that stay with a reason.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

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

TEST_P(MasksKept, AreLibraryCallsWithAReason) {
    check(GetParam().name, GetParam().run, inputs(9, 0.5), inputs(33, 0.4), 1000, kRows);
    Tensors in = leaves(inputs(9, 0.5), at::kFloat);
    Fused f = strict(GetParam().run, in, kRows);
    f(in);
    EXPECT_GE(f.report().calls_forward, 1);
    EXPECT_THAT(f.explain(), ::testing::HasSubstr("kept=\"" + GetParam().why + "\""));
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
