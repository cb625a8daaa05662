// What must hold of a random graph: text and passes keep it, every way of running it agrees with the interpreter, forward and backward,
// gradients are what differences say, and a plan takes no more memory than the graph's values would.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/simplify.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/core/fuzz.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle::fuzz {

namespace {
constexpr int kRounds = 2;
constexpr double kMost = 40000;  // elements of a value: the interpreter is slow

std::mt19937 drawn(const Graph& g, const std::string& what) {  // by seed and name, and nothing else
    std::uint32_t h = seed_of(g) * 2654435761u + 1;
    for (char c : what) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
    std::mt19937 rng(h);
    rng.discard(8);
    return rng;
}
bool has_calls(const Graph& g) {
    return std::any_of(g.nodes.begin(), g.nodes.end(), [](const Node& n) { return n.is(Op::call); });
}
// Differences of it make sense, but at the few points where a comparison turns: all in double, and no derivative that is declared.
bool smooth(const Graph& g) {
    constexpr Op kDeclared[] = {Op::stop_grad, Op::amax, Op::amin, Op::mod, Op::floordiv, Op::surrogate};
    return std::none_of(g.nodes.begin(), g.nodes.end(), [&](const Node& n) {
        return n.is(Op::call) || (is_float(n.type.dtype) && n.type.dtype != DType::f64) || (is_float(n.type.dtype) && std::find(std::begin(kDeclared), std::end(kDeclared), n.op) != std::end(kDeclared));
    });
}
std::vector<Tensor> calls(const Node& n, const std::vector<Tensor>& in, Sizes& sizes) {
    const Tensor& m = in.at(0);
    if (n.text("name") == "aten.sort.default") {
        Tensor sorted = m, from{DType::i64, m.sizes, m.data};
        const auto row = static_cast<std::size_t>(m.sizes.back());
        for (std::size_t r = 0; row > 0 && r < m.data.size(); r += row) {
            std::vector<std::size_t> order(row);
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return m.data[r + a] < m.data[r + b]; });
            for (std::size_t k = 0; k < row; ++k) sorted.data[r + k] = m.data[r + order[k]], from.data[r + k] = static_cast<double>(order[k]);
        }
        return {sorted, from};
    }
    if (n.text("name") != "aten.nonzero.default") throw Error("call " + n.text("name") + ": no library at hand");
    Tensor out = nonzero_of(m);
    bind_sizes(n.type.shape, out.sizes, sizes, "nonzero");
    return {out};
}
// The plain host with that library.
class LibraryHost final : public Host {
public:
    explicit LibraryHost(int threads) : plain_(plain_host(threads)) {}
    Array allocate(DType t, const Extents& sizes) override { return plain_->allocate(t, sizes); }
    int threads() const override { return plain_->threads(); }
    void dot(const std::vector<Array>& operands, const Array& result, bool relu) override { plain_->dot(operands, result, relu); }
    std::vector<Array> call(const Node& n, const std::vector<Array>& operands, const Sizes& sizes) override {
        Sizes bound = sizes;
        std::vector<Array> results;
        for (const Tensor& t : calls(n, {to_tensor(operands.at(0))}, bound)) results.push_back(to_array(*plain_, t));
        return results;
    }

private:
    std::unique_ptr<Host> plain_;
};
// Sizes for which every node has a meaning: no slice leaves its operand, nothing is looked up in nothing, no extremum is of nothing.
bool valid(const Graph& g, const Sizes& sizes) {
    auto count = [&](const Type& t) { return numel(t.shape).eval(sizes); };
    for (const Node& n : g.nodes) {
        try {
            for (const Dim& d : n.type.shape)
                if (d.eval(sizes) < 0) return false;
            if (static_cast<double>(count(n.type)) > kMost) return false;
            auto x = [&](std::size_t k) -> const Type& { return g.type(n.in[k]); };
            if (n.is(Op::slice)) {
                const auto from = n.dim("start").eval(sizes), to = n.dim("end").eval(sizes);
                if (from < 0 || to < from || to > x(0).shape[static_cast<std::size_t>(n.integer("axis"))].eval(sizes)) return false;
            } else if (n.is(Op::gather)) {
                if (count(x(0)) == 0 && count(x(1)) > 0) return false;
            } else if (n.is(Op::scatter) || n.is(Op::scatter_add)) {
                if (count(n.type) == 0 && count(x(n.is(Op::scatter) ? 1 : 0)) > 0) return false;
            } else if (n.is(Op::amax) || n.is(Op::amin)) {
                if (count(x(0)) == 0) return false;
            }
        } catch (const Error&) {  // a size that only a call knows
        }
    }
    return true;
}

