// Every row of the table in every element type that it takes: interpreter = LLVM = CUDA text on the CPU, forward and backward.
// Law: a new row, or a type that a row begins to take, is tested by existing.
#include <fmt/format.h>

#include <chrono>
#include <set>

#include "tests/core/op_graphs.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle::cuda_on_cpu {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i64, DType::b1};

struct Row {
    DType dtype;
    Planned planned;
};
// By op. All are made, and their kernels compiled, when the first is asked for.
const std::vector<std::vector<Row>>& rows() {
    static const std::vector<std::vector<Row>> all = [] {
        std::vector<std::vector<Row>> made(static_cast<std::size_t>(kOps));
        std::set<std::string> texts;
        for (int op = 0; op < kOps; ++op)
            for (DType t : kTypes) {
                try {
                    Graph g = op_graph(static_cast<Op>(op), t);
                    if (g.nodes.empty()) continue;  // a leaf or a call
                    g.name += fmt::format("_{}", name(t));
                    Graph unnamed = g;
                    unnamed.name = "";
                    if (!texts.insert(print(unnamed)).second) continue;  // of bools whatever was asked for
                    Planned p(g);
                    if (p.forward.loops.empty()) continue;  // all of it is the library's
                    made[static_cast<std::size_t>(op)].push_back({t, std::move(p)});
                } catch (const Error&) {  // the row takes no such operands
                }
            }
        std::vector<const Plan*> plans;
        int count = 0;
        for (const auto& of_op : made)
            for (const Row& r : of_op) r.planned.add_to(plans), ++count;
        auto start = std::chrono::steady_clock::now();
        int before = compiled();
        compile_ahead(plans);
        fmt::print("{} rows in their element types, {} plans, {} kernels compiled in {:.1f} s\n", count, plans.size(), compiled() - before,
                   std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        return made;
    }();
    return all;
}

class EachOpOnCpu : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Table, EachOpOnCpu, testing::Range(0, kOps), [](const auto& i) { return std::string(def(static_cast<Op>(i.param)).name); });

TEST_P(EachOpOnCpu, CudaIsInterpreted) {
    const OpDef& d = def(static_cast<Op>(GetParam()));
    for (const Row& r : rows()[static_cast<std::size_t>(GetParam())]) {
        const bool whole = is_int(r.dtype);  // small ones, so that a product of an axis has all its digits
        std::vector<Sizes> sizes = {{{"B", 5}, {"N", 19}}, {{"B", 1}, {"N", 3}}, {{"B", 0}, {"N", 4}}};
        if (!whole) sizes.push_back({{"B", 67}, {"N", 33}});
        check(r.planned, sizes, !whole ? d.range.lo : d.range.lo < 0 ? -3 : 1, whole ? 3 : d.range.hi, 3);  // a bool of a range without zero is true
        if (HasFatalFailure()) return;
    }
}

}  // namespace
}  // namespace heddle::cuda_on_cpu
