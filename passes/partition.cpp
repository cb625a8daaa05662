// Save or recompute: Dinic's maximum flow over split nodes; the cut edges are the saved values.
#include "passes/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>

#include "ir/program.h"
#include "passes/loop.h"

namespace heddle {

namespace {
class Flow {  // Source: Dinic 1970
public:
    explicit Flow(int n) : first_(static_cast<std::size_t>(n)) {}
    void edge(int a, int b, double capacity) {
        first_[static_cast<std::size_t>(a)].push_back(static_cast<int>(edges_.size()));
        edges_.push_back({b, capacity});
        first_[static_cast<std::size_t>(b)].push_back(static_cast<int>(edges_.size()));
        edges_.push_back({a, 0});
    }
    // Which nodes the source still reaches when the flow is maximal.
    std::vector<char> cut(int s, int t) {
        while (levels(s), level_[static_cast<std::size_t>(t)] >= 0) {
            next_.assign(first_.size(), 0);
            while (push(s, t, kInf) > 0) {}
        }
        std::vector<char> reached;
        for (int l : level_) reached.push_back(l >= 0);
        return reached;
    }

private:
    struct Edge {
        int to;
        double left;
    };
    void levels(int s) {
        level_.assign(first_.size(), -1);
        std::queue<int> q({s});
        level_[static_cast<std::size_t>(s)] = 0;
        for (; !q.empty(); q.pop())
            for (int e : first_[static_cast<std::size_t>(q.front())])
                if (const Edge& x = edges_[static_cast<std::size_t>(e)]; x.left > 0 && level_[static_cast<std::size_t>(x.to)] < 0)
                    level_[static_cast<std::size_t>(x.to)] = level_[static_cast<std::size_t>(q.front())] + 1, q.push(x.to);
    }
    double push(int a, int t, double amount) {
        if (a == t) return amount;
        for (auto& k = next_[static_cast<std::size_t>(a)]; k < first_[static_cast<std::size_t>(a)].size(); ++k) {
            int e = first_[static_cast<std::size_t>(a)][k];
            Edge& x = edges_[static_cast<std::size_t>(e)];
            if (x.left <= 0 || level_[static_cast<std::size_t>(x.to)] != level_[static_cast<std::size_t>(a)] + 1) continue;
            if (double got = push(x.to, t, std::min(amount, x.left)); got > 0) {
                x.left -= got;
                edges_[static_cast<std::size_t>(e ^ 1)].left += got;
                return got;
            }
        }
        return 0;
    }
    std::vector<std::vector<int>> first_;
    std::vector<Edge> edges_;
    std::vector<int> level_;
    std::vector<std::size_t> next_;
};

// Of a library's product, while a byte is moved (a core multiplies and adds about 100 times a ns and streams 10 bytes).
constexpr double kOperationsAByte = 10;
// What one element costs to compute again, in bytes that could be moved meanwhile (a core computes a vector exponential at about
// 0.1 ns an element and streams about 30 bytes a ns). Arithmetic is free beside memory.
double work(const Node& n) {
    switch (n.op) {  // lists ops: costs that the table doesn't hold
        case Op::exp: case Op::expm1: case Op::log: case Op::log1p: case Op::sin: case Op::cos: case Op::tanh: case Op::sigmoid: case Op::erf: return 2;
        case Op::pow: case Op::tan: case Op::atan2: case Op::asin: case Op::acos: case Op::atan: case Op::sinh: case Op::cosh: return 16;
        case Op::gather: return 1;
        default: return 0;
    }
}
// Its value exists in memory after the forward anyway, and computing it again would cost a kernel of its own.
bool made_once(const Graph& g, Id id) {
    const Node& n = g[id];
    switch (n.kind()) {
        case Kind::fold: return !loop::is_small_fold(g, id);
        case Kind::scan:
        case Kind::scatter:
        case Kind::dot:
        case Kind::call: return true;
        default: return n.is(Op::input) || n.is(Op::realize);
    }
}
}  // namespace

Split partition(const Joint& j, const Sizes& typical, double budget) {
    const Graph& g = j.graph;
    const auto n = g.nodes.size();
    std::vector<char> backward(n), is_seed(n);
    for (int s : j.seeds)
        if (s >= 0) backward[static_cast<std::size_t>(g.inputs[static_cast<std::size_t>(s)])] = is_seed[static_cast<std::size_t>(g.inputs[static_cast<std::size_t>(s)])] = 1;
    for (std::size_t id = 0; id < n; ++id)
        for (Id i : g.nodes[id].in) backward[id] |= backward[static_cast<std::size_t>(i)];
    std::vector<char> useful(n);  // for a gradient
    for (std::size_t k = j.forward_outputs; k < g.outputs.size(); ++k) useful[static_cast<std::size_t>(g.outputs[k])] = 1;
    for (std::size_t id = n; id-- > 0;)
        if (useful[id])
            for (Id i : g.nodes[id].in) useful[static_cast<std::size_t>(i)] = 1;

    Sizes sizes = typical;
    for (const auto& name : g.symbols()) sizes.emplace(name, 4096);
    auto bytes_of = [&](std::size_t id) {
        double b = 16;
        return b + bytes(g.nodes[id].type.dtype) * static_cast<double>(std::max<std::int64_t>(0, numel(g.nodes[id].type.shape).eval(sizes)));
    };
    auto elements = [&](std::size_t id) { return bytes_of(id) / bytes(g.nodes[id].type.dtype); };
    auto is_kept = [&](std::size_t id, const std::vector<char>& reached) { return !backward[id] && reached[2 * id] && !reached[2 * id + 1]; };
    auto kept_bytes = [&](const std::vector<char>& reached) {
        double sum = 0;
        for (std::size_t id = 0; id < n; ++id)
            if (useful[id] && is_kept(id, reached) && !g.nodes[id].is(Op::input)) sum += bytes_of(id);
        return sum;
    };
    // What a library call of the forward reads is written for it anyway; computing it again for a call of the backward writes it again.
    std::vector<char> operand_of_call(n);
    for (std::size_t id = 0; id < n; ++id)
        if (!backward[id] && (g.nodes[id].is(Op::dot) || g.nodes[id].is(Op::call)))
            for (Id i : g.nodes[id].in) operand_of_call[static_cast<std::size_t>(library_operand(g, i).base)] = 1;
    // What it costs to make again what is made once: nothing here says that it may be, where no memory has to be spared.
    auto made_again = [&](std::size_t id) {
        const Node& node = g.nodes[id];
        if (node.is(Op::realize)) return 2 * bytes_of(id);
        if (!node.is(Op::dot)) return kInf;
        const double terms = std::max<double>(1, static_cast<double>(g.type(node.in[0]).shape.back().eval(sizes)));
        return 2 * bytes_of(id) + 2 * terms * elements(id) / kOperationsAByte;
    };
    // `price`: of a byte that is kept, beside what it costs to move it.
    auto cut = [&](double price) {
        const int source = static_cast<int>(2 * n), sink = source + 1;
        Flow flow(sink + 1);
        for (std::size_t id = 0; id < n; ++id) {
            if (backward[id] || !useful[id]) continue;
            const Node& node = g.nodes[id];
            int in = static_cast<int>(2 * id), out = in + 1;
            bool once = made_once(g, static_cast<Id>(id));
            bool in_memory = once || operand_of_call[id];
            flow.edge(in, out, node.kind() == Kind::leaf && !once ? kInf : bytes_of(id) * ((in_memory ? 1 : 2) + (node.is(Op::input) ? 0 : price)));
            const double again = once ? (price > 0 ? made_again(id) : kInf) : work(node) * elements(id) + (operand_of_call[id] ? 2 * bytes_of(id) : 0);
            if (again < kInf)
                for (Id i : node.in) flow.edge(2 * i + 1, in, kInf);
            if (again > 0) flow.edge(source, in, again);
        }
        for (std::size_t id = 0; id < n; ++id) {
            if (!useful[id] || !backward[id]) continue;
            for (Id i : g.nodes[id].in)
                if (!backward[static_cast<std::size_t>(i)]) flow.edge(2 * i + 1, sink, kInf);
        }
        for (std::size_t k = j.forward_outputs; k < g.outputs.size(); ++k)
            if (!backward[static_cast<std::size_t>(g.outputs[k])]) flow.edge(2 * g.outputs[k] + 1, sink, kInf);
        return flow.cut(source, sink);
    };
    auto reached = cut(0);
    if (const double most = budget * kept_bytes(reached); budget < 1) {  // the least price at which that's enough, or where nothing more is spared
        double low = 0, high = 1024;
        auto least = cut(high);
        for (int k = 0; k < 16 && kept_bytes(least) <= most; ++k) {
            const double price = low > 0 ? std::sqrt(low * high) : high / 8;
            if (auto r = cut(price); kept_bytes(r) <= most) least = std::move(r), high = price;
            else low = price;
            if (low == 0 && high < 0.01) break;
        }
        reached = std::move(least);
    }

    Split s;
    s.forward = g;
    s.forward.name = g.name + "_forward";
    s.forward.outputs.resize(j.forward_outputs);
    // The backward graph, built from its outputs down to cut values, seeds and leaves.
    Graph& b = s.backward;
    b.name = g.name + "_backward";
    std::vector<Id> at(n, -1);
    auto input = [&](Id id, Split::Source src, std::string name) {
        s.backward_inputs.push_back(src);
        at[static_cast<std::size_t>(id)] = b.input(g.type(id), std::move(name));
    };
    for (std::size_t k = 0; k < j.seeds.size(); ++k)
        if (j.seeds[k] >= 0)
            if (Id id = g.inputs[static_cast<std::size_t>(j.seeds[k])]; useful[static_cast<std::size_t>(id)])
                input(id, {Split::Source::From::seed, static_cast<int>(k)}, g[id].text("name"));
    std::vector<char> needed(n);
    for (std::size_t k = j.forward_outputs; k < g.outputs.size(); ++k) needed[static_cast<std::size_t>(g.outputs[k])] = 1;
    std::vector<char> saved(n);
    for (std::size_t id = n; id-- > 0;) {
        if (!needed[id] || is_seed[id]) continue;
        if (is_kept(id, reached) || g.nodes[id].is(Op::input)) saved[id] = 1;
        else
            for (Id i : g.nodes[id].in) needed[static_cast<std::size_t>(i)] = 1;
    }
    for (std::size_t id = 0; id < n; ++id) {
        if (!saved[id]) continue;
        auto me = static_cast<Id>(id);
        if (g[me].is(Op::input)) {
            auto k = std::find(g.inputs.begin(), g.inputs.end(), me) - g.inputs.begin();
            input(me, {Split::Source::From::input, static_cast<int>(k)}, g[me].text("name"));
        } else {
            input(me, {Split::Source::From::saved, static_cast<int>(s.saved)}, fmt::format("saved_{}", s.saved));
            s.forward.outputs.push_back(me);
            ++s.saved;
        }
    }
    for (std::size_t id = 0; id < n; ++id) {
        if (!needed[id] || at[id] >= 0) continue;
        Node node = g.nodes[id];
        for (Id& i : node.in) i = at[static_cast<std::size_t>(i)];
        at[id] = b.add(std::move(node));
    }
    for (std::size_t k = j.forward_outputs; k < g.outputs.size(); ++k) b.outputs.push_back(at[static_cast<std::size_t>(g.outputs[k])]);
    // The forward has no use for seeds.
    std::erase_if(s.forward.inputs, [&](Id i) { return is_seed[static_cast<std::size_t>(i)] != 0; });
    s.forward = live(s.forward);
    return s;
}

}  // namespace heddle
