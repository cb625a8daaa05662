// Graphs that are the same but for sizes and numbers become one, which is each of them; what differs in anything else doesn't.
// Law: the interpreter decides; a general graph at a graph's sizes and numbers computes what that graph does, rewritten or not.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "ir/eval.h"
#include "ir/text.h"
#include "passes/generalise.h"
#include "passes/simplify.h"

namespace heddle {
namespace {

bool any(std::size_t, std::size_t) { return true; }
std::optional<General> general(const std::vector<Graph>& graphs) {
    std::vector<const Graph*> all;
    for (const Graph& g : graphs) all.push_back(&g);
    return generalise(all, any);
}
std::vector<Tensor> inputs_of(const Graph& g, unsigned seed) {
    std::mt19937 rng(seed);
    std::uniform_real_distribution<double> u(-1, 1);
    std::vector<Tensor> in;
    for (Id i : g.inputs) {
        Tensor t{g.type(i).dtype, {}, {}};
        for (const Dim& d : g.type(i).shape) t.sizes.push_back(d.value());
        for (std::int64_t k = 0; k < t.numel(); ++k) t.data.push_back(u(rng));
        in.push_back(std::move(t));
    }
    return in;
}
// `g` is what `m` is somewhere, and computes the same there.
void is_one_of(const General& m, const Graph& g) {
    const auto b = bind(m, g);
    ASSERT_TRUE(b) << print(m.graph) << print(g);
    std::vector<Tensor> in = inputs_of(g, 7);
    const auto want = evaluate(g, in);
    if (m.numbers > 0) in.push_back({DType::f64, {static_cast<std::int64_t>(m.numbers)}, b->numbers});
    for (const Graph& h : {m.graph, simplify(m.graph)}) {
        const auto got = evaluate(h, in, {}, b->sizes);
        ASSERT_EQ(got.size(), want.size());
        for (std::size_t k = 0; k < got.size(); ++k) {
            EXPECT_EQ(got[k].sizes, want[k].sizes);
            for (std::size_t i = 0; i < want[k].data.size(); ++i) EXPECT_NEAR(got[k].data[i], want[k].data[i], 1e-12) << "output " << k << " at " << i << "\n" << print(h);
        }
    }
}

// The total variation of a plane, n steps along a line, and a number.
Graph planes(std::int64_t h, std::int64_t w, std::int64_t n, double number) {
    Graph g;
    const Type scalar{DType::f64, {}};
    V x = g.value(g.input({DType::f64, {1, h, w, 3}}, "x"));
    V down = slice(x, 1, 1, h) - slice(x, 1, 0, h - 1), right = slice(x, 2, 1, w) - slice(x, 2, 0, w - 1);
    V tv = sum(down * down, {0, 1, 2, 3}) / constant(g, scalar, static_cast<double>(3 * (h - 1) * w)) +
           sum(right * right, {0, 1, 2, 3}) / constant(g, scalar, static_cast<double>(3 * h * (w - 1)));
    V steps = iota(g, {DType::f64, {n}}, 0) * (4.0 / static_cast<double>(n)) + 2.0;
    V flat = reshape(x, {h * w, 3}), rest = reshape(slice(flat, 0, 1, h * w), {(h * w - 1) * 3});
    V scaled = sum(steps * steps, {0}) * constant(g, scalar, number) + constant(g, scalar, number) + sum(rest, {0});
    g.outputs = {tv.id, (scaled * tv).id, steps.id};
    return g;
}

TEST(Generalise, SizesGetNamesAndNumbersAreGiven) {
    const auto m = general({planes(6, 5, 10, 2), planes(9, 7, 15, 3)});
    ASSERT_TRUE(m);
    EXPECT_EQ(m->names.size(), 3u);
    EXPECT_THAT(m->given, ::testing::SizeIs(1)) << "n is no input's size";
    EXPECT_EQ(m->graph.inputs.size(), 2u);
    for (const Graph& g : {planes(6, 5, 10, 2), planes(9, 7, 15, 3), planes(13, 4, 22, -1.5), planes(2, 2, 1, 7)}) is_one_of(*m, g);
}
TEST(Generalise, NumbersThatAreZeroOrOneElsewhere) {
    const auto m = general({planes(6, 5, 10, 2), planes(9, 7, 15, 3)});
    ASSERT_TRUE(m);
    for (double number : {0., 1., -0., -1.}) is_one_of(*m, planes(8, 8, 4, number));  // 4 steps: their length is 1
    const auto from_one = general({planes(6, 5, 4, 1), planes(9, 7, 15, 0)});
    ASSERT_TRUE(from_one);
    is_one_of(*from_one, planes(8, 3, 11, 2.5));
}
TEST(Generalise, SizesThatWereEqualByChanceStayEqual) {  // until a graph where they aren't joins
    const std::vector<Graph> square{planes(6, 6, 10, 2), planes(9, 9, 15, 3)};
    const auto m = general(square);
    ASSERT_TRUE(m);
    EXPECT_FALSE(bind(*m, planes(8, 7, 20, 2)));
    const auto all = general({planes(8, 7, 20, 2), square[0], square[1]});
    ASSERT_TRUE(all);
    for (const Graph& g : square) is_one_of(*all, g);
    is_one_of(*all, planes(5, 12, 3, 9));
}
TEST(Generalise, OneGraphIsItself) {
    const Graph g = planes(6, 5, 10, 2);
    const auto m = general({g});
    ASSERT_TRUE(m);
    EXPECT_TRUE(m->names.empty());
    EXPECT_EQ(m->numbers, 0u);
    is_one_of(*m, g);
    EXPECT_FALSE(bind(*m, planes(6, 5, 10, 2.5)));
    EXPECT_FALSE(bind(*m, planes(6, 5, 11, 2)));
}
TEST(Generalise, NamesThatWereThereStay) {  // a batch of any size, and rows that a mask counts
    auto text = [](int r) {
        return parse(fmt::format("graph @f(%0 \"x\": f64[n0, {0}]) {{\n  %1 = reshape %0 : f64[{0}*n0]\n  %2 = sum %1, axes=[0] : f64[]\n  return %2\n}}\n", r));
    };
    const auto m = general({text(5), text(7)});
    ASSERT_TRUE(m);
    EXPECT_EQ(m->names.size(), 1u);
    const auto b = bind(*m, text(11));
    ASSERT_TRUE(b);
    EXPECT_EQ(b->sizes.at(m->names[0]), 11);
    EXPECT_EQ(b->sizes.size(), 1u);
}

Graph made(const std::string& lines, const std::string& output = "%4") {
    return parse("graph @f(%0 \"x\": f64[4, 4], %1 \"y\": f64[4, 4]) {\n" + lines + "  return " + output + "\n}\n");
}
TEST(Generalise, AnythingElseIsAnotherGraph) {
    const Graph base = made("  %2 = sin %0 : f64[4, 4]\n  %3 = sum %2, axes=[0] : f64[4]\n  %4 = flip %3, axis=0 : f64[4]\n");
    const std::vector<Graph> others{
        made("  %2 = cos %0 : f64[4, 4]\n  %3 = sum %2, axes=[0] : f64[4]\n  %4 = flip %3, axis=0 : f64[4]\n"),   // an op
        made("  %2 = sin %1 : f64[4, 4]\n  %3 = sum %2, axes=[0] : f64[4]\n  %4 = flip %3, axis=0 : f64[4]\n"),   // an operand
        made("  %2 = sin %0 : f64[4, 4]\n  %3 = amax %2, axes=[0] : f64[4]\n  %4 = flip %3, axis=0 : f64[4]\n"),  // a fold
        made("  %2 = sin %0 : f64[4, 4]\n  %3 = sum %2, axes=[0] : f64[4]\n  %4 = neg %3 : f64[4]\n"),
        made("  %2 = sin %0 : f64[4, 4]\n  %3 = sum %2, axes=[0] : f64[4]\n  %4 = flip %3, axis=0 : f64[4]\n", "%3"),  // an output
    };
    ASSERT_TRUE(general({base, base}));
    for (const Graph& g : others) {
        EXPECT_FALSE(general({base, g})) << print(g);
        EXPECT_FALSE(bind(*general({base}), g)) << print(g);
    }
    // Which axis is no size: what would take a name for one is refused by the op's own rule.
    const Graph axis = made("  %2 = sin %0 : f64[4, 4]\n  %3 = sum %2, axes=[1] : f64[4]\n  %4 = flip %3, axis=0 : f64[4]\n");
    EXPECT_FALSE(general({base, axis}));
    EXPECT_FALSE(bind(*general({base}), axis));
    const Graph scan0 = made("  %2 = scan %0, %1, axis=0, mode=0, reverse=false, init=0.0 : f64[4, 4]\n", "%2"),
                scan1 = made("  %2 = scan %0, %1, axis=0, mode=0, reverse=false, init=1.0 : f64[4, 4]\n", "%2"),
                scan2 = made("  %2 = scan %0, %1, axis=0, mode=0, reverse=true, init=0.0 : f64[4, 4]\n", "%2");
    EXPECT_FALSE(general({scan0, scan1}));
    EXPECT_FALSE(general({scan0, scan2}));
}
TEST(Generalise, SharingIsNoDifferenceButForRandomNumbers) {
    auto two = [](double a, double b) {  // where a is b the graph has one constant
        Graph g;
        V x = g.value(g.input({DType::f64, {3}}, "x"));
        g.outputs = {(x * constant(g, x.type(), a) + constant(g, x.type(), b)).id};
        return g;
    };
    const auto m = general({two(2, 2), two(3, 4)});
    ASSERT_TRUE(m);
    EXPECT_EQ(m->numbers, 2u);
    for (const Graph& g : {two(2, 2), two(3, 4), two(5, 1), two(1, 0)}) is_one_of(*m, g);
    auto random = [](bool again, bool swapped) {
        Graph g;
        const Type t{DType::f64, {3}};
        auto draw = [&](double low) {
            return g.value(g.add({.op = Op::call, .in = {}, .attrs = {{"name", "aten.uniform"}, {"low", low}, {"random", true}}, .type = t, .more = {}, .loc = {}}));
        };
        V a = draw(0), b = again ? draw(0) : a;
        g.outputs = swapped ? std::vector<Id>{b.id, a.id} : std::vector<Id>{a.id, b.id};
        return g;
    };
    EXPECT_TRUE(general({random(true, false), random(true, false)}));
    EXPECT_FALSE(general({random(true, false), random(false, false)}));
    EXPECT_FALSE(general({random(true, false), random(true, true)}));
    EXPECT_FALSE(bind(*general({random(true, false)}), random(true, true)));
}
TEST(Generalise, SizesThatMayNotVary) {
    const Graph a = planes(6, 5, 10, 2), b = planes(9, 5, 15, 3);
    const std::vector<const Graph*> both{&a, &b};
    EXPECT_TRUE(generalise(both, [](std::size_t input, std::size_t dim) { return input == 0 && dim == 1; }));
    EXPECT_FALSE(generalise(both, [](std::size_t, std::size_t dim) { return dim == 2; }));
}

}  // namespace
}  // namespace heddle
