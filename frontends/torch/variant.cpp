// From a callable to compiled plans, and what can be told about them.
#include "frontends/torch/variant.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "codegen/cuda/cuda.h"
#include "frontends/aten.h"
#include "ir/text.h"
#include "runtime/device.h"
#include "passes/prepare.h"
#include "runtime/nvrtc.h"
#include "runtime/traffic.h"

namespace heddle {

namespace {
constexpr std::int64_t kFewRows = 4096;  // of a mask, where the example had fewer: an early step's few rows say little of later ones

Machine machine_of(at::Device d) { return d.is_cuda() ? Machine::cuda : Machine::cpu; }

bool draws(const Graph& g) {
    for (const Node& n : g.nodes)
        if (n.flag("random")) return true;
    return false;
}
Plan cuda_plan(const Variant& v, const Graph& direction) { return plan(direction, {}, {.machine = Machine::cuda, .deterministic = v.deterministic()}); }
std::string listed(const Graph& g, Id id) {
    return print_line(g, id);
}
// Per node and input: does a gradient flow from the one to the other?
std::vector<std::vector<char>> reached_inputs(const Graph& g, const std::vector<char>& wants) {
    std::vector<std::vector<char>> r(g.nodes.size(), std::vector<char>(g.inputs.size()));
    for (std::size_t k = 0; k < g.inputs.size(); ++k) {
        if (!wants[k]) continue;
        std::vector<char> one(g.inputs.size());
        one[k] = 1;
        auto from = reached(g, one);
        for (std::size_t id = 0; id < from.size(); ++id) r[id][k] = from[id];
    }
    return r;
}
// What the callable computes doesn't depend on who captures it: arguments are tensors of their own, so that one that is given twice, or that
// the callable also holds, stays an argument.
Captured captured_apart(const Callable& callable, const Tensors& example, const CaptureOptions& options, bool gradients) {
    c10::InferenceMode no_inference(false);
    at::AutoGradMode grad(gradients);
    Tensors apart;
    for (const at::Tensor& t : example) apart.push_back(t.detach().set_requires_grad(t.requires_grad()));
    return capture(callable, apart, options);
}
}  // namespace

std::shared_ptr<Variant> capture_variant(const Callable& callable, const Tensors& example, const std::vector<Varying>& dynamic, const FuseOptions& fuse_options, bool as_it_lies, const Elsewhere* elsewhere) {
    const std::string& name = fuse_options.name;
    auto v = std::make_shared<Variant>();
    v->deterministic_ = fuse_options.deterministic, v->budget_ = fuse_options.activation_memory_budget;
    v->arguments_ = example.size(), v->dynamic_ = dynamic, v->exact_ = fuse_options.recapture, v->as_it_lies_ = as_it_lies;
    for (const Varying& d : dynamic)
        if (d.dim == Varying::kValue && parse_dim(d.name).is_symbol()) v->integers.emplace_back(d.name, static_cast<std::size_t>(d.input));
    CaptureOptions options;
    options.dynamic = dynamic;
    options.host_read = HostRead::guard;
    options.name = name;
    if (elsewhere) options.at = elsewhere->at, options.as = elsewhere->as, options.once = elsewhere->once;
    v->captured = captured_apart(callable, example, options, !fuse_options.recapture || at::GradMode::is_enabled());
    Tensors everything = example;
    everything.insert(everything.end(), v->captured.implicit.begin(), v->captured.implicit.end());
    for (const at::Tensor& t : everything) v->wants.push_back(t.requires_grad());
    v->device = common_device(everything);
    v->host = torch_host(v->device);
    v->returned = v->captured.results;
    v->outputs = v->returned + v->captured.writes.size();
    v->captured.origins.resize(v->outputs);
    v->captured.order.resize(v->outputs);
    v->random = draws(v->captured.graph);
    v->lower(everything);
    Sizes& sizes = v->example.sizes;
    for (std::size_t k = 0; k < example.size(); ++k) {
        const Shape& s = v->body.type(v->body.inputs[k]).shape;
        for (std::size_t d = 0; d < s.size(); ++d)
            if (s[d].is_symbol()) sizes[print(s[d])] = example[k].size(static_cast<std::int64_t>(d));
    }
    for (const auto& [name, input] : v->integers) sizes[name] = example[input].item<std::int64_t>();
    for (const auto& [name, rows] : v->captured.rows) sizes[name] = std::max(rows, kFewRows);
    for (const Captured::Quotient& q : v->captured.quotients) sizes[q.name] = decided(Choice::Of::div, q.of.eval(sizes), q.by);
    v->example.rows = v->captured.rows, v->example.machine = machine_of(v->device);
    everything.clear();  // what the callable alone holds is counted below
    for (at::Tensor& t : v->captured.implicit) {
        if (t.use_count() == 1) throw Error(fmt::format("{}: reads a tensor ({}) that each call makes anew by other means than PyTorch's ops: make it outside and hold it, or pass it as an input", name, c10::str(t.sizes())));
        v->held_.emplace_back(t.getIntrusivePtr());
    }
    v->captured.implicit.clear();
    // Asked of the captured ops, of which the lowered ones may drop a path on which nothing flows (a softmax over one element).
    auto reached = reached_inputs(v->captured.graph, v->wants);
    for (std::size_t i = 0; i < v->outputs; ++i) {
        const auto& from = reached[static_cast<std::size_t>(v->captured.graph.outputs[i])];
        auto& inputs = v->reaches.emplace_back();
        for (std::size_t k = 0; k < from.size(); ++k)
            if (from[k]) inputs.push_back(k);
    }
    return v;
}

void Variant::lower(const Tensors& everything) {
    guard = Guard(everything, dynamic_, exact_);
    guard.decide_as(captured);
    stages.clear(), results.clear();
    orders.assign(everything.size(), {});
    stages.emplace_back("capture", captured.graph);
    Graph g = lower_aten(captured.graph, device.is_cpu());  // on a device, reading a guard would wait for it; eager's errors there aren't exceptions either
    if (as_it_lies_) {
        for (std::size_t k = arguments_; k < everything.size(); ++k) orders[k] = memory_order(everything[k]);
        g = in_memory_order(g, orders);
    }
    const auto counts = [](const Node& n) { return n.is(Op::call) && n.text("name") == "aten.nonzero.default"; };
    guarded = captured.guards > 0 || g.outputs.size() > captured.graph.outputs.size() || std::any_of(g.nodes.begin(), g.nodes.end(), counts);
    forward_outputs = g.outputs.size();
    stages.emplace_back("lower_aten", g);
    // What is another tensor, or a view of one, is made from that at run time; the plan has no gradient to take through it.
    using Of = Captured::Origin::Of;
    for (std::size_t i = 0; i < outputs; ++i) {
        const Captured::Origin& o = captured.origins[i];
        Result r;
        r.of = o.of;
        r.index = static_cast<std::size_t>(std::max(o.index, 0));
        for (Id id : o.views) r.views.emplace_back(captured.graph[id]);
        if (!r.own()) g.outputs[i] = stop_grad(g.value(o.of == Of::input ? g.inputs[r.index] : g.outputs[r.index])).id;
        else if (!captured.order[i].empty())
            for (int axis : inverse(captured.order[i])) r.back.push_back(axis);
        results.push_back(std::move(r));
    }
    body = std::move(g);
}
void Variant::lay_out_results(Graph& forward) const {
    for (std::size_t i = 0; i < outputs; ++i)
        if (!results[i].back.empty()) forward.outputs[i] = permute(forward.value(forward.outputs[i]), captured.order[i]).id;
}

Pair Variant::pair_for(Machine machine, const Watch& watch) const {
    if (!watch && (machine == example.machine || example.rows.empty())) return pair;
    Example there = example;
    there.machine = machine;
    Pair p = forward_and_backward(body, wants, there, watch, budget_);
    lay_out_results(p.split.forward);
    return p;
}

std::shared_ptr<Variant> make_variant(const Callable& callable, const Tensors& example, const std::vector<Varying>& dynamic, const FuseOptions& options) {
    auto v = capture_variant(callable, example, dynamic, options);
    v->pair = v->pair_for(v->example.machine, [&](std::string_view pass, const Graph& h) { v->stages.emplace_back(pass, h); });
    v->stages.emplace_back("forward", v->pair.split.forward);
    if (v->pair.has_backward) v->stages.emplace_back("backward", v->pair.split.backward);
    return v;
}

const Executable& Variant::compiled(Compiled& c, const Graph& g, const std::vector<std::string>& names) {
    std::lock_guard lock(mutex_);
    if (c.failed) std::rethrow_exception(c.failed);
    if (!c.owned) try {
        Target target;
        if (device.is_cuda()) target = {device_info(device.index()).arch, device.index()};
        Plan p = plan(g, {}, {.machine = example.machine, .deterministic = deterministic_});
        c.owned = std::make_unique<const Executable>(std::move(p), target, names);
        c.ready.store(c.owned.get(), std::memory_order_release);
    } catch (...) {
        c.failed = std::current_exception();
        throw;
    }
    return *c.owned;
}
const Executable& Variant::forward() {
    if (auto* e = forward_.ready.load(std::memory_order_acquire)) return *e;
    std::vector<std::string> names;
    for (const auto& [name, input] : integers) names.push_back(name);
    for (const auto& q : captured.quotients) names.push_back(q.name);
    return compiled(forward_, pair.split.forward, names);
}
const Executable& Variant::backward() {
    if (auto* e = backward_.ready.load(std::memory_order_acquire)) return *e;
    return compiled(backward_, pair.split.backward, forward().names().list());
}
double Variant::compile_seconds() const {
    auto of = [](const Compiled& c) {
        auto* e = c.ready.load(std::memory_order_acquire);
        return e ? e->compile_seconds() : 0;
    };
    return of(forward_) + of(backward_);
}

Tensors Variant::with_held(at::TensorList arguments) const {
    if (arguments.size() + held_.size() != wants.size())
        throw Error(fmt::format("{}: got {} inputs, expected {}", captured.graph.name, arguments.size(), wants.size() - held_.size()));
    Tensors all = arguments.vec();
    for (const auto& held : held_) {
        auto live = held.lock();
        if (!live) return {};
        all.push_back(at::Tensor(std::move(live)));
    }
    return all;
}
std::vector<int> memory_order(const at::Tensor& t) {
    if (t.is_contiguous()) return {};
    auto order = axes_from_to(0, static_cast<int>(t.dim()));
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return t.size(a) == 1 ? t.size(b) != 1 : t.size(b) != 1 && t.stride(a) > t.stride(b); });
    if (!t.permute(std::vector<std::int64_t>(order.begin(), order.end())).is_contiguous()) throw Error(fmt::format("a tensor of {} isn't dense in memory", c10::str(t.sizes())));
    return order;
}

