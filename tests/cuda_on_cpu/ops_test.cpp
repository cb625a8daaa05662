// Every row of the table in every element type that it takes: interpreter = LLVM = CUDA text on the CPU, forward and backward.
// Law: a new row, or a type that a row begins to take, is tested by existing.
#include <fmt/format.h>

#include <chrono>
#include <map>
#include <set>

#include "codegen/cuda/cuda.h"
#include "runtime/nvrtc.h"
#include "tests/core/op_graphs.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle::cuda_on_cpu {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i64, DType::b1};

struct Row {
    DType dtype;
    Planned planned;
};
// By op. All are made, and their kernels compiled, when the first is asked for; or only those of `just`.
std::vector<std::vector<Row>> made_rows(int just = -1) {
    std::vector<std::vector<Row>> made(static_cast<std::size_t>(kOps));
    std::set<std::string> texts;
    for (int op = just < 0 ? 0 : just; op < (just < 0 ? kOps : just + 1); ++op)
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
}
const std::vector<Row>& rows(int op) {
    const auto at = static_cast<std::size_t>(op);
    static const bool few = testing::UnitTest::GetInstance()->test_to_run_count() < 20;
    if (!few) {
        static const auto all = made_rows();
        return all[at];
    }
    static std::map<int, std::vector<Row>> some;
    if (!some.contains(op)) some[op] = std::move(made_rows(op)[at]);
    return some[op];
}

class EachOpOnCpu : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Table, EachOpOnCpu, testing::Range(0, kOps), [](const auto& i) { return std::string(def(static_cast<Op>(i.param)).name); });

// Pointwise rows at zeros of both signs, integers, ties, and beyond the range that derivatives are taken in; pairs of them all.
TEST_P(EachOpOnCpu, CudaAtSpecialValues) {
    const OpDef& d = def(static_cast<Op>(GetParam()));
    if ((d.kind != Kind::map && d.kind != Kind::fold) || !d.scalar.eval) return;
    const bool fold = d.kind == Kind::fold, divides = d.name == "mod" || d.name == "floordiv" || d.name == "div";
    for (const Row& r : rows(GetParam())) {
        const bool whole = is_int(r.dtype);
        if (!whole && r.dtype != DType::f32 && r.dtype != DType::f64 && (r.dtype != DType::b1 || divides)) continue;  // true alone divides
        std::vector<double> values;
        for (double v : {0.0, 0x1p-10, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 7.5, 40.0, 3e9, kInf, std::nan("")}) {
            if (whole ? v != std::floor(v) || v > 40 : divides && v > 40 && std::isfinite(v)) continue;
            if (whole && (std::isnan(v) || (divides && v == 0))) continue;
            values.push_back(v), values.push_back(whole ? 0 - v : -v);
        }
        if (divides && !whole) {  // a quotient that rounds to less than the whole number it is
            for (float v : {78.9226f, 3.435548f}) values.push_back(v);
        }
        const auto n = static_cast<std::int64_t>(values.size());
        const Sizes sizes{{"B", fold ? n * n : n}, {"N", fold ? 2 : n}};  // a fold's pairs are along its axis
        std::vector<Tensor> in;
        for (Id i : r.planned.graph.inputs) {
            const DType t = r.planned.graph.type(i).dtype;
            Tensor x{t, {sizes.at("B"), sizes.at("N"), 3}, {}};
            for (std::int64_t k = 0; k < x.numel(); ++k) {
                const std::int64_t pair = fold ? k / 6 : k / 3;
                const bool first = fold ? k / 3 % 2 == 0 : in.empty();
                const double v = values[static_cast<std::size_t>(first ? pair / n : pair % n)];
                x.data.push_back(t == DType::b1 ? v > 0 : v);
            }
            in.push_back(std::move(x));
        }
        const Tensor want = evaluate(r.planned.pair.split.forward, in, {}, sizes)[0], got = Runner(r.planned.cuda_forward, target(1))(in, sizes)[0];
        for (std::size_t i = 0; i < want.data.size(); ++i) {
            const double a = want.data[i], b = got.data[i], slack = !is_float(want.dtype) ? 0 : (want.dtype == DType::f64 ? 1e-12 : 8e-6) * (1 + std::fabs(a));
            const bool same = a == b ? a != 0 || whole || fold || std::signbit(a) == std::signbit(b) : std::isnan(a) ? std::isnan(b) : std::isfinite(a) && std::fabs(a - b) <= slack;
            ASSERT_TRUE(same) << name(r.dtype) << " of " << in[0].data[fold ? i / 3 * 6 + i % 3 : i] << (in.size() > 1 ? fmt::format(", {}", in[1].data[i]) : "") << ": " << b << ", expected " << a;
        }
    }
}
TEST_P(EachOpOnCpu, CudaIsInterpreted) {
    const OpDef& d = def(static_cast<Op>(GetParam()));
    std::string types;
    for (const Row& r : rows(GetParam())) {
        const bool whole = is_int(r.dtype);  // small ones, so that a product of an axis has all its digits
        std::vector<Sizes> sizes = {{{"B", 5}, {"N", 19}}, {{"B", 1}, {"N", 3}}, {{"B", 0}, {"N", 4}}};
        if (!whole) sizes.push_back({{"B", 67}, {"N", 33}});
        check(r.planned, sizes, !whole ? d.range.lo : d.range.lo < 0 ? -3 : 1, whole ? 3 : d.range.hi, 3);  // a bool of a range without zero is true
        if (HasFatalFailure()) return;
        types += fmt::format(" {}", name(r.dtype));
    }
    for (const char* who : {"interpreter = LLVM", "interpreter = CUDA text on the CPU"}) RecordProperty(fmt::format("checked:{}", who), types);
}
// Without a warning and without spills; values are compared above.
TEST_P(EachOpOnCpu, NvrtcAccepts) {
    static Nvrtc nvrtc;
    if (!nvrtc.available()) GTEST_SKIP() << nvrtc.why_not();
    std::vector<CudaText> texts;
    std::string types;
    for (const Row& r : rows(GetParam())) {
        std::vector<const Plan*> plans;
        r.planned.add_to(plans);
        for (const Plan* p : plans)
            for (std::size_t k = 0; k < p->loops.size(); ++k) {
                CudaSource s = cuda_text(fmt::format("{}_{}", name(r.dtype), p->program.launches[k].name), p->loops[k]);
                texts.push_back({s.kernel, s.text});
            }
        types += fmt::format(" {}", name(r.dtype));
    }
    for (const auto& binary : nvrtc.compile(texts, "sm_90")) {
        EXPECT_EQ(binary->log.find("warning"), std::string::npos) << binary->log;
        ASSERT_TRUE(binary->resources) << binary->log;
        EXPECT_EQ(binary->resources->spill_stores + binary->resources->spill_loads, 0) << binary->log;
    }
    RecordProperty("checked:NVRTC and ptxas (sm_90)", types);
}

}  // namespace
}  // namespace heddle::cuda_on_cpu
