// Running a plan: sizes bound, an arena per stretch of steps whose sizes are known, launches and calls in order.
#include "runtime/executable.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>

#include "codegen/cuda/cuda.h"
#include "codegen/llvm_backend.h"
#include "ir/eval.h"
#include "passes/memory.h"
#include "runtime/cpu_backend.h"

namespace heddle {

struct Executable::Launched {
    std::vector<CpuFn> functions;  // per nest (CPU)
    CudaSource source;             // (CUDA)
    std::shared_ptr<const void> keep;
};

namespace {
template <class T>
void add_range(void* to, const void* from, std::int64_t begin, std::int64_t end) {
    auto* a = static_cast<T*>(to);
    auto* b = static_cast<const T*>(from);
    for (std::int64_t i = begin; i < end; ++i) a[i] = static_cast<T>(a[i] + b[i]);
}
void add_range(DType t, void* to, const void* from, std::int64_t begin, std::int64_t end) {
    switch (t) {
        case DType::f32: return add_range<float>(to, from, begin, end);
        case DType::f64: return add_range<double>(to, from, begin, end);
        case DType::i32: return add_range<std::int32_t>(to, from, begin, end);
        case DType::i64: return add_range<std::int64_t>(to, from, begin, end);
        default: throw Error("accumulating " + std::string(name(t)) + " over threads: accumulate in f32");
    }
}
constexpr std::int64_t kShare = 1 << 14;  // elements that are worth a thread
}  // namespace

Executable::Executable(Plan plan, std::string arch) : plan_(std::move(plan)) {
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
    launches_.resize(count);
    texts_.resize(count);
    if (!arch.empty()) throw Error("CUDA: launching is not wired in this build; kernels are generated and compiled by `heddle dump`");
    std::string why_not;
    CpuBackend* backend = count ? load_cpu_backend(&why_not) : nullptr;
    if (count && !backend) throw Error("CPU backend: " + why_not);
    // Two at a time: the machine that compiles is the machine that trains.
    auto compile = [&](std::size_t k) {
        launches_[k] = std::make_unique<Launched>();
        texts_[k].first = p.launches[k].name + ".ll";
        launches_[k]->functions = backend->compile(p.launches[k].name, plan_.loops[k], &texts_[k].second);
    };
    std::atomic<std::size_t> next{0};
    auto work = [&] {
        for (std::size_t k; (k = next++) < count;) compile(k);
    };
    auto other = std::async(std::launch::async, work);
    work();
    other.get();
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
            bind_sizes(t.shape, inputs[i].sizes, sizes, "input " + who);
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
            launch(host, step.launch, sizes, values);
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

void Executable::launch(Host& host, int index, const Sizes& sizes, std::vector<Array>& values) {
    const auto& nests = plan_.loops[static_cast<std::size_t>(index)];
    const Launched& code = *launches_[static_cast<std::size_t>(index)];
    ++stats_.launches;
    struct Run {
        std::vector<void*> buffers;
        std::vector<std::int64_t> sizes;
        std::int64_t units;
    };
    std::vector<Run> runs(nests.size());
    std::int64_t most = 0;
    std::vector<Id> accumulated;  // by colliding additions: threads need copies of their own
    for (std::size_t k = 0; k < nests.size(); ++k) {
        const loop::Nest& n = nests[k];
        for (const auto& s : n.sizes) runs[k].sizes.push_back(sizes.at(s));
        for (const auto& b : n.buffers) {
            Array& a = values[static_cast<std::size_t>(b.id)];
            runs[k].buffers.push_back(a.data);
            stats_.bytes += a.bytes();
            if (b.accumulated) {
                std::memset(a.data, 0, static_cast<std::size_t>(a.bytes()));
                if (!b.written) accumulated.push_back(b.id);
            }
        }
        runs[k].units = units(n, sizes);
        most = std::max(most, runs[k].units);
    }
    int threads = static_cast<int>(std::clamp<std::int64_t>(most, 1, host.threads()));
    std::vector<std::vector<Array>> copies(static_cast<std::size_t>(threads));  // [thread][accumulated], none for thread 0
    for (int t = 1; t < threads; ++t)
        for (Id id : accumulated) copies[static_cast<std::size_t>(t)].push_back(host.allocate(values[static_cast<std::size_t>(id)].dtype, values[static_cast<std::size_t>(id)].sizes));
    auto work = [&](int t) {
        for (const Array& a : copies[static_cast<std::size_t>(t)]) std::memset(a.data, 0, static_cast<std::size_t>(a.bytes()));
        for (std::size_t k = 0; k < nests.size(); ++k) {
            std::int64_t begin = runs[k].units * t / threads, end = runs[k].units * (t + 1) / threads;
            if (begin == end) continue;
            if (t == 0 || accumulated.empty()) {
                code.functions[k](runs[k].buffers.data(), runs[k].sizes.data(), begin, end);
                continue;
            }
            auto mine = runs[k].buffers;
            for (std::size_t b = 0; b < mine.size(); ++b)
                for (std::size_t a = 0; a < accumulated.size(); ++a)
                    if (nests[k].buffers[b].id == accumulated[a]) mine[b] = copies[static_cast<std::size_t>(t)][a].data;
            code.functions[k](mine.data(), runs[k].sizes.data(), begin, end);
        }
    };
    if (threads == 1) return work(0);
    host.parallel(threads, work);
    if (accumulated.empty()) return;
    host.parallel(threads, [&](int t) {  // each adds up a range of all copies, always in the order of threads
        for (std::size_t a = 0; a < accumulated.size(); ++a) {
            const Array& to = values[static_cast<std::size_t>(accumulated[a])];
            std::int64_t n = to.numel();
            if (n < kShare && t > 0) continue;
            std::int64_t begin = n < kShare ? 0 : n * t / threads, end = n < kShare ? n : n * (t + 1) / threads;
            for (int from = 1; from < threads; ++from) add_range(to.dtype, to.data, copies[static_cast<std::size_t>(from)][a].data, begin, end);
        }
    });
}

}  // namespace heddle