Tensors Variant::own_results(const Executable& e, const Array* out) const {
    Tensors all(outputs);
    for (std::size_t k = 0; k < outputs; ++k) {
        const Result& r = results[k];
        if (!r.own()) continue;
        bool common = e.same_input(k) >= 0;
        for (std::size_t j = e.first_same(k); j < k; ++j) common |= e.first_same(j) == e.first_same(k) && results[j].own();
        all[k] = tensor_of(out[k]);
        if (common) all[k] = all[k].clone();
        if (!r.back.empty()) all[k] = all[k].permute(r.back);
    }
    return all;
}
void Variant::other_results(Tensors& all, at::TensorList inputs, const Executable& e, const SizeValues& values) const {
    all.resize(returned);
    std::optional<Sizes> sizes;
    for (std::size_t k = 0; k < returned; ++k) {
        const Result& r = results[k];
        if (r.own()) continue;
        all[k] = r.of == Captured::Origin::Of::input ? inputs[r.index] : all[r.index];
        if (!sizes && !r.views.empty()) sizes = e.names().named(values);
        for (const PreparedCall& view : r.views) all[k] = view.view(all[k], *sizes);
    }
}
bool Variant::entangled(at::TensorList all) const {
    for (const auto& w : captured.writes)
        for (std::size_t k = 0; k < all.size(); ++k)
            if (static_cast<int>(k) != w.input && all[k].is_alias_of(all[static_cast<std::size_t>(w.input)])) return true;
    return false;
}
std::string Variant::gone() const {
    std::size_t k = 0;
    while (k < held_.size() && !held_[k].expired()) ++k;
    return fmt::format("{}: a tensor that the callable held at capture ({}) is gone; fuse again after replacing parameters", captured.graph.name,
                       print(captured.graph.type(captured.graph.inputs[wants.size() - held_.size() + std::min(k, held_.size() - 1)])));
}
bool Variant::knows_gradients(at::TensorList all) const {
    for (std::size_t k = 0; k < all.size(); ++k)
        if (all[k].requires_grad() && !wants[k]) return false;
    return true;
}

