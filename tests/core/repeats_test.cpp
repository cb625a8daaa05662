// Products of rows that repeat: the same numbers as the product of all rows, and only the rows that differ are multiplied.
// Law: the interpreter decides the numbers; what is multiplied is read off the graph.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "ir/eval.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/grad.h"
#include "passes/repeats.h"
#include "passes/simplify.h"

namespace heddle {
namespace {

using ::testing::ElementsAre;

const Dim R = Dim::symbol("R"), T = Dim::symbol("T");
const Sizes kSizes{{"R", 5}, {"T", 3}};

std::vector<std::string> products(const Graph& g) {  // [M, K] x [K, N], as text
    std::vector<std::string> all;
    for (const Node& n : g.nodes)
        if (n.is(Op::dot)) all.push_back(print(g.type(n.in[0]).shape) + " x " + print(g.type(n.in[1]).shape));
    return all;
}
std::vector<Tensor> random_inputs(const Graph& g) {
    std::mt19937 rng(7);
    std::uniform_real_distribution<double> u(-1, 1);
    std::vector<Tensor> in;
    for (Id i : g.inputs) {
        Tensor t{g.type(i).dtype, {}, {}};
        for (const Dim& d : g.type(i).shape) t.sizes.push_back(d.eval(kSizes));
        for (std::int64_t k = 0; k < t.numel(); ++k) t.data.push_back(u(rng));
        in.push_back(t);
    }
    return in;
}
void same_numbers(const Graph& g, const Graph& h) {
    const auto in = random_inputs(g);
    const auto want = evaluate(g, in, {}, kSizes), got = evaluate(h, in, {}, kSizes);
    ASSERT_EQ(want.size(), got.size());
    for (std::size_t k = 0; k < want.size(); ++k) {
        ASSERT_EQ(want[k].sizes, got[k].sizes);
        for (std::size_t i = 0; i < want[k].data.size(); ++i) EXPECT_NEAR(want[k].data[i], got[k].data[i], 1e-11) << "output " << k << ", element " << i;
    }
}
struct Case {
    Graph g;
    V in(Shape s, DType t = DType::f64) { return g.value(g.input({t, std::move(s)}, "x" + std::to_string(g.inputs.size()))); }
    // The rewritten graph, checked: values, and gradients of the sum of squares.
    Graph once() {
        const Graph h = products_once(g);
        verify(h, "products_once");
        same_numbers(g, h);
        const std::vector<char> wants(g.inputs.size(), 1);
        same_numbers(differentiate(g, wants).graph, differentiate(h, wants).graph);
        return h;
    }
};

TEST(Repeats, RowsThatAreTheSameForEveryViewAreMultipliedOnce) {
    Case c;
    V x = c.in({R, 4}), w = c.in({4, 6});
    V wide = expand(x, {1}, {R, T, 4});
    c.g.outputs = {reshape(dot(reshape(wide, {R * T, 4}), w), {R, T, 6}).id};
    EXPECT_THAT(products(c.once()), ElementsAre("[R, 4] x [4, 6]"));
}
TEST(Repeats, OneRowForAllPassesThroughLayers) {
    Case c;
    V time = c.in({1, 1, 4}), w = c.in({4, 6}), bias = c.in({6}), v = c.in({6, 2});
    V all = expand(reshape(time, {4}), {0, 1}, {R, T, 4});
    V hidden = reshape(dot(reshape(all, {R * T, 4}), w), {R, T, 6}) + expand(bias, {0, 1}, {R, T, 6});
    V active = max(hidden, zeros_like(hidden));
    c.g.outputs = {reshape(dot(reshape(active, {R * T, 6}), v), {R, T, 2}).id};
    EXPECT_THAT(products(c.once()), ElementsAre("[1, 4] x [4, 6]", "[1, 6] x [6, 2]"));
}
TEST(Repeats, ManyColumnsThatRepeatAreAProductOfTheirOwn) {
    Case c;
    V mean = c.in({R, 40}), x = c.in({R, T, 3}), angle = c.in({R, T, 2}), w = c.in({45, 6});
    V all = concat({reshape(x, {R * T, 3}), reshape(expand(mean, {1}, {R, T, 40}), {R * T, 40}), reshape(angle, {R * T, 2})}, 1);
    c.g.outputs = {reshape(dot(all, w), {R, T, 6}).id};
    EXPECT_THAT(products(c.once()), ElementsAre("[R, 40] x [40, 6]", "[R*T, 5] x [5, 6]"));
}
TEST(Repeats, PartsOfAConcatInAConcatKeepTheirColumns) {
    Case c;
    V mean = c.in({R, 20}), more = c.in({R, 15}), x = c.in({R, T, 3}), w = c.in({41, 2});
    auto rows = [](V v) { return reshape(v, {R * T, v.type().shape.back()}); };
    V first = concat({rows(expand(mean, {1}, {R, T, 20})), rows(x)}, 1), second = concat({rows(x), rows(expand(more, {1}, {R, T, 15}))}, 1);
    c.g.outputs = {dot(concat({first, second}, 1), w).id};
    EXPECT_THAT(products(c.once()), ElementsAre("[R, 35] x [35, 2]", "[R*T, 6] x [6, 2]"));
}
TEST(Repeats, ThroughEveryViewThatKeepsTheAxis) {
    Case c;
    V x = c.in({R, 6}), w = c.in({8, 2});
    V wide = permute(expand(x, {0}, {T, R, 6}), {1, 0, 2});                       // [R, T, 6]
    wide = flip(pad(slice(wide, 2, 1, 5), 2, 3, 1), 0);                           // [R, T, 8]
    wide = wide * expand(sum(wide, {2}), {2}, {R, T, 8}) + cast(iota(c.g, {DType::i64, {R, T, 8}}, 2), DType::f64);
    c.g.outputs = {dot(reshape(wide, {R * T, 8}), w).id};
    EXPECT_THAT(products(c.once()), ElementsAre("[R, 8] x [8, 2]"));
}

std::vector<std::string> untouched(Case& c) { return products(c.once()); }
TEST(Repeats, RowsThatDifferStay) {
    for (int what = 0; what < 5; ++what) {
        Case c;
        V x = c.in({R, 4}), y = c.in({R, T, 4}), w = c.in({4, 6});
        V wide = expand(x, {1}, {R, T, 4});
        V order = cast(iota(c.g, {DType::i64, {R, T, 4}}, 1), DType::f64);
        V rows = what == 0   ? wide + y
                 : what == 1 ? wide * order
                 : what == 2 ? scan(like(wide, 1), wide, 1, 0, false, 0)                          // counts along the axis
                 : what == 3 ? concat({slice(wide, 1, 0, 1), slice(y, 1, 1, T)}, 1)               // one view of another kind
                             : pad(slice(wide, 1, 1, T), 1, 1, 0);
        c.g.outputs = {dot(reshape(rows, {R * T, 4}), w).id};
        EXPECT_THAT(untouched(c), ElementsAre("[R*T, 4] x [4, 6]")) << what;
    }
}
TEST(Repeats, FewColumnsOrNarrowTypesAreNotSums) {
    for (DType t : {DType::f64, DType::f16}) {
        Case c;
        const int columns = t == DType::f64 ? 31 : 40;
        V mean = c.in({R, columns}, t), x = c.in({R, T, 3}, t), w = c.in({columns + 3, 6}, t);
        c.g.outputs = {dot(concat({reshape(expand(mean, {1}, {R, T, columns}), {R * T, columns}), reshape(x, {R * T, 3})}, 1), w).id};
        EXPECT_EQ(products(products_once(c.g)).size(), 1u);
    }
}

}  // namespace
}  // namespace heddle
