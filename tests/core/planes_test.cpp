// Rows looked up and added to, as planes are: whatever number of elements a thread takes and however far a group walks, values are the
// interpreter's; and what NVRTC makes of it has the loads, the reductions and the registers that speed takes.
// Law: each form is put on plans by force too, those included that heddle would not choose, at sizes 0, 1 and primes.
#include <fmt/format.h>

#include <regex>

#include "codegen/cuda/cuda.h"
#include "runtime/nvrtc.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle::test {
namespace {

const Dim M = Dim::symbol("M"), P = Dim::symbol("P");

// From cells[M] (whole numbers), by[M] and rows[P, channels] or values[M, channels].
struct Form {
    const char* name;
    std::vector<V> (*of)(Graph&, V at, V by, V values, V rows);
};
V wide(V v, V like) { return expand(v, {1}, like.type().shape); }
const Form kForms[] = {
    {"add rows", [](Graph&, V at, V by, V values, V rows) { return std::vector{scatter_add(rows.type(), {at}, values * wide(by, values))}; }},
    {"add to two cells", [](Graph&, V at, V by, V values, V rows) {
        V next = mod(at + 1, size(*at.graph, at.type(), P)), x = values * wide(by, values);
        return std::vector{scatter_add(rows.type(), {at}, x) + scatter_add(rows.type(), {next}, x * 0.5)};
    }},
    {"look up", [](Graph&, V at, V by, V, V rows) {
        V g = gather(rows, {at});
        return std::vector{g * wide(by, g)};
    }},
    {"sums of rows looked up", [](Graph&, V at, V by, V values, V rows) {
        V g = gather(rows, {at}) * values;
        return std::vector{sum(g, {1}), amax(g, {1}) * by};
    }},
    {"sums over all points", [](Graph&, V at, V by, V values, V rows) {
        V g = gather(rows, {at}) * values * wide(by, values);
        return std::vector{cast(sum(permute(cast(g, DType::f64), {1, 0}), {1}), by.type().dtype)};
    }},
};
Graph graph_of(const Form& f, int channels, DType t) {
    Graph g;
    g.name = fmt::format("{}_{}_{}", f.name, channels, name(t));
    std::replace(g.name.begin(), g.name.end(), ' ', '_');
    V cells = g.value(g.input({DType::f32, {M}}, "cells")), by = g.value(g.input({t, {M}}, "by"));
    V values = g.value(g.input({t, {M, channels}}, "values")), rows = g.value(g.input({t, {P, channels}}, "rows"));
    for (V v : f.of(g, cast(cells, DType::i64), by, values, rows)) g.outputs.push_back(v.id);
    return g;
}

const std::vector<Sizes> kSizes{{{"M", 0}, {"P", 3}}, {{"M", 1}, {"P", 1}}, {{"M", 37}, {"P", 2}}, {{"M", 331}, {"P", 5}}};
// Cells stay as they are for some points, as along a ray.
std::vector<Tensor> arguments(const Graph& g, const Sizes& sizes) {
    std::mt19937 rng(7);
    std::vector<Tensor> in;
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, 0.3, 0.9));
    double cell = 0;
    for (double& v : in[0].data) v = cell = rng() % 4 == 0 ? static_cast<double>(rng() % static_cast<unsigned>(sizes.at("P"))) : cell;
    return in;
}
void check(const Graph& g, const std::vector<Plan>& plans) {
    std::vector<const Plan*> all;
    for (const Plan& p : plans) all.push_back(&p);
    cuda_on_cpu::compile_ahead(all);
    std::vector<std::pair<std::vector<Tensor>, std::vector<Tensor>>> cases;
    for (const Sizes& sizes : kSizes) {
        auto in = arguments(g, sizes);
        auto out = evaluate(g, in, {}, sizes);
        cases.emplace_back(std::move(in), std::move(out));
    }
    for (const Plan& p : plans) {
        const cuda_on_cpu::Runner run(p, cuda_on_cpu::target(5));
        for (std::size_t k = 0; k < kSizes.size(); ++k) {
            SCOPED_TRACE(fmt::format("{}; M = {}, P = {}", print(p.program), kSizes[k].at("M"), kSizes[k].at("P")));
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(cases[k].second, run(cases[k].first, kSizes[k]), "output"));
        }
    }
}