class Check {
public:
    Check(const Woven& w, Tally& tally) : w_(w), g_(w.graph), tally_(tally) {
        for (const Node& n : g_.nodes)  // what is made of a narrow value is no more exact
            slack_ = std::max(slack_, n.type.dtype == DType::f32 ? 2e-3 : n.type.dtype == DType::f16 ? 2e-2 : n.type.dtype == DType::bf16 ? 1.5e-1 : 0);
    }


    std::optional<Failure> run(By by) {
        if (parse(print(g_)) != g_) return Failure{"text", "parse(print(g)) differs"};
        const Graph simple = simplify(g_);
        if (Graph again = simplify(simple); again != simple) return Failure{"simplify", "twice is not once:\n" + print(simple) + print(again)};
        plain_ = differentiate(g_, w_.wants);
        verify(plain_.graph, "differentiate");
        struct Way {
            std::string name;
            std::unique_ptr<Executable> forward, backward;  // none: interpreted
        };
        std::vector<Way> ways;
        ways.push_back({"interpreted after the pipeline", {}, {}});
        auto compile = [&](const char* name, const Plan& forward, const Plan& backward, const Target& target) {
            ways.push_back({name, std::make_unique<Executable>(forward, target), w_.pair.has_backward ? std::make_unique<Executable>(backward, target) : nullptr});
        };
        const Split& split = w_.pair.split;
        if (by != By::interpreter) compile("compiled", w_.forward, w_.backward, {}), ++tally_.llvm;
        if (by == By::all) {
            const PlanOptions options{.machine = Machine::cuda, .deterministic = drawn(g_, "deterministic")() % 2 == 0};
            const Plan forward = plan(split.forward, {}, options), backward = w_.pair.has_backward ? plan(split.backward, {}, options) : Plan{};
            compile("CUDA on the CPU", forward, backward, cuda_on_cpu::target(seed_of(g_))), ++tally_.cuda;
        }
        if (!has_calls(g_)) whole_ = plan(g_);
        std::vector<std::unique_ptr<Executable>> updating;
        if (by != By::interpreter) updating.push_back(over_inputs(Machine::cpu, {}));
        if (by == By::all) updating.push_back(over_inputs(Machine::cuda, cuda_on_cpu::target(seed_of(g_))));
        std::vector<std::unique_ptr<Executable>> waitless;
        if (by != By::interpreter) waitless.push_back(bounded(Machine::cpu, {}));
        if (by == By::all) waitless.push_back(bounded(Machine::cuda, cuda_on_cpu::target(seed_of(g_))));
        ++tally_.graphs, tally_.nodes += g_.size(), tally_.gradients += w_.pair.has_backward;
        for (int round = 0; round < kRounds; ++round) {
            draw(round);
            if (auto f = memory()) return f;
            for (const Way& way : ways) {
                if (auto f = compare(way.forward.get(), way.backward.get(), round)) return Failure{way.name, *f + fmt::format(" (sizes {})", said())};
            }
            for (const auto& e : updating)
                if (auto f = e ? compare_updates(*e, round) : std::nullopt) return Failure{"updates", *f + fmt::format(" (sizes {})", said())};
            for (const auto& e : waitless)
                if (auto f = e ? compare_bounded(*e, round) : std::nullopt) return Failure{"bounded", *f + fmt::format(" (sizes {})", said())};
            if (round == 0 && smooth(g_))
                if (auto f = differences()) return Failure{"differences", *f + fmt::format(" (sizes {})", said())};
        }
        return {};
    }

private:
    const Woven& w_;
    const Graph& g_;
    Tally& tally_;
    double slack_ = 1e-9;  // relative to the largest element
    Joint plain_;
    Plan whole_;
    Sizes sizes_, handed_;  // handed on to the backward: with those that calls of the forward gave
    std::vector<Tensor> in_, seeds_, want_;

