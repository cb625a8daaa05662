// Kernels of whole plans: each launch's CUDA text runs on the CPU on the interpreter's values and must give the interpreter's values.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "codegen/cuda/cuda.h"
#include "ir/eval.h"
#include "passes/pipeline.h"
#include "runtime/nvrtc.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle::test {
namespace {

std::string to_bytes(const Tensor& t) {
    auto width = static_cast<std::size_t>(bytes(t.dtype));
    std::string s(t.data.size() * width, '\0');
    for (std::size_t i = 0; i < t.data.size(); ++i) cuda_on_cpu::put_number(t.dtype, s.data() + i * width, t.data[i]);
    return s;
}
double element(DType t, const std::string& s, std::size_t i) { return cuda_on_cpu::number(t, s.data() + i * static_cast<std::size_t>(bytes(t))); }

// Every value of the graph for random inputs, and what each launch of its plan makes of them.
void check(const Graph& graph, const Sizes& sizes, int seed = 1) {
    Plan plan = heddle::plan(graph, {}, {.machine = Machine::cuda});
    Graph all = plan.program.graph;
    std::vector<Id> stored;
    for (Id id = 0; id < all.size(); ++id)
        if (plan.program.is_stored(id)) stored.push_back(id);
    all.outputs = stored;
    std::mt19937 random(static_cast<unsigned>(seed));
    std::vector<Tensor> inputs;
    for (Id i : all.inputs) {
        Tensor t{all.type(i).dtype, {}, {}};
        for (const Dim& d : all.type(i).shape) t.sizes.push_back(d.eval(sizes));
        std::uniform_real_distribution<float> u(0.1f, 0.9f);
        for (std::int64_t k = 0; k < t.numel(); ++k) t.data.push_back(u(random));
        inputs.push_back(std::move(t));
    }
    std::vector<Tensor> values = evaluate(all, inputs, {}, sizes);
    std::map<Id, Tensor> of;
    for (std::size_t k = 0; k < stored.size(); ++k) of[stored[k]] = values[k];
    // A float64 that adds up float32s has their rounding, which the interpreter doesn't do.
    bool rounds = std::any_of(all.nodes.begin(), all.nodes.end(), [](const Node& n) { return n.type.dtype == DType::f32; });
    Nvrtc nvrtc;
    for (std::size_t l = 0; l < plan.loops.size(); ++l) {
        CudaSource s = cuda_text(plan.program.launches[l].name, plan.loops[l]);
        ASSERT_TRUE(s.fits_narrow(sizes));
        if (nvrtc.available()) {
            auto r = nvrtc.compile({s.kernel, s.text}, "sm_90")->resources;
            bool f64 = s.text.find("double* __restrict__") != std::string::npos;  // whose division is a call that saves registers
            EXPECT_TRUE(r && (f64 || r->spill_stores == 0)) << s.text;
        }
        std::map<Id, std::string> memory;
        std::vector<cuda_on_cpu::Memory> arguments;
        std::map<Id, bool> written, zeroed;
        for (const loop::Nest& n : plan.loops[l])
            for (const loop::Buffer& b : n.buffers) written[b.id] |= b.written || b.accumulated;
        for (Id id : plan.zeroed)
            if (written.contains(id)) zeroed[id] = written[id];
        for (Id id : s.buffers) {
            memory[id] = to_bytes(of.at(id));
            if (written[id]) memory[id].assign(memory[id].size(), zeroed[id] ? '\0' : '\x7f');
        }
        for (Id id : s.buffers) arguments.push_back({memory[id].data(), memory[id].size()});
        cuda_on_cpu::run(s, plan.loops[l], arguments, sizes, static_cast<unsigned>(seed));
        for (Id id : s.buffers) {
            const Tensor& want = of.at(id);
            double scale = 1e-6;
            for (double v : want.data) scale = std::max(scale, std::abs(v));
            double slack = is_float(want.dtype) ? scale * (want.dtype != DType::f64 ? 1e-5 : rounds ? 1.2e-7 : 1e-12) : 0;
            for (std::size_t i = 0; i < want.data.size(); ++i) {
                double got = element(want.dtype, memory[id], i);
                ASSERT_LE(std::abs(got - want.data[i]), slack)
                    << "value " << id << "[" << i << "]: got " << got << ", expected " << want.data[i] << "\n" << s.text;
            }
        }
    }
}
void check_both_ways(const Graph& g, const std::vector<Sizes>& sizes) {
    Pair pair = forward_and_backward(g, std::vector<char>(g.inputs.size(), 1), {sizes[0]});
    for (const Sizes& s : sizes) {
        check(pair.split.forward, s);
        if (pair.has_backward) check(pair.split.backward, s);
    }
}

const Dim B = Dim::symbol("B"), N = Dim::symbol("N");
struct CudaPlan : testing::TestWithParam<DType> {
    Graph g;
    V in(Shape s, const char* name) { return g.value(g.input({GetParam(), std::move(s)}, name)); }
};
INSTANTIATE_TEST_SUITE_P(Floats, CudaPlan, testing::Values(DType::f32, DType::f64), [](const auto& i) { return std::string(name(i.param)); });

TEST_P(CudaPlan, SoftmaxOfRows) {
    V x = in({B, N}, "x"), e = exp(x - expand(amax(x, {1}), {1}, {B, N}));
    g.outputs = {(e / expand(sum(e, {1}), {1}, {B, N})).id};
    check_both_ways(g, {{{"B", 3}, {"N", 70}}, {{"B", 130}, {"N", 1}}, {{"B", 0}, {"N", 3}}});
}
TEST_P(CudaPlan, SoftmaxOfRowsThatAreOneRound) {  // of a group of threads, in several phases
    for (int width : {20, 24, 32}) {
        g = {};
        V x = in({B, width}, "x"), e = exp(x - expand(amax(x, {1}), {1}, {B, width}));
        g.outputs = {(e / expand(sum(e, {1}), {1}, {B, width})).id};
        check_both_ways(g, {{{"B", 3}}, {{"B", 130}}});
    }
}
TEST_P(CudaPlan, TransmittanceAndColour) {
    V sigma = in({B, N}, "sigma"), rgb = in({B, N, 3}, "rgb");
    V alpha = 1 - exp(-sigma), past = scan(1 - alpha, zeros_like(alpha), 1, 1, false, 1);
    g.outputs = {sum(expand(alpha * past, {2}, {B, N, 3}) * rgb, {1}).id};
    check_both_ways(g, {{{"B", 140}, {"N", 9}}, {{"B", 2}, {"N", 33}}});
}
TEST_P(CudaPlan, DifferencesAndLoss) {
    V p = in({4, N, B}, "plane");
    V d = slice(p, 1, 1, N) - slice(p, 1, 0, N - 1);
    g.outputs = {sum(d * d, {0, 1, 2}).id};
    check_both_ways(g, {{{"N", 9}, {"B", 33}}, {{"N", 1}, {"B", 1}}});
}
TEST_P(CudaPlan, SumsThatEndInOneNumber) {
    V x = in({N, 3}, "x"), y = in({B}, "y"), z = in({B, N}, "z");
    V loss = sum(x * x, {0, 1}) / size(g, {GetParam(), {}}, N * 3) + sum(abs(y - 0.5), {0}) / sum(sin(z), {0, 1});
    g.outputs = {loss.id, exp(loss).id};
    EXPECT_EQ(heddle::plan(g).program.launches.size(), 1u);
    check_both_ways(g, {{{"N", 100}, {"B", 33}}, {{"N", 1}, {"B", 1}}, {{"N", 300}, {"B", 300}}});
}
TEST_P(CudaPlan, StagesOverAllRows) {  // each stage reads all that the one before wrote
    V x = in({N, B}, "x");
    V a = realize(x * 2), rows = sum(permute(a, {1, 0}), {1}), most = amax(rows, {0});
    V y = x - expand(rows, {0}, {N, B}) / expand(most, {0, 1}, {N, B});
    g.outputs = {y.id};
    Plan p = heddle::plan(g);
    EXPECT_EQ(p.program.launches.size(), 1u);
    EXPECT_GE(p.program.launches[0].nests.back().stage, 2);
    check_both_ways(g, {{{"N", 40}, {"B", 70}}, {{"N", 1}, {"B", 1}}});
}
TEST_P(CudaPlan, RowsLookedUp) {
    V table = in({N, 6}, "table"), x = in({B}, "x");
    V row = cast(floor(x * size(g, Type(x.type()), N)), DType::i64);
    V w = expand(x, {1}, {B, 6});
    g.outputs = {(gather(table, {row}) * w).id};
    check_both_ways(g, {{{"N", 7}, {"B", 200}}});
}
TEST_P(CudaPlan, FlippedPaddedReshaped) {
    V x = in({B, 4, 3}, "x"), y = in({B, 12}, "y");
    V a = reshape(flip(pad(x, 1, 1, 2), 2), {B, 21});
    g.outputs = {concat({a, sin(y), reshape(permute(x, {0, 2, 1}), {B, 12}) * y}, 1).id};
    check_both_ways(g, {{{"B", 50}}});
}

}  // namespace
}  // namespace heddle::test
