// How sums get to memory: ordered ones have the same bits whatever order threads run in, and those of exact sums, for any terms; shared ones, and
// all that a schedule can ask for, have the interpreter's values.
// Law: the machine runs each kernel with two seeds and compares bits where no float was added atomically; sizes 0, 1 and primes are among them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>

#include "codegen/cuda/cuda.h"
#include "runtime/nvrtc.h"
#include "tests/core/golden.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle::test {
namespace {

using testing::HasSubstr;

const Dim M = Dim::symbol("M"), P = Dim::symbol("P");
Plan planned(const Graph& g, bool deterministic) { return plan(g, {}, {.machine = Machine::cuda, .deterministic = deterministic}); }
bool has(const Plan& p, Adds a) {
    for (const auto& launch : p.loops)
        for (const loop::Nest& n : launch)
            if (n.schedule.adds == a) return true;
    return false;
}
bool same_bits(double a, double b) { return a == b ? std::signbit(a) == std::signbit(b) : std::isnan(a) && std::isnan(b); }
void expect_same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t k = 0; k < a.size(); ++k)
        for (std::size_t i = 0; i < a[k].data.size(); ++i) ASSERT_TRUE(same_bits(a[k].data[i], b[k].data[i])) << k << "[" << i << "]: " << a[k].data[i] << " and " << b[k].data[i];
}

// From cells[M] (whole numbers), by[M] and values[M, channels]; rows in number.
struct Form {
    const char* name;
    std::vector<V> (*of)(V at, V by, V values, const Dim& rows);
};
V wide(V v, V like) { return expand(v, {1}, like.type().shape); }
const Form kForms[] = {
    {"rows", [](V at, V by, V values, const Dim& rows) { return std::vector{scatter_add({values.type().dtype, {rows, values.type().shape[1]}}, {at}, values * wide(by, values))}; }},
    {"numbers", [](V at, V by, V, const Dim& rows) { return std::vector{scatter_add({by.type().dtype, {rows}}, {at}, by * by)}; }},
    {"rows twice and a sum", [](V at, V by, V values, const Dim& rows) {
        const Type t{values.type().dtype, {rows, values.type().shape[1]}};
        V x = values * wide(by, values), once = scatter_add(t, {at}, x), twice = scatter_add(t, {at}, x * x);
        return std::vector{once + twice * 0.5, cast(sum(cast(x, DType::f64), {0, 1}), t.dtype)};
    }},
    {"sums over all points", [](V, V by, V values, const Dim&) {
        V x = values * wide(by, values);
        return std::vector{cast(sum(permute(cast(x, DType::f64), {1, 0}), {1}), by.type().dtype), values * values};
    }},
};
Graph graph_of(const Form& f, int channels, DType t, const Dim& rows) {
    Graph g;
    g.name = fmt::format("{}_{}_{}_{}", f.name, channels, name(t), rows.is_const() ? "known" : "any");
    std::replace(g.name.begin(), g.name.end(), ' ', '_');
    V cells = g.value(g.input({DType::f32, {M}}, "cells")), by = g.value(g.input({t, {M}}, "by")), values = g.value(g.input({t, {M, channels}}, "values"));
    V at = mod(cast(cells, DType::i64), rows.is_const() ? constant(g, {DType::i64, {M}}, static_cast<double>(rows.value())) : size(g, {DType::i64, {M}}, rows));
    for (V v : f.of(at, by, values, rows)) g.outputs.push_back(v.id);
    return g;
}
const std::vector<Sizes> kSizes{{{"M", 0}, {"P", 3}}, {{"M", 1}, {"P", 1}}, {{"M", 37}, {"P", 2}}, {{"M", 331}, {"P", 5}}};
std::vector<Tensor> arguments(const Graph& g, const Sizes& sizes) {
    std::mt19937 rng(7);
    std::vector<Tensor> in;
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, -0.6, 0.9));
    double cell = 0;
    for (double& v : in[0].data) v = cell = rng() % 4 == 0 ? static_cast<double>(rng() % 64) : cell;
    return in;
}
void check(const Graph& g, const std::vector<Plan>& plans) {
    std::vector<const Plan*> all;
    for (const Plan& p : plans) all.push_back(&p);
    cuda_on_cpu::compile_ahead(all);
    for (const Plan& p : plans) {
        const cuda_on_cpu::Runner run(p, cuda_on_cpu::target(5)), again(p, cuda_on_cpu::target(11));
        for (const Sizes& sizes : kSizes) {
            SCOPED_TRACE(fmt::format("{}; M = {}, P = {}", print(p.program), sizes.at("M"), sizes.at("P")));
            const auto in = arguments(g, sizes);
            const auto out = run(in, sizes);
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(evaluate(g, in, {}, sizes), out, "output"));
            if (!p.deterministic) continue;
            ASSERT_NO_FATAL_FAILURE(expect_same_bits(out, again(in, sizes)));
        }
    }
}