    std::string said() const {
        std::string s;
        for (const auto& [k, v] : sizes_) s += fmt::format("{}{}={}", s.empty() ? "" : " ", k, v);
        return s;
    }
    void draw(int round) {
        sizes_ = draw_sizes(g_, round);
        auto values = [&](Id id, const std::string& name) {
            auto rng = drawn(g_, fmt::format("{} {}", name, round));
            const Type& t = g_.type(id);
            const double most = is_int(t.dtype) ? 9 : 1;
            return random_tensor(t, sizes_, rng, -most, most);
        };
        in_.clear(), seeds_.clear();
        bool empty = false;
        for (Id i : g_.inputs) in_.push_back(values(i, g_[i].text("name"))), empty |= in_.back().numel() == 0;
        for (std::size_t k = 0; k < g_.outputs.size(); ++k) seeds_.push_back(values(g_.outputs[k], "seed " + std::to_string(k)));
        tally_.empty += empty;
        std::vector<Tensor> all = in_;
        for (std::size_t k = 0; k < seeds_.size(); ++k)
            if (plain_.seeds[k] >= 0) all.push_back(seeds_[k]);
        handed_ = sizes_;
        auto noted = [&](const Node& n, const std::vector<Tensor>& in, Sizes& known) {
            auto results = calls(n, in, known);
            handed_.insert(known.begin(), known.end());
            return results;
        };
        want_ = evaluate(plain_.graph, all, noted, sizes_);
    }
    std::optional<std::string> close(const std::vector<Tensor>& want, const std::vector<Tensor>& got, const std::string& what) {
        if (want.size() != got.size()) return what + ": how many";
        for (std::size_t k = 0; k < want.size(); ++k) {
            if (want[k].sizes != got[k].sizes) return fmt::format("{} {}: sizes", what, k);
            double scale = 1e-6;
            bool finite = true;
            for (double v : want[k].data) scale = std::max(scale, std::fabs(v)), finite &= std::isfinite(v);
            if (!finite || scale >= 1e5) {  // cancellation would decide
                ++tally_.not_finite;
                continue;
            }
            const double tolerance = is_float(want[k].dtype) ? slack_ * std::max(1.0, scale) : 0;
            for (std::size_t i = 0; i < want[k].data.size(); ++i)
                if (!(std::fabs(want[k].data[i] - got[k].data[i]) <= tolerance))
                    return fmt::format("{} {} element {}: {}, expected {}", what, k, i, got[k].data[i], want[k].data[i]);
        }
        return {};
    }
    std::optional<std::string> compare(const Executable* forward, const Executable* backward, int round) {
        const auto host = std::make_unique<LibraryHost>(1 + 2 * (round % 2));
        auto run = [&](const Graph& graph, const Executable* e, const std::vector<Tensor>& arguments, const Sizes& known) {
            if (!e) return evaluate(graph, arguments, calls, known);
            std::vector<Array> arrays;
            for (const Tensor& t : arguments) arrays.push_back(to_array(*host, t));
            Sizes bound = known;
            std::vector<Tensor> out;
            for (const Array& a : e->run(*host, arrays, bound)) out.push_back(to_tensor(a));
            return out;
        };
        const auto count = static_cast<std::ptrdiff_t>(g_.outputs.size());
        auto out = run(w_.forward.program.graph, forward, in_, sizes_);
        if (out.size() != g_.outputs.size() + w_.pair.split.saved) return "outputs: how many";
        if (auto f = close({want_.begin(), want_.begin() + count}, {out.begin(), out.begin() + count}, "output")) return jumps() ? std::nullopt : f;
        if (!w_.pair.has_backward) return {};
        std::vector<Tensor> arguments;
        for (const auto& s : w_.pair.split.backward_inputs) {
            const auto i = static_cast<std::size_t>(s.index);
            arguments.push_back(s.from == Split::Source::From::input ? in_[i] : s.from == Split::Source::From::saved ? out[g_.outputs.size() + i] : seeds_[i]);
        }
        auto grads = run(w_.backward.program.graph, backward, arguments, handed_);
        std::vector<Tensor> expected, got;
        for (std::size_t k = 0; k < w_.wants.size(); ++k) {
            const int there = plain_.gradients[k], here = w_.pair.gradients[k];
            if (here >= 0 && there < 0) return fmt::format("gradient {} where there is none", k);
            if (here < 0) continue;
            expected.push_back(want_[static_cast<std::size_t>(there)]);
            got.push_back(grads[static_cast<std::size_t>(here)]);
        }
        auto f = close(expected, got, "gradient");
        return f && jumps() ? std::nullopt : f;
    }
    std::vector<Tensor> run_forward(const Executable& e, int round) const {
        LibraryHost host(1 + 2 * (round % 2));
        std::vector<Array> arrays;
        for (const Tensor& t : in_) arrays.push_back(to_array(host, t));
        Sizes sizes = sizes_;
        std::vector<Tensor> got;
        for (const Array& a : e.run(host, arrays, sizes)) got.push_back(to_tensor(a));
        return got;
    }
    // The forward with inputs that are written over by something made of them and of a value of the graph; nothing where no value has such a type.
    std::unique_ptr<Executable> over_inputs(Machine machine, const Target& target) {
        Graph g = w_.pair.split.forward;
        auto rng = drawn(g_, "updates");
        std::vector<Update> updates;
        for (std::size_t k = 0; k < g.inputs.size() && updates.size() < 4; ++k) {
            const Type& t = g.type(g.inputs[k]);
            std::vector<Id> alike;
            for (Id id = 0; id < g.size(); ++id)
                if (g.type(id) == t && !g[id].is(Op::input)) alike.push_back(id);
            if (alike.empty() || !is_float(t.dtype)) continue;
            updates.push_back({static_cast<int>(g.outputs.size()), static_cast<int>(k)});
            g.outputs.push_back((g.value(g.inputs[k]) * 0.5 + g.value(alike[rng() % alike.size()]) * 0.25).id);
        }
        if (updates.empty()) return {};
        tally_.updates += static_cast<int>(updates.size());
        const Plan p = plan(g, {}, {.machine = machine, .updates = updates});
        tally_.in_place += static_cast<int>(p.program.updates.size());
        return std::make_unique<Executable>(p, target);
    }
    // The forward with numbers of rows that stay in memory; nothing where no mask is compacted or rows leave the graph.
    std::unique_ptr<Executable> bounded(Machine machine, const Target& target) {
        const Graph& g = w_.pair.split.forward;
        if (std::none_of(g.nodes.begin(), g.nodes.end(), [](const Node& n) { return n.is(Op::compact); })) return {};
        try {
            auto e = std::make_unique<Executable>(plan(g, {}, {.machine = machine, .bounded = true}), target);
            ++tally_.bounded;
            return e;
        } catch (const Error&) {
            return {};
        }
    }
    std::optional<std::string> compare_bounded(const Executable& e, int round) {
        std::vector<Tensor> got = run_forward(e, round);
        if (got.back().data.at(0) != 0) return "a run with room for all rows says that it failed";
        got.pop_back();
        auto f = close(evaluate(w_.pair.split.forward, in_, calls, sizes_), got, "output");
        return f && jumps() ? std::nullopt : f;
    }
    std::optional<std::string> compare_updates(const Executable& e, int round) {
        std::vector<Tensor> got = run_forward(e, round);
        auto f = close(evaluate(e.plan().program.graph, in_, calls, sizes_), got, "output");
        return f && jumps() ? std::nullopt : f;
    }
    // Does the interpreter itself jump, moved by what rounding moves? Asked only where somebody disagrees; tests bound how often it does.
    bool jumps() {
        auto rng = drawn(g_, "jumps");
        for (int attempt = 0; attempt < 4; ++attempt) {
            std::vector<Tensor> all = in_;
            for (Tensor& t : all)
                for (double& v : t.data)
                    if (is_float(t.dtype)) v += std::uniform_real_distribution<double>(-1, 1)(rng) * slack_ * 1e-3;
            for (std::size_t k = 0; k < seeds_.size(); ++k)
                if (plain_.seeds[k] >= 0) all.push_back(seeds_[k]);
            if (close(want_, evaluate(plain_.graph, all, calls, sizes_), "")) return ++tally_.jumps, true;
        }
        return false;
    }
    // Along one random direction, the gradients are what differences say.
    std::optional<std::string> differences() {
        auto objective = [&](const std::vector<Tensor>& x) {
            double sum = 0;
            auto out = evaluate(g_, x, calls, sizes_);
            for (std::size_t k = 0; k < out.size(); ++k)
                for (std::size_t i = 0; i < out[k].data.size(); ++i) sum += out[k].data[i] * seeds_[k].data[i];
            return sum;
        };
        const double size = std::max(1.0, std::fabs(objective(in_)));
        if (!(size < 1e5)) return {};
        double along = 0, norm = 1;
        std::vector<Tensor> direction = in_;
        auto rng = drawn(g_, "direction");
        for (std::size_t k = 0; k < in_.size(); ++k)
            for (std::size_t i = 0; i < in_[k].data.size(); ++i) {
                double& d = direction[k].data[i];
                d = plain_.gradients[k] < 0 ? 0 : std::uniform_real_distribution<double>(-1, 1)(rng);
                const double slope = d == 0 ? 0 : want_[static_cast<std::size_t>(plain_.gradients[k])].data[i] * d;
                along += slope, norm = std::max(norm, std::fabs(slope));
            }
        auto measured = [&](double h) {
            auto up = in_, down = in_;
            for (std::size_t k = 0; k < in_.size(); ++k)
                for (std::size_t i = 0; i < in_[k].data.size(); ++i) up[k].data[i] += h * direction[k].data[i], down[k].data[i] -= h * direction[k].data[i];
            return (objective(up) - objective(down)) / (2 * h);
        };
        const double near = measured(1e-6), tolerance = 1e-4 * norm + 1e-8 * size;
        if (std::fabs(along - near) <= tolerance) return ++tally_.differences, std::nullopt;
        if (!(std::fabs(near - measured(4e-6)) <= tolerance) || !(std::fabs(near - measured(2.5e-7)) <= 4 * tolerance)) return {};  // it turns here
        return fmt::format("slope {}, expected {}", along, near);
    }
    std::optional<Failure> memory() {
        auto law = [&](const char* what, const Graph& from, const Plan& to) -> std::optional<Failure> {
            const auto names = from.symbols();  // of which some are known when it has run
            if (has_calls(from) || std::any_of(names.begin(), names.end(), [&](const auto& n) { return !sizes_.contains(n); })) return {};
            ++tally_.memory;
            const auto fused = planned(to, sizes_);
            const auto one_by_one = unfused(from, sizes_), promised = scratch(from, sizes_), over = fused.peak - one_by_one - promised;
            if (over > 0) ++tally_.memory_more;
            if (over <= fused.held) return {};
            return Failure{"memory", fmt::format("the plan of {} takes {} bytes, {} of them held by launches, its ops one by one {} and parts of sums {} (sizes {})", what, fused.peak, fused.held,
                                                 one_by_one, promised, said())};
        };
        if (auto f = law("the graph", g_, whole_)) return f;
        if (auto f = law("the forward", w_.pair.split.forward, w_.forward)) return f;
        return w_.pair.has_backward ? law("the backward", w_.pair.split.backward, w_.backward) : std::nullopt;
    }
};
}  // namespace

