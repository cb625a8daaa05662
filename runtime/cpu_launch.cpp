// Launches on the CPU: units of a nest over the host's threads, accumulated buffers in private copies that are added up in order.
// Law: the same threads give the same bits, and a deterministic plan's any number of them; what runs beside others writes no accumulated buffer
// but its own. Little work stays on the calling thread. Nests of a plan that have the same code are compiled once.
#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "passes/schedule.h"
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
constexpr std::int64_t kBlock = 1 << 20, kMostBlocks = 1 << 12;  // bytes that a core keeps near
constexpr std::int64_t kParts = 8;        // that a deterministic plan's sums are made of: more threads than these wait
constexpr std::size_t kFew = 16;          // nests, arguments: more take memory of their own

class CpuLauncher final : public Launcher {
public:
    CpuLauncher(const Plan& plan, const Frame& frame) : plan_(plan), frame_(frame), launches_(plan.loops.size()) {
        if (plan.loops.empty()) return;
        std::string why_not;
        backend_ = load_cpu_backend(&why_not);
        if (!backend_) throw Error("CPU backend: " + why_not);
        share();
    }
    void compile(std::size_t k) override;
    std::pair<std::string, std::string> text(std::size_t k) const override {
        const std::string& name = plan_.program.launches[k].name;
        return {name + ".ll", backend_->text(name, plan_.loops[k])};
    }
    void run(Host&, std::size_t index, const std::int64_t* sizes, void* const* memory) override;

private:
    struct Loop {
        const loop::Nest* nest;
        const CpuFn* function;            // there once all launches are compiled
        std::vector<int> buffers, sizes;  // arguments: numbers and slots of the frame
        std::vector<int> copied;          // per argument: which of Stage::copied, or -1
        ShapeExpr outer;
        void run(void* const* memory, const std::int64_t* values, std::int64_t begin, std::int64_t end, const std::vector<Array>& copies) const;
    };
    struct Group {                        // loops that read or write common memory
        std::vector<std::size_t> loops;   // of the stage
        SizeExpr traffic;                 // bytes of all that they read and write
        std::int64_t blocks(const std::int64_t* sizes) const { return loops.size() > 1 ? std::clamp<std::int64_t>(traffic(sizes) / kBlock, 1, kMostBlocks) : 1; }
    };
    struct Count {                        // a size in memory
        int slot, buffer;
    };
    struct Stage {
        std::vector<Loop> loops;
        std::vector<Group> groups;
        std::vector<Count> counts;
        std::vector<int> cleared;         // accumulated buffers
        std::vector<int> copied;          // those where additions of two units may collide: parts need copies of their own
        SizeExpr operations;              // on one element, of all loops
        // Part t of `parts` of every loop's units; those of a group in blocks in turns: what one brought near, or wrote a part of, the next finds there.
        void run(void* const* memory, const std::int64_t* values, const std::int64_t* units, std::int64_t t, std::int64_t parts, const std::vector<Array>& copies) const {
            for (const Group& g : groups) {
                std::int64_t blocks = g.blocks(values);
                for (std::int64_t b = t * blocks; b < (t + 1) * blocks; ++b)
                    for (std::size_t k : g.loops) loops[k].run(memory, values, units[k] * b / (parts * blocks), units[k] * (b + 1) / (parts * blocks), copies);
            }
        }
    };
    void clear(int buffer, void* to, const std::int64_t* sizes) const {
        if (auto n = frame_.bytes(buffer, sizes); n > 0) std::memset(to, 0, static_cast<std::size_t>(n));
    }
    void share();
    void group(Stage&) const;
    void run(Host&, const Stage&, const std::int64_t* sizes, void* const* memory) const;
    void run_on(int parts, Host&, const Stage&, const std::int64_t* units, const std::int64_t* sizes, void* const* memory) const;

    const Plan& plan_;
    const Frame& frame_;
    CpuBackend* backend_ = nullptr;
    std::vector<std::vector<Stage>> launches_;
    struct Code {
        std::vector<loop::Nest> nests;    // that no launch before has the code of
        std::vector<CpuFn> functions;     // of them
        std::vector<std::pair<std::size_t, std::size_t>> of;  // per nest of the launch: whose code it is, {launch, position}
    };
    std::vector<Code> code_;              // per launch
};

// What one nest computes, counted in values.
Dim operations(const loop::Nest& n) {
    auto count = [](const auto& list) { return Dim(static_cast<std::int64_t>(list.size())); };
    Dim each = count(n.prologue);
    for (const loop::Phase& p : n.phases) each = each + p.extent * count(p.body) + count(p.after);
    return numel(n.outer) * each;
}

