// The text by which a cache knows nests. Law: whatever changes what a back end emits changes the text.
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "passes/pipeline.h"
#include "runtime/cpu_backend.h"
#include "tests/core/fuzz.h"
#include "tests/core/nest_builder.h"
#include "tests/core/op_graphs.h"

namespace heddle {
namespace {

std::vector<std::vector<loop::Nest>> many() {
    std::vector<std::vector<loop::Nest>> all;
    for (int k = 0; k < kOps; ++k)
        for (DType f : {DType::f32, DType::f64})
            if (Graph g = op_graph(static_cast<Op>(k), f); g.size() > 0)
                for (auto& nests : plan(g).loops) all.push_back(nests);
    for (unsigned seed = 1; seed <= 40; ++seed) {
        const fuzz::Woven w(fuzz::weave(seed));
        for (const Plan* p : {&w.forward, &w.backward})
            for (const auto& nests : p->loops) all.push_back(nests);
    }
    return all;
}

TEST(LoopExact, EqualTextIsEqualCode) {
    NEEDS_LLVM();
    std::map<std::string, std::string> seen;
    std::map<std::string, int> codes;
    for (const auto& nests : many()) {
        const std::string exact = loop::exact(nests), code = load_cpu_backend()->text("k", nests);
        const auto [it, first] = seen.emplace(exact, code);
        ASSERT_EQ(it->second, code) << exact;
        codes[code] = 1;
    }
    EXPECT_GT(codes.size(), 100u);
}

// Where names are the same, too.
TEST(LoopExact, NestsOfEqualCodeCanShareAFunction) {
    NEEDS_LLVM();
    std::map<std::string, std::string> seen;
    int shared = 0;
    for (const auto& nests : many())
        for (loop::Nest n : nests) {
            const std::string code = loop::code(n);
            for (std::size_t k = 0; k < n.buffers.size(); ++k) n.buffers[k].name = "b" + std::to_string(k);
            for (loop::Value& v : n.values) v.name.clear();
            const std::string text = load_cpu_backend()->text("k", {n});
            const auto [it, first] = seen.emplace(code, text);
            ASSERT_EQ(it->second, text) << code;
            shared += !first;
        }
    EXPECT_GT(seen.size(), 100u);
    EXPECT_GT(shared, 0);
}

TEST(LoopExact, EveryFieldIsInTheText) {
    const Dim N = Dim::symbol("N");
    loop::Nest nest;
    nest.outer = {N};
    nest.outer_sizes = {0};
    nest.buffers = {{.id = 1, .dtype = DType::f32, .name = "x"}};
    nest.sizes = {"N"};
    nest.values.resize(2);
    nest.values[1] = {.what = loop::What::map, .op = Op::add, .in = {0, 0}, .step_last = 1, .name = "v", .loc = "file.py:1"};
    nest.uniform = {0}, nest.prologue = {1};
    nest.folds = {{Op::sum, DType::f32, 0.0}}, nest.carries = {{DType::f32, 1.0}};
    nest.phases = {{.extent = N, .size = 0, .folds = {0}, .carries = {0}, .body = {1}, .after = {1}}};
    using Change = std::function<void(loop::Nest&)>;
    auto value = [](auto change) { return [=](loop::Nest& n) { change(n.values[1]); }; };
    const std::vector<Change> changes = {
        [](auto& n) { n.outer = {Dim::symbol("N") + 1}; }, [](auto& n) { n.outer.push_back(2); }, [](auto& n) { n.stage = 1; }, [](auto& n) { n.outer_sizes = {1}; },
        [](auto& n) { n.schedule.lanes_inner = true; }, [](auto& n) { n.schedule.width = 8; }, [](auto& n) { n.schedule.chunk = 1; }, [](auto& n) { n.schedule.group = 2; }, [](auto& n) { n.schedule.threads = 64; }, [](auto& n) { n.schedule.adds = Adds::ordered; }, [](auto& n) { n.buffers[0].elements = 7; },
        [](auto& n) { n.buffers[0].id = 2; }, [](auto& n) { n.buffers[0].dtype = DType::f64; }, [](auto& n) { n.buffers[0].written = true; }, [](auto& n) { n.buffers[0].accumulated = true; },
        [](auto& n) { n.buffers[0].name = "y"; }, [](auto& n) { n.buffers.push_back(n.buffers[0]); }, [](auto& n) { n.sizes[0] = "M"; }, [](auto& n) { n.uniform = {}; }, [](auto& n) { n.prologue = {0}; },
        value([](auto& v) { v.what = loop::What::load; }), value([](auto& v) { v.op = Op::mul; }), value([](auto& v) { v.dtype = DType::bf16; }), value([](auto& v) { v.in = {0}; }),
        value([](auto& v) { v.in = {0, -1}; }), value([](auto& v) { v.index = 0; }), value([](auto& v) { v.imm = -0.0; }), value([](auto& v) { v.imm = 5e-324; }), value([](auto& v) { v.varies_outer = true; }),
        value([](auto& v) { v.varies_last = true; }), value([](auto& v) { v.varies_inner = true; }), value([](auto& v) { v.step_last = 2; }), value([](auto& v) { v.step_last.reset(); }),
        value([](auto& v) { v.step_inner = 1; }), value([](auto& v) { std::swap(v.step_last, v.step_inner); }), value([](auto& v) { v.name = "w"; }),
        [](auto& n) { n.folds[0].op = Op::amax; }, [](auto& n) { n.folds[0].dtype = DType::f64; }, [](auto& n) { n.folds[0].init = -0.0; }, [](auto& n) { n.carries[0].dtype = DType::f64; }, [](auto& n) { n.carries[0].init = 0; },
        [](auto& n) { n.phases[0].extent = 3; }, [](auto& n) { n.phases[0].size = 1; }, [](auto& n) { n.phases[0].reverse = true; }, [](auto& n) { n.phases[0].ordered = true; },
        [](auto& n) { n.phases[0].folds = {}; }, [](auto& n) { n.phases[0].carries = {}; }, [](auto& n) { n.phases[0].body = {}; }, [](auto& n) { n.phases[0].after = {}; }, [](auto& n) { n.phases.clear(); }};
    std::map<std::string, int> texts{{loop::exact({nest}), -1}, {loop::exact({nest, nest}), -2}, {loop::exact({}), -3}};
    ASSERT_EQ(texts.size(), 3u);
    int same_code = 0;
    for (std::size_t k = 0; k < changes.size(); ++k) {
        loop::Nest changed = nest;
        changes[k](changed);
        same_code += loop::code(changed) == loop::code(nest);
        const auto [it, fresh] = texts.emplace(loop::exact({changed}), static_cast<int>(k));
        EXPECT_TRUE(fresh) << "changes " << k << " and " << it->second;
    }
    EXPECT_EQ(same_code, 4) << "a stage, and names of a buffer, of the value that it is, and of a statement";
    loop::Nest moved = nest;
    moved.values[1].loc = "file.py:2";
    EXPECT_EQ(loop::exact({moved}), loop::exact({nest})) << "a line that moves compiles nothing anew";
}

}  // namespace
}  // namespace heddle
