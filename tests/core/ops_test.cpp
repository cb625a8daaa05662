// Every row of the table: its derivative is what differences say, its text reads back, what it refuses, and compiled = interpreted.
#include <gtest/gtest.h>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pipeline.h"
#include "passes/simplify.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/core/op_graphs.h"

namespace heddle {
namespace {

class EachOp : public testing::TestWithParam<int> {
protected:
    Op op() const { return static_cast<Op>(GetParam()); }
    const OpDef& row() const { return def(op()); }
};
INSTANTIATE_TEST_SUITE_P(Table, EachOp, testing::Range(0, kOps), [](const auto& i) { return std::string(def(static_cast<Op>(i.param)).name); });

std::vector<Tensor> inputs(const Graph& g, const OpDef& d, const Sizes& sizes, unsigned seed) {
    std::mt19937 rng(seed);
    std::vector<Tensor> in;
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, d.range.lo, d.range.hi));
    return in;
}

TEST_P(EachOp, DerivativeIsTheLimitOfDifferences) {
    Graph g = op_graph(op(), DType::f64);
    if (g.nodes.empty() || !is_float(g.type(g.outputs[0]).dtype)) return;  // nothing to differentiate
    ASSERT_TRUE(row().vjp) << "a float result without a derivative";
    if (op() == Op::cast) {  // in float32 differences see little; to float64 they do
        g = {};
        g.outputs = {cast(g.value(g.input({DType::f64, {Dim::symbol("B")}}, "x")), DType::f32).id};
        Joint j = differentiate(g, {1});
        EXPECT_EQ(print(j.graph.type(j.graph.outputs[1])), "f64[B]");
        EXPECT_EQ(evaluate(j.graph, {{DType::f64, {2}, {1, 2}}, {DType::f32, {2}, {0.5, -3}}})[1].data, (std::vector<double>{0.5, -3}));
        RecordProperty("checked:finite differences", "f64");
        return;
    }
    if (op() == Op::stop_grad) {
        Joint j = differentiate(g, {1});
        auto in = inputs(g, row(), {{"B", 2}, {"N", 4}}, 1);
        Tensor seed{DType::f64, in[0].sizes, std::vector<double>(in[0].data.size(), 1)};
        EXPECT_EQ(evaluate(j.graph, {in[0], seed})[1].data, in[0].data);
        RecordProperty("checked:finite differences", "f64");
        return;
    }
    Joint j = differentiate(g, std::vector<char>(g.inputs.size(), 1));
    verify(j.graph, "differentiate");
    for (const Sizes& sizes : {Sizes{{"B", 2}, {"N", 4}}, Sizes{{"B", 1}, {"N", 3}}}) {
        auto in = inputs(g, row(), sizes, 7);
        std::mt19937 rng(9);
        Tensor seed = random_tensor(g.type(g.outputs[0]), sizes, rng, -1, 1);
        auto all = in;
        all.push_back(seed);
        auto got = evaluate(j.graph, all, {}, sizes);
        auto objective = [&] {
            Tensor out = evaluate(g, in, {}, sizes)[0];
            double sum = 0;
            for (std::size_t i = 0; i < out.data.size(); ++i) sum += out.data[i] * seed.data[i];
            return sum;
        };
        for (std::size_t k = 0; k < in.size(); ++k) {
            ASSERT_GE(j.gradients[k], 0) << "operand " << k;
            const Tensor& grad = got[static_cast<std::size_t>(j.gradients[k])];
            for (std::size_t i = 0; i < in[k].data.size(); ++i) {
                double x = in[k].data[i], h = 1e-6;
                in[k].data[i] = x + h;
                double up = objective();
                in[k].data[i] = x - h;
                double down = objective();
                in[k].data[i] = x;
                const double slope = (up - down) / (2 * h);
                ASSERT_NEAR(grad.data[i], slope, 1e-7 * std::max(1.0, std::fabs(slope))) << "operand " << k << " element " << i << " at " << x;
            }
        }
    }
    RecordProperty("checked:finite differences", "f64");
}
// Where differences decide nothing: PyTorch's choice, at kinks and at the ends of domains.
TEST_P(EachOp, DerivativeAtKinks) {
    struct Kink {
        Op op;
        double x, y, dx, dy;
    };
    const double log2 = std::log(2.0);
    for (const Kink& k : {Kink{Op::abs, 0, 0, 0, 0}, {Op::abs, -1.5, 0, -1, 0}, {Op::sign, 0, 0, 0, 0}, {Op::max, 1.5, 1.5, 0.5, 0.5}, {Op::min, 1.5, 1.5, 0.5, 0.5}, {Op::pow, 2, 0, 0, log2}, {Op::pow, 0, 0, 0, 0},
                          {Op::pow, 0, 2, 0, 0}, {Op::pow, 0, 1, 1, 0}, {Op::mod, 7.5, 2, 1, -3}, {Op::mod, -7.5, 2, 1, 4}, {Op::floordiv, 7.5, 2, 0, 0}, {Op::floor, 1, 0, 0, 0}, {Op::ceil, 1, 0, 0, 0},
                          {Op::round, 0.5, 0, 0, 0}, {Op::trunc, -1, 0, 0, 0}, {Op::sqrt, 0, 0, kInf, 0}, {Op::atan2, 0, -2, -0.5, 0}, {Op::atan2, 0, 0, 0, 0},
                          {Op::pow, 0, -1, -kInf, -kInf}, {Op::xlogy, 0, 2, log2, 0}, {Op::xlogy, 0, -2, 0, 0}, {Op::xlog1py, 0, 1, log2, 0}, {Op::xlog1py, 0, -1.5, 0, 0}, {Op::atan2, 1, 1, 0.5, -0.5},
                          {Op::atan2, 1, -1, -0.5, -0.5}}) {
        if (k.op != op()) continue;
        Graph g = op_graph(op(), DType::f64);
        Joint j = differentiate(g, std::vector<char>(g.inputs.size(), 1));
        std::vector<Tensor> in;
        for (double v : {k.x, k.y}) in.push_back({DType::f64, {1, 1, 3}, std::vector<double>(3, v)});
        in.resize(g.inputs.size());
        in.push_back({DType::f64, {1, 1, 3}, {1, 1, 1}});  // what reaches the result
        auto got = evaluate(j.graph, in);
        for (std::size_t i = 0; i < g.inputs.size(); ++i)
            EXPECT_DOUBLE_EQ(got[static_cast<std::size_t>(j.gradients[i])].data[0], i == 0 ? k.dx : k.dy) << row().name << " at " << k.x << ", " << k.y << ", operand " << i;
    }
}
TEST_P(EachOp, TextReadsBack) {
    for (DType f : {DType::f64, DType::f32}) {
        Graph g = op_graph(op(), f);
        if (g.nodes.empty()) return;  // a leaf or a call
        EXPECT_EQ(parse(print(g)), g) << print(g);
        EXPECT_EQ(print(parse(print(g))), print(g));
        Graph s = simplify(g);
        verify(s, "simplify");
        EXPECT_EQ(simplify(s), s);
        EXPECT_EQ(s.type(s.outputs[0]), g.type(g.outputs[0]));
    }
    RecordProperty("checked:text that reads back", "f32 f64");
}
TEST_P(EachOp, RefusesOperandsOfTheWrongType) {
    Graph g = op_graph(op(), DType::f64);
    if (g.nodes.empty()) return;  // no operands
    Node n;
    for (const Node& m : g.nodes)
        if (m.op == op()) n = m;
    ASSERT_EQ(n.op, op());
    auto refused = [&](Node bad) {
        try {
            g.add(std::move(bad));
            return false;
        } catch (const Error& e) {
            EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
            return std::string(e.what()).find(row().name) != std::string::npos;
        }
    };
    Node more = n;
    more.in.push_back(n.in[0]);
    EXPECT_TRUE(row().arity < 0 || refused(more)) << "another operand";
    Node undefined = n;
    undefined.in[0] = g.size() + 5;
    EXPECT_TRUE(refused(undefined)) << "an operand that isn't there";
    Id other = g.input({n.op == Op::not_ || g.type(n.in[0]).dtype == DType::b1 ? DType::f64 : DType::b1, {Dim(11)}}, "wrong");
    // Whatever has several operands sees that they disagree.
    if (n.in.size() > 1) {
        Node mixed = n;
        mixed.in[1] = other;
        EXPECT_TRUE(refused(mixed)) << "operands that disagree";
    }
    for (const auto& [key, value] : n.attrs) {
        if (!std::get_if<std::vector<Dim>>(&value) && key != "axis" && key != "mode") continue;
        Node outside = n;
        for (auto& [k, v] : outside.attrs)
            if (k == key) v = key == "axes" ? Attr(std::vector<Dim>{9}) : Attr(Dim(9));
        EXPECT_TRUE(refused(outside)) << key << " 9";
        Node absent = n;
        std::erase_if(absent.attrs, [&](const auto& a) { return a.first == key; });
        EXPECT_TRUE(refused(absent)) << "without " << key;
    }
    RecordProperty("checked:operands of wrong types refused", "f64");
}
// A NaN anywhere is the result; infinities and equal elements are nothing special.
TEST_P(EachOp, FoldsOfSpecialValues) {
    if (row().kind != Kind::fold) return;
    const std::vector<double> values{-1.5, 0, 2, kInf, -kInf, std::nan("")};
    const auto n = static_cast<std::int64_t>(values.size());
    const Sizes sizes{{"B", n * n * n}, {"N", 3}};
    Tensor x{DType::f64, {n * n * n, 3, 3}, {}}, want{DType::f64, {n * n * n, 3}, {}};
    for (std::int64_t b = 0; b < n * n * n; ++b) {
        double result = op() == Op::sum ? 0 : op() == Op::prod ? 1 : op() == Op::amax ? -kInf : kInf;
        for (std::int64_t at : {b / n / n, b / n % n, b % n}) {
            const double v = values[static_cast<std::size_t>(at)];
            x.data.insert(x.data.end(), 3, v);
            if (op() == Op::sum) result += v;
            else if (op() == Op::prod) result *= v;
            else if (std::isnan(v)) result = v;
            else if (op() == Op::amax ? v > result : v < result) result = v;
        }
        want.data.insert(want.data.end(), 3, result);
    }
    const Graph g = op_graph(op(), DType::f64);
    auto host = plain_host(1);
    Sizes bound = sizes;
    const Tensor interpreted = evaluate(g, {x}, {}, sizes)[0], compiled = to_tensor(Executable(plan(g)).run(*host, {to_array(*host, x)}, bound)[0]);
    for (std::size_t i = 0; i < want.data.size(); ++i)
        for (double got : {interpreted.data[i], compiled.data[i]})
            ASSERT_TRUE(got == want.data[i] || (std::isnan(got) && std::isnan(want.data[i]))) << row().name << " row " << i / 3 << ": " << got << ", expected " << want.data[i];
}
TEST_P(EachOp, CompiledIsInterpreted) {
    for (DType f : {DType::f32, DType::f64}) {
        Graph g = op_graph(op(), f);
        if (g.nodes.empty()) return;  // a leaf or a call
        SCOPED_TRACE(name(f));
        std::vector<char> wants;
        for (Id i : g.inputs) wants.push_back(is_float(g.type(i).dtype));
        Pair pair = forward_and_backward(g, wants, {});
        Executable forward(plan(pair.split.forward));
        std::unique_ptr<Executable> backward;
        if (pair.has_backward) backward = std::make_unique<Executable>(plan(pair.split.backward));
        for (const Sizes& sizes : {Sizes{{"B", 5}, {"N", 19}}, Sizes{{"B", 1}, {"N", 3}}, Sizes{{"B", 0}, {"N", 4}}, Sizes{{"B", 67}, {"N", 33}}}) {
            auto host = plain_host(2);
            auto in = inputs(g, row(), sizes, 3);
            auto run = [&](Executable& e, const std::vector<Tensor>& arguments) {
                std::vector<Array> arrays;
                for (const Tensor& t : arguments) arrays.push_back(to_array(*host, t));
                Sizes bound = sizes;  // as the forward hands them on: a size may stand in no input of the backward
                std::vector<Tensor> out;
                for (const Array& a : e.run(*host, arrays, bound)) out.push_back(to_tensor(a));
                return out;
            };
            auto want = evaluate(pair.split.forward, in, {}, sizes), got = run(forward, in);
            ASSERT_EQ(want.size(), got.size());
            for (std::size_t k = 0; k < want.size(); ++k) expect_near(want[k], got[k], "output " + std::to_string(k));
            if (!backward) continue;
            std::mt19937 rng(4);
            std::vector<Tensor> arguments;
            for (const auto& s : pair.split.backward_inputs) {
                auto i = static_cast<std::size_t>(s.index);
                arguments.push_back(s.from == Split::Source::From::input ? in[i] : s.from == Split::Source::From::saved ? want[g.outputs.size() + i] : random_tensor(g.type(g.outputs[i]), sizes, rng, -1, 1));
            }
            auto a = evaluate(pair.split.backward, arguments, {}, sizes), b = run(*backward, arguments);
            for (std::size_t k = 0; k < a.size(); ++k) expect_near(a[k], b[k], "gradient " + std::to_string(k));
        }
    }
}

}  // namespace
}  // namespace heddle