unsigned seed_of(const Graph& g) { return g.name.starts_with("fuzz") ? static_cast<unsigned>(std::strtoul(g.name.c_str() + 4, nullptr, 10)) : 0; }

Sizes draw_sizes(const Graph& g, int round) {
    for (int attempt = 0;; ++attempt) {
        Sizes s;
        for (const auto& name : g.symbols()) {
            if (name.starts_with("M")) continue;  // only a call knows it
            auto rng = drawn(g, fmt::format("{} {} {}", name, round, attempt));
            const int kind = static_cast<int>(rng() % 8), more = static_cast<int>(rng() % 40);
            if (round > 0 && kind < 5 && attempt < 12) s[name] = kind < 3 ? kind % 2 : 2;
            else if (attempt < 24) s[name] = kind < 6 ? 3 + more % 9 : 17 + more;
            else s[name] = 2 + more % 3;
        }
        if (valid(g, s) || attempt == 40) return s;
    }
}

Woven::Woven(Graph woven) : graph(std::move(woven)) {
    for (Id i : graph.inputs) wants.push_back(is_float(graph.type(i).dtype) && drawn(graph, "wants " + graph[i].text("name"))() % 4 != 0);
    pair = forward_and_backward(graph, wants, {draw_sizes(graph, 0)});
    forward = plan(pair.split.forward);
    if (pair.has_backward) backward = plan(pair.split.backward);
}

std::optional<Failure> check(const Woven& w, By by, Tally& tally) {
    try {
        return Check(w, tally).run(by);
    } catch (const std::exception& e) {
        return Failure{"exception", e.what()};
    }
}
std::optional<Failure> check(const Graph& g, By by, Tally& tally) {
    try {
        return check(Woven(g), by, tally);
    } catch (const std::exception& e) {
        return Failure{"exception", e.what()};
    }
}

}  // namespace heddle::fuzz
