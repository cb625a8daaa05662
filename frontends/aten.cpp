// The driver of the lowering, and the typing rules its rows share.
#include "frontends/aten.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "frontends/aten_table.h"

namespace heddle {

namespace aten {

bool Call::has(std::string_view name) const {
    const Attr* a = node.find(name);
    return a && !std::holds_alternative<None>(*a) && !(std::holds_alternative<Ref>(*a) && std::get<Ref>(*a).operand < 0);
}
std::optional<V> Call::maybe(std::string_view name) const {
    const Attr* a = node.find(name);
    if (!a) return {};
    auto* r = std::get_if<Ref>(a);
    if (!r || r->operand < 0) return {};
    return operands_.at(static_cast<std::size_t>(r->operand));
}
V Call::tensor(std::string_view name) const {
    if (auto v = maybe(name)) return *v;
    throw Error(fmt::format("{}: argument {} is not a tensor", node.text("name"), name));
}
std::vector<std::optional<V>> Call::tensors(std::string_view name) const {
    std::vector<std::optional<V>> out;
    const Attr* a = node.find(name);
    if (auto* refs = a ? std::get_if<std::vector<Ref>>(a) : nullptr)
        for (const Ref& r : *refs) out.push_back(r.operand < 0 ? std::nullopt : std::optional<V>(operands_.at(static_cast<std::size_t>(r.operand))));
    return out;
}
double Call::number(std::string_view name, double otherwise) const { return has(name) ? node.number(name) : otherwise; }
bool Call::flag(std::string_view name, bool otherwise) const { return has(name) ? node.flag(name) : otherwise; }
std::optional<Dim> Call::dim(std::string_view name) const { return has(name) ? std::optional<Dim>(node.dim(name)) : std::nullopt; }
int Call::axis(std::string_view name, int rank, int otherwise) const {
    int a = has(name) ? node.integer(name) : otherwise;
    return a < 0 ? a + std::max(rank, 1) : a;
}
std::vector<int> Call::axes(std::string_view name, int rank, bool empty_is_all) const {
    const Attr* a = node.find(name);
    std::vector<int> out;
    if (a && std::holds_alternative<Dim>(*a)) out = {node.integer(name)};
    else if (a && std::holds_alternative<std::vector<Dim>>(*a)) out = node.ints(name);
    else return axes_from_to(0, rank);
    if (out.empty() && empty_is_all) return axes_from_to(0, rank);
    for (int& x : out)
        if (x < 0) x += rank;
    std::sort(out.begin(), out.end());
    if (rank == 0) out.clear();
    return out;
}
V Call::operand(std::string_view name, DType t, const Shape& s) const {
    if (auto v = maybe(name)) return broadcast(cast(*v, t), s);
    const Attr* a = node.find(name);
    if (!a) throw Error(fmt::format("{}: argument {} is missing", node.text("name"), name));
    if (auto* d = std::get_if<Dim>(a)) return size(g, {t, s}, *d);
    return fill(g, {t, s}, node.number(name));
}
V fill(Graph& g, const Type& t, double v) { return constant(g, t, t.dtype == DType::f32 ? static_cast<double>(static_cast<float>(v)) : v); }
V broadcast(V x, const Shape& s) {
    const Shape from = x.type().shape;
    if (from == s) return x;
    auto lead = static_cast<int>(s.size()) - static_cast<int>(from.size());
    if (lead < 0) throw Error(fmt::format("can't broadcast {} to {}", print(from), print(s)));
    std::vector<int> grown = axes_from_to(0, lead);
    Shape kept;
    for (std::size_t k = 0; k < from.size(); ++k) {
        const Dim& to = s[k + static_cast<std::size_t>(lead)];
        if (from[k] == to) kept.push_back(to);
        else if (from[k] == 1) grown.push_back(static_cast<int>(k) + lead);
        else throw Error(fmt::format("can't broadcast {} to {}", print(from), print(s)));
    }
    return expand(reshape(x, kept), grown, s);
}
V clamp(V x, std::optional<double> lo, std::optional<double> hi) {
    V y = x;
    if (hi) y = select(gt(y, like(y, *hi)), like(y, *hi), y);
    if (lo) y = select(lt(y, like(y, *lo)), like(y, *lo), y);
    return y;
}
DType promoted(const Call& c, std::string_view a, std::string_view b) {
    // Tensors with axes outrank tensors without, which outrank numbers; only a higher category (bool < int < float) overrides.
    struct Seen {
        DType t;
        int rank, category;
    };
    auto seen = [&](std::string_view name) {
        auto category = [](DType t) { return t == DType::b1 ? 0 : is_int(t) ? 1 : 2; };
        if (auto v = c.maybe(name)) return Seen{v->type().dtype, v->type().rank() > 0 ? 2 : 1, category(v->type().dtype)};
        const Attr* x = c.node.find(name);
        DType t = x && std::holds_alternative<double>(*x) ? DType::f32 : x && std::holds_alternative<bool>(*x) ? DType::b1 : DType::i64;
        return Seen{t, 0, category(t)};
    };
    Seen x = seen(a), y = seen(b);
    if (x.rank < y.rank) std::swap(x, y);
    if (x.rank != y.rank) return y.category > x.category ? y.t : x.t;
    if (x.t == y.t) return x.t;
    if ((x.t == DType::f16 && y.t == DType::bf16) || (x.t == DType::bf16 && y.t == DType::f16)) return DType::f32;
    return std::max(x.t, y.t);
}

namespace {
const std::unordered_map<std::string_view, const Row*>& rows() {
    static const auto all = [] {
        std::unordered_map<std::string_view, const Row*> m;
        for (const Table* t : {&pointwise_rows(), &view_rows(), &reduce_rows(), &index_rows(), &nn_rows()})
            for (const auto& [name, row] : *t)
                if (!m.emplace(name, &row).second) throw Bug("two rows for aten." + std::string(name));
        return m;
    }();
    return all;
}
// "aten.add.Tensor" -> "add"; empty for what isn't aten.
std::string_view base(std::string_view name) {
    if (!name.starts_with("aten.")) return {};
    name.remove_prefix(5);
    return name.substr(0, name.find('.'));
}
// Ops that the table of primitives names itself: all operands in the result's type (a comparison's in their common one).
const OpDef* primitive(std::string_view b) {
    for (int i = 0; i < kOps; ++i)
        if (const OpDef& d = def(static_cast<Op>(i)); d.kind == Kind::map && !d.aten.empty() && d.aten == b) return &d;
    return nullptr;
}
std::optional<V> lower_one(Call& c) {
    std::string_view b = base(c.node.text("name"));
    if (auto it = rows().find(b); it != rows().end()) return (*it->second)(c);
    if (const OpDef* d = primitive(b)) {
        std::vector<V> in;
        for (const char* name : {"self", "other"}) {
            if (static_cast<int>(in.size()) == d->arity || !c.has(name)) break;
            in.push_back(c.operand(name, c.type().dtype, c.type().shape));
        }
        if (static_cast<int>(in.size()) == d->arity) return apply(static_cast<Op>(d - &def(Op{})), in);
    }
    return {};
}
}  // namespace
}  // namespace aten

Graph lower_aten(const Graph& g) {
    Graph out;
    out.name = g.name;
    std::vector<V> at(g.nodes.size());
    for (Id i : g.inputs) at[static_cast<std::size_t>(i)] = out.value(out.input(g.type(i), g[i].text("name")));
    for (Id id = 0; id < g.size(); ++id) {
        Node n = g[id];
        if (n.is(Op::input)) continue;
        std::vector<V> in;
        for (Id& i : n.in) in.push_back({&out, at[static_cast<std::size_t>(i)].id}), i = in.back().id;
        out.here = n.loc;
        V v;
        if (n.is(Op::call)) {
            aten::Call c(out, g[id], in);
            try {
                if (auto lowered = aten::lower_one(c)) v = *lowered;
            } catch (const Error& e) {
                throw Error(fmt::format("{}{}: {}", n.loc.empty() ? "" : n.loc + ": ", n.text("name"), e.what()));
            }
            if (v && v.type() != n.type) throw Bug(fmt::format("lowering of {} gave {}, expected {}", print(n.attrs[0].second), print(v.type()), print(n.type)));
            if (v && n.flag("no_grad") && is_float(n.type.dtype) && v.node().kind() != Kind::leaf) v = stop_grad(v);
        }
        at[static_cast<std::size_t>(id)] = v ? V{&out, v.id} : out.value(out.add(std::move(n)));
    }
    out.here.clear();
    for (Id i : g.outputs) out.outputs.push_back(at[static_cast<std::size_t>(i)].id);
    return live(out);
}

std::vector<std::string> unlowered(const Graph& g) {
    std::vector<std::string> names;
    for (const Node& n : g.nodes)
        if (n.is(Op::call) && std::find(names.begin(), names.end(), n.text("name")) == names.end()) names.push_back(n.text("name"));
    return names;
}
std::vector<std::string> lowered_names() {
    std::vector<std::string> names;
    for (const auto& [name, row] : aten::rows()) names.emplace_back(name);
    for (int i = 0; i < kOps; ++i)
        if (const OpDef& d = def(static_cast<Op>(i)); d.kind == Kind::map && !d.aten.empty()) names.emplace_back(d.aten);
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace heddle
