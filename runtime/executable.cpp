// Running a plan: sizes bound, an arena per stretch of steps whose sizes are known, launches and calls in order.
#include "runtime/executable.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>

#include "ir/eval.h"
#include "passes/memory.h"

namespace heddle {

Executable::Executable(Plan plan, const Target& target) : plan_(std::move(plan)) {
    auto start = std::chrono::steady_clock::now();
    const Program& p = plan_.program;
    writer_.assign(p.graph.nodes.size(), -1);
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s) {
        if (p.steps[static_cast<std::size_t>(s)].launch < 0) writer_[static_cast<std::size_t>(p.steps[static_cast<std::size_t>(s)].call)] = s;
        else
            for (const Nest& n : p.launches[static_cast<std::size_t>(p.steps[static_cast<std::size_t>(s)].launch)].nests)
                for (Id r : n.roots) writer_[static_cast<std::size_t>(r)] = s;
    }
    auto count = p.launches.size();
    texts_.resize(count);
    launcher_ = target.cuda() ? cuda_launcher(plan_, target) : cpu_launcher(plan_);
    // Two at a time: the machine that compiles is the machine that trains.
    std::atomic<std::size_t> next{0};
    auto work = [&] {
        for (std::size_t k; (k = next++) < count;) texts_[k] = launcher_->compile(k);
    };
    std::future<void> other;
    if (count > 1) other = std::async(std::launch::async, work);
    work();
    if (other.valid()) other.get();
    compile_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
Executable::~Executable() = default;

std::vector<Array> Executable::run(Host& host, const std::vector<Array>& inputs, Sizes& sizes) {
    const Program& p = plan_.program;
    const Graph& g = p.graph;
    if (inputs.size() != g.inputs.size()) throw Error(fmt::format("{}: got {} inputs, expected {}", g.name, inputs.size(), g.inputs.size()));
    std::vector<Array> values(g.nodes.size());
    for (int round = 0; round < 2; ++round)
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const Type& t = g.type(g.inputs[i]);
            const auto who = g[g.inputs[i]].text("name");
            if (inputs[i].dtype != t.dtype) throw Error(fmt::format("input {}: got {}, expected {}: capture again for another dtype", who, name(inputs[i].dtype), name(t.dtype)));
            bind_sizes(t.shape, inputs[i].sizes, sizes, "input " + who, ": fuse again, or name this dimension as one that varies");
            values[static_cast<std::size_t>(g.inputs[i])] = inputs[i];
        }
    stats_ = {};
    std::vector<char> is_output(g.nodes.size());
    for (Id o : g.outputs) is_output[static_cast<std::size_t>(o)] = 1;
    auto known = [&](const Type& t) {
        std::vector<std::string> names;
        for (const Dim& d : t.shape) d.names(names);
        return std::all_of(names.begin(), names.end(), [&](const auto& n) { return sizes.count(n) != 0; });
    };
    auto actual = [&](const Type& t) {
        std::vector<std::int64_t> s;
        for (const Dim& d : t.shape) s.push_back(d.eval(sizes));
        return s;
    };
    std::vector<Array> arenas;
    std::size_t names_bound = SIZE_MAX;
    // Everything whose size is known by now and that has no memory yet: outputs on their own, the rest side by side in one arena.
    auto allocate_from = [&](int step) {
        if (sizes.size() == names_bound) return;
        names_bound = sizes.size();
        std::vector<Slot> slots;
        for (Id id = 0; id < g.size(); ++id) {
            int w = writer_[static_cast<std::size_t>(id)];
            Array& a = values[static_cast<std::size_t>(id)];
            if (w < step || a.data || g[id].kind() == Kind::call || g[id].is(Op::dot) || !p.is_stored(id) || !known(g.type(id))) continue;
            a = {nullptr, g.type(id).dtype, actual(g.type(id)), false, nullptr};
            if (is_output[static_cast<std::size_t>(id)]) a = host.allocate(a.dtype, a.sizes);
            else slots.push_back({id, w, std::max(w, p.last_use[static_cast<std::size_t>(id)]), a.bytes()});
        }
        if (slots.empty()) return;
        std::int64_t total = place(slots);
        stats_.arena += total;
        arenas.push_back(host.allocate(DType::b1, {total}));
        for (const Slot& s : slots) values[static_cast<std::size_t>(s.value)].data = static_cast<char*>(arenas.back().data) + s.offset;
    };
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s) {
        const Step& step = p.steps[static_cast<std::size_t>(s)];
        allocate_from(s);
        if (step.launch >= 0) {
            auto k = static_cast<std::size_t>(step.launch);
            launcher_->run(host, k, sizes, values);
            ++stats_.launches;
            for (const loop::Nest& n : plan_.loops[k])
                for (const loop::Buffer& b : n.buffers) stats_.bytes += values[static_cast<std::size_t>(b.id)].bytes();
            continue;
        }
        const Node& n = g[step.call];
        std::vector<Array> operands;
        for (Id i : n.in) {
            Operand o = library_operand(g, i);
            Array a = values[static_cast<std::size_t>(o.base)];
            a.sizes = actual(g.type(i));
            a.transposed = o.transposed;
            operands.push_back(std::move(a));
        }
        ++stats_.calls;
        auto results = host.call(n, operands, sizes);
        bind_sizes(n.type.shape, results.at(0).sizes, sizes, n.is(Op::dot) ? "dot" : n.text("name"));
        values[static_cast<std::size_t>(step.call)] = results[0];
        for (Id id = step.call + 1; id < g.size() && !n.more.empty(); ++id)
            if (g[id].is(Op::result) && g[id].in[0] == step.call) {
                auto k = static_cast<std::size_t>(g[id].integer("index"));
                bind_sizes(g.type(id).shape, results.at(k).sizes, sizes, n.text("name"));
                values[static_cast<std::size_t>(id)] = results[k];
            }
        for (Id i : n.in)  // library results are dropped with their last reader
            if (Id b = library_operand(g, i).base; p.last_use[static_cast<std::size_t>(b)] == s && !g[b].is(Op::input)) values[static_cast<std::size_t>(b)].owner.reset();
    }
    std::vector<Array> outputs;
    for (Id o : g.outputs) outputs.push_back(values[static_cast<std::size_t>(o)]);
    return outputs;
}

}  // namespace heddle