class Planes : public testing::TestWithParam<std::size_t> {
protected:
    const Form& form = kForms[GetParam()];
};
INSTANTIATE_TEST_SUITE_P(Forms, Planes, testing::Range<std::size_t>(0, std::size(kForms)), [](const auto& i) {
    std::string s = kForms[i.param].name;
    std::replace(s.begin(), s.end(), ' ', '_');
    return s;
});

TEST_P(Planes, AsChosen) {
    for (int channels : {24, 48, 20, 6, 3})
        for (DType t : {DType::f32, DType::f64}) {
            const Graph g = graph_of(form, channels, t);
            check(g, {plan(g, {}, {.machine = Machine::cuda})});
            if (HasFatalFailure()) return;
        }
}
TEST_P(Planes, InNarrowTypesAndIntegers) {
    for (DType t : {DType::f16, DType::bf16, DType::i32, DType::i64}) {
        const Graph g = graph_of(form, 8, t);
        check(g, {plan(g, {}, {.machine = Machine::cuda})});
        if (HasFatalFailure()) return;
    }
}
TEST_P(Planes, AsForced) {
    for (int channels : {24, 6}) {
        const Graph g = graph_of(form, channels, DType::f32);
        std::vector<Plan> plans;
        for (int vector : {1, 2, 4})
            for (auto [group, run, full] : {std::tuple{8, 16, 1}, {32, 3, 1}, {2, 16, 64}, {16, 1, 1}, {64, 16, 1}}) {
                Plan& p = plans.emplace_back(plan(g, {}, {.machine = Machine::cuda}));
                for (auto& launch : p.loops)
                    for (loop::Nest& n : launch)
                        if (!n.phases.empty()) n.schedule = {.lanes_inner = true, .group = group, .threads = 64, .vector = vector, .run = run, .full = full};
            }
        check(g, plans);
        if (HasFatalFailure()) return;
    }
}
// Memory that begins anywhere, as a slice's does: each element by itself.
TEST(PlanesMemory, MayBeginAnywhere) {
    const Graph g = graph_of(kForms[0], 24, DType::f32);
    const Plan p = plan(g, {}, {.machine = Machine::cuda});
    const Sizes sizes = kSizes[3];
    const auto in = arguments(g, sizes);
    auto host = plain_host(1);
    std::vector<Array> arrays;
    for (const Tensor& t : in) {
        Array whole = host->allocate(DType::f32, {t.numel() + 1}), a = to_array(*host, t), moved = a;
        moved.data = static_cast<char*>(whole.data) + 4, moved.owner = whole.owner;
        std::memcpy(moved.data, a.data, static_cast<std::size_t>(a.bytes()));
        arrays.push_back(moved);
    }
    const CudaSource s = cuda_text("k", p.loops[0]), plain = cuda_text("k", p.loops[0], {.vectors = false});
    EXPECT_TRUE(s.vectors);
    EXPECT_FALSE(plain.vectors);
    EXPECT_EQ(s.blocks(sizes), plain.blocks(sizes));
    Sizes bound = sizes;
    std::vector<Tensor> out;
    for (const Array& a : Executable(p, cuda_on_cpu::target(2)).run(*host, arrays, bound)) out.push_back(to_tensor(a));
    cuda_on_cpu::expect_same(evaluate(g, in, {}, sizes), out, "output");
}
// Below sm_90 vectors are added element by element.
TEST(PlanesMemory, IsAddedToByAnyDevice) {
    const Graph g = graph_of(kForms[1], 24, DType::f32);
    const Plan p = plan(g, {}, {.machine = Machine::cuda});
    Nvrtc nvrtc;
    if (!nvrtc.available()) GTEST_SKIP() << nvrtc.why_not();
    const CudaSource s = cuda_text("k", p.loops[0]);
    const auto count = [&](const char* arch, const char* what) {
        const std::string ptx = nvrtc.compile({s.kernel, s.text}, arch)->image;
        const std::regex r(what);
        return std::distance(std::sregex_iterator(ptx.begin(), ptx.end(), r), std::sregex_iterator());
    };
    EXPECT_GT(count("compute_90", R"(red\.global\.add\.v4\.f32)"), 0);
    EXPECT_GT(count("compute_90", R"(ld\.global\.nc\.v4\.f32)"), 0);
    EXPECT_EQ(count("compute_90", R"((red|atom)\.global\.add\.f32)"), 0);
    EXPECT_EQ(count("compute_80", R"(\.add\.v4\.f32)"), 0);
    EXPECT_GT(count("compute_80", R"((red|atom)\.global\.add\.f32)"), 0);
}

}  // namespace
}  // namespace heddle::test