class SumsOf : public testing::TestWithParam<std::size_t> {
protected:
    const Form& form = kForms[GetParam()];
};
INSTANTIATE_TEST_SUITE_P(Forms, SumsOf, testing::Range<std::size_t>(0, std::size(kForms)), [](const auto& i) {
    std::string s = kForms[i.param].name;
    std::replace(s.begin(), s.end(), ' ', '_');
    return s;
});

TEST_P(SumsOf, OrderedHaveTheSameBits) {
    for (DType t : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i64}) {
        const Graph g = graph_of(form, t == DType::f64 ? 3 : 24, t, P);
        const Plan p = planned(g, true);
        EXPECT_EQ(adds_in_any_order(p), "");
        if (is_float(t)) {
            EXPECT_NE(adds_in_any_order(planned(g, false)), "");
            EXPECT_TRUE(has(p, Adds::ordered));
            EXPECT_THAT(print(p.program), HasSubstr("adds=ordered"));
            EXPECT_THAT(cuda_text("k", p.loops[0]).text, HasSubstr(", adds ordered: terms"));
        }
        check(g, {p});
        if (HasFatalFailure()) return;
    }
}
TEST_P(SumsOf, AsForced) {
    const Graph g = graph_of(form, 24, DType::f32, 5);
    std::vector<Plan> plans;
    for (Adds adds : {Adds::shared, Adds::ordered})
        for (auto [vector, group, run, full] : {std::tuple{1, 1, 16, 1}, {4, 8, 16, 1}, {1, 32, 3, 1}, {4, 2, 16, 64}, {1, 16, 1, 1}}) {
            Plan& p = plans.emplace_back(planned(g, false));
            p.deterministic = adds == Adds::ordered;
            for (auto& launch : p.loops)
                for (loop::Nest& n : launch) {
                    const bool lanes = !n.phases.empty() && group > 1;
                    n.schedule = {.lanes_inner = lanes, .group = lanes ? group : 1, .threads = 64, .vector = lanes ? vector : 1, .run = run, .full = full, .adds = adds};
                }
        }
    check(g, plans);
}