void CpuLauncher::share() {
    std::map<std::string, std::pair<std::size_t, std::size_t>> known;
    code_.resize(plan_.loops.size());
    for (std::size_t k = 0; k < code_.size(); ++k) {
        Code& c = code_[k];
        for (const loop::Nest& n : plan_.loops[k]) {
            const auto [it, fresh] = known.try_emplace(loop::code(n), k, c.nests.size());
            if (fresh) c.nests.push_back(n);
            c.of.push_back(it->second);
        }
        c.functions.resize(c.nests.size());
    }
}

void CpuLauncher::compile(std::size_t k) {
    const auto& nests = plan_.loops[k];
    if (Code& mine = code_[k]; !mine.nests.empty()) {
        const auto functions = backend_->compile(plan_.program.launches[k].name, std::exchange(mine.nests, {}));
        std::copy(functions.begin(), functions.end(), mine.functions.begin());
    }
    for (std::size_t i = 0; i < nests.size(); ++i) {
        const loop::Nest& n = nests[i];
        if (i == 0 || n.stage != nests[i - 1].stage) launches_[k].emplace_back();
        Stage& stage = launches_[k].back();
        const auto [launch, position] = code_[k].of[i];
        Loop& l = stage.loops.emplace_back(Loop{&n, &code_[launch].functions[position], {}, {}, {}, shape_expr(n.outer, frame_.names)});
        for (const auto& s : n.sizes) l.sizes.push_back(frame_.names.slot(s));
        for (const loop::Counted& c : n.counted)
            stage.counts.push_back({frame_.names.slot(c.size), frame_.of(n.buffers[static_cast<std::size_t>(c.buffer)].id)});
        for (const loop::Buffer& b : n.buffers) {
            int number = frame_.of(b.id);
            l.buffers.push_back(number);
            auto once = [&](std::vector<int>& list) {
                if (std::find(list.begin(), list.end(), number) == list.end()) list.push_back(number);
            };
            if (b.accumulated) once(stage.cleared);
            if (b.accumulated && !b.written) once(stage.copied);
        }
    }
    for (Stage& stage : launches_[k]) {
        Dim all = 0;
        for (Loop& l : stage.loops) {
            all = all + operations(*l.nest);
            for (int b : l.buffers) {
                auto it = std::find(stage.copied.begin(), stage.copied.end(), b);
                l.copied.push_back(it == stage.copied.end() ? -1 : static_cast<int>(it - stage.copied.begin()));
            }
        }
        stage.operations = SizeExpr(all, frame_.names);
        group(stage);
    }
}
// Loops with a common buffer, or with one that both share with others, are of one group. A few numbers that all of them read tie none.
void CpuLauncher::group(Stage& stage) const {
    auto tied = [&](const loop::Buffer& b) {
        Dim n = numel(plan_.program.graph.type(b.id).shape);
        return !n.is_const() || n.value() > kShare / 4;
    };
    std::vector<std::size_t> of(stage.loops.size());
    for (std::size_t k = 0; k < of.size(); ++k) of[k] = k;
    for (std::size_t k = 0; k < of.size(); ++k)
        for (std::size_t j = 0; j < k; ++j) {
            const auto &mine = stage.loops[k].nest->buffers, &theirs = stage.loops[j].nest->buffers;
            if (std::any_of(mine.begin(), mine.end(), [&](const loop::Buffer& b) {
                    return tied(b) && std::any_of(theirs.begin(), theirs.end(), [&](const loop::Buffer& o) { return o.id == b.id; });
                }))
                std::replace(of.begin(), of.end(), of[k], of[j]);
        }
    for (std::size_t k = 0; k < of.size(); ++k) {
        if (std::find(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(k), of[k]) != of.begin() + static_cast<std::ptrdiff_t>(k)) continue;
        Group g;
        Dim bytes_of_all = 0;
        std::set<Id> seen;
        for (std::size_t j = k; j < of.size(); ++j) {
            if (of[j] != of[k]) continue;
            g.loops.push_back(j);
            for (const loop::Buffer& b : stage.loops[j].nest->buffers)
                if (seen.insert(b.id).second) bytes_of_all = bytes_of_all + numel(plan_.program.graph.type(b.id).shape) * Dim(bytes(b.dtype));
        }
        // What works most goes first: it asks for memory ahead of itself, and the others find it near.
        std::stable_sort(g.loops.begin(), g.loops.end(), [&](std::size_t a, std::size_t b) { return typical(operations(*stage.loops[a].nest)) > typical(operations(*stage.loops[b].nest)); });
        g.traffic = SizeExpr(bytes_of_all, frame_.names);
        stage.groups.push_back(std::move(g));
    }
}

