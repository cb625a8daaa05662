// The rows of calls.def, parsed when first needed, and the general form.
#include "passes/calls.h"

#include <fmt/format.h>

#include <algorithm>

#include "ir/mutant.h"

namespace heddle {

namespace {
struct Argument {
    std::string name, from;           // g0, r1, an argument; of sizes(x), x
    bool sizes = false, wanted = false;
};
struct Backward {
    std::string_view forward, name, text, of;
    std::vector<Argument> arguments = {};
    std::vector<std::string> results = {};
};
std::string trimmed(std::string s) {
    std::erase(s, ' ');
    return s;
}
std::vector<std::string> separated(const std::string& s) {
    std::vector<std::string> parts(1);
    for (char c : s) {
        if (c == ',') parts.emplace_back();
        else parts.back() += c;
    }
    return parts;
}
Argument parsed(const std::string& s) {
    auto is = s.find('=');
    Argument a{s.substr(0, is), is == s.npos ? s : s.substr(is + 1)};
    a.wanted = a.from == "wanted";
    if (a.from.starts_with("sizes(")) a.sizes = true, a.from = a.from.substr(6, a.from.size() - 7);
    return a;
}
const Backward* row(std::string_view forward) {
    static const auto* rows = [] {
        auto* all = new std::vector<Backward>{
#define BACKWARD(forward, name, text, of) {forward, name, text, of},
#define SELECTS(forward)
#include "passes/calls.def"
#undef BACKWARD
#undef SELECTS
        };
        for (Backward& b : *all) {
            const std::string both = mutant::read("backward", b.forward, std::string(b.text) + " -> " + std::string(b.of));
            const auto end = both.find(" -> ");
            for (const std::string& s : separated(trimmed(both.substr(0, end)))) b.arguments.push_back(parsed(s));
            b.results = separated(trimmed(both.substr(end + 4)));
        }
        return all;
    }();
    for (const Backward& b : *rows)
        if (b.forward == forward) return &b;
    return nullptr;
}
bool selects(std::string_view name) {
    static const std::string rows[] = {
#define BACKWARD(forward, name, text, of)
#define SELECTS(forward) mutant::read("selects", forward, forward),
#include "passes/calls.def"
#undef BACKWARD
#undef SELECTS
    };
    return std::find(std::begin(rows), std::end(rows), name) != std::end(rows);
}
// The gradient of self, where its elements were chosen along dim.
V scattered(V self, V index, V g, int axis) {
    const Type t = self.type();
    if (t.rank() == 0) return reshape(g, {});
    if (axis < 0) axis += t.rank();
    Shape s = index.type().shape;
    if (index.type().rank() < t.rank()) s.insert(s.begin() + axis, Dim(1));
    std::vector<V> places;
    for (int a = 0; a < t.rank(); ++a) places.push_back(a == axis ? reshape(index, s) : iota(*self.graph, {DType::i64, s}, a));
    return scatter_add(t, places, reshape(g, s));
}
// "g0" -> 0 if the letter is g; else -1.
int numbered(const Argument& a, char letter) {
    bool is = !a.sizes && a.from.size() == 2 && a.from[0] == letter && a.from[1] >= '0' && a.from[1] <= '9' && a.name != a.from;
    return is ? a.from[1] - '0' : -1;
}

// A call under construction. Operands are added as arguments name them.
class Made {
public:
    Made(Graph& g, const Node& forward) : g_(g), forward_(forward) {
        node_.op = Op::call;
        node_.loc = forward.loc;
    }
    Ref operand(V v) {
        node_.in.push_back(v.id);
        return {static_cast<int>(node_.in.size()) - 1};
    }
    Attr moved(const Attr& a) {  // of the forward
        auto move = [&](Ref r) { return r.operand < 0 ? r : operand(g_.value(forward_.in[static_cast<std::size_t>(r.operand)])); };
        if (auto* r = std::get_if<Ref>(&a)) return move(*r);
        if (auto* list = std::get_if<std::vector<Ref>>(&a)) {
            std::vector<Ref> refs;
            for (Ref r : *list) refs.push_back(move(r));
            return refs;
        }
        return a;
    }
    void put(std::string name, Attr a) { node_.attrs.emplace_back(std::move(name), std::move(a)); }
    void result(const Type& t) { results_++ == 0 ? void(node_.type = t) : node_.more.push_back(t); }
    std::vector<V> done() {
        Id id = g_.add(std::move(node_));
        std::vector<V> all{g_.value(id)};
        for (int k = 1; k < results_; ++k)
            all.push_back(g_.value(g_.add({.op = Op::result, .in = {id}, .attrs = {{"index", Dim(k)}}, .type = {}, .more = {}, .loc = {}})));
        return all;
    }

private:
    Graph& g_;
    const Node& forward_;
    Node node_;
    int results_ = 0;
};

// Which operand an argument is: -1 if none.
int operand_of(const Node& n, std::string_view argument) {
    const Attr* a = n.find(argument);
    auto* r = a ? std::get_if<Ref>(a) : nullptr;
    return r ? r->operand : -1;
}
// By the row's own op; {} where the row doesn't serve.
std::vector<V> by_row(Graph& g, Id call, const Node& n, const Backward& b, const std::vector<V>& incoming, const std::vector<char>& wants) {
    std::vector<char> taken(incoming.size());
    std::vector<int> of;  // operands whose gradients the results are
    bool masked = false;
    for (const Argument& a : b.arguments) {
        if (int k = numbered(a, 'g'); k >= 0) taken[static_cast<std::size_t>(k)] = 1;
        masked |= a.wanted;
    }
    for (const auto& x : b.results) of.push_back(operand_of(n, x));
    for (std::size_t k = 0; k < incoming.size(); ++k)
        if ((taken[k] != 0) != static_cast<bool>(incoming[k])) return {};
    for (std::size_t k = 0; k < wants.size(); ++k)
        if (wants[k] && std::find(of.begin(), of.end(), static_cast<int>(k)) == of.end()) return {};
    auto wanted = [&](int operand) { return operand >= 0 && wants[static_cast<std::size_t>(operand)]; };
    Made made(g, n);
    made.put("name", std::string(b.name));
    for (const Argument& a : b.arguments) {
        if (int k = numbered(a, 'g'); k >= 0) {
            made.put(a.name, made.operand(incoming[static_cast<std::size_t>(k)]));
        } else if (int r = numbered(a, 'r'); r >= 0) {
            Id id = r == 0 ? call : g.add({.op = Op::result, .in = {call}, .attrs = {{"index", Dim(r)}}, .type = {}, .more = {}, .loc = {}});
            made.put(a.name, made.operand(g.value(id)));
        } else if (a.sizes) {
            int operand = operand_of(n, a.from);
            made.put(a.name, operand < 0 ? Attr(None{}) : Attr(std::vector<Dim>(g.type(n.in[static_cast<std::size_t>(operand)]).shape)));
        } else if (a.wanted) {
            std::vector<Dim> mask;
            for (int operand : of) mask.emplace_back(wanted(operand) ? 1 : 0);
            made.put(a.name, mask);
        } else {
            const Attr* x = n.find(a.from);
            made.put(a.name, x ? made.moved(*x) : Attr(None{}));
        }
    }
    for (int operand : of) made.result(operand >= 0 && (wanted(operand) || !masked) ? g.type(n.in[static_cast<std::size_t>(operand)]) : Type{n.type.dtype, {0}});
    auto results = made.done();
    std::vector<V> grads(n.in.size());
    for (std::size_t k = 0; k < of.size(); ++k)
        if (wanted(of[k])) grads[static_cast<std::size_t>(of[k])] = results[k];
    return grads;
}
}  // namespace

std::vector<V> call_vjp(Graph& g, Id call, const std::vector<V>& incoming, const std::vector<char>& wants) {
    const Node n = g[call];
    if (n.flag("random"))
        throw Error(fmt::format("{}{}: a gradient flows through a random op: it has no derivative here", n.loc.empty() ? "" : n.loc + ": ", n.text("name")));
    if (const Backward* b = row(n.text("name")))
        if (auto grads = by_row(g, call, n, *b, incoming, wants); !grads.empty()) return grads;
    if (int self = operand_of(n, "self"); selects(n.text("name")) && incoming[0] && wants[static_cast<std::size_t>(self)]) {
        V index = g.value(g.add({.op = Op::result, .in = {call}, .attrs = {{"index", Dim(1)}}, .type = {}, .more = {}, .loc = {}}));
        std::vector<V> grads(n.in.size());
        const Attr* dim = n.find("dim");
        grads[static_cast<std::size_t>(self)] = scattered(g.value(n.in[static_cast<std::size_t>(self)]), index, incoming[0], dim ? n.integer("dim") : -1);
        return grads;
    }
    Made made(g, n);
    made.put("name", std::string("heddle.vjp"));
    made.put("of", n.text("name"));
    for (Id i : n.in) made.operand(g.value(i));  // in their order, so that the arguments stay as they are
    for (const auto& [k, v] : n.attrs)
        if (k != "name") made.put(k, v);
    std::vector<Ref> seeds, wanted;
    for (V v : incoming) seeds.push_back(v ? made.operand(v) : Ref{});
    for (std::size_t k = 0; k < wants.size(); ++k)
        if (wants[k]) wanted.push_back({static_cast<int>(k)}), made.result(g.type(n.in[k]));
    made.put("incoming", seeds);
    made.put("wanted", wanted);
    auto results = made.done();
    std::vector<V> grads(n.in.size());
    for (std::size_t k = 0; k < wanted.size(); ++k) grads[static_cast<std::size_t>(wanted[k].operand)] = results[k];
    return grads;
}

}  // namespace heddle