// ---- shared
TEST_P(SumsOf, SharedWhereTablesAreSmallAndCrowded) {
    const bool table = form.name != std::string("sums over all points");
    const Graph few = graph_of(form, 24, DType::f32, 5);
    const Plan p = planned(few, false);
    EXPECT_EQ(has(p, Adds::shared), table) << print(p.program);
    EXPECT_FALSE(has(planned(few, true), Adds::shared));
    EXPECT_FALSE(has(planned(graph_of(form, 24, DType::f32, P), false), Adds::shared)) << "of unknown size";
    EXPECT_FALSE(has(planned(graph_of(form, 24, DType::f32, 10000), false), Adds::shared)) << "too large";
    EXPECT_FALSE(has(planned(graph_of(form, 24, DType::f32, 300), false), Adds::shared)) << "few points for each";
    EXPECT_EQ(cuda_text("k", p.loops[0]).text.find(", adds shared (") != std::string::npos, table);
    check(few, {p});
    check(graph_of(form, 20, DType::f64, 5), {planned(graph_of(form, 20, DType::f64, 5), false)});
    check(graph_of(form, 24, DType::i64, 5), {planned(graph_of(form, 24, DType::i64, 5), false)});
}
TEST(SharedSums, OfBlocksThatTakeManyPoints) {  // more points than a block has, each thread several
    for (const Form& form : {kForms[0], kForms[1]}) {
        const Graph g = graph_of(form, 4, DType::f32, 3);
        Plan p = planned(g, false);
        ASSERT_TRUE(has(p, Adds::shared));
        for (auto& launch : p.loops)
            for (loop::Nest& n : launch) n.schedule.full = 128;
        const cuda_on_cpu::Runner run(p, cuda_on_cpu::target(3));
        for (int m : {127, 1024, 5003}) {
            const Sizes sizes{{"M", m}, {"P", 3}};
            const auto in = arguments(g, sizes);
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(evaluate(g, in, {}, sizes), run(in, sizes), fmt::format("{} points", m)));
        }
    }
}

