// The table as data: type rule per form, derivative and scalar per row, read from ops.def.
// Law: a type rule looks only at operands and attributes, so the verifier re-runs it.
#include "ir/op.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ir/graph.h"
#include "ir/mutant.h"

namespace heddle {

// The closed vocabulary of C(...), here over double. codegen gives the same names in CUDA and LLVM.
using std::acos, std::asin, std::atan, std::atan2, std::ceil, std::cos, std::cosh, std::erf, std::erfc, std::exp, std::expm1, std::fabs,
    std::floor, std::log, std::log1p, std::pow, std::rint, std::sin, std::sinh, std::sqrt, std::tan, std::tanh, std::trunc;

namespace {

double select(bool c, double a, double b) { return c ? a : b; }
// As eager PyTorch's, of an infinite a, too.
double mod_(double a, double b) {
    double r = std::fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
double floordiv_(double a, double b) {
    if (b == 0) return a / b;
    double r = std::fmod(a, b), q = (a - r) / b - (r != 0 && (r < 0) != (b < 0) ? 1 : 0);
    return q == 0 ? std::copysign(0, a / b) : std::rint(q);
}
double sign_(double a) { return a > 0 ? 1 : a < 0 ? -1 : 0; }  // of a NaN and of both zeros 0, as in torch.sign

// ---- type rules
[[noreturn]] void fail(const Node& n, const std::string& what) {
    throw Error(fmt::format("{}{}: {}", n.loc.empty() ? "" : n.loc + ": ", n.def().name, what));
}
const Type& operand(const Graph& g, const Node& n, int i) { return g.type(n.in[static_cast<std::size_t>(i)]); }
int axis_of(const Graph& g, const Node& n, int i = 0) {
    int a = n.integer("axis"), rank = operand(g, n, i).rank();
    if (a < 0 || a >= rank) fail(n, fmt::format("axis {} is outside {}", a, print(operand(g, n, i))));
    return a;
}
std::vector<int> axes_of(const Node& n, int rank) {
    auto axes = n.ints("axes");
    for (std::size_t i = 0; i < axes.size(); ++i)
        if (axes[i] < 0 || axes[i] >= rank || (i > 0 && axes[i] <= axes[i - 1]))
            fail(n, fmt::format("axes {} must ascend within rank {}", fmt::join(axes, ","), rank));
    return axes;
}
Type same(const Graph& g, const Node& n) {
    Type t = operand(g, n, 0);
    for (std::size_t i = 1; i < n.in.size(); ++i)
        if (operand(g, n, static_cast<int>(i)) != t)
            fail(n, fmt::format("operands differ: {} and {}", print(t), print(operand(g, n, static_cast<int>(i)))));
    return t;
}
Type same_float(const Graph& g, const Node& n) {
    Type t = same(g, n);
    if (!is_float(t.dtype)) fail(n, "got " + print(t) + ", expected a float type");
    return t;
}
Type same_bool(const Graph& g, const Node& n) {
    Type t = same(g, n);
    if (t.dtype != DType::b1) fail(n, "got " + print(t) + ", expected b1");
    return t;
}
Type compare(const Graph& g, const Node& n) { return {DType::b1, same(g, n).shape}; }
Type select_type(const Graph& g, const Node& n) {
    Type c = operand(g, n, 0), a = operand(g, n, 1), b = operand(g, n, 2);
    if (c.dtype != DType::b1 || c.shape != a.shape || a != b)
        fail(n, fmt::format("expected b1 and two of one type, got {}, {}, {}", print(c), print(a), print(b)));
    return a;
}
Type cast_type(const Graph& g, const Node& n) {
    Type t = operand(g, n, 0);
    t.dtype = n.type.dtype;
    return t;
}
Type view_type(const Graph& g, const Node& n) {
    Type t = operand(g, n, 0);
    switch (n.op) {
        case Op::expand: {
            auto axes = axes_of(n, n.type.rank());
            Shape kept;
            for (int i = 0; i < n.type.rank(); ++i)
                if (!std::binary_search(axes.begin(), axes.end(), i)) kept.push_back(n.type.shape[static_cast<std::size_t>(i)]);
            if (kept != t.shape) fail(n, fmt::format("{} without axes [{}] is not {}", print(n.type.shape), fmt::join(axes, ", "), print(t.shape)));
            t.shape = n.type.shape;
            break;
        }
        case Op::permute: {
            auto axes = n.ints("axes"), sorted = axes;
            std::sort(sorted.begin(), sorted.end());
            if (sorted != axes_from_to(0, t.rank())) fail(n, fmt::format("axes [{}] do not permute {}", fmt::join(axes, ", "), print(t)));
            for (std::size_t i = 0; i < axes.size(); ++i) t.shape[i] = operand(g, n, 0).shape[static_cast<std::size_t>(axes[i])];
            break;
        }
        case Op::reshape:
            if (numel(n.type.shape) != numel(t.shape)) fail(n, fmt::format("{} has not the elements of {}", print(n.type.shape), print(t.shape)));
            t.shape = n.type.shape;
            break;
        case Op::slice: {
            auto a = static_cast<std::size_t>(axis_of(g, n));
            Dim size = n.dim("end") - n.dim("start");
            if (n.dim("start").is_const() && n.dim("start").value() < 0) fail(n, "start is negative");
            if (size.is_const() && size.value() < 0) fail(n, "end is before start");
            if (Dim over = t.shape[a] - n.dim("end"); over.is_const() && over.value() < 0)
                fail(n, fmt::format("end {} is outside {}", print(n.dim("end")), print(t)));
            t.shape[a] = size;
            break;
        }
        case Op::pad: {
            auto a = static_cast<std::size_t>(axis_of(g, n));
            for (auto side : {"lo", "hi"})
                if (n.dim(side).is_const() && n.dim(side).value() < 0) fail(n, fmt::format("{} is negative", side));
            t.shape[a] = n.dim("lo") + t.shape[a] + n.dim("hi");
            break;
        }
        case Op::flip: axis_of(g, n); break;
        case Op::blocks: {
            const bool rows = t.rank() == 1 && n.type.rank() == 2 && n.type.shape[1].is_const() && n.type.shape[1].value() > 0;
            if (!rows) fail(n, fmt::format("cannot cut {} into {}", print(t), print(n.type)));
            if (Dim room = numel(n.type.shape) - t.shape[0]; room.is_const() && room.value() < 0)
                fail(n, fmt::format("{} has no room for {}", print(n.type), print(t)));
            t.shape = n.type.shape;
            break;
        }
        default: break;
    }
    return t;
}
Type concat_type(const Graph& g, const Node& n) {
    if (n.in.empty()) fail(n, "no operands");
    auto a = static_cast<std::size_t>(axis_of(g, n));
    Type t = operand(g, n, 0);
    Dim size;
    for (std::size_t i = 0; i < n.in.size(); ++i) {
        Type u = operand(g, n, static_cast<int>(i));
        if (u.rank() != t.rank()) fail(n, "ranks differ");
        size = size + u.shape[a];
        u.shape[a] = t.shape[a];
        if (u != t) fail(n, fmt::format("operands differ: {} and {}", print(t), print(operand(g, n, static_cast<int>(i)))));
    }
    t.shape[a] = size;
    return t;
}
Type fold_type(const Graph& g, const Node& n) {
    Type t = operand(g, n, 0);
    auto axes = axes_of(n, t.rank());
    Shape kept;
    for (int i = 0; i < t.rank(); ++i)
        if (!std::binary_search(axes.begin(), axes.end(), i)) kept.push_back(t.shape[static_cast<std::size_t>(i)]);
    t.shape = kept;
    return t;
}
Type scan_type(const Graph& g, const Node& n) {
    axis_of(g, n);
    if (int m = n.integer("mode"); m < 0 || m > 2) fail(n, "mode is 0, 1 or 2");
    (void)n.number("init");
    Type t = same(g, n);
    if (t.dtype == DType::b1) fail(n, "got b1");
    return t;
}
// Operands i1..ik of one integer type from position first on; returns their shape.
Shape indices(const Graph& g, const Node& n, std::size_t first, std::size_t k) {
    if (k == 0 || first + k > n.in.size()) fail(n, "indices are missing");
    Type t = g.type(n.in[first]);
    for (std::size_t i = first; i < first + k; ++i)
        if (g.type(n.in[i]) != t || !is_int(t.dtype)) fail(n, fmt::format("indices must be integers of one type, got {}", print(g.type(n.in[i]))));
    return t.shape;
}
Shape rows(const Shape& index, const Shape& x, std::size_t k) {
    Shape s = index;
    s.insert(s.end(), x.begin() + static_cast<std::ptrdiff_t>(k), x.end());
    return s;
}
Type gather_type(const Graph& g, const Node& n) {
    if (n.in.size() < 2) fail(n, "expected x and indices");
    Type t = operand(g, n, 0);
    std::size_t k = n.in.size() - 1;
    if (k > t.shape.size()) fail(n, fmt::format("{} indices into {}", k, print(t)));
    return {t.dtype, rows(indices(g, n, 1, k), t.shape, k)};
}
Type scatter_add_type(const Graph& g, const Node& n) {
    if (n.integer("k") < 1) fail(n, "k is at least 1");
    auto k = static_cast<std::size_t>(n.integer("k"));
    if (n.in.empty() || n.in.size() % (k + 1) != 0 || k > n.type.shape.size()) fail(n, "operands are groups of k indices and a value");
    for (std::size_t i = 0; i < n.in.size(); i += k + 1) {
        Type v = g.type(n.in[i + k]);
        if (v != Type{n.type.dtype, rows(indices(g, n, i, k), n.type.shape, k)}) fail(n, fmt::format("value {} does not fit into {}", print(v), print(n.type)));
    }
    return n.type;
}
Type scatter_type(const Graph& g, const Node& n) {
    if (n.in.size() < 3) fail(n, "expected base, indices, value");
    std::size_t k = n.in.size() - 2;
    Type t = operand(g, n, 0), v = g.type(n.in.back());
    if (k > t.shape.size() || v != Type{t.dtype, rows(indices(g, n, 1, k), t.shape, k)}) fail(n, fmt::format("value {} does not fit into {}", print(v), print(t)));
    return t;
}
Type compact_type(const Graph& g, const Node& n) {
    Type mask = operand(g, n, 0), starts = operand(g, n, 1), count = operand(g, n, 2);
    bool rows = mask.dtype == DType::b1 && mask.rank() == 2, start = is_int(starts.dtype) && starts.rank() == 1 && starts.shape[0] == mask.shape[0];
    if (!rows || !start || !is_int(count.dtype) || count.rank() != 0)
        fail(n, fmt::format("expected a mask of rows, where each starts and a count, got {}, {}, {}", print(mask), print(starts), print(count)));
    if (n.type.rank() != 1 || !is_int(n.type.dtype) || !n.type.shape[0].is_symbol())
        fail(n, fmt::format("got {}, expected places in number of a name", print(n.type)));
    return n.type;
}
Type dot_type(const Graph& g, const Node& n) {
    if (n.in.size() < 2) fail(n, "expected two operands");
    Type a = operand(g, n, 0), b = operand(g, n, 1);
    auto r = a.shape.size();
    bool fits = a.dtype == b.dtype && is_float(a.dtype) && (r == 2 || r == 3) && b.shape.size() == r && a.shape[r - 1] == b.shape[r - 2] && (r == 2 || a.shape[0] == b.shape[0]);
    if (!fits) fail(n, fmt::format("cannot multiply {} by {}", print(a), print(b)));
    a.shape[r - 1] = b.shape[r - 1];
    const bool row = n.in.size() == 3;
    if (n.in.size() > 3 || (row && (r != 2 || operand(g, n, 2) != Type{a.dtype, {a.shape[1]}}))) fail(n, fmt::format("cannot add {} to the rows of {}", print(operand(g, n, 2)), print(a)));
    if (n.flag("relu") && !row) fail(n, "relu comes after a row that is added");
    return a;
}
Type leaf_type(const Graph&, const Node& n) {
    if (n.is(Op::constant)) (void)n.number("value");
    if (n.is(Op::size)) (void)n.dim("dim");
    if (n.is(Op::iota))
        if (int a = n.integer("axis"); a < 0 || a >= n.type.rank()) fail(n, fmt::format("axis {} is outside {}", a, print(n.type)));
    return n.type;
}
Type result_type(const Graph& g, const Node& n) {
    const Node& c = g[n.in.at(0)];
    auto i = static_cast<std::size_t>(n.integer("index"));
    if (!c.is(Op::call) || i < 1 || i > c.more.size()) fail(n, "operand has no such result");
    return c.more[i - 1];
}

// ---- derivatives too long for a row
std::vector<V> concat_vjp(const std::vector<V>& in, V, V g, const Node& n) {
    std::vector<V> grads;
    Dim at;
    for (V x : in) {
        Dim end = at + x.type().shape[static_cast<std::size_t>(n.integer("axis"))];
        grads.push_back(slice(g, n.integer("axis"), at, end));
        at = end;
    }
    return grads;
}
std::vector<V> prod_vjp(const std::vector<V>& in, V, V g, const Node& n) {
    V x = in[0];
    auto axes = n.ints("axes");
    if (axes.size() != 1) throw Error("prod: derivative over several axes: fold one axis at a time");
    V before = scan(x, zeros_like(x), axes[0], 1, false, 1), after = scan(x, zeros_like(x), axes[0], 1, true, 1);
    return {expand(g, axes, x.type().shape) * (before * after)};
}
// The gradient is shared evenly by all elements that reach the extremum, as PyTorch's amax and amin do; none reaches a NaN, and 0 / 0 is a NaN.
std::vector<V> extremum_vjp(const std::vector<V>& in, V out, V g, const Node& n) {
    V x = in[0];
    auto axes = n.ints("axes");
    V hit = eq(x, expand(out, axes, x.type().shape));
    V count = sum(cast(hit, x.type().dtype), axes);
    return {select(hit, expand(g / count, axes, x.type().shape), expand(g * 0 / count, axes, x.type().shape))};
}
// With G the gradient that reaches the recurrence's state, itself a recurrence run the other way (derivation: unroll one step
// of each mode). Nothing is divided, so zeros in a (alpha = 1 in a transmittance) are exact.
std::vector<V> scan_vjp(const std::vector<V>& in, V out, V g, const Node& n) {
    V a = in[0], b = in[1];
    int axis = n.integer("axis"), mode = n.integer("mode");
    bool reverse = n.flag("reverse");
    double init = n.number("init");
    if (mode == 0) {
        V state = scan(a, g, axis, 2, !reverse, 0);
        return {state * scan(a, b, axis, 1, reverse, init), state};
    }
    if (mode == 1) {
        V state = scan(a, g, axis, 1, !reverse, 0);
        return {state * out, state};
    }
    return {scan(a, g, axis, 1, !reverse, 0) * out, scan(a, g, axis, 0, !reverse, 0)};
}
std::vector<V> gather_vjp(const std::vector<V>& in, V, V g, const Node&) {
    std::vector<V> grads(in.size());
    grads[0] = scatter_add(in[0].type(), {in.begin() + 1, in.end()}, g);
    return grads;
}
std::vector<V> scatter_add_vjp(const std::vector<V>& in, V, V g, const Node& n) {
    std::vector<V> grads(in.size());
    auto k = static_cast<std::size_t>(n.integer("k"));
    for (std::size_t i = 0; i < in.size(); i += k + 1)
        grads[i + k] = gather(g, {in.begin() + static_cast<std::ptrdiff_t>(i), in.begin() + static_cast<std::ptrdiff_t>(i + k)});
    return grads;
}
std::vector<V> scatter_vjp(const std::vector<V>& in, V, V g, const Node&) {
    std::vector<V> grads(in.size()), index(in.begin() + 1, in.end() - 1);
    grads.front() = scatter(g, index, zeros_like(in.back()));
    grads.back() = gather(g, index);
    return grads;
}
std::vector<V> dot_vjp(const std::vector<V>& in, V out, V g, const Node& n) {
    if (n.flag("relu")) g = select(le(out, zeros_like(out)), zeros_like(g), g);
    std::vector<V> grads{dot(g, transpose(in[1])), dot(transpose(in[0]), g)};
    if (in.size() == 3) grads.push_back(sum(g, {0}));
    return grads;
}

// ---- forms
#define LEAF .kind = Kind::leaf, .arity = 0, .type = leaf_type
#define MAP1 .kind = Kind::map, .arity = 1, .type = same
#define MAP1F .kind = Kind::map, .arity = 1, .type = same_float
#define BOOL1 .kind = Kind::map, .arity = 1, .type = same_bool
#define MAP2 .kind = Kind::map, .arity = 2, .type = same
#define MAP2F .kind = Kind::map, .arity = 2, .type = same_float
#define BOOL2 .kind = Kind::map, .arity = 2, .type = same_bool
#define CMP2 .kind = Kind::map, .arity = 2, .type = compare
#define SELECT .kind = Kind::map, .arity = 3, .type = select_type
#define CAST .kind = Kind::map, .arity = 1, .type = cast_type
#define VIEW .kind = Kind::view, .arity = 1, .type = view_type
#define CONCAT .kind = Kind::concat, .arity = -1, .type = concat_type
#define FOLD .kind = Kind::fold, .arity = 1, .type = fold_type
#define SCAN .kind = Kind::scan, .arity = 2, .type = scan_type
#define GATHER .kind = Kind::gather, .arity = -1, .type = gather_type
#define SCATTER_ADD .kind = Kind::scatter, .arity = -1, .type = scatter_add_type
#define SCATTER .kind = Kind::scatter, .arity = -1, .type = scatter_type
#define COMPACT .kind = Kind::scatter, .arity = 3, .type = compact_type
#define DOT .kind = Kind::dot, .arity = -1, .type = dot_type
#define CALL .kind = Kind::call, .arity = -1, .type = nullptr
#define RESULT .kind = Kind::call, .arity = 1, .type = result_type
#define C(...) {#__VA_ARGS__, [](double a, double b, double c) -> double { (void)a, (void)b, (void)c; return __VA_ARGS__; }}
#define VJP(...)                                                                        \
    [](const std::vector<V>& in, V out, V g, const Node& n) -> std::vector<V> {         \
        V x = in[0], y = in[in.size() > 1 ? 1 : 0];                                     \
        (void)x, (void)y, (void)out, (void)g, (void)n;                                  \
        return {__VA_ARGS__};                                                           \
    }

OpDef kTable[] = {  // const but for mutant::row
#define OP(n, ...) {.name = #n, __VA_ARGS__},
#include "ir/ops.def"
#undef OP
};

}  // namespace

mutant::Reader mutant::reader;
mutant::Expression* mutant::expression = nullptr;
OpDef& mutant::row(Op op) { return kTable[static_cast<int>(op)]; }

const OpDef& def(Op op) { return kTable[static_cast<int>(op)]; }
const OpDef* op_named(std::string_view name) {
    for (const OpDef& d : kTable)
        if (d.name == name) return &d;
    return nullptr;
}

}  // namespace heddle
