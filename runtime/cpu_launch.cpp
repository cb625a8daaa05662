// Launches on the CPU: units of a nest over the host's threads, accumulated buffers in private copies that are added up in order.
// Law: the same threads give the same bits; a thread writes no accumulated buffer but its own.
#include <algorithm>
#include <cstring>

#include "runtime/cpu_backend.h"
#include "runtime/launch.h"

namespace heddle {

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

class CpuLauncher final : public Launcher {
public:
    explicit CpuLauncher(const Plan& plan) : plan_(plan), functions_(plan.loops.size()) {
        if (plan.loops.empty()) return;
        std::string why_not;
        backend_ = load_cpu_backend(&why_not);
        if (!backend_) throw Error("CPU backend: " + why_not);
    }
    std::pair<std::string, std::string> compile(std::size_t k) override {
        const std::string& name = plan_.program.launches[k].name;
        std::string text;
        functions_[k] = backend_->compile(name, plan_.loops[k], &text);
        return {name + ".ll", std::move(text)};
    }
    void run(Host&, std::size_t index, const Sizes&, std::vector<Array>& values) override;

private:
    void stage(Host&, std::size_t index, std::size_t first, std::size_t last, const Sizes&, std::vector<Array>& values);  // nests [first, last)
    const Plan& plan_;
    CpuBackend* backend_ = nullptr;
    std::vector<std::vector<CpuFn>> functions_;  // per launch, per nest
};

void CpuLauncher::run(Host& host, std::size_t index, const Sizes& sizes, std::vector<Array>& values) {
    const auto& nests = plan_.loops[index];
    for (std::size_t begin = 0, end; begin < nests.size(); begin = end) {
        for (end = begin; end < nests.size() && nests[end].stage == nests[begin].stage;) ++end;
        stage(host, index, begin, end, sizes, values);
    }
}
void CpuLauncher::stage(Host& host, std::size_t index, std::size_t first, std::size_t last, const Sizes& sizes, std::vector<Array>& values) {
    const auto& nests = plan_.loops[index];
    const std::vector<CpuFn>& functions = functions_[index];
    struct Run {
        std::vector<void*> buffers;
        std::vector<std::int64_t> sizes;
        std::int64_t units;
    };
    std::vector<Run> runs(last);
    std::int64_t most = 0;
    std::vector<Id> accumulated;  // by colliding additions: threads need copies of their own
    for (std::size_t k = first; k < last; ++k) {
        const loop::Nest& n = nests[k];
        for (const auto& s : n.sizes) runs[k].sizes.push_back(sizes.at(s));
        for (const auto& b : n.buffers) {
            Array& a = values[static_cast<std::size_t>(b.id)];
            runs[k].buffers.push_back(a.data);
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
        for (std::size_t k = first; k < last; ++k) {
            std::int64_t begin = runs[k].units * t / threads, end = runs[k].units * (t + 1) / threads;
            if (begin == end) continue;
            if (t == 0 || accumulated.empty()) {
                functions[k](runs[k].buffers.data(), runs[k].sizes.data(), begin, end);
                continue;
            }
            auto mine = runs[k].buffers;
            for (std::size_t b = 0; b < mine.size(); ++b)
                for (std::size_t a = 0; a < accumulated.size(); ++a)
                    if (nests[k].buffers[b].id == accumulated[a]) mine[b] = copies[static_cast<std::size_t>(t)][a].data;
            functions[k](mine.data(), runs[k].sizes.data(), begin, end);
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
}  // namespace

std::unique_ptr<Launcher> cpu_launcher(const Plan& plan) { return std::make_unique<CpuLauncher>(plan); }

}  // namespace heddle