// ---- ordered, of any terms
Graph sums_of(DType t) {
    Graph g;
    g.name = fmt::format("sums_{}", name(t));
    V cells = g.value(g.input({DType::i64, {M}}, "cells")), values = g.value(g.input({t, {M}}, "values"));
    g.outputs = {scatter_add({t, {P}}, {cells}, values).id};
    return g;
}
std::vector<double> ordered_sums(const cuda_on_cpu::Runner& run, DType t, const std::vector<std::vector<double>>& rows, std::mt19937& rng) {
    std::vector<std::pair<double, double>> terms;
    for (std::size_t r = 0; r < rows.size(); ++r)
        for (double v : rows[r]) terms.emplace_back(static_cast<double>(r), v);
    std::shuffle(terms.begin(), terms.end(), rng);
    const auto m = static_cast<std::int64_t>(terms.size());
    Tensor cells{DType::i64, {m}, {}}, values{t, {m}, {}};
    for (auto [cell, v] : terms) cells.data.push_back(cell), values.data.push_back(v);
    return run({cells, values}, {{"M", m}, {"P", static_cast<std::int64_t>(rows.size())}})[0].data;
}
TEST(OrderedSums, AreThoseOfExactArithmetic) {
    for (DType t : {DType::f32, DType::f64}) {
        const cuda_on_cpu::Runner run(planned(sums_of(t), true), cuda_on_cpu::target(2));
        std::mt19937 rng(9);
        std::normal_distribution<double> normal;
        auto rounded = [&](double v) { return t == DType::f32 ? static_cast<double>(static_cast<float>(v)) : v; };
        const double least = t == DType::f32 ? 0x1p-149 : 0x1p-1074, far = t == DType::f32 ? 30 : 250;
        std::vector<std::vector<double>> rows;
        for (int r = 0; r < 40; ++r) {  // of all sizes; each row with its own, and some that cancel
            auto& row = rows.emplace_back();
            const double scale = std::pow(10.0, far * (r / 20.0 - 1)), spread = r % 4;
            for (int k = 0; k < 1 + 7 * r; ++k) row.push_back(rounded(normal(rng) * scale * std::pow(10.0, spread * normal(rng))));
            if (r % 5 == 0)
                for (std::size_t k = row.size(); k-- > 0;) row.push_back(-row[k]);
            if (r % 5 == 0) row.push_back(rounded(scale * 1e-6));
        }
        rows.push_back({least, least, -3 * least, 7 * least, 1e6 * least});
        rows.push_back({0.0, -0.0});
        rows.emplace_back();
        const double u = t == DType::f32 ? 0x1p-24 : 0x1p-53, unit = t == DType::f32 ? 0x1p-40 : 0x1p-80;
        const auto got = ordered_sums(run, t, rows, rng);
        for (std::size_t r = 0; r < rows.size(); ++r) {
            __float128 sum = 0, largest = 0;
            float one_by_one = 0;
            double doubles = 0;
            for (double v : rows[r]) {
                sum += v, largest = std::max<__float128>(largest, v < 0 ? -v : v);
                one_by_one += static_cast<float>(v), doubles += v;
            }
            auto off = [&](double v) { return static_cast<double>(v - sum < 0 ? sum - v : v - sum); };
            const double exact = static_cast<double>(sum), bound = 1.001 * u * std::fabs(exact) + unit * static_cast<double>(largest) * static_cast<double>(rows[r].size()) + least / 2;
            EXPECT_LE(off(got[r]), bound) << name(t) << ", row " << r << ": " << got[r] << ", exactly " << exact;
            EXPECT_LE(off(got[r]), off(t == DType::f32 ? one_by_one : doubles) * 1.001 + bound) << name(t) << ", row " << r;
            EXPECT_FALSE(rows[r].size() <= 2 && got[r] == 0 && std::signbit(got[r]));
        }
    }
}
TEST(OrderedSums, OfInfinitiesAndNanAreEagers) {
    constexpr double inf = kInf, nan = std::numeric_limits<double>::quiet_NaN();
    for (DType t : {DType::f32, DType::f64, DType::f16, DType::bf16}) {
        const cuda_on_cpu::Runner run(planned(sums_of(t), true), cuda_on_cpu::target(2));
        std::mt19937 rng(9);
        const double most = t == DType::f16 ? 65504 : t == DType::f64 ? std::numeric_limits<double>::max() : t == DType::f32 ? std::numeric_limits<float>::max() : 3.3895313892515355e38;
        const std::vector<std::vector<double>> rows{{1, inf, 3}, {-inf, 2}, {inf, -inf}, {inf, inf, inf}, {nan, 1}, {nan, inf}, {-inf, nan}, {-inf, -inf}, {1, 2}, {most, most}, {-most, -most, 1}, {most, -most, 1}};
        const std::vector<double> want{inf, -inf, nan, inf, nan, nan, nan, -inf, 3, inf, -inf, 1};
        const auto got = ordered_sums(run, t, rows, rng);
        for (std::size_t r = 0; r < rows.size(); ++r) {
            const bool no_room = r + 1 == rows.size() && t != DType::f16;  // the 1 is less than half of the last bit that is kept: 2^40 times
            EXPECT_TRUE(same_bits(no_room ? 0 : want[r], got[r])) << name(t) << ", row " << r << ": " << got[r] << ", expected " << want[r];
        }
    }
}
TEST(OrderedSums, OfManyTermsLoseNone) {  // as many as fill the words
    const Graph g = sums_of(DType::f32);
    const cuda_on_cpu::Runner run(planned(g, true), cuda_on_cpu::target(2));
    std::mt19937 rng(3);
    std::vector<std::vector<double>> rows{std::vector<double>(20011, std::nextafterf(2.0f, 0.0f)), std::vector<double>(20011, -std::nextafterf(2.0f, 0.0f)), {1.0}};
    rows[2].insert(rows[2].end(), 20000, 0x1p-24);  // each of which a float of 1 would lose
    const auto got = ordered_sums(run, DType::f32, rows, rng);
    EXPECT_EQ(got[0], static_cast<double>(static_cast<float>(20011.0 * std::nextafterf(2.0f, 0.0f))));
    EXPECT_EQ(got[1], -got[0]);
    EXPECT_EQ(got[2], static_cast<double>(static_cast<float>(1 + 20000 * 0x1p-24)));
}
// A nest that adds and writes over what it reads: the second pass reads what the first did.
TEST(OrderedSums, BesideWhatIsWrittenOverItsInput) {
    Graph g;
    g.name = "over";
    V x = g.value(g.input({DType::f32, {M}}, "x")), cells = g.value(g.input({DType::i64, {M}}, "cells"));
    V y = x * 3 + 1;
    g.outputs = {y.id, scatter_add({DType::f32, {P}}, {cells}, y).id};
    Plan p = plan(g, {}, {.machine = Machine::cuda, .updates = {{0, 0}}, .deterministic = true});
    ASSERT_EQ(p.program.updates.size(), 1u);
    ASSERT_EQ(p.loops.size(), 1u);
    const Sizes sizes{{"M", 331}, {"P", 7}};
    std::mt19937 rng(3);
    std::vector<Tensor> in{random_tensor(g.type(g.inputs[0]), sizes, rng), random_tensor(g.type(g.inputs[1]), sizes, rng, 0, 7)};
    const auto want = evaluate(g, in, {}, sizes);
    auto host = plain_host(1);
    const std::vector<Array> arrays{to_array(*host, in[0]), to_array(*host, in[1])};
    Sizes bound = sizes;
    const auto out = Executable(p, cuda_on_cpu::target(2)).run(*host, arrays, bound);
    cuda_on_cpu::expect_same(want, {to_tensor(arrays[0]), to_tensor(out[1])}, "output");
}

