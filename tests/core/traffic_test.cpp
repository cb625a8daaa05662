// Traffic of plans for CUDA: what is counted once, what twice, what not.
#include "runtime/traffic.h"

#include <gtest/gtest.h>

#include "passes/pipeline.h"

namespace heddle::test {
namespace {

constexpr std::int64_t kPoints = 1000, kRows = 50;
const Dim M = Dim::symbol("M"), P = Dim::symbol("P");

struct Counted {
    Graph g;
    V input(const Shape& s, DType t = DType::f32) { return g.value(g.input({t, s}, "in" + std::to_string(g.inputs.size()))); }
    Traffic of(const std::vector<V>& outputs, const KeptValues& kept = {}) {
        g.name = "k";
        for (V v : outputs) g.outputs.push_back(v.id);
        return traffic(plan(g, {}, {.machine = Machine::cuda}), {{"M", kPoints}, {"P", kRows}}, kept);
    }
};

TEST(Traffic, OfAMapIsItsOperandsAndItsResult) {
    Counted p;
    V x = p.input({M}), y = p.input({M});
    const Traffic t = p.of({x * y + x});
    ASSERT_EQ(t.launches.size(), 1u);
    EXPECT_EQ(t.launches[0].moved, 3 * 4 * kPoints);
    EXPECT_EQ(t.launches[0].least, 3 * 4 * kPoints);
    EXPECT_EQ(t.moved, t.launches[0].moved);
    EXPECT_EQ(t.least, t.launches[0].least);
    EXPECT_EQ(t.calls, 0);
}
TEST(Traffic, StagesReadAgainAndHandOn) {
    Counted p;
    V x = p.input({M});
    const Traffic t = p.of({x * expand(cast(sum(cast(x, DType::f64), {0}), DType::f32), {0}, {M})});
    ASSERT_EQ(t.launches.size(), 1u);
    EXPECT_EQ(t.least, 2 * 4 * kPoints);
    EXPECT_EQ(t.moved, t.least + 4 * kPoints + 3 * 8);  // x again; the sum cleared, added to and read
}
TEST(Traffic, WhatIsAddedToIsClearedBefore) {
    Counted p;
    V at = p.input({M}, DType::i64), x = p.input({M});
    const Traffic t = p.of({scatter_add({DType::f32, {P}}, {at}, x)});
    EXPECT_EQ(t.least, (8 + 4) * kPoints + 4 * kRows);
    EXPECT_EQ(t.moved, t.least + 4 * kRows);
}
TEST(Traffic, OfATableIsNoMoreThanLookUpsCanTouch) {
    Counted p;
    V table = p.input({M}), at = p.input({P}, DType::i64);
    const Traffic t = p.of({gather(table, {at})});
    EXPECT_EQ(t.moved, (4 + 8 + 4) * kRows);
    EXPECT_EQ(t.least, t.moved);
}
TEST(Traffic, OfLibraryCallsIsTheirOwn) {
    Counted p;
    V x = p.input({M, 4}), w = p.input({4, 3});
    const Traffic t = p.of({dot(x * x, w) * 2.0});
    EXPECT_EQ(t.calls, 4 * (4 * kPoints + 12 + 3 * kPoints));
    EXPECT_EQ(t.least, 4 * (2 * 4 * kPoints + 2 * 3 * kPoints));  // the operand made, the result gone on with
    EXPECT_EQ(t.moved, t.least);
}
TEST(Traffic, WhatIsKeptForTheOtherDirectionIsExcess) {
    Counted p;
    V x = p.input({M}), y = p.input({M});
    const Traffic t = p.of({x * 2.0, y * 3.0}, {.outputs = 1, .inputs = {0, 1}});
    EXPECT_EQ(t.moved, 4 * 4 * kPoints);
    EXPECT_EQ(t.least, 2 * 4 * kPoints);
}

}  // namespace
}  // namespace heddle::test
