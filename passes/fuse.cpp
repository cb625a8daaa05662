// Greedy fusion in topological order: each root joins the first nest that can take it, else stands beside others in a launch, or in
// the stage after what it reads: a loss that ends in one number takes one launch, however many sums it is made of.
#include "passes/fuse.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <variant>

namespace heddle {

namespace {

constexpr int kMaxNests = 64, kMaxStages = 8;  // a stage waits for the one before it, as a launch does
constexpr double kWait = 4e5;  // which on a GPU takes about 1.2 us, in units of cost: those of the bytes that it could move meanwhile
constexpr std::size_t kMaxRoots = 32, kMaxValues = 3000, kMaxLaunch = 6000;  // roots and statements of a nest, statements of a launch
constexpr std::size_t kMaxCut = 1000;  // statements up to which axes are written out part by part, at any rate

constexpr int kMet = 64;  // numbers that a sum over points may keep to be added up in registers

struct Time {
    int step = 0, stage = 0;
    auto operator<=>(const Time&) const = default;
};
struct Place {
    Time time{-1, 0};
    int nest = -1;
};

class Fuser {
public:
    Fuser(const Graph& g, Machine machine, const std::vector<Update>& updates) : machine_(machine), updates_(updates) {
        plan_.program.graph = g;
        plan_.program.stored.assign(g.nodes.size(), 0);
        place_.resize(g.nodes.size());
        for (const Update& u : updates) updating_[g.outputs[static_cast<std::size_t>(u.output)]] = g.inputs[static_cast<std::size_t>(u.input)];
    }
    Plan run() {
        find_roots();
        if (machine_ == Machine::cuda) keep_points();
        divide();
        const std::set<Id> last = put_off();
        for (Id id = 0; id < graph().size(); ++id) {
            if (graph()[id].is(Op::compact) && !graph()[id].flag("bounded")) add_read(id, graph()[id].in[2]);
            if (root_.count(id) && !last.count(id)) add_root(id);
            else if (is_guard(graph()[id])) add_read(id, library_operand(graph(), graph()[id].in[0]).base);
            else if (is_library(graph()[id])) add_call(id);
        }
        for (Id id : last) add_root(id);
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
            if (n.is(Op::compact) && n.flag("bounded")) plan_.program.counted[print(n.type.shape[0])] = n.in[2];
            if (n.is(Op::compact)) want(library_operand(graph(), n.in[0]).base), want(n.in[2]);
            bool own = (n.kind() == Kind::fold && !loop::is_small_fold(graph(), id)) || n.kind() == Kind::scan || n.kind() == Kind::scatter || n.is(Op::realize);
            if (own) want(id);
        }
        for (Id id = 0; id < graph().size(); ++id) plan_.program.stored[static_cast<std::size_t>(id)] = in_memory(id);
    }
    // What is long to compute for a point and then goes to rows of several roots: on a GPU these are nests of their own, and each of the threads
    // that share a point would compute it.
    void keep_points() {
        constexpr std::size_t kLong = 32;  // maps
        std::map<Id, int> users;
        std::set<Id> anyway;               // what their indices take
        auto indices = [&](const Node& n, std::size_t from, std::size_t to) {
            for (std::size_t k = from; k < to; ++k)
                for (Id id : pulled_in(n.in[k])) anyway.insert(id);
        };
        for (Id r : root_) {
            const Node& n = graph()[r];
            if (!n.is(Op::scatter_add) && !n.is(Op::sum)) continue;
            if (n.is(Op::scatter_add))
                for (std::size_t k = static_cast<std::size_t>(n.integer("k")), q = 0; q < n.in.size(); q += k + 1) indices(n, q, q + k);
            for (Id id : pulled_in(r)) {
                const Node& e = graph()[id];
                if (e.kind() == Kind::gather && id != r) indices(e, 1, e.in.size());
                if (e.is(Op::expand) && graph()[e.in[0]].kind() == Kind::map && is_float(e.type.dtype)) ++users[e.in[0]];
            }
        }
        for (auto [id, count] : users) {
            if (count < 2) continue;
            const std::vector<Id> all = pulled_in(id);
            const auto maps = std::count_if(all.begin(), all.end(), [&](Id k) { return graph()[k].kind() == Kind::map && !anyway.contains(k); });
            if (static_cast<std::size_t>(maps) >= kLong) root_.insert(id), plan_.program.stored[static_cast<std::size_t>(id)] = 1;
        }
    }
    // Roots that wait till all others have their place: updates, which overwrite what others read, and what is computed of them; but not what a
    // library or the host goes on with.
    std::set<Id> put_off() const {
        std::set<Id> last;
        for (const auto& [update, input] : updating_) {
            if (!root_.count(update)) continue;
            std::vector<char> of(graph().nodes.size());
            of[static_cast<std::size_t>(update)] = 1;
            std::vector<Id> found;
            bool needed = false;
            for (Id id = update; id < graph().size(); ++id) {
                const Node& n = graph()[id];
                for (Id i : n.in) of[static_cast<std::size_t>(id)] |= of[static_cast<std::size_t>(i)];
                if (!of[static_cast<std::size_t>(id)]) continue;
                needed |= is_library(n) || n.is(Op::compact);
                if (root_.count(id)) found.push_back(id);
            }
            if (!needed) last.insert(found.begin(), found.end());
        }
        return last;
    }
    // All that a value is computed of from what is in memory, each once.
    std::vector<Id> pulled_in(Id id) const {
        std::vector<char> seen(graph().nodes.size());
        std::vector<Id> found{id};
        for (std::size_t k = 0; k < found.size(); ++k)
            for (Id i : graph()[found[k]].in)
                if (!in_memory(i) && !std::exchange(seen[static_cast<std::size_t>(i)], 1)) found.push_back(i);
        return found;
    }
    // A root whose expression is too large for one nest reads parts of it from memory: compiling takes time in proportion to the graph,
    // and an expression that needs its operands at many places does not double from step to step.
    void divide() {
        std::vector<Id> rest(root_.begin(), root_.end());
        while (!rest.empty()) {
            Id id = rest.back();
            try {
                for (int k : parts(id)) best(part(id, k));
                rest.pop_back();
            } catch (const loop::TooLarge& e) {
                bool divided = e.store >= 0 && root_.insert(e.store).second;
                if (divided) plan_.program.stored[static_cast<std::size_t>(e.store)] = 1, rest.push_back(e.store);
                else whole_.insert(id);
                best_.clear();
            } catch (const loop::Unfusable&) {
                rest.pop_back();
            }
        }
    }
    // The operands whose parts of a root in memory are nests of their own points; {-1}: the root is one nest. No element of a concat then
    // tests which part it is in, and a scatter takes no memory but its own: its rows go over its base, a stage later.
    std::vector<int> parts(Id id) const {
        const Node& n = graph()[id];
        const Dim all = numel(n.type.shape);
        const int count = static_cast<int>(n.in.size());
        if (n.is(Op::scatter)) return {0, count - 1};
        return n.is(Op::concat) && !(all.is_const() && all.value() <= 8) ? axes_from_to(0, count) : std::vector{-1};
    }
    // Values in memory that `id` reads, through what is pulled in.
    const std::vector<Id>& reads(Id id, int piece = -1) {
        auto [it, fresh] = reads_.try_emplace({id, piece});
        if (fresh) it->second = find_reads(id, piece);
        return it->second;
    }
    std::vector<Id> find_reads(Id id, int piece) {
        std::vector<char> seen(graph().nodes.size());
        std::vector<Id> found, stack;
        auto visit = [&](Id i) {
            if (std::exchange(seen[static_cast<std::size_t>(i)], 1)) return;
            in_memory(i) ? found.push_back(i) : stack.push_back(i);
        };
        std::set<std::string>& asked = asked_[{id, piece}];
        auto sizes = [&](Id i) {  // in memory, or read from there
            for (const auto& name : names_in(graph()[i])) {
                asked.insert(name);
                if (auto it = plan_.program.counted.find(name); it != plan_.program.counted.end() && it->second != id) visit(it->second);
            }
        };
        sizes(id);
        const auto& in = graph()[id].in;
        const bool one = piece == 0 || (piece > 0 && !graph()[id].is(Op::scatter));  // rows need their indices
        for (std::size_t k = 0; k < in.size(); ++k)
            if (piece < 0 || (one ? static_cast<int>(k) == piece : k > 0)) visit(in[k]);
        while (!stack.empty()) {
            Id i = stack.back();
            stack.pop_back();
            sizes(i);
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
        place_[static_cast<std::size_t>(id)].time.step = last_step();
    }
    // When the input that `id` is written over may go: once nobody needs it at another place any more, and after all that the host reads, so that a
    // run that one of these ends (a guard, a size that isn't as it was) has changed nothing.
    Time free_from(Id id, Place but = {}) {
        auto it = updating_.find(id);
        if (it == updating_.end()) return {};
        Time t = read_;
        for (Id r : root_) {
            const Place& p = place_[static_cast<std::size_t>(r)];
            if (updating_.count(r) || p.time.step < 0 || (p.nest >= 0 && p.nest == but.nest && p.time.step == but.time.step)) continue;
            for (int k : parts(r)) {
                const auto& deps = reads(r, k);
                if (std::find(deps.begin(), deps.end(), it->second) != deps.end()) t = std::max(t, after(place_[static_cast<std::size_t>(r)].time));
            }
        }
        for (int s = t.step; s <= last_step(); ++s) {
            const Id call = plan_.program.steps[static_cast<std::size_t>(s)].call;
            if (call < 0) continue;
            for (Id i : graph()[call].in)
                if (library_operand(graph(), i).base == it->second) t = std::max(t, {s + 1, 0});
        }
        return t;
    }
    Time after(Time t) const {
        bool staged = plan_.program.steps[static_cast<std::size_t>(t.step)].launch >= 0 && t.stage + 1 < kMaxStages;
        return staged ? Time{t.step, t.stage + 1} : Time{t.step + 1, 0};
    }
    // The host reads a number as late as it can, with all others that are there by then.
    void add_read(Id id, Id number) {
        auto& steps = plan_.program.steps;
        const int written = place_[static_cast<std::size_t>(number)].time.step;
        int s = last_step();
        while (s > written && steps[static_cast<std::size_t>(s)].reads.empty()) --s;
        if (s <= written) steps.push_back({}), s = last_step();
        steps[static_cast<std::size_t>(s)].reads.push_back(id);
        if (graph()[id].is(Op::compact)) known_from_[print(graph().type(id).shape[0])] = s + 1;
        else place_[static_cast<std::size_t>(id)].time.step = s;
        read_ = std::max(read_, {s + 1, 0});
    }
    // The first step that may ask for the sizes that a root and what it pulls in need.
    Time known(Id id, int piece = -1) {
        Time first;
        reads(id, piece);
        for (const auto& n : asked_[{id, piece}])
            if (auto it = known_from_.find(n); it != known_from_.end()) first = std::max(first, Time{it->second, 0});
        return first;
    }
    int last_step() const { return static_cast<int>(plan_.program.steps.size()) - 1; }

    void add_root(Id id) {
        const Node& n = graph()[id];
        if (const auto pieces = parts(id); pieces.size() > 1 || pieces[0] >= 0) {
            const bool over = n.is(Op::scatter);
            Time first;
            for (int k : pieces) first = std::max({first, earliest(reads(id, k), {}), known(id, k), free_from(id)});
            if (over && first.stage + 2 > kMaxStages) first = {first.step + 1, 0};
            Place where{launch_from(first, static_cast<int>(pieces.size())), -1};
            for (int k : pieces) {
                if (over && k > 0) ++where.time.stage;
                nests(where.time.step).push_back(part(id, k, where.time.stage));
            }
            place_[static_cast<std::size_t>(id)] = where;
            note(id, where.time.step, false, over ? "its base is written, then its rows over it" : "parts of a concat are written in place");
            return;
        }
        auto deps = reads(id);
        const Time sized = known(id), free = std::max(sized, free_from(id));
        const bool updates = updating_.count(id) != 0;
        Time first = std::max(earliest(deps, {}), free);  // as a nest of its own
        std::optional<double> alone;      // what that would cost
        std::string reason = "no nest has these points";
        for (int s = std::max(0, first.step - 1); s <= last_step(); ++s) {
            if (plan_.program.steps[static_cast<std::size_t>(s)].launch < 0) continue;
            auto& list = nests(s);
            for (int k : by_shared(list, deps)) {
                Nest& nest = list[static_cast<std::size_t>(k)];
                if (nest.piece >= 0 || nest.roots.size() >= kMaxRoots || !loop::bind_root(graph(), id, nest.outer)) continue;
                Place here{{s, nest.stage}, k};
                if (std::max(earliest(deps, here), updates ? std::max(sized, free_from(id, here)) : free) > here.time) {
                    reason = "reads a value of another nest of the same launch";
                    continue;
                }
                if (!shares(nest, deps)) {
                    reason = "reads nothing that the nest reads";
                    continue;
                }
                std::size_t others = statements(s) - best(nest).values;
                nest.roots.push_back(id);
                try {
                    const Form& together = best(nest);
                    if (updates && !written_over(loop::lower(plan_.program, together.nest), id, updating_.at(id))) throw loop::Unfusable("would write over what the nest reads");
                    if (others + together.values > kMaxLaunch) throw loop::Unfusable("the kernel would grow too large");
                    const Form& apart = best(part(id, -1));
                    if (!alone) alone = apart.cost;
                    double spared = 0;  // writing and reading what only this root needs
                    for (Id d : deps)
                        if (place_[static_cast<std::size_t>(d)].time == here.time && place_[static_cast<std::size_t>(d)].nest == k && !is_output(d)) spared += 2.5 * traffic(d);
                    if (machine_ == Machine::cuda && first > here.time) spared += kWait;
                    if (together.cost > cost_[{s, k}] + *alone + spared) throw loop::Unfusable("costs more there than by itself");
                    if (!fits(together, best({.outer = nest.outer, .roots = {nest.roots.begin(), nest.roots.end() - 1}}), apart))
                        throw loop::Unfusable("would take more registers there than a thread has");
                    cost_[{s, k}] = together.cost;
                    place_[static_cast<std::size_t>(id)] = here;
                    note(id, s, true, "same points, shared reads");
                    return;
                } catch (const loop::Unfusable& e) {
                    nest.roots.pop_back();
                    reason = e.what();
                }
            }
        }
        Time t = launch_from(first, 1);
        nests(t.step).push_back(part(id, -1, t.stage));
        place_[static_cast<std::size_t>(id)] = {t, static_cast<int>(nests(t.step).size()) - 1};
        cost_[{t.step, place_[static_cast<std::size_t>(id)].nest}] = alone ? *alone : best(nests(t.step).back()).cost;
        note(id, t.step, false, reason);
    }
    // When something reading `deps` may first run: in the next stage of a launch, or in the next step; inside `home`, its own values don't
    // count.
    Time earliest(const std::vector<Id>& deps, Place home) const {
        Time first;
        for (Id d : deps) {
            const auto& [t, nest] = place_[static_cast<std::size_t>(d)];
            if (graph()[d].is(Op::input) || (t.step == home.time.step && nest == home.nest)) continue;
            HEDDLE_CHECK(t.step >= 0, "a root reads one that has no place yet");
            first = std::max(first, after(t));
        }
        return first;
    }
    // What a nest's roots are and read.
    std::set<Id> touched(const Nest& nest) {
        std::set<Id> all(nest.roots.begin(), nest.roots.end());
        for (Id r : nest.roots) all.insert(reads(r, nest.piece).begin(), reads(r, nest.piece).end());
        return all;
    }
    bool shares(const Nest& nest, const std::vector<Id>& deps) {
        const std::set<Id> mine = touched(nest);
        return deps.empty() || std::any_of(deps.begin(), deps.end(), [&](Id d) { return mine.count(d) != 0; });
    }
    // Nests in the order of what they share with a root that reads `deps`, most bytes first: an update belongs where its parameter is read.
    std::vector<int> by_shared(const std::vector<Nest>& list, const std::vector<Id>& deps) {
        std::vector<std::pair<double, int>> order;
        for (const Nest& n : list) {
            const std::set<Id> mine = touched(n);
            double shared = 0;
            for (Id d : deps) shared += mine.count(d) ? traffic(d) : 0;
            order.emplace_back(-shared, static_cast<int>(order.size()));
        }
        std::sort(order.begin(), order.end());
        std::vector<int> ks;
        for (const auto& [shared, k] : order) ks.push_back(k);
        return ks;
    }
    // Where `room` more nests may run from a time on. A launch that is there anyway is better than a stage more.
    Time launch_from(Time first, int room) {
        auto has_room = [&](int s) {
            return plan_.program.steps[static_cast<std::size_t>(s)].launch >= 0 && static_cast<int>(nests(s).size()) + room <= kMaxNests && statements(s) < kMaxLaunch - kMaxValues;
        };
        for (int s = first.stage > 0 ? first.step + 1 : first.step; s <= last_step(); ++s)
            if (has_room(s)) return {s, 0};
        if (first.stage > 0 && has_room(first.step)) return first;
        plan_.program.launches.push_back({fmt::format("{}_{}", graph().name, plan_.program.launches.size()), {}});
        plan_.program.steps.push_back({.launch = static_cast<int>(plan_.program.launches.size()) - 1, .call = -1});
        return {last_step(), 0};
    }
    std::size_t statements(int step) {
        std::size_t sum = 0;
        for (const Nest& n : nests(step)) sum += best(n).values;
        return sum;
    }
    std::vector<Nest>& nests(int step) { return plan_.program.launches[static_cast<std::size_t>(plan_.program.steps[static_cast<std::size_t>(step)].launch)].nests; }

    // The points a root gets when it starts a nest: its domain, less what is a loop, less axes of which each part is another expression,
    // unless that makes much code that gains nothing, less a short tail: [B, N, 3] runs over [B, N]. These are written out.
    Shape points(Id id, int piece = -1) {
        const std::vector<char> cut = loop::cut_axes(graph(), id, piece);
        const Shape s = points(id, piece, cut);
        if (std::count(cut.begin(), cut.end(), 1) == 0) return s;
        const auto* parts = tried({.outer = s, .roots = {id}, .piece = piece});
        if (parts && parts->values <= kMaxCut) return s;
        const Shape whole = points(id, piece, std::vector<char>(cut.size()));
        const auto* one = tried({.outer = whole, .roots = {id}, .piece = piece});
        return one && (!parts || one->cost <= parts->cost) ? whole : s;
    }
    Shape points(Id id, int piece, std::vector<char> out) {
        const Node& n = graph()[id];
        Shape d = loop::domain(graph(), id, piece), s;
        if (n.is(Op::scatter_add) || (n.is(Op::scatter) && piece > 0)) {
            std::size_t index_rank = graph().type(n.in[n.is(Op::scatter) ? 1 : 0]).shape.size();
            if (d.size() == index_rank + 1 && index_rank > 0) d.pop_back();  // rows are inner loops
            while (d.size() > 1 && d.back() == 1) d.pop_back();
            return d;
        }
        if (n.is(Op::scan)) out[static_cast<std::size_t>(n.integer("axis"))] = 1;
        if (n.is(Op::compact)) out[1] = 1;
        if (piece < 0 && n.kind() == Kind::fold && !loop::is_small_fold(graph(), id)) {
            auto axes = n.ints("axes");
            Dim rest = numel(n.type.shape);
            bool accumulate = n.is(Op::sum) && n.type.dtype != DType::f32 && rest.is_const() && rest.value() <= 4096;
            bool leading = axes.back() == static_cast<int>(axes.size()) - 1;
            if (accumulate && leading && n.type.rank() == 1) out.back() = 1;
            // Rows of channels, where lanes can have them; a few numbers, to which all points then add.
            if (accumulate && !leading && (n.type.rank() == 1 ? machine_ == Machine::cuda : rest.value() <= kMet))
                if (const Shape folded = s_of(d, axes); costs_less(id, folded, d)) return folded;
            if (!accumulate)
                for (int k : axes) out[static_cast<std::size_t>(k)] = 1;
        }
        for (std::size_t k = 0; k < d.size(); ++k)
            if (!out[k]) s.push_back(d[k]);
        if (s.size() == d.size() && takes_rows(id, piece)) s.pop_back();  // an inner loop, as of rows that are added to
        std::int64_t copies = 1;
        while (s.size() > 1 && s.back().is_const() && s.back().value() > 0 && copies * s.back().value() <= 4) {
            copies *= s.back().value();
            s.pop_back();
        }
        return s;
    }
    // Are the rows of a root made of rows of a table, several elements of which a thread of a GPU takes at once?
    bool takes_rows(Id id, int piece) const {
        const Node& n = graph()[id];
        if (machine_ != Machine::cuda || (piece < 0 && n.kind() != Kind::map) || (piece >= 0 && !n.is(Op::concat))) return false;
        const Id from = piece < 0 ? id : n.in[static_cast<std::size_t>(piece)];
        const Type& t = graph().type(from);
        if (t.rank() < 2 || !t.shape.back().is_const() || t.shape.back().value() < 8 || t.shape.back().value() % 4 != 0 || in_memory(from)) return false;
        const auto all = pulled_in(from);
        return std::any_of(all.begin(), all.end(), [&](Id k) {
            const Node& e = graph()[k];
            return e.is(Op::gather) && static_cast<int>(e.in.size()) - 1 < graph().type(e.in[0]).rank() && e.type.shape.back() == t.shape.back();
        });
    }
    Nest part(Id id, int piece, int stage = 0) { return {.outer = points(id, piece), .roots = {id}, .piece = piece, .stage = stage}; }
    static Shape s_of(const Shape& d, const std::vector<int>& axes) {
        Shape s;
        for (int k : axes) s.push_back(d[static_cast<std::size_t>(k)]);
        return s;
    }
    // Alone, at points a rather than b?
    bool costs_less(Id id, const Shape& a, const Shape& b) {
        try {
            return best({.outer = a, .roots = {id}}).cost < best({.outer = b, .roots = {id}}).cost;
        } catch (const loop::Unfusable&) {
            return false;
        }
    }
    void note(Id id, int step, bool joined, std::string reason) {
        plan_.decisions.push_back({id, plan_.program.steps[static_cast<std::size_t>(step)].launch, joined, std::move(reason)});
    }

    bool is_output(Id id) const { return std::find(graph().outputs.begin(), graph().outputs.end(), id) != graph().outputs.end(); }
    // What it costs to read a value from memory once.
    double traffic(Id id) const {
        return 0.08 * bytes(graph().type(id).dtype) * typical(numel(graph().type(id).shape));
    }
    // A nest in the form that costs least: at its points, or, where roots are written out there, at every element.
    struct Form {
        Nest nest;
        std::size_t values;
        double cost;
        int registers;
    };
    const Form& best(const Nest& n) {  // asked again and again of the same roots and points
        auto [it, fresh] = best_.try_emplace({print(n.outer), n.roots, n.piece, n.pieces});
        if (fresh) try {
                if (n.roots.size() > 1 && counts_itself(n)) throw loop::Unfusable("would write the number of rows that it runs over");
                it->second.emplace<Form>(find_best(n));
            } catch (const loop::TooLarge& e) {
                it->second.emplace<loop::TooLarge>(e);
            } catch (const loop::Unfusable& e) {
                it->second.emplace<loop::Unfusable>(e);
            }
        if (auto* why_not = std::get_if<loop::TooLarge>(&it->second)) throw *why_not;
        if (auto* why_not = std::get_if<loop::Unfusable>(&it->second)) throw *why_not;
        return std::get<Form>(it->second);
    }
    const Form* tried(const Nest& n) {  // nullptr: it can't be
        try {
            return &best(n);
        } catch (const loop::Unfusable&) {
            return nullptr;
        }
    }
    // Is a number of rows that a nest takes from memory as it begins one of its own roots?
    bool counts_itself(const Nest& n) {
        for (Id r : n.roots) {
            reads(r, n.piece);
            for (const auto& name : asked_[{r, n.piece}])
                if (auto it = plan_.program.counted.find(name); it != plan_.program.counted.end() && std::count(n.roots.begin(), n.roots.end(), it->second)) return true;
        }
        return false;
    }
    Form find_best(Nest n) const {
        std::size_t most = n.roots.size() == 1 && whole_.count(n.roots[0]) ? loop::kAny : kMaxValues;
        loop::Nest l = loop::lower(plan_.program, n, most);
        n.schedule = l.schedule = schedule(l, machine_);
        double memory = 0;
        for (const loop::Buffer& b : l.buffers) memory += (b.written || b.accumulated ? 1.5 : 1) * traffic(b.id);
        Form f{n, l.values.size(), heddle::cost(l) + memory, registers(l)};
        auto b = loop::bind_root(graph(), n.roots[0], n.outer, n.piece);
        if (!b || b->extent || b->domain.size() == n.outer.size()) return f;
        n.outer = b->domain;
        std::optional<loop::Nest> flat;
        try {
            flat = loop::lower_flat(plan_.program, n, most);
        } catch (const loop::TooLarge&) {
        }
        if (!flat) return f;
        n.schedule = flat->schedule = schedule(*flat, machine_);
        double c = heddle::cost(*flat) + memory;
        return c <= f.cost ? Form{n, flat->values.size(), c, registers(*flat)} : f;
    }
    // Threads that share a point have few registers each: none more for what could run beside.
    int registers(const loop::Nest& n) const { return machine_ == Machine::cuda && n.schedule.group > 1 ? loop::registers(n) : 0; }
    static bool fits(const Form& together, const Form& a, const Form& b) {
        const Schedule &s = together.nest.schedule, &t = a.nest.schedule, &u = b.nest.schedule;
        return together.registers <= std::max({kRegisters, a.registers, b.registers}) && s.run >= std::max(t.run, u.run) && s.vector >= std::max(t.vector, u.vector);
    }
    // Nests of a stage, in order of size and order of roots found apart, that cost less as one.
    void merge(std::vector<Nest>& list) {
        auto joined = [&](const Nest& a, const Nest& b) -> std::optional<Nest> {  // a's roots at b's points
            if (a.piece >= 0 && b.piece >= 0) return next_parts(b, a);
            if (a.stage != b.stage || a.piece >= 0 || b.piece >= 0 || a.roots.size() + b.roots.size() > kMaxRoots) return {};
            if (std::none_of(a.roots.begin(), a.roots.end(), [&](Id r) { return shares(b, reads(r)); })) return {};
            if (!std::all_of(a.roots.begin(), a.roots.end(), [&](Id r) { return loop::bind_root(graph(), r, b.outer).has_value(); })) return {};
            Nest both = b;
            both.roots.insert(both.roots.end(), a.roots.begin(), a.roots.end());
            std::sort(both.roots.begin(), both.roots.end());
            try {
                const Form& together = best(both);
                if (together.cost <= best(a).cost + best(b).cost && fits(together, best(a), best(b))) return both;
            } catch (const loop::Unfusable&) {
            }
            return {};
        };
        for (bool again = true; std::exchange(again, false);)
            for (std::size_t i = 0; i < list.size() && !again; ++i)
                for (std::size_t j = 0; j < list.size() && !again; ++j)
                    if (i != j)
                        if (auto both = joined(list[i], list[j])) {
                            list[j] = std::move(*both);
                            list.erase(list.begin() + static_cast<std::ptrdiff_t>(i));
                            again = true;
                        }
    }
    // Parts of a concat as one nest, where much of what they compute is the same: sine and cosine of an angle.
    std::optional<Nest> next_parts(const Nest& a, const Nest& b) {
        const Node& n = graph()[a.roots[0]];
        if (a.roots != b.roots || a.stage != b.stage || !n.is(Op::concat) || a.piece + a.pieces != b.piece || a.outer != b.outer) return {};
        if (!(graph().type(n.in[static_cast<std::size_t>(a.piece)]) == graph().type(n.in[static_cast<std::size_t>(b.piece)]))) return {};
        Nest both = a;
        both.pieces += b.pieces;
        try {
            const Form& together = best(both);
            if (together.cost < 0.9 * (best(a).cost + best(b).cost) && fits(together, best(a), best(b))) return both;
        } catch (const loop::Unfusable&) {
        }
        return {};
    }
    void finish() {
        Program& p = plan_.program;
        std::vector<char> needed(graph().nodes.size());
        auto need = [&](Id i) { needed[static_cast<std::size_t>(i)] = 1; };
        for (Id i : graph().inputs) need(i);
        for (Id i : graph().outputs) need(i);
        p.last_use.assign(graph().nodes.size(), -1);
        for (Launch& l : p.launches) merge(l.nests);
        for (Launch& l : p.launches) std::stable_sort(l.nests.begin(), l.nests.end(), [](const Nest& a, const Nest& b) { return a.stage < b.stage; });
        for (int s = 0; s <= last_step(); ++s) {
            const Step& step = p.steps[static_cast<std::size_t>(s)];
            auto use = [&](Id i) { need(i), p.last_use[static_cast<std::size_t>(i)] = s; };
            for (Id id : step.reads) use(library_operand(graph(), graph()[id].in.back()).base), need(id);
            if (step.launch < 0 && step.call < 0) continue;
            if (step.launch < 0) {
                need(step.call);
                for (Id i : graph()[step.call].in) use(library_operand(graph(), i).base);
                continue;
            }
            for (Nest& n : p.launches[static_cast<std::size_t>(step.launch)].nests) {
                int stage = n.stage;
                n = best(n).nest;
                n.stage = stage;
                loop::Nest l = loop::lower(p, n);
                for (const loop::Value& v : l.values)
                    if (v.what == loop::What::load || v.what == loop::What::accumulate) use(l.buffers[static_cast<std::size_t>(v.index)].id);
                for (const loop::Counted& c : l.counted) use(l.buffers[static_cast<std::size_t>(c.buffer)].id);
                for (const loop::Buffer& b : l.buffers)
                    if (b.accumulated) need(b.id);
            }
        }
        for (Id i : graph().outputs) {
            p.last_use[static_cast<std::size_t>(i)] = static_cast<int>(p.steps.size());
            if (is_guard(graph()[i]))  // the same memory
                p.last_use[static_cast<std::size_t>(library_operand(graph(), graph()[i].in[0]).base)] = static_cast<int>(p.steps.size());
        }
        for (Id id = 0; id < graph().size(); ++id)
            if (graph()[id].is(Op::result)) need(id);
        p.stored = needed;
        p.updates = in_place();
        for (Launch& l : p.launches) {
            plan_.loops.emplace_back();
            for (Nest& n : l.nests) {
                plan_.loops.back().push_back(loop::with_guards(loop::lower(p, n)));
                for (const loop::Buffer& b : plan_.loops.back().back().buffers)
                    if (b.accumulated && std::find(plan_.zeroed.begin(), plan_.zeroed.end(), b.id) == plan_.zeroed.end()) plan_.zeroed.push_back(b.id);
            }
        }
    }

    // Does a nest read an element of `from` only before it writes that of `to`, and no other one?
    static bool written_over(const loop::Nest& l, Id to, Id from) {
        std::vector<loop::Val> order = l.uniform;
        order.insert(order.end(), l.prologue.begin(), l.prologue.end());
        for (const loop::Phase& phase : l.phases)
            for (const auto* list : {&phase.body, &phase.after}) order.insert(order.end(), list->begin(), list->end());
        std::set<loop::Val> reads, writes;  // addresses
        for (loop::Val v : order) {
            const loop::Value& x = l.values[static_cast<std::size_t>(v)];
            const bool load = x.what == loop::What::load;
            if (!load && x.what != loop::What::store && x.what != loop::What::accumulate) continue;
            const Id id = l.buffers[static_cast<std::size_t>(x.index)].id;
            if (id == from) {
                if (writes.count(x.in[0])) return false;
                reads.insert(x.in[0]);
            } else if (id == to && !load) {
                if (x.what != loop::What::store) return false;
                writes.insert(x.in[0]);
            }
        }
        return std::includes(writes.begin(), writes.end(), reads.begin(), reads.end());
    }
    std::vector<Update> in_place() const {
        std::vector<Update> found;
        if (updates_.empty()) return found;
        std::vector<std::vector<loop::Nest>> loops;  // per launch, while each value has memory of its own
        for (const Launch& l : plan_.program.launches) {
            loops.emplace_back();
            for (const Nest& n : l.nests) loops.back().push_back(loop::lower(plan_.program, n));
        }
        std::copy_if(updates_.begin(), updates_.end(), std::back_inserter(found), [&](const Update& u) { return in_place(u, loops); });
        return found;
    }
    // Can an output be written where an input lies? Whoever else reads the input has done so in an earlier stage or step; the nest that writes
    // an element reads it before, and no other one.
    bool in_place(const Update& u, const std::vector<std::vector<loop::Nest>>& loops) const {
        const Program& p = plan_.program;
        const Id to = graph().outputs[static_cast<std::size_t>(u.output)], from = graph().inputs[static_cast<std::size_t>(u.input)];
        if (!(graph().type(to) == graph().type(from)) || in_memory_twice(to, from)) return false;
        const Time when = place_[static_cast<std::size_t>(to)].time;
        for (int s = 0; s <= last_step(); ++s) {
            const Step& step = p.steps[static_cast<std::size_t>(s)];
            if (step.launch < 0) {
                if (s >= when.step && step.call >= 0)
                    for (Id i : graph()[step.call].in)
                        if (library_operand(graph(), i).base == from) return false;
                continue;
            }
            for (const loop::Nest& n : loops[static_cast<std::size_t>(step.launch)])
                if (!(Time{s, n.stage} < when) && !written_over(n, to, from)) return false;
        }
        return true;
    }
    // Is either of them an output otherwise, or is the new value an input or a call's, or in pieces?
    bool in_memory_twice(Id to, Id from) const {
        const auto& out = graph().outputs;
        return std::count(out.begin(), out.end(), to) != 1 || std::count(out.begin(), out.end(), from) != 0 || !root_.count(to) || place_[static_cast<std::size_t>(to)].nest < 0;
    }

    Plan plan_;
    const Machine machine_;
    const std::vector<Update>& updates_;
    std::map<Id, Id> updating_;                   // outputs that had best lie in an input's memory, which is that
    Time read_;                                   // after the last read of the host so far
    std::set<Id> root_, whole_;                   // those in whole_ can't be divided
    std::map<std::pair<Id, int>, std::vector<Id>> reads_;
    std::map<std::pair<Id, int>, std::set<std::string>> asked_;  // names of sizes, likewise
    std::vector<Place> place_;
    std::map<std::string, int> known_from_;       // names of sizes that a step reads: the one after it
    std::map<std::pair<int, int>, double> cost_;  // of nests: {step, nest}
    std::map<std::tuple<std::string, std::vector<Id>, int, int>, std::variant<std::monostate, Form, loop::Unfusable, loop::TooLarge>> best_;  // by points, roots and pieces
};

}  // namespace

Plan fuse(const Graph& g, Machine machine, const std::vector<Update>& updates) { return Fuser(g, machine, updates).run(); }

std::string adds_in_any_order(const Plan& p) {
    for (std::size_t k = 0; k < p.loops.size(); ++k)
        for (const loop::Nest& n : p.loops[k])
            for (const loop::Buffer& b : n.buffers)
                if (b.accumulated && !b.written && is_float(b.dtype) && n.schedule.adds != Adds::ordered) return p.program.launches[k].name;
    return "";
}

}  // namespace heddle
