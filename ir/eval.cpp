// The meaning of the IR as loops over indices. Law: no cleverness; a reader checks it against ops.def by eye.
#include "ir/eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace heddle {

namespace {
using Index = std::vector<std::int64_t>;

std::int64_t product(const Index& s) {
    std::int64_t n = 1;
    for (auto d : s) n *= d;
    return n;
}
std::int64_t offset(const Index& i, const Index& sizes) {
    std::int64_t at = 0;
    for (std::size_t k = 0; k < sizes.size(); ++k) {
        HEDDLE_CHECK(i[k] >= 0 && i[k] < sizes[k], fmt::format("index {} is outside size {} (axis {})", i[k], sizes[k], k));
        at = at * sizes[k] + i[k];
    }
    return at;
}
void for_each(const Index& sizes, const std::function<void(const Index&)>& f) {
    Index i(sizes.size());
    for (std::int64_t n = product(sizes), k = 0; k < n; ++k) {
        f(i);
        for (std::size_t a = sizes.size(); a-- > 0 && ++i[a] == sizes[a];) i[a] = 0;
    }
}
Index joined(Index a, const Index& b, std::size_t from) {
    a.insert(a.end(), b.begin() + static_cast<std::ptrdiff_t>(from), b.end());
    return a;
}
// Rounds a computed double to what the dtype can hold.
double stored(double v, DType t) {
    switch (t) {
        case DType::b1: return v != 0;
        case DType::i32:
        case DType::i64: return std::trunc(v);
        case DType::f32: return static_cast<double>(static_cast<float>(v));
        default: return v;
    }
}
struct Cell {
    const Tensor& t;
    double operator()(const Index& i) const { return t.data[static_cast<std::size_t>(offset(i, t.sizes))]; }
};
}  // namespace

std::int64_t Tensor::numel() const { return product(sizes); }

void bind_sizes(const Shape& shape, const Index& actual, Sizes& sizes, std::string_view who, std::string_view remedy) {
    if (shape.size() != actual.size()) throw Error(fmt::format("{}: got {} dimensions, expected {}{}", who, actual.size(), print(shape), remedy));
    for (std::size_t k = 0; k < shape.size(); ++k)
        if (shape[k].is_symbol()) sizes.emplace(shape[k].terms()[0].names[0], actual[k]);
    for (std::size_t k = 0; k < shape.size(); ++k) {
        std::vector<std::string> names;
        shape[k].names(names);
        for (const auto& n : names)
            if (!sizes.count(n)) return;  // bound by a later input; the caller checks again
        if (auto want = shape[k].eval(sizes); want != actual[k])
            throw Error(fmt::format("{}: size {} of dimension {} is {}, expected {}{}", who, print(shape[k]), k, actual[k], want, remedy));
    }
}