void CpuLauncher::Loop::run(void* const* memory, const std::int64_t* values, std::int64_t begin, std::int64_t end, const std::vector<Array>& copies) const {
    if (begin == end) return;
    Small<void*, kFew> pointers(buffers.size());
    Small<std::int64_t, kFew> numbers(sizes.size());
    for (std::size_t k = 0; k < buffers.size(); ++k)
        pointers[k] = copies.empty() || copied[k] < 0 ? memory[buffers[k]] : copies[static_cast<std::size_t>(copied[k])].data;
    for (std::size_t k = 0; k < sizes.size(); ++k) numbers[k] = values[sizes[k]];
    (*function)(pointers.data(), numbers.data(), begin, end);
}

void CpuLauncher::run(Host& host, std::size_t index, const std::int64_t* sizes, void* const* memory) {
    for (const Stage& stage : launches_[index]) {
        if (stage.counts.empty()) {
            run(host, stage, sizes, memory);
            continue;
        }
        SizeValues counted(frame_.names.list().size());
        std::copy_n(sizes, counted.size(), counted.begin());
        for (const Count& c : stage.counts) counted[static_cast<std::size_t>(c.slot)] = *static_cast<const std::int64_t*>(memory[c.buffer]);
        run(host, stage, counted.data(), memory);
    }
}
void CpuLauncher::run(Host& host, const Stage& c, const std::int64_t* sizes, void* const* memory) const {
    for (int b : c.cleared) clear(b, memory[b], sizes);
    Small<std::int64_t, kFew> count(c.loops.size());
    std::int64_t most = 0;
    for (std::size_t k = 0; k < c.loops.size(); ++k) {
        const Loop& l = c.loops[k];
        Small<std::int64_t, 8> outer(l.outer.size());
        for (std::size_t d = 0; d < outer.size(); ++d) outer[d] = l.outer[d](sizes);
        most = std::max(most, count[k] = units(*l.nest, outer.data()));
    }
    most = std::min(most, c.operations(sizes) / host.grain());
    const bool in_parts = plan_.deterministic && !c.copied.empty();
    int parts = most > 1 ? static_cast<int>(std::min<std::int64_t>(most, in_parts ? kParts : host.threads())) : 1;
    if (parts > 1) return run_on(parts, host, c, count.data(), sizes, memory);
    c.run(memory, sizes, count.data(), 0, 1, {});
}

void CpuLauncher::run_on(int parts, Host& host, const Stage& c, const std::int64_t* units, const std::int64_t* sizes, void* const* memory) const {
    std::vector<std::vector<Array>> copies(static_cast<std::size_t>(parts));  // [part][copied], none for part 0
    for (int t = 1; t < parts; ++t)
        for (int b : c.copied) copies[static_cast<std::size_t>(t)].push_back(host.allocate(frame_.dtypes[static_cast<std::size_t>(b)], {frame_.elements[static_cast<std::size_t>(b)](sizes)}));
    host.parallel(parts, [&](int t) {
        const auto& mine = copies[static_cast<std::size_t>(t)];
        for (std::size_t a = 0; a < mine.size(); ++a) clear(c.copied[a], mine[a].data, sizes);
        c.run(memory, sizes, units, t, parts, mine);
    });
    if (c.copied.empty()) return;
    host.parallel(parts, [&](int t) {  // each adds up a range of all copies, always in the order of parts
        for (std::size_t a = 0; a < c.copied.size(); ++a) {
            auto b = static_cast<std::size_t>(c.copied[a]);
            std::int64_t n = frame_.elements[b](sizes);
            if (n < kShare && t > 0) continue;
            std::int64_t begin = n < kShare ? 0 : n * t / parts, end = n < kShare ? n : n * (t + 1) / parts;
            for (int from = 1; from < parts; ++from) add_range(frame_.dtypes[b], memory[b], copies[static_cast<std::size_t>(from)][a].data, begin, end);
        }
    });
}
}  // namespace

std::unique_ptr<Launcher> cpu_launcher(const Plan& plan, const Frame& frame) { return std::make_unique<CpuLauncher>(plan, frame); }

}  // namespace heddle
