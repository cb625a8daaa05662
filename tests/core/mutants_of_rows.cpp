// Mutants of ir/ops.def: each text with one token off, for each of its readers; of derivatives that are functions, what they read and return.
#include <fmt/format.h>

#include "ir/mutant.h"
#include "tests/core/mutants.h"
#include "tests/core/row_text.h"

namespace heddle::mutant {

namespace {

// A process has one mutant: what function pointers of a row need to know stands here.
struct Wrong {
    Tree tree;
    std::size_t operand = 0;
    double factor = 0;                        // of that gradient; 0: none at all
    std::function<void(Node&)> misread;       // of the node that a derivative reads
    std::vector<V> (*right)(const std::vector<V>&, V, V, const Node&) = nullptr;
    std::vector<double (*)(double, double, double)> evals;  // of all rows, as they are
} wrong;

std::vector<V> vjp_of_tree(const std::vector<V>& in, V out, V g, const Node& n) {
    std::vector<V> grads = wrong.right(in, out, g, n);
    Meaning<V> mean;
    mean.variable = [&](const std::string& s) { return s == "x" ? in[0] : s == "y" ? in[1] : s == "out" ? out : g; };
    mean.number = [&](double v) { return like(in.back(), v); };
    mean.apply = [](const Tree& t, const std::vector<V>& x) {
        if (t.name == "none") return V{};
        if (t.name == "zeros_like") return zeros_like(x[0]);
        return apply(static_cast<Op>(row_of_word(t.name) - &def(Op{})), x);
    };
    grads[wrong.operand] = mean(wrong.tree);
    return grads;
}
std::vector<V> vjp_scaled(const std::vector<V>& in, V out, V g, const Node& n) {
    std::vector<V> grads = wrong.right(in, out, g, n);
    V& v = grads[wrong.operand];
    if (wrong.factor == 0) v = V{};
    else if (v) v = v * wrong.factor;
    return grads;
}
std::vector<V> vjp_misread(const std::vector<V>& in, V out, V g, const Node& n) {
    Node other = n;
    wrong.misread(other);
    return wrong.right(in, out, g, other);
}
double eval_tree(double a, double b, double c) {
    Meaning<double> mean;
    mean.variable = [&](const std::string& s) { return s == "a" ? a : s == "b" ? b : c; };
    mean.number = [](double v) { return v; };
    mean.apply = [](const Tree& t, const std::vector<double>& x) {
        const OpDef* d = row_of_word(t.name);
        return wrong.evals[static_cast<std::size_t>(d - &def(Op{}))](x[0], x.size() > 1 ? x[1] : 0, x.size() > 2 ? x[2] : 0);
    };
    return mean(wrong.tree);
}
Value llvm_tree(Value a, Value b, Value c, const Apply& apply, const Number& number) {
    Meaning<Value> mean;
    mean.variable = [&](const std::string& s) { return s == "a" ? a : s == "b" ? b : c; };
    mean.number = number;
    mean.apply = [&](const Tree& t, const std::vector<Value>& x) {
        return apply(static_cast<Op>(row_of_word(t.name) - &def(Op{})), x[0], x.size() > 1 ? x[1] : nullptr, x.size() > 2 ? x[2] : nullptr);
    };
    return mean(wrong.tree);
}

void set_vjp(Op op, decltype(OpDef::vjp) f) {
    wrong.right = def(op).vjp;
    row(op).vjp = f;
}
void set_attr(Node& n, std::string_view key, Attr a) {
    for (auto& [k, v] : n.attrs)
        if (k == key) v = std::move(a);
}

// Misreadings of attributes, by key: those that a row's op has are tried.
const std::vector<std::pair<std::string, std::function<void(Node&)>>>& misreadings() {
    static const std::vector<std::pair<std::string, std::function<void(Node&)>>> all{
        {"reverse", [](Node& n) { set_attr(n, "reverse", !n.flag("reverse")); }},
        {"init", [](Node& n) { set_attr(n, "init", n.number("init") + 1); }},
        {"mode", [](Node& n) { set_attr(n, "mode", Dim((n.integer("mode") + 1) % 3)); }},
        {"axis", [](Node& n) { set_attr(n, "axis", Dim(n.integer("axis") == 0 ? 1 : 0)); }},
        {"start", [](Node& n) { set_attr(n, "start", n.dim("start") + 1), set_attr(n, "end", n.dim("end") + 1); }},
        {"lo", [](Node& n) { Dim lo = n.dim("lo"); set_attr(n, "lo", n.dim("hi")), set_attr(n, "hi", lo); }},
        {"axes", [](Node& n) {
            auto axes = n.ints("axes");
            std::vector<Dim> turned;  // a permutation's by one, others to a neighbour
            for (std::size_t k = 0; k < axes.size(); ++k) turned.emplace_back(axes.size() > 1 ? axes[(k + 1) % axes.size()] : axes[k] == 0 ? 1 : axes[k] - 1);
            set_attr(n, "axes", turned);
        }}};
    return all;
}
bool has_attr(Op op, const std::string& key) {
    switch (op) {  // lists ops: which attributes they have stands in no table
        case Op::scan: return key == "reverse" || key == "init" || key == "mode" || key == "axis";
        case Op::slice: return key == "axis" || key == "start";
        case Op::pad: return key == "axis" || key == "lo";
        case Op::flip:
        case Op::concat: return key == "axis";
        case Op::expand:
        case Op::permute:
        case Op::sum:
        case Op::prod:
        case Op::amax:
        case Op::amin: return key == "axes";
        default: return false;
    }
}
int gradients(Op op) {
    switch (op) {  // lists ops: those with any number of operands
        case Op::concat: return 3;
        case Op::gather: return 1;
        case Op::scatter_add: return 2;
        case Op::scatter: return 3;
        default: return def(op).arity;
    }
}

void derivatives(Op op, std::vector<Mutant>& all) {
    const OpDef& d = def(op);
    if (!d.vjp) return;
    const std::string own = fmt::format("Table/EachOp.Derivative*/{}", d.name);
    auto add = [&](const std::string& what, std::function<void()> f) { all.push_back({"derivative", fmt::format("{}: {}", d.name, what), own, std::move(f)}); };
    const auto& texts = row_text(op).vjp;
    bool trees = true;
    for (std::size_t k = 0; k < texts.size(); ++k) {
        try {
            (void)parse_row_text(texts[k]);
        } catch (const Error&) {  // of views and functions
            trees = false;
            break;
        }
        std::vector<std::string> names{"x", "out"};
        if (d.arity > 1) names = {"x", "y"};
        for (const std::string& text : one_token_off(texts[k], names))
            add(fmt::format("{} => {}", texts[k], text), [op, k, text] { wrong.tree = parse_row_text(text), wrong.operand = k, set_vjp(op, vjp_of_tree); });
    }
    if (op == Op::stop_grad) return;
    for (int k = 0; k < gradients(op) && !(op == Op::scatter_add && k == 0); ++k) {
        if ((op == Op::scatter && k == 1) || ((op == Op::select || op == Op::surrogate) && k == 0)) continue;  // no gradient
        const auto at = static_cast<std::size_t>(k);
        add(fmt::format("gradient {} is none", k), [op, at] { wrong.operand = at, wrong.factor = 0, set_vjp(op, vjp_scaled); });
        const bool zero = trees && texts[at].starts_with("zeros_like");
        if (!zero) add(fmt::format("gradient {} is negated", k), [op, at] { wrong.operand = at, wrong.factor = -1, set_vjp(op, vjp_scaled); });
    }
    for (const auto& [key, f] : misreadings())
        if (has_attr(op, key)) add("misreads " + key, [op, f] { wrong.misread = f, set_vjp(op, vjp_misread); });
}

void scalars(Op op, std::vector<Mutant>& all) {
    const OpDef& d = def(op);
    const std::string& right = row_text(op).scalar;
    if (right.empty()) return;
    std::vector<std::string> names{"a"};
    if (d.arity > 1 || d.kind == Kind::fold) names.emplace_back("b");
    if (d.arity > 2) names.emplace_back("c");
    const std::string own = fmt::format("Table/EveryMap.*/{0}:Table/EachOp.CompiledIsInterpreted/{0}:Table/EachOp.Folds*/{0}:Table/EachOpOnCpu.Cuda*/{0}", d.name);
    for (const std::string& text : one_token_off(right, names)) {
        auto add = [&](const std::string& kind, const std::string& first, std::function<void()> f) {
            all.push_back({kind, fmt::format("{} in {}: {} => {}", d.name, kind, right, text), first, std::move(f)});
        };
        add("double", own, [op, text] {
            wrong.tree = parse_row_text(text);
            for (int k = 0; k < kOps; ++k) wrong.evals.push_back(def(static_cast<Op>(k)).scalar.eval);
            row(op).scalar.eval = eval_tree;
        });
        add("llvm", own, [op, text] {
            static Expression wrong_expression{op, llvm_tree};
            wrong.tree = parse_row_text(text), expression = &wrong_expression;
        });
        add("cuda", fmt::format("Table/EachOpOnCpu.Cuda*/{}", d.name), [op, text] {
            static const std::string kept = text;
            row(op).scalar.text = kept;
        });
    }
}

}  // namespace

std::vector<Mutant> rows() {
    std::vector<Mutant> all;
    for (int k = 0; k < kOps; ++k) derivatives(static_cast<Op>(k), all), scalars(static_cast<Op>(k), all);
    return all;
}

}  // namespace heddle::mutant