void LastCalls::eager(std::string reason) {
    std::lock_guard lock(mutex_);
    reason_ = std::move(reason);
}
void LastCalls::forward(const std::shared_ptr<Variant>& v, const SizeValues& sizes) {
    std::lock_guard lock(mutex_);
    forward_.set(v, sizes);
    reason_.clear();
}
void LastCalls::backward(const std::shared_ptr<Variant>& v, const SizeValues& sizes) {
    std::lock_guard lock(mutex_);
    backward_.set(v, sizes);
}
void LastCalls::fill(Report& r) const {
    Call f, b;
    {
        std::lock_guard lock(mutex_);
        f = forward_, b = backward_, r.eager_reason = reason_;
    }
    if (f.variant) {
        const Executable& e = f.variant->forward();
        Stats s = e.stats(f.sizes);
        r.launches_forward = s.launches, r.calls_forward = s.calls, r.bytes_forward = s.bytes;
        for (std::size_t k = f.variant->forward_outputs; k < e.plan().program.graph.outputs.size(); ++k) r.saved_bytes += e.output_bytes(k, f.sizes);
        for (const Step& step : e.plan().program.steps)
            if (step.call >= 0) {
                const Node& n = e.plan().program.graph[step.call];
                r.library_calls.push_back(n.is(Op::dot) ? "dot" : n.text("name"));
            }
    }
    if (b.variant) {
        Stats s = b.variant->backward().stats(b.sizes);
        r.launches_backward = s.launches, r.calls_backward = s.calls, r.bytes_backward = s.bytes;
    }
}

