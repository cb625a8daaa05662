// A graph forward and backward by interpreter, LLVM and CUDA text on the CPU, from the same inputs.
// Law: the interpreter decides; integers and bools agree exactly, floats to the rounding of their type relative to the largest element.
#pragma once
#include <gtest/gtest.h>

#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle::cuda_on_cpu {

inline void expect_same(const std::vector<Tensor>& want, const std::vector<Tensor>& got, const std::string& what, double looser = 1) {
    ASSERT_EQ(want.size(), got.size()) << what;
    for (std::size_t k = 0; k < want.size(); ++k) {
        ASSERT_EQ(want[k].sizes, got[k].sizes) << what << " " << k;
        double scale = 1e-6;
        for (double v : want[k].data)
            if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
        const DType t = want[k].dtype;
        double slack = !is_float(t) ? 0 : scale * looser * (t == DType::f64 ? 8e-12 : t == DType::f32 ? 8e-6 : t == DType::f16 ? 4e-3 : 3e-2);
        for (std::size_t i = 0; i < want[k].data.size(); ++i) {
            double a = want[k].data[i], b = got[k].data[i];
            ASSERT_TRUE(a == b || std::fabs(a - b) <= slack || (std::isnan(a) && std::isnan(b))) << what << " " << k << "[" << i << "]: " << b << ", expected " << a;
        }
    }
}

// Forward and backward of a graph, planned for either machine; texts can be compiled ahead.
struct Planned {
    Graph graph;
    Pair pair;
    Plan forward, backward, cuda_forward, cuda_backward;
    explicit Planned(Graph g, const Sizes& typical = {}) : graph(std::move(g)) {
        std::vector<char> wants;
        for (Id i : graph.inputs) wants.push_back(is_float(graph.type(i).dtype));
        pair = forward_and_backward(graph, wants, {typical});
        forward = plan(pair.split.forward);
        cuda_forward = plan(pair.split.forward, {}, {.machine = Machine::cuda});
        if (pair.has_backward) backward = plan(pair.split.backward), cuda_backward = plan(pair.split.backward, {}, {.machine = Machine::cuda});
    }
    void add_to(std::vector<const Plan*>& plans) const {
        plans.push_back(&cuda_forward);
        if (pair.has_backward) plans.push_back(&cuda_backward);
    }
};

// Runs a plan at several sizes without compiling it again.
class Runner {
public:
    Runner(const Plan& p, const Target& t) : executable_(p, t) {}
    std::vector<Tensor> operator()(const std::vector<Tensor>& in, const Sizes& sizes) const {
        auto host = plain_host(1);
        std::vector<Array> arrays;
        for (const Tensor& t : in) arrays.push_back(to_array(*host, t));
        Sizes bound = sizes;  // a size may stand in no input of a backward
        std::vector<Tensor> out;
        for (const Array& a : executable_.run(*host, arrays, bound)) out.push_back(to_tensor(a));
        return out;
    }

private:
    Executable executable_;
};

// What the arguments of the backward are, given those of the forward and what it gave.
inline std::vector<Tensor> backward_arguments(const Planned& p, const std::vector<Tensor>& in, const std::vector<Tensor>& out, const Sizes& sizes, double lo = -1, double hi = 1) {
    std::mt19937 rng(4);
    std::vector<Tensor> arguments;
    for (const auto& s : p.pair.split.backward_inputs) {
        auto i = static_cast<std::size_t>(s.index);
        arguments.push_back(s.from == Split::Source::From::input   ? in[i]
                            : s.from == Split::Source::From::saved ? out[p.graph.outputs.size() + i]
                                                                   : random_tensor(p.graph.type(p.graph.outputs[i]), sizes, rng, lo, hi));
    }
    return arguments;
}
inline void check(const Planned& p, const std::vector<Sizes>& all_sizes, double lo, double hi, unsigned seed, bool llvm = true, double looser = 1) {
    std::vector<std::pair<std::string, Target>> targets;
    if (llvm) targets.emplace_back("LLVM", Target{});
    targets.emplace_back("CUDA on the CPU", target(seed));
    for (const auto& [who, to] : targets) {
        SCOPED_TRACE(who + ": " + p.graph.name);
        const bool cuda = to.launcher != nullptr;
        Runner forward(cuda ? p.cuda_forward : p.forward, to);
        std::optional<Runner> backward;
        if (p.pair.has_backward) backward.emplace(cuda ? p.cuda_backward : p.backward, to);
        for (const Sizes& sizes : all_sizes) {
            std::mt19937 rng(seed);
            std::vector<Tensor> in;
            for (Id i : p.graph.inputs) in.push_back(random_tensor(p.graph.type(i), sizes, rng, lo, hi));
            auto want = evaluate(p.pair.split.forward, in, {}, sizes);
            for (Tensor& t : want)  // as it is stored
                for (double& v : t.data) {
                    char element[8];
                    put_number(t.dtype, element, v), v = number(t.dtype, element);
                }
            ASSERT_NO_FATAL_FAILURE(expect_same(want, forward(in, sizes), "output", looser));
            if (!backward) continue;
            auto arguments = backward_arguments(p, in, want, sizes);
            ASSERT_NO_FATAL_FAILURE(expect_same(evaluate(p.pair.split.backward, arguments, {}, sizes), (*backward)(arguments, sizes), "gradient", looser));
        }
    }
}

}  // namespace heddle::cuda_on_cpu
