// Running a plan: sizes bound, memory for each stretch of steps whose sizes are known, launches and calls in order.
// Everything that doesn't depend on the sizes' values is decided when the plan is compiled, in arrange().
#include "runtime/executable.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <future>

#include "passes/memory.h"

namespace heddle {

namespace {
auto at(auto i) { return static_cast<std::size_t>(i); }
// Named sizes in a node's attributes.
std::string name_of(const Node& n) { return n.is(Op::dot) ? "dot" : n.text("name"); }
}  // namespace

Executable::Executable(Plan plan, const Target& target, const std::vector<std::string>& names) : plan_(std::move(plan)) {
    auto start = std::chrono::steady_clock::now();
    number(names);
    arrange();
    auto count = plan_.program.launches.size();
    launcher_ = target.launcher ? target.launcher(plan_, frame_) : target.cuda() ? cuda_launcher(plan_, frame_, target) : cpu_launcher(plan_, frame_);
    // Two at a time: the machine that compiles is the machine that trains.
    std::atomic<std::size_t> next{0};
    auto work = [&] {
        for (std::size_t k; (k = next++) < count;) launcher_->compile(k);
    };
    std::future<void> other;
    if (count > 1) other = std::async(std::launch::async, work);
    work();
    if (other.valid()) other.get();
    compile_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
Executable::~Executable() = default;

std::vector<std::pair<std::string, std::string>> Executable::texts() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (std::size_t k = 0; k < plan_.program.launches.size(); ++k) all.push_back(launcher_->text(k));
    return all;
}

// Slots for every name, numbers for every value that has memory.
void Executable::number(const std::vector<std::string>& names) {
    const Graph& g = plan_.program.graph;
    frame_.names = SizeNames(names);
    for (const auto& n : g.symbols()) frame_.names.add(n);
    for (const Node& n : g.nodes)
        for (const auto& s : names_in(n.attrs)) frame_.names.add(s);
    for (const auto& nests : plan_.loops)
        for (const loop::Nest& n : nests)
            for (const auto& s : n.sizes) frame_.names.add(s);
    for (const Bound& b : plan_.bounds) frame_.names.add(b.size), frame_.names.add(b.capacity);
    frame_.buffer.assign(g.nodes.size(), -1);
    for (Id id = 0; id < g.size(); ++id) {
        if (!plan_.program.is_stored(id) && g[id].kind() != Kind::call && !g[id].is(Op::dot)) continue;
        frame_.buffer[at(id)] = static_cast<int>(frame_.elements.size());
        frame_.elements.emplace_back(numel(g.type(id).shape), frame_.names);
        frame_.dtypes.push_back(g.type(id).dtype);
    }
    for (const Update& u : plan_.program.updates) frame_.buffer[at(g.outputs[at(u.output)])] = frame_.of(g.inputs[at(u.input)]);
}

void Executable::arrange() {
    const Program& p = plan_.program;
    const Graph& g = p.graph;
    const auto& names = frame_.names;
    constexpr int kNever = INT_MAX;
    std::vector<int> bound(names.list().size(), kNever);  // the step before which a name is known
    auto binds = [&](const ShapeBinding& shape, int step) {
        for (const SizeExpr& e : shape.shape())
            if (int s = e.symbol(); s >= 0) bound[at(s)] = std::min(bound[at(s)], step);
    };
    for (Id i : g.inputs) {
        inputs_.push_back({frame_.of(i), g.type(i).dtype,
                           ShapeBinding(g.type(i).shape, names, "input " + g[i].text("name"), ": fuse again, or name this dimension as one that varies")});
        rest_ |= inputs_.back().shape.has_rest();
        binds(inputs_.back().shape, 0);
    }
    std::vector<int> writer(g.nodes.size(), -1);  // per node: the step whose launch or product writes it
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s) {
        const Step& step = p.steps[at(s)];
        Work& w = work_.emplace_back();
        w.launch = step.launch;
        if (step.launch >= 0) {
            for (const Nest& n : p.launches[at(step.launch)].nests)
                for (Id r : n.roots) writer[at(r)] = s;
            continue;
        }
        for (Id id : step.reads) {
            const Node& n = g[id];
            Read r{frame_.of(library_operand(g, n.in.back()).base)};
            if (n.is(Op::compact)) r.slot = names.slot(print(n.type.shape[0])), bound[at(r.slot)] = std::min(bound[at(r.slot)], s + 1);
            else r.expected = n.number("value"), w.results.push_back({0, frame_.of(id), ShapeBinding(g.type(id).shape, names, name_of(n), "")});
            w.reads.push_back(r);
        }
        if (!w.reads.empty()) continue;
        const Node& n = g[step.call];
        w.call = &n;
        for (Id i : n.in) {
            auto o = library_operand(g, i);
            w.operands.push_back({frame_.of(o.base), o.transposed, shape_expr(g.type(i).shape, names)});
        }
        if (n.is(Op::dot)) {
            w.product = frame_.of(step.call);
            w.shape = shape_expr(n.type.shape, names);
            writer[at(step.call)] = s;
            continue;
        }
        w.named = n.in.empty() || !names_in(n.attrs).empty();
        auto result = [&](std::size_t index, Id id) {
            w.results.push_back({index, frame_.of(id), ShapeBinding(g.type(id).shape, names, name_of(n), "")});
            binds(w.results.back().shape, s + 1);
        };
        result(0, step.call);
        for (Id id = step.call + 1; id < g.size() && !n.more.empty(); ++id)
            if (g[id].is(Op::result) && g[id].in[0] == step.call) result(at(g[id].integer("index")), id);
    }
    for (const Bound& b : plan_.bounds) {  // what is given, or all that there are
        bounded_.push_back({names.slot(b.size), names.slot(b.capacity), SizeExpr(b.most, names)});
        for (int s : {bounded_.back().size, bounded_.back().capacity}) bound[at(s)] = 0;
    }
    for (const Node& n : g.nodes)
        if (n.is(Op::blocks) && n.type.shape[0].is_symbol()) {
            Derived d{names.slot(print(n.type.shape[0])), SizeExpr(g.type(n.in[0]).shape[0], names), n.type.shape[1].value()};
            std::vector<int> slots;
            d.of.slots(slots);
            if (bound[at(d.slot)] != kNever) continue;
            int from = 0;
            for (int s : slots) {
                if (bound[at(s)] == kNever) bound[at(s)] = 0, given_.push_back(s);  // nothing here binds it
                from = std::max(from, bound[at(s)]);
            }
            bound[at(d.slot)] = from;
            derived_.push_back(d);
        }
    if (plan_.check >= 0) work_[at(writer[at(g.outputs[at(plan_.check)])])].checks = true;
    // A name that is needed before anything binds it has to be given.
    for (int s = 0; s < static_cast<int>(work_.size()); ++s)
        for (int slot : needed(work_[at(s)]))
            if (bound[at(slot)] > s) bound[at(slot)] = 0, given_.push_back(slot);
    sources_.assign(frame_.elements.size(), {});
    for (std::size_t k = 0; k < inputs_.size(); ++k) sources_[at(inputs_[k].buffer)] = {Source::From::input, k};
    std::vector<int> output(frame_.elements.size(), -1);  // per buffer: the first output that it is
    for (std::size_t k = 0; k < g.outputs.size(); ++k) {
        int b = frame_.of(g.outputs[k]);
        if (output[at(b)] < 0) output[at(b)] = static_cast<int>(k);
        outputs_.push_back(b);
        first_.push_back(at(output[at(b)]));
    }
    for (Id id = 0; id < g.size(); ++id) {
        int last = p.last_use[at(id)], b = frame_.of(id);
        if (p.memory_of(id) != id) continue;  // the input's
        if (writer[at(id)] >= 0 && b >= 0) {
            Fresh f{b, output[at(b)], shape_expr(g.type(id).shape, names), writer[at(id)], std::max(writer[at(id)], last)};
            std::vector<int> slots;
            for (const SizeExpr& e : f.shape) e.slots(slots);
            int from = 0;
            for (int slot : slots) {
                if (bound[at(slot)] > f.first) bound[at(slot)] = 0, given_.push_back(slot);
                from = std::max(from, bound[at(slot)]);
            }
            Work& w = work_[at(from)];
            if (w.stretch < 0) w.stretch = static_cast<int>(stretches_.size()), stretches_.emplace_back();
            Stretch& stretch = stretches_[at(w.stretch)];
            sources_[at(b)] = f.output >= 0 ? Source{Source::From::output, at(f.output)} : Source{Source::From::arena, at(w.stretch)};
            (f.output >= 0 ? stretch.outputs : stretch.arena).push_back(std::move(f));
        } else if (b >= 0 && !g[id].is(Op::input)) {
            sources_[at(b)] = {Source::From::call, results_++};
            if (last >= 0 && last < static_cast<int>(work_.size())) work_[at(last)].dropped.push_back(sources_[at(b)].index);
        }
    }
}
std::vector<int> Executable::needed(const Work& w) const {
    std::vector<int> slots;
    auto shape = [&](const ShapeExpr& dims) {
        for (const SizeExpr& e : dims) e.slots(slots);
    };
    if (w.launch >= 0)
        for (const loop::Nest& n : plan_.loops[at(w.launch)]) {
            for (const auto& s : n.sizes) slots.push_back(frame_.names.slot(s));
            shape(shape_expr(n.outer, frame_.names));
        }
    else if (w.call)
        for (const auto& s : names_in(w.call->attrs)) slots.push_back(frame_.names.slot(s));
    for (const Operand& o : w.operands) shape(o.shape);
    shape(w.shape);
    return slots;
}