// HexPlane's density: nine nests that add to planes and a basis, in one kernel.
TEST(AddsOfPlanes, AreTheInterpretersHoweverTheyAreMade) {
    const Graph g = parse(golden::section(golden::contents(golden::kFolder / "hexplane/density_feature.hir"), "lowered"));
    Nvrtc nvrtc;
    for (Adds adds : {Adds::ordered, Adds::shared}) {
        cuda_on_cpu::Planned p(g);
        p.cuda_backward = planned(p.pair.split.backward, adds == Adds::ordered);
        int near = 0;
        for (auto& launch : p.cuda_backward.loops)
            for (loop::Nest& n : launch) {
                if (n.schedule.adds != Adds::none) n.schedule.adds = adds;
                near += loop::near_bytes(n) > 0;
            }
        EXPECT_EQ(near, adds == Adds::shared ? 6 : 0);
        cuda_on_cpu::check(p, {{{"M", 67}}}, -1, 1, 5, false);
        for (std::size_t k = 0; k < p.cuda_backward.loops.size() && nvrtc.available(); ++k) {
            const CudaSource s = cuda_text("k", p.cuda_backward.loops[k]);
            for (const char* arch : {"sm_75", "sm_80", "sm_90"}) {
                const auto r = nvrtc.compile({s.kernel, s.text}, arch)->resources;
                ASSERT_TRUE(r);
                EXPECT_EQ(r->spill_stores + r->spill_loads, 0) << arch;
                EXPECT_LE(r->registers, adds == Adds::ordered ? 80 : 128) << arch << " " << name(adds);
            }
        }
    }
}

TEST(AddsOnDevices, CompileWithoutSpills) {
    Nvrtc nvrtc;
    if (!nvrtc.available()) GTEST_SKIP() << nvrtc.why_not();
    for (const Form& form : kForms)
        for (bool deterministic : {true, false})
            for (DType t : {DType::f32, DType::f64, DType::bf16}) {
                const Graph g = graph_of(form, 24, t, 5);
                const Plan p = planned(g, deterministic);
                for (const char* arch : {"sm_75", "sm_80", "sm_90"})
                    for (const auto& launch : p.loops) {
                        const CudaSource s = cuda_text("k", launch);
                        const auto r = nvrtc.compile({s.kernel, s.text}, arch)->resources;
                        ASSERT_TRUE(r);
                        EXPECT_EQ(r->spill_stores, 0) << arch << "\n" << s.text;
                    }
            }
}

}  // namespace
}  // namespace heddle::test