std::vector<Tensor> evaluate(const Graph& g, const std::vector<Tensor>& inputs, const CallFn& call, Sizes sizes) {
    if (inputs.size() != g.inputs.size()) throw Error(fmt::format("{}: got {} inputs, expected {}", g.name, inputs.size(), g.inputs.size()));
    std::vector<Tensor> at(g.nodes.size());
    std::map<std::pair<Id, int>, Tensor> more;
    for (int round = 0; round < 2; ++round)
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            bind_sizes(g.type(g.inputs[i]).shape, inputs[i].sizes, sizes, g[g.inputs[i]].text("name"));
            at[static_cast<std::size_t>(g.inputs[i])] = inputs[i];
        }
    for (Id id = 0; id < g.size(); ++id) {
        const Node& n = g[id];
        if (n.is(Op::input)) continue;
        auto x = [&](std::size_t k) -> const Tensor& { return at[static_cast<std::size_t>(n.in[k])]; };
        if (n.is(Op::call)) {
            if (!call) throw Error("call " + n.text("name") + ": no library at hand");
            std::vector<Tensor> operands;
            for (Id i : n.in) operands.push_back(at[static_cast<std::size_t>(i)]);
            auto results = call(n, operands, sizes);
            bind_sizes(n.type.shape, results.at(0).sizes, sizes, n.text("name"));
            for (std::size_t k = 0; k < n.more.size(); ++k) {
                bind_sizes(n.more[k].shape, results.at(k + 1).sizes, sizes, n.text("name"));
                more[{id, static_cast<int>(k + 1)}] = results[k + 1];
            }
            at[static_cast<std::size_t>(id)] = std::move(results[0]);
            continue;
        }
        if (n.is(Op::result)) {
            at[static_cast<std::size_t>(id)] = more.at({n.in[0], n.integer("index")});
            continue;
        }
        if (n.is(Op::blocks)) {
            const auto width = n.type.shape[1].value();
            bind_sizes(n.type.shape, {(x(0).numel() + width - 1) / width, width}, sizes, "blocks");
        }
        if (n.is(Op::compact)) bind_sizes(n.type.shape, {static_cast<std::int64_t>(x(2).data[0])}, sizes, "compact");
        Tensor out{n.type.dtype, {}, {}};
        for (const Dim& d : n.type.shape) out.sizes.push_back(d.eval(sizes));
        out.data.assign(static_cast<std::size_t>(out.numel()), 0);
        auto fill = [&](const std::function<double(const Index&)>& f) {
            for_each(out.sizes, [&](const Index& i) { out.data[static_cast<std::size_t>(offset(i, out.sizes))] = stored(f(i), out.dtype); });
        };
        auto axis = [&] { return static_cast<std::size_t>(n.integer("axis")); };
        switch (n.op) {
            case Op::constant: fill([v = n.number("value")](const Index&) { return v; }); break;
            case Op::size: fill([v = static_cast<double>(n.dim("dim").eval(sizes))](const Index&) { return v; }); break;
            case Op::iota: fill([a = axis()](const Index& i) { return static_cast<double>(i[a]); }); break;
            case Op::cast: fill([&](const Index& i) { return Cell{x(0)}(i); }); break;
            case Op::stop_grad:
            case Op::realize: fill([&](const Index& i) { return Cell{x(0)}(i); }); break;
            case Op::expand: {
                auto axes = n.ints("axes");
                fill([&](const Index& i) {
                    Index j;
                    for (std::size_t k = 0; k < i.size(); ++k)
                        if (!std::binary_search(axes.begin(), axes.end(), static_cast<int>(k))) j.push_back(i[k]);
                    return Cell{x(0)}(j);
                });
                break;
            }
            case Op::permute: {
                auto axes = n.ints("axes");
                fill([&](const Index& i) {
                    Index j(i.size());
                    for (std::size_t k = 0; k < i.size(); ++k) j[static_cast<std::size_t>(axes[k])] = i[k];
                    return Cell{x(0)}(j);
                });
                break;
            }
            case Op::reshape: out.data = x(0).data; break;
            case Op::slice:
                fill([&, a = axis(), s = n.dim("start").eval(sizes)](Index i) { return i[a] += s, Cell{x(0)}(i); });
                break;
            case Op::pad:
                fill([&, a = axis(), lo = n.dim("lo").eval(sizes)](Index i) {
                    i[a] -= lo;
                    return i[a] < 0 || i[a] >= x(0).sizes[a] ? 0 : Cell{x(0)}(i);
                });
                break;
            case Op::flip: fill([&, a = axis()](Index i) { return i[a] = x(0).sizes[a] - 1 - i[a], Cell{x(0)}(i); }); break;
            case Op::blocks:
                fill([&](const Index& i) {
                    const auto at = i[0] * out.sizes[1] + i[1];
                    return at < x(0).sizes[0] ? Cell{x(0)}({at}) : 0;
                });
                break;
            case Op::compact:
                for (std::int64_t r = 0; r < x(0).sizes[0]; ++r)
                    for (std::int64_t c = 0, to = static_cast<std::int64_t>(Cell{x(1)}({r})); c < x(0).sizes[1]; ++c)
                        if (Cell{x(0)}({r, c}) != 0 && to++ < out.sizes[0]) out.data[static_cast<std::size_t>(to - 1)] = static_cast<double>(r * x(0).sizes[1] + c);
                break;
            case Op::concat:
                fill([&, a = axis()](Index i) {
                    std::size_t k = 0;
                    for (; i[a] >= x(k).sizes[a]; ++k) i[a] -= x(k).sizes[a];
                    return Cell{x(k)}(i);
                });
                break;
            case Op::scan: {
                std::size_t a = axis();
                int mode = n.integer("mode");
                bool reverse = n.flag("reverse");
                Index rows = out.sizes;
                std::int64_t length = std::exchange(rows[a], out.sizes[a] > 0 ? 1 : 0);
                for_each(rows, [&](Index i) {
                    double c = n.number("init");
                    for (std::int64_t k = 0; k < length; ++k) {
                        i[a] = reverse ? length - 1 - k : k;
                        double xa = Cell{x(0)}(i), xb = Cell{x(1)}(i), o;
                        if (mode == 0) o = c = xa * c + xb;
                        else if (mode == 1) o = c, c = xa * c + xb;
                        else o = c + xb, c = xa * o;
                        out.data[static_cast<std::size_t>(offset(i, out.sizes))] = stored(o, out.dtype);
                    }
                });
                break;
            }
            case Op::gather:
                fill([&](const Index& i) {
                    std::size_t k = n.in.size() - 1, s = x(1).sizes.size();
                    Index at_index(i.begin(), i.begin() + static_cast<std::ptrdiff_t>(s)), j;
                    for (std::size_t q = 1; q <= k; ++q) j.push_back(static_cast<std::int64_t>(Cell{x(q)}(at_index)));
                    return Cell{x(0)}(joined(j, i, s));
                });
                break;
            case Op::scatter_add:
            case Op::scatter: {
                bool adds = n.is(Op::scatter_add);
                if (!adds) out.data = x(0).data;
                std::size_t first = adds ? 0 : 1, k = adds ? static_cast<std::size_t>(n.integer("k")) : n.in.size() - 2;
                for (std::size_t q = first; q + k < n.in.size(); q += k + 1)
                    for_each(x(q + k).sizes, [&](const Index& i) {
                        std::size_t s = x(q).sizes.size();
                        Index at_index(i.begin(), i.begin() + static_cast<std::ptrdiff_t>(s)), j;
                        for (std::size_t p = q; p < q + k; ++p) j.push_back(static_cast<std::int64_t>(Cell{x(p)}(at_index)));
                        double& cell = out.data[static_cast<std::size_t>(offset(joined(j, i, s), out.sizes))];
                        cell = adds ? cell + Cell{x(q + k)}(i) : Cell{x(q + k)}(i);
                    });
                for (double& v : out.data) v = stored(v, out.dtype);
                break;
            }
            case Op::dot: {
                std::size_t r = out.sizes.size();
                fill([&](const Index& i) {
                    double s = 0;
                    for (std::int64_t k = 0; k < x(0).sizes[r - 1]; ++k) {
                        Index a = i, b = i;
                        a[r - 1] = b[r - 2] = k;
                        s += Cell{x(0)}(a) * Cell{x(1)}(b);
                    }
                    if (n.in.size() == 3) s += x(2).data[static_cast<std::size_t>(i[1])];
                    return n.flag("relu") && s < 0 ? 0 : s;
                });
                break;
            }
            default:
                if (n.kind() == Kind::fold) {
                    auto axes = n.ints("axes");
                    std::fill(out.data.begin(), out.data.end(), n.def().init);
                    for_each(x(0).sizes, [&](const Index& i) {
                        Index j;
                        for (std::size_t k = 0; k < i.size(); ++k)
                            if (!std::binary_search(axes.begin(), axes.end(), static_cast<int>(k))) j.push_back(i[k]);
                        double& cell = out.data[static_cast<std::size_t>(offset(j, out.sizes))];
                        cell = n.def().scalar.eval(cell, Cell{x(0)}(i), 0);
                    });
                    for (double& v : out.data) v = stored(v, out.dtype);
                } else {
                    HEDDLE_CHECK(n.kind() == Kind::map, "no meaning for " + std::string(n.def().name));
                    for (std::size_t k = 0; k < out.data.size(); ++k)
                        out.data[k] = stored(n.def().scalar.eval(x(0).data[k], n.in.size() > 1 ? x(1).data[k] : 0, n.in.size() > 2 ? x(2).data[k] : 0), out.dtype);
                }
        }
        at[static_cast<std::size_t>(id)] = std::move(out);
    }
    std::vector<Tensor> outs;
    for (Id id : g.outputs) outs.push_back(at[static_cast<std::size_t>(id)]);
    return outs;
}

}  // namespace heddle
