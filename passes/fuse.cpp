// Greedy fusion in topological order: each root joins the first nest that can take it, else stands beside others in a launch.
#include "passes/fuse.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "passes/schedule.h"

namespace heddle {

namespace {

constexpr int kMaxNests = 64;
constexpr std::size_t kMaxRoots = 32, kMaxValues = 3000;

struct Place {
    int step = -1, nest = -1;
};

class Fuser {
public:
    explicit Fuser(const Graph& g) {
        plan_.program.graph = g;
        plan_.program.stored.assign(g.nodes.size(), 0);
        place_.resize(g.nodes.size());
    }
    Plan run() {
        find_roots();
        for (Id id = 0; id < graph().size(); ++id) {
            if (root_.count(id)) add_root(id);
            else if (is_library(graph()[id])) add_call(id);
        }
        finish();
        return std::move(plan_);
    }

private:
    const Graph& graph() const { return plan_.program.graph; }
    static bool is_library(const Node& n) { return n.is(Op::call) || n.is(Op::dot) || n.is(Op::result); }
    bool in_memory(Id id) const { return graph()[id].is(Op::input) || is_library(graph()[id]) || root_.count(id); }

    void find_roots() {
        auto want = [&](Id id) {
            if (!graph()[id].is(Op::input) && !is_library(graph()[id])) root_.insert(id);
        };
        for (Id id : graph().outputs) want(id);
        for (Id id = 0; id < graph().size(); ++id) {
            const Node& n = graph()[id];
            if (is_library(n) && !n.is(Op::result))
                for (Id i : n.in) want(library_operand(graph(), i).base);
            bool own = (n.kind() == Kind::fold && !loop::is_small_fold(graph(), id)) || n.kind() == Kind::scan || n.kind() == Kind::scatter || n.is(Op::realize);
            if (own) want(id);
        }
        for (Id id = 0; id < graph().size(); ++id) plan_.program.stored[static_cast<std::size_t>(id)] = in_memory(id);
    }
    // Values in memory that `id` reads, through what is pulled in.
    const std::vector<Id>& reads(Id id, int piece = -1) {
        auto [it, fresh] = reads_.try_emplace({id, piece});
        if (fresh) it->second = find_reads(id, piece);
        return it->second;
    }
    std::vector<Id> find_reads(Id id, int piece) const {
        std::vector<char> seen(graph().nodes.size());
        std::vector<Id> found, stack;
        auto visit = [&](Id i) {
            if (std::exchange(seen[static_cast<std::size_t>(i)], 1)) return;
            in_memory(i) ? found.push_back(i) : stack.push_back(i);
        };
        if (piece >= 0) visit(graph()[id].in[static_cast<std::size_t>(piece)]);
        else
            for (Id i : graph()[id].in) visit(i);
        while (!stack.empty()) {
            Id i = stack.back();
            stack.pop_back();
            for (Id k : graph()[i].in) visit(k);
        }
        return found;
    }
    void add_call(Id id) {
        const Node& n = graph()[id];
        if (n.is(Op::result)) {
            place_[static_cast<std::size_t>(id)] = place_[static_cast<std::size_t>(n.in[0])];
            return;
        }
        plan_.program.steps.push_back({.launch = -1, .call = id});
        place_[static_cast<std::size_t>(id)].step = last_step();
    }
    int last_step() const { return static_cast<int>(plan_.program.steps.size()) - 1; }

    void add_root(Id id) {
        const Node& n = graph()[id];
        Dim few = 1;
        for (const Dim& d : n.type.shape) few = few * d;
        // A concat in memory is written part by part: each part is a nest of its own points, and no element tests which part it is in.
        if (n.is(Op::concat) && !(few.is_const() && few.value() <= 8)) {
            int step = -1;
            for (int k = 0; k < static_cast<int>(n.in.size()); ++k) step = std::max(step, earliest(reads(id, k), {}));
            Place where{launch_from(step, static_cast<int>(n.in.size())), -1};
            for (int k = 0; k < static_cast<int>(n.in.size()); ++k)
                nests(where.step).push_back({short_tail(graph().type(n.in[static_cast<std::size_t>(k)]).shape), {id}, k, {}});
            place_[static_cast<std::size_t>(id)] = where;
            note(id, where.step, false, "parts of a concat are written in place");
            return;
        }
        auto deps = reads(id);
        int first = earliest(deps, {});  // as a nest of its own
        std::string reason = "no nest has these points";
        for (int s = std::max(0, first - 1); s <= last_step(); ++s) {
            if (plan_.program.steps[static_cast<std::size_t>(s)].launch < 0) continue;
            auto& list = nests(s);
            for (int k = 0; k < static_cast<int>(list.size()); ++k) {
                Nest& nest = list[static_cast<std::size_t>(k)];
                if (nest.piece >= 0 || nest.roots.size() >= kMaxRoots || !loop::bind_root(graph(), id, nest.outer)) continue;
                if (earliest(deps, Place{s, k}) > s) {
                    reason = "reads a value of another nest of the same launch";
                    continue;
                }
                if (!shares(nest, deps)) {
                    reason = "reads nothing that the nest reads";
                    continue;
                }
                nest.roots.push_back(id);
                try {
                    loop::Nest trial = loop::lower(plan_.program, nest);
                    if (trial.values.size() > kMaxValues) throw loop::Unfusable("the nest would grow too large");
                    place_[static_cast<std::size_t>(id)] = {s, k};
                    note(id, s, true, "same points, shared reads");
                    return;
                } catch (const loop::Unfusable& e) {
                    nest.roots.pop_back();
                    reason = e.what();
                }
            }
        }
        int s = launch_from(first, 1);
        nests(s).push_back({points(id, n), {id}, -1, {}});
        place_[static_cast<std::size_t>(id)] = {s, static_cast<int>(nests(s).size()) - 1};
        note(id, s, false, reason);
    }
    // The first step at which something reading `deps` may run; inside `home`, its own values don't count.
    int earliest(const std::vector<Id>& deps, Place home) const {
        int step = 0;
        for (Id d : deps) {
            Place p = place_[static_cast<std::size_t>(d)];
            if (p.step < 0 || (home.step >= 0 && p.step == home.step && p.nest == home.nest)) continue;
            step = std::max(step, p.step + 1);
        }
        return step;
    }
    bool shares(const Nest& nest, const std::vector<Id>& deps) {
        std::set<Id> mine(nest.roots.begin(), nest.roots.end());
        for (Id r : nest.roots)
            for (Id d : reads(r)) mine.insert(d);
        return deps.empty() || std::any_of(deps.begin(), deps.end(), [&](Id d) { return mine.count(d) != 0; });
    }
    int launch_from(int step, int room) {
        for (int s = std::max(step, 0); s <= last_step(); ++s)
            if (plan_.program.steps[static_cast<std::size_t>(s)].launch >= 0 && static_cast<int>(nests(s).size()) + room <= kMaxNests) return s;
        plan_.program.launches.push_back({fmt::format("{}_{}", graph().name, plan_.program.launches.size()), {}});
        plan_.program.steps.push_back({.launch = static_cast<int>(plan_.program.launches.size()) - 1, .call = -1});
        return last_step();
    }
    std::vector<Nest>& nests(int step) { return plan_.program.launches[static_cast<std::size_t>(plan_.program.steps[static_cast<std::size_t>(step)].launch)].nests; }