// ---- one run
struct Executable::Running {
    Host& host;
    std::span<const Array> inputs;
    std::span<Array> outputs;
    SizeValues& sizes;
    Small<void*, 48> memory;                        // per buffer
    std::vector<Owner> arenas;                      // per stretch, once there is one
    std::vector<Array> results;                     // of calls, once there is one
};

void Executable::run(Host& host, std::span<const Array> inputs, std::span<Array> outputs, SizeValues& sizes, const Checked& checked) const {
    HEDDLE_CHECK(outputs.size() == outputs_.size(), "room for " + std::to_string(outputs.size()) + " outputs");
    bind(inputs, sizes);
    Running r{host, inputs, outputs, sizes, Small<void*, 48>(frame_.elements.size()), {}, {}};
    for (std::size_t k = 0; k < inputs.size(); ++k) r.memory[at(inputs_[k].buffer)] = inputs[k].data;
    for (const Work& w : work_) {
        if (w.stretch >= 0) begin(w.stretch, r);
        if (w.launch >= 0) launcher_->run(host, at(w.launch), sizes.data(), r.memory.data());
        else if (!w.reads.empty()) read(w, r);
        else call(w, r);
        for (std::size_t k : w.dropped) r.results[k].owner.reset();
        if (w.checks && checked) checked(outputs[first_[at(plan_.check)]]);
    }
    for (std::size_t k = 0; k < outputs.size(); ++k)
        if (const Source& s = sources_[at(outputs_[k])]; s.from != Source::From::output || s.index != k) outputs[k] = array(outputs_[k], r);
}
std::vector<Array> Executable::run(Host& host, const std::vector<Array>& inputs, Sizes& sizes) const {
    SizeValues values = frame_.names.values(sizes);
    std::vector<Array> outputs(outputs_.size());
    run(host, inputs, outputs, values);
    for (auto& [name, value] : frame_.names.named(values)) sizes[name] = value;
    return outputs;
}