std::vector<Traffic> LastCalls::traffic() const {
    Call f, b;
    {
        std::lock_guard lock(mutex_);
        f = forward_, b = backward_;
    }
    std::vector<Traffic> all;
    auto sizes = [](const Call& c, const Executable& e) {  // a number of rows that this machine didn't find is the example's
        Sizes s = e.names().named(c.sizes);
        s.insert(c.variant->example.sizes.begin(), c.variant->example.sizes.end());
        return s;
    };
    if (f.variant) all.push_back(heddle::traffic(cuda_plan(*f.variant, f.variant->pair_for(Machine::cuda).split.forward), sizes(f, f.variant->forward()), {.outputs = f.variant->forward_outputs}));
    if (b.variant) {
        const Pair pair = b.variant->pair_for(Machine::cuda);
        KeptValues kept;
        for (const auto& s : pair.split.backward_inputs) kept.inputs.push_back(s.from == Split::Source::From::saved);
        all.push_back(heddle::traffic(cuda_plan(*b.variant, pair.split.backward), sizes(b, b.variant->backward()), kept));
    }
    return all;
}

std::string first_line(const std::exception& e) {
    std::string what = e.what();
    return what.substr(0, what.find('\n'));
}

std::string decisions(const Plan& p) {
    std::string text;
    for (const Decision& d : p.decisions)
        text += fmt::format("  {} {}: {}\n    {}\n", d.joined ? "fused into" : "starts in", p.program.launches[static_cast<std::size_t>(d.launch)].name, d.reason, listed(p.program.graph, d.value));
    return text;
}