    // Points for every element: a short last axis is written out, [B, N, 3] runs over [B, N].
    static Shape short_tail(Shape s) {
        std::int64_t copies = 1;
        while (s.size() > 1 && s.back().is_const() && s.back().value() > 0 && copies * s.back().value() <= 4) {
            copies *= s.back().value();
            s.pop_back();
        }
        return s;
    }
    // The points a root gets when it starts a nest.
    Shape points(Id id, const Node& n) const {
        Shape s = n.type.shape;
        if (n.is(Op::scatter_add)) {
            auto k = static_cast<std::size_t>(n.integer("k"));
            s = graph().type(n.in[k]).shape;
            std::size_t index_rank = graph().type(n.in[0]).shape.size();
            if (s.size() == index_rank + 1 && index_rank > 0) s.pop_back();  // rows are inner loops
            while (s.size() > 1 && s.back() == 1) s.pop_back();
            return s;
        }
        if (n.is(Op::scan)) {
            s.erase(s.begin() + n.integer("axis"));
            return short_tail(s);
        }
        if (n.kind() == Kind::fold && !loop::is_small_fold(graph(), id)) {
            auto axes = n.ints("axes");
            Shape d = graph().type(n.in[0]).shape, kept = n.type.shape;
            Dim rest = numel(kept);
            bool accumulate = n.is(Op::sum) && n.type.dtype != DType::f32 && rest.is_const() && rest.value() <= 4096;
            if (accumulate) {
                bool leading = axes.back() == static_cast<int>(axes.size()) - 1;
                if (leading && kept.size() == 1) d.pop_back();
                return d;
            }
            return short_tail(kept);
        }
        return short_tail(s);
    }
    void note(Id id, int step, bool joined, std::string reason) {
        plan_.decisions.push_back({id, plan_.program.steps[static_cast<std::size_t>(step)].launch, joined, std::move(reason)});
    }

    void finish() {
        Program& p = plan_.program;
        std::vector<char> needed(graph().nodes.size());
        auto need = [&](Id i) { needed[static_cast<std::size_t>(i)] = 1; };
        for (Id i : graph().inputs) need(i);
        for (Id i : graph().outputs) need(i);
        p.last_use.assign(graph().nodes.size(), -1);
        for (int s = 0; s <= last_step(); ++s) {
            const Step& step = p.steps[static_cast<std::size_t>(s)];
            auto use = [&](Id i) { need(i), p.last_use[static_cast<std::size_t>(i)] = s; };
            if (step.launch < 0) {
                need(step.call);
                for (Id i : graph()[step.call].in) use(library_operand(graph(), i).base);
                continue;
            }
            for (Nest& n : p.launches[static_cast<std::size_t>(step.launch)].nests) {
                loop::Nest l = loop::lower(p, n);
                n.schedule = schedule(l);
                for (const loop::Value& v : l.values)
                    if (v.what == loop::What::load || v.what == loop::What::accumulate) use(l.buffers[static_cast<std::size_t>(v.index)].id);
                for (const loop::Buffer& b : l.buffers)
                    if (b.accumulated) need(b.id);
            }
        }
        for (Id i : graph().outputs) p.last_use[static_cast<std::size_t>(i)] = static_cast<int>(p.steps.size());
        for (Id id = 0; id < graph().size(); ++id)
            if (graph()[id].is(Op::result)) need(id);
        p.stored = needed;
        for (Launch& l : p.launches) {
            plan_.loops.emplace_back();
            for (Nest& n : l.nests) {
                plan_.loops.back().push_back(loop::lower(p, n));
                for (const loop::Buffer& b : plan_.loops.back().back().buffers)
                    if (b.accumulated && std::find(plan_.zeroed.begin(), plan_.zeroed.end(), b.id) == plan_.zeroed.end()) plan_.zeroed.push_back(b.id);
            }
        }
    }

    Plan plan_;
    std::set<Id> root_;
    std::map<std::pair<Id, int>, std::vector<Id>> reads_;
    std::vector<Place> place_;
};

}  // namespace

Plan fuse(const Graph& g) { return Fuser(g).run(); }

}  // namespace heddle
