// Every rule of passes/rules.def fires where its left side stands, and keeps type, value and gradient; graphs don't grow.
#include <gtest/gtest.h>

#include <charconv>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/grad.h"
#include "passes/simplify.h"
#include "tests/core/arrays.h"
#include "tests/core/op_graphs.h"

namespace heddle {
namespace {

// The left side of a rule as a graph, its letters as inputs of one type (the first operand of a select is b1).
class Side {
public:
    Side(std::string_view text, DType t, bool swapped) : text_(text), swapped_(swapped) {
        declare(text, t);
        V v = read(t);
        g.outputs = {v.id};
    }
    Graph g;

private:
    void declare(std::string_view text, DType t) {
        for (std::size_t k = 0; k < text.size(); ++k) {
            bool letter = std::isalpha(static_cast<unsigned char>(text[k])) && (k == 0 || !std::isalnum(static_cast<unsigned char>(text[k - 1]))) && (k + 1 == text.size() || text[k + 1] == ',' || text[k + 1] == ')');
            if (!letter || inputs_.count(text[k])) continue;
            bool condition = text.substr(0, k).ends_with("select(");
            inputs_[text[k]] = g.value(g.input({condition ? DType::b1 : t, {Dim::symbol("B"), 3}}, std::string(1, text[k])));
        }
    }
    V read(DType t) {
        while (text_[0] == ' ' || text_[0] == ',') text_.remove_prefix(1);
        double number = 0;
        if (auto [end, ec] = std::from_chars(text_.data(), text_.data() + text_.size(), number); ec == std::errc{}) {
            text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
            return constant(g, {t, {Dim::symbol("B"), 3}}, number);
        }
        std::size_t n = 0;
        while (n < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[n])) || text_[n] == '_')) ++n;
        std::string word(text_.substr(0, n));
        text_.remove_prefix(n);
        if (text_.empty() || text_[0] != '(') return inputs_.at(word[0]);
        text_.remove_prefix(1);
        std::vector<V> in;
        while (text_[0] != ')') in.push_back(read(t));
        text_.remove_prefix(1);
        Op op = static_cast<Op>(op_named(word) - &def(Op{}));
        if (swapped_ && def(op).commutes) std::swap(in[0], in[1]);
        return apply(op, in);
    }
    std::string_view text_;
    bool swapped_;
    std::map<char, V> inputs_;
};

void expect_same(const Graph& a, const Graph& b) {
    std::mt19937 rng(5);
    std::vector<Tensor> in;
    for (Id i : a.inputs) in.push_back(random_tensor(a.type(i), {{"B", 4}}, rng, -3, 3));
    auto x = evaluate(a, in), y = evaluate(b, in);
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t k = 0; k < x.size(); ++k) {
        EXPECT_EQ(x[k].dtype, y[k].dtype);
        EXPECT_EQ(x[k].sizes, y[k].sizes);
        EXPECT_EQ(x[k].data, y[k].data);
    }
}

class EachRule : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Rules, EachRule, testing::Range<std::size_t>(0, rules().size()), [](const auto& i) { return std::string(rules()[i.param].name); });

TEST_P(EachRule, FiresAndKeepsTypeValueAndGradient) {
    const Rule& rule = rules()[GetParam()];
    int types = 0;
    for (DType t : {DType::f64, DType::f32, DType::f16, DType::i64, DType::i32, DType::b1})
        for (bool swapped : {false, true}) {
            SCOPED_TRACE(std::string(name(t)) + (swapped ? ", operands swapped" : ""));
            if (t == DType::b1 && types > 0) continue;  // algebra of numbers
            Graph g;
            try {
                g = Side(rule.from, t, swapped).g;
            } catch (const Error&) {
                continue;  // no such op on this type
            }
            int fired = 0;
            Graph h = apply_rule(g, rule, &fired);
            if (rule.ints_only && !is_int(t)) {
                EXPECT_EQ(fired, 0);
                continue;
            }
            ++types;
            EXPECT_EQ(fired, 1) << print(g);
            verify(h, rule.name);
            EXPECT_EQ(g.type(g.outputs[0]), h.type(h.outputs[0]));
            EXPECT_LE(live(h).nodes.size(), live(g).nodes.size()) << print(h);
            expect_same(g, h);
            Graph s = simplify(g);
            verify(s, "simplify");
            EXPECT_EQ(simplify(s), s);
            expect_same(g, s);
            if (t != DType::f64) continue;
            std::vector<char> wants(g.inputs.size(), 1);
            Joint a = differentiate(g, wants), b = differentiate(h, wants);
            for (std::size_t k = 0; k < wants.size(); ++k)
                ASSERT_TRUE(b.gradients[k] < 0 || a.gradients[k] >= 0);
            std::vector<Id> both_a, both_b;
            for (std::size_t k = 0; k < wants.size(); ++k)
                if (b.gradients[k] >= 0) {
                    both_a.push_back(a.graph.outputs[static_cast<std::size_t>(a.gradients[k])]);
                    both_b.push_back(b.graph.outputs[static_cast<std::size_t>(b.gradients[k])]);
                }
            a.graph.outputs = both_a, b.graph.outputs = both_b;
            expect_same(a.graph, b.graph);
        }
    EXPECT_GT(types, 0) << "never fired";
}
TEST(Simplify, KeepsTheTypesOfConstants) {
    for (DType t : {DType::f16, DType::bf16, DType::f32, DType::f64, DType::i32, DType::i64}) {
        Graph g;
        V c = constant(g, {t, {3}}, 7), two = constant(g, {t, {3}}, 2);
        g.outputs = {(c / two).id, (c * two - c).id, expand(reshape(c, {3, 1}), {0}, {2, 3, 1}).id, cast(c / two, DType::f64).id};
        Graph s = simplify(g);
        verify(s, "simplify");
        expect_same(g, s);
    }
}

}  // namespace
}  // namespace heddle
