// Texts and plans on the machine; see launcher.h.
#include "tests/cuda_on_cpu/launcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace heddle::cuda_on_cpu {

namespace {

std::set<const Object*> ran;
int runs = 0;

struct Facts {
    std::string name;
    DType dtype = DType::f32;
    bool written = false, accumulated = false;
    bool given = false;  // has values from the start though it's written: an input that an update is written over
};
std::map<Id, Facts> facts(const std::vector<loop::Nest>& nests) {
    std::map<Id, Facts> of;
    for (const loop::Nest& n : nests)
        for (const loop::Buffer& b : n.buffers) {
            Facts& f = of[b.id];
            f.name = b.name, f.dtype = b.dtype, f.written |= b.written, f.accumulated |= b.accumulated;
        }
    return of;
}

void launch(const Object& code, const CudaSource& s, const std::map<Id, Facts>& of, const std::vector<Memory>& memory, const std::vector<std::int64_t>& sizes,
         std::int64_t blocks, unsigned seed, const std::set<Id>& whole) {
    std::vector<Buffer> buffers;
    for (std::size_t k = 0; k < s.buffers.size(); ++k) {
        const Facts& f = of.at(s.buffers[k]);
        buffers.push_back({f.name, f.dtype, memory[k].data, memory[k].bytes, !f.written || f.accumulated || f.given, whole.contains(s.buffers[k])});
    }
    Grid grid{static_cast<unsigned>(blocks), static_cast<unsigned>(s.threads), s.staged(), s.staged()};
    ++runs, ran.insert(&code);
    run_twice(code, grid, buffers, sizes, seed);
}

std::set<std::string> names(const Type& t) {
    std::vector<std::string> all;
    for (const Dim& d : t.shape) d.names(all);
    return {all.begin(), all.end()};
}

class CheckedLauncher final : public Launcher {
public:
    CheckedLauncher(const Plan& plan, const Frame& frame, unsigned seed) : plan_(plan), frame_(frame), seed_(seed), sources_(plan.loops.size()), objects_(plan.loops.size()) {
        std::map<Id, int> writers;
        for (const auto& nests : plan.loops)
            for (const auto& [id, f] : facts(nests)) writers[id] += f.written;
        for (const auto& [id, n] : writers)
            if (n == 1 && std::none_of(plan.program.counted.begin(), plan.program.counted.end(), [&](const auto& c) { return names(plan.program.graph.type(id)).contains(c.first); }))
                whole_.insert(id);  // one launch gives all of it
    }
    void compile(std::size_t k) override { sources_[k] = cuda_text(plan_.program.launches[k].name, plan_.loops[k]); }
    std::pair<std::string, std::string> text(std::size_t k) const override {
        return {sources_[k].kernel + ".cu", sources_[k].text};
    }
    void run(heddle::Host&, std::size_t index, const std::int64_t* sizes, void* const* memory) override {
        const auto& own = sources_[index].buffers;
        const bool aligned = !sources_[index].vectors || std::all_of(own.begin(), own.end(), [&](Id id) { return reinterpret_cast<std::uintptr_t>(memory[frame_.of(id)]) % CudaSource::kAligned == 0; });
        if (!aligned) {
            CudaSource s = cuda_text(plan_.program.launches[index].name, plan_.loops[index], {.vectors = false});
            return run(s, *cuda_on_cpu::compile({{s.kernel, s.text}})[0], index, sizes, memory);
        }
        if (!objects_[index]) {  // the first run of any compiles all
            std::vector<Source> texts;
            for (const CudaSource& source : sources_) texts.push_back({source.kernel, source.text});
            objects_ = cuda_on_cpu::compile(texts);
        }
        run(sources_[index], *objects_[index], index, sizes, memory);
    }

private:
    void run(const CudaSource& s, const Object& object, std::size_t index, const std::int64_t* sizes, void* const* memory) {
        auto of = facts(plan_.loops[index]);
        std::vector<Memory> arguments;
        for (Id id : s.buffers) {
            int b = frame_.of(id);
            Memory m{memory[b], static_cast<std::size_t>(frame_.bytes(b, sizes))};
            of.at(id).given = plan_.program.graph[id].is(Op::input);
            if (of.at(id).accumulated) std::fill_n(static_cast<char*>(m.data), m.bytes, 0);
            arguments.push_back(m);
        }
        std::vector<std::int64_t> values;
        for (const auto& name : s.sizes) values.push_back(sizes[frame_.names.slot(name)]);
        std::int64_t blocks = 0;
        ShapeExpr points = shape_expr(s.points, frame_.names), limits = shape_expr(s.limits, frame_.names);
        for (std::size_t n = 0; n < points.size(); ++n) blocks += s.blocks_for(points[n](sizes), n);
        for (const SizeExpr& e : limits) HEDDLE_CHECK(e(sizes) < std::int64_t{1} << 31, s.kernel + ": too large for 32-bit indices");
        if (blocks > 0) launch(object, s, of, arguments, values, blocks, seed_, whole_);
    }
    const Plan& plan_;
    const Frame& frame_;
    unsigned seed_;
    std::vector<CudaSource> sources_;
    Objects objects_;
    std::set<Id> whole_;
};

}  // namespace

void run(const CudaSource& s, const std::vector<loop::Nest>& nests, const std::vector<Memory>& memory, const Sizes& sizes, unsigned seed, bool whole) {
    std::vector<std::int64_t> values;
    for (const std::string& name : s.sizes) values.push_back(sizes.at(name));
    std::set<Id> all;
    if (whole) all.insert(s.buffers.begin(), s.buffers.end());
    std::int64_t blocks = s.blocks(sizes);
    auto object = compile({{s.kernel, s.text}})[0];
    if (blocks > 0) launch(*object, s, facts(nests), memory, values, blocks, seed, all);
}

Target target(unsigned seed) {
    Target t;
    t.launcher = [seed](const Plan& plan, const Frame& frame) { return std::make_unique<CheckedLauncher>(plan, frame, seed); };
    return t;
}

void compile_ahead(const std::vector<const Plan*>& plans) {
    std::vector<Source> texts;
    for (const Plan* p : plans)
        for (std::size_t k = 0; k < p->loops.size(); ++k) {
            CudaSource s = cuda_text(p->program.launches[k].name, p->loops[k]);
            texts.push_back({s.kernel, s.text});
        }
    compile(texts);
}

Count count() { return {static_cast<int>(ran.size()), runs}; }

}  // namespace heddle::cuda_on_cpu