Extents Executable::extents(const ShapeExpr& shape, const SizeValues& sizes) {
    Extents e(shape.size());
    for (std::size_t d = 0; d < shape.size(); ++d) e[d] = shape[d](sizes.data());
    return e;
}

void Executable::bind(std::span<const Array> inputs, SizeValues& sizes) const {
    const Graph& g = plan_.program.graph;
    if (inputs.size() != inputs_.size()) throw Error(fmt::format("{}: got {} inputs, expected {}", g.name, inputs.size(), inputs_.size()));
    sizes.resize(frame_.names.list().size(), kUnknown);
    for (std::size_t k = 0; k < inputs.size(); ++k) {
        const Input& in = inputs_[k];
        if (inputs[k].dtype != in.dtype)
            throw Error(fmt::format("{}: got {}, expected {}: capture again for another dtype", in.shape.who(), name(inputs[k].dtype), name(in.dtype)));
        in.shape.bind(inputs[k].sizes, sizes.data());
    }
    derive(sizes);
    for (std::size_t k = 0; rest_ && k < inputs.size(); ++k) inputs_[k].shape.check(inputs[k].sizes, sizes.data());
    for (int s : given_)
        if (sizes[at(s)] == kUnknown) throw Error(fmt::format("{}: size {} has no value", g.name, frame_.names.list()[at(s)]));
}

// Memory for everything whose size is known from here on: outputs on their own, the rest side by side in one arena.
void Executable::begin(int index, Running& r) const {
    const Stretch& stretch = stretches_[at(index)];
    for (const Fresh& f : stretch.outputs) {
        Array& a = r.outputs[at(f.output)] = r.host.allocate(frame_.dtypes[at(f.buffer)], extents(f.shape, r.sizes));
        r.memory[at(f.buffer)] = a.data;
    }
    if (stretch.arena.empty()) return;
    auto l = layout(stretch, r.sizes);
    Array arena = r.host.allocate(DType::b1, {l->total});
    for (std::size_t k = 0; k < stretch.arena.size(); ++k) r.memory[at(stretch.arena[k].buffer)] = static_cast<char*>(arena.data) + l->offsets[k];
    r.arenas.resize(stretches_.size());
    r.arenas[at(index)] = std::move(arena.owner);
}
Executable::Layout Executable::laid_out(const Stretch& stretch, const SizeValues& sizes) const {
    std::vector<Slot> slots;
    for (const Fresh& f : stretch.arena) slots.push_back({f.buffer, f.first, f.last, frame_.bytes(f.buffer, sizes.data())});
    Layout l{sizes, {}, place(slots)};
    for (const Slot& s : slots) l.offsets.push_back(s.offset);
    return l;
}
std::shared_ptr<const Executable::Layout> Executable::layout(const Stretch& stretch, const SizeValues& sizes) const {
    auto last = stretch.last.load();
    if (last && last->sizes == sizes) return last;
    last = std::make_shared<Layout>(laid_out(stretch, sizes));
    stretch.last.store(last);
    return last;
}