std::string explain_variant(Variant& v) {
    std::string text;
    for (const std::string& note : v.pair.masks) text += note + "\n";
    auto direction = [&](const char* what, const Executable& e) {
        const Plan& p = e.plan();
        std::size_t calls = 0, reads = 0;
        for (const Step& s : p.program.steps) calls += s.call >= 0, reads += !s.reads.empty();
        const std::string waits = reads > 0 ? fmt::format(", {} host reads", reads) : "";
        text += fmt::format("{}: {} kernels, {} library calls{}\n", what, p.program.launches.size(), calls, waits);
        text += decisions(p);
        for (const Launch& l : p.program.launches)
            for (const Nest& n : l.nests)
                if (n.schedule.adds != Adds::none) text += fmt::format("  in {}, points {} add to memory: {}\n", l.name, print(n.outer), name(n.schedule.adds));
        for (const Step& s : p.program.steps)
            if (s.call >= 0) text += fmt::format("  library call: {}\n", listed(p.program.graph, s.call));
    };
    direction("forward", v.forward());
    if (v.pair.has_backward) try {
        direction("backward", v.backward());
    } catch (const std::exception& e) {
        text += fmt::format("backward runs eagerly: {}\n", first_line(e));
    }
    return text;
}

std::vector<std::pair<std::string, std::string>> cuda_texts(const Plan& p) {
    std::vector<std::pair<std::string, std::string>> all;
    for (std::size_t k = 0; k < p.loops.size(); ++k) {
        CudaSource s = cuda_text(p.program.launches[k].name, p.loops[k]);
        all.emplace_back(s.kernel, s.text);
    }
    return all;
}
std::vector<std::pair<std::string, std::string>> cuda_texts(Variant& v) {
    const Pair pair = v.pair_for(Machine::cuda);
    auto all = cuda_texts(cuda_plan(v, pair.split.forward));
    if (pair.has_backward)
        for (auto& k : cuda_texts(cuda_plan(v, pair.split.backward))) all.push_back(std::move(k));
    return all;
}

std::vector<std::string> dump_variants(const std::vector<std::shared_ptr<Variant>>& variants, const std::string& folder) {
    std::vector<std::string> files;
    Nvrtc nvrtc;
    auto write = [&](const std::string& file, const std::string& text) {
        std::filesystem::path path = std::filesystem::path(folder) / file;
        std::filesystem::create_directories(path.parent_path());
        std::ofstream out(path);
        out << text;
        if (!out) throw Error(fmt::format("{}: can't be written", path.string()));
        files.push_back(path.string());
    };
    for (std::size_t i = 0; i < variants.size(); ++i) {
        Variant& v = *variants[i];
        std::string dir = variants.size() > 1 ? fmt::format("variant{}/", i) : "";
        int n = 0;
        for (const auto& [pass, g] : v.stages) write(fmt::format("{}{:02}-{}.hir", dir, n++, pass), print(g));
        auto direction = [&](const char* what, const Executable& e) {
            write(fmt::format("{}{:02}-{}-program.hir", dir, n++, what), print(e.plan().program));
            std::string loops;
            for (std::size_t k = 0; k < e.plan().loops.size(); ++k)
                for (const auto& l : e.plan().loops[k]) loops += "# " + e.plan().program.launches[k].name + "\n" + loop::print(l) + "\n";
            write(fmt::format("{}{:02}-{}-loops.txt", dir, n++, what), loops);
            for (const auto& [name, text] : e.texts()) write(dir + name, text);
        };
        direction("forward", v.forward());
        if (v.pair.has_backward) direction("backward", v.backward());
        if (v.example.machine != Machine::cuda && !v.example.rows.empty()) {  // masks may be another matter there
            const Pair there = v.pair_for(Machine::cuda);
            write(fmt::format("{}{:02}-cuda-forward.hir", dir, n++), print(there.split.forward));
            if (there.has_backward) write(fmt::format("{}{:02}-cuda-backward.hir", dir, n++), print(there.split.backward));
        }
        for (const auto& [name, text] : cuda_texts(v)) {
            write(dir + name + ".cu", text);
            if (nvrtc.available()) write(dir + name + ".ptx", nvrtc.compile(CudaText{name, text}, "compute_90")->image);
        }
    }
    return files;
}

}  // namespace heddle
