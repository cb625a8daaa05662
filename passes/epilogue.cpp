// product + row, and relu(product + row), where a library or the caller reads that from memory: no kernel stands between two products then.
#include "passes/epilogue.h"

#include <algorithm>

#include "ir/program.h"

namespace heddle {

namespace {
class Matching {
public:
    explicit Matching(const Graph& g) : g_(g), readers_(g.nodes.size()), wanted_(g.nodes.size()) {
        for (Id id = 0; id < g.size(); ++id) {
            for (Id i : g[id].in) readers_[at(i)].push_back(id);
            if (g[id].is(Op::dot) || (g[id].is(Op::call) && !is_guard(g[id])))
                for (Id i : g[id].in) wanted_[at(library_operand(g, i).base)] = 1;
        }
        for (Id i : g.outputs) wanted_[at(i)] = 1, readers_[at(i)].push_back(-1);
    }
    Graph run() {
        struct Match {
            Sum sum;
            bool relu;
        };
        std::map<Id, Match> matches;
        for (Id id = 0; id < g_.size(); ++id) {
            if (!wanted_[at(id)]) continue;
            if (auto s = sum_of(id)) matches[id] = {*s, false};
            else if (const Id x = rectified(id); x >= 0)
                if (auto s = sum_of(x)) matches[id] = {*s, true};
        }
        if (matches.empty()) return g_;
        Graph out;
        out.name = g_.name;
        std::vector<Id> now(g_.nodes.size(), -1);
        for (Id i : g_.inputs) now[at(i)] = out.input(g_.type(i), g_[i].text("name"));
        for (Id id = 0; id < g_.size(); ++id) {
            if (g_[id].is(Op::input)) continue;
            out.here = g_[id].loc;
            auto value = [&](Id i) { return out.value(now[at(i)]); };
            if (auto m = matches.find(id); m != matches.end()) {
                const auto& [sum, relu] = m->second;
                const Node& p = g_[sum.product];
                V v = apply(Op::dot, {value(p.in[0]), value(p.in[1]), value(sum.row)}, relu ? Attrs{{"relu", true}} : Attrs{});
                now[at(id)] = reshape(v, g_.type(id).shape).id;
                continue;
            }
            Node n = g_[id];
            for (Id& i : n.in) i = now[at(i)];
            now[at(id)] = out.add(std::move(n));
        }
        out.here.clear();
        for (Id i : g_.outputs) out.outputs.push_back(now[at(i)]);
        return live(out);
    }

private:
    struct Sum {
        Id product, row;
    };
    static std::size_t at(Id id) { return static_cast<std::size_t>(id); }
    bool only(Id id, std::vector<Id> readers) const {  // it has these and no other
        std::vector<Id> r = readers_[at(id)];
        for (auto* list : {&r, &readers}) std::sort(list->begin(), list->end()), list->erase(std::unique(list->begin(), list->end()), list->end());
        return r == readers;
    }
    bool zero(Id id) const { return g_[id].is(Op::constant) && g_[id].number("value") == 0; }
    // x + row, x a product that nothing else reads, or a reshape of one whose rows stay.
    std::optional<Sum> sum_of(Id id) const {
        const Node& n = g_[id];
        if (!n.is(Op::add)) return {};
        for (std::size_t k : {0, 1}) {
            Id x = n.in[k];
            const Node& e = g_[n.in[1 - k]];
            const int rank = n.type.rank();
            if (!e.is(Op::expand) || g_.type(e.in[0]).rank() != 1 || e.ints("axes") != axes_from_to(0, rank - 1) || !only(x, {id})) continue;
            const Node& row = g_[library_operand(g_, e.in[0]).base];
            if (!row.is(Op::input) && row.kind() != Kind::call && !row.is(Op::dot)) continue;  // a kernel would have to write it
            if (g_[x].is(Op::reshape) && g_.type(g_[x].in[0]).shape.back() == n.type.shape.back() && only(g_[x].in[0], {x})) x = g_[x].in[0];
            if (g_[x].is(Op::dot) && g_.type(x).rank() == 2 && g_[x].in.size() == 2) return Sum{x, e.in[0]};
        }
        return {};
    }
    // Of x < 0 ? 0 : x, where nothing else reads x or asks for its sign: that. Else -1.
    Id rectified(Id id) const {
        const Node& n = g_[id];
        if (!n.is(Op::select) || !zero(n.in[1])) return -1;
        const Node& test = g_[n.in[0]];
        const Id x = n.in[2];
        return test.is(Op::lt) && test.in[0] == x && zero(test.in[1]) && only(x, {id, n.in[0]}) && only(n.in[0], {id}) ? x : -1;
    }

    const Graph& g_;
    std::vector<std::vector<Id>> readers_;  // -1: the caller
    std::vector<char> wanted_;              // in memory, by a library or the caller
};
}  // namespace

Graph epilogues(const Graph& g) { return Matching(g).run(); }

}  // namespace heddle