int Executable::same_input(std::size_t k) const {
    const Source& s = sources_[at(outputs_[k])];
    return s.from == Source::From::input ? static_cast<int>(s.index) : -1;
}

// A value with whoever owns its memory.
Array Executable::array(int buffer, const Running& r) const {
    const Source& s = sources_[at(buffer)];
    switch (s.from) {
        case Source::From::input: return r.inputs[s.index];
        case Source::From::output: return r.outputs[s.index];
        case Source::From::arena: return {r.memory[at(buffer)], frame_.dtypes[at(buffer)], {}, false, r.arenas[s.index]};
        case Source::From::call: break;
    }
    return r.results[s.index];
}

std::vector<Array> Executable::operands(const Work& w, const Running& r) const {
    std::vector<Array> all;
    all.reserve(w.operands.size());
    for (const Operand& o : w.operands) {
        Array& a = all.emplace_back(array(o.buffer, r));
        a.transposed = o.transposed;
        a.sizes = extents(o.shape, r.sizes);
    }
    return all;
}
void Executable::call(const Work& w, Running& r) const {
    if (w.product >= 0) {
        Array out = array(w.product, r);
        out.sizes = extents(w.shape, r.sizes);
        return r.host.dot(operands(w, r), out, w.call->flag("relu"));
    }
    auto results = r.host.call(*w.call, operands(w, r), w.named ? frame_.names.named(r.sizes) : Sizes{});
    r.results.resize(results_);
    for (const Result& result : w.results) {
        Array& a = results.at(result.index);
        result.shape.bind(a.sizes, r.sizes.data());
        result.shape.check(a.sizes, r.sizes.data());
        r.memory[at(result.buffer)] = a.data;
        r.results[sources_[at(result.buffer)].index] = a;
    }
}

void Executable::derive(SizeValues& sizes) const {
    for (const Bounded& b : bounded_) {
        std::int64_t& room = sizes[at(b.capacity)];
        if (room == kUnknown && b.most.known(sizes.data())) room = b.most(sizes.data());
        sizes[at(b.size)] = room;
    }
    for (const Derived& d : derived_)
        if (sizes[at(d.slot)] == kUnknown && d.of.known(sizes.data())) sizes[at(d.slot)] = (d.of(sizes.data()) + d.width - 1) / d.width;
}
void Executable::read(const Work& w, Running& r) const {
    std::vector<Array> numbers;
    for (const Read& k : w.reads) numbers.push_back({r.memory[at(k.buffer)], frame_.dtypes[at(k.buffer)], {}, false, {}});
    std::vector<double> values(numbers.size());
    r.host.read(numbers, values);
    for (std::size_t k = 0; k < values.size(); ++k) {
        if (w.reads[k].slot < 0) {
            if (values[k] != w.reads[k].expected) throw GuardFailed{};
            continue;
        }
        std::int64_t& size = r.sizes[at(w.reads[k].slot)];
        const auto count = static_cast<std::int64_t>(values[k]);
        if (size != kUnknown && size != count) throw GuardFailed{};  // two masks that had as many rows at capture now have not
        size = count;
    }
    derive(r.sizes);
    r.results.resize(results_);
    std::size_t guard = 0;
    for (const Read& k : w.reads)
        if (k.slot < 0) {
            const Result& result = w.results[guard++];
            r.memory[at(result.buffer)] = r.memory[at(k.buffer)];
            r.results[sources_[at(result.buffer)].index] = array(k.buffer, r);
        }
}

Stats Executable::stats(const SizeValues& sizes) const {
    Stats s;
    for (const Work& w : work_) {
        s.reads += !w.reads.empty();
        if (w.launch < 0) {
            s.calls += w.call != nullptr;
            continue;
        }
        ++s.launches;
        for (const loop::Nest& n : plan_.loops[at(w.launch)])
            for (const loop::Buffer& b : n.buffers) s.bytes += frame_.bytes(frame_.of(b.id), sizes.data());
    }
    for (const Stretch& stretch : stretches_) s.arena += laid_out(stretch, sizes).total;
    return s;
}

}  // namespace heddle
