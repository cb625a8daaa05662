// Capture, plan, compile; then one autograd node per call.
#include "frontends/torch/fuse.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/SavedTensorHooks.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <atomic>
#include <mutex>
#include <span>

#include "frontends/capture/recorder.h"
#include "frontends/torch/host.h"
#include "frontends/torch/recapture.h"
#include "frontends/torch/region.h"
#include "frontends/torch/variant.h"
#include "runtime/disk_cache.h"
#include "runtime/published.h"
#include "runtime/traffic.h"

namespace heddle {

// One way to answer a call: a compiled variant, or eager with the reason.
struct Way {
    Guard guard;
    std::shared_ptr<Variant> variant;  // null: eager
    std::string reason;
};

using Ways = std::vector<std::shared_ptr<const Way>>;

struct Fused::State : std::enable_shared_from_this<Fused::State> {
    State(Callable callable, FuseOptions options) : callable(std::move(callable)), options(std::move(options)), seen(this->options.earlier) {}
    Callable callable;
    FuseOptions options;
    Published<Ways> ways{std::make_shared<const Ways>()};  // most recent first; replaced, never changed
    LastCalls calls;
    // Of whoever captures, which takes long and runs the user's code: others don't wait, they run eagerly meanwhile.
    std::mutex capturing;
    std::atomic<int> captures = 0;
    std::mutex mutex;                                  // of whoever replaces the ways
    SeenSizes seen;                                    // arguments of earlier captures

    std::shared_ptr<const Way> capture_for(at::TensorList in);
    std::vector<std::shared_ptr<Variant>> variants() const;
    void put_first(std::shared_ptr<const Way>);
    void add(std::shared_ptr<const Way>, at::TensorList in);
    Tensors eagerly(at::TensorList in, const std::string& reason) {
        calls.eager(reason);
        return callable(in.vec());
    }
    std::optional<Tensors> attempt(const Way&, at::TensorList in);
    Tensors run(const std::shared_ptr<Variant>&, std::size_t users, at::TensorList all);
    struct Ran;
    NodePtr attach(const std::shared_ptr<Variant>&, Rerun, const Ran&, Tensors& results);
};

// Of one run, what its autograd node may need.
struct Fused::State::Ran {
    c10::SmallVector<Array, 8> in, out;
    SizeValues sizes;
};

namespace {
constexpr std::size_t kWays = 16;
at::Generator generator(at::Device d) { return at::globalContext().defaultGenerator(d); }
// The CPU is no device that can be current.
std::optional<at::Device> current(at::Device d) { return d.is_cpu() ? std::nullopt : std::optional(d); }

}  // namespace

// A new way for these inputs, which has yet to be put among the others.
std::shared_ptr<const Way> Fused::State::capture_for(at::TensorList in) {
    auto way = std::make_shared<Way>();
    if (++captures == 9) TORCH_WARN(options.name, ": captured 9 times; each time a call's sizes, types or branches were new. Look at explain()");
    auto with = [&](const std::vector<Varying>& more) {
        std::vector<Varying> dynamic = options.dynamic;
        dynamic.insert(dynamic.end(), more.begin(), more.end());
        auto variant = make_variant(callable, in.vec(), dynamic, options);
        variant->forward();
        way->variant = std::move(variant);
        way->guard = way->variant->guard;
    };
    std::vector<Varying> names = options.recapture ? seen.changed(in, options.dynamic) : std::vector<Varying>{};
    try {
        capture_with(names, with);
    } catch (const std::exception& e) {
        if (!options.eager_if_uncapturable) throw;
        way->reason = first_line(e);
        names.insert(names.end(), options.dynamic.begin(), options.dynamic.end());
        way->guard = Guard(in.vec(), names, options.recapture);
    }
    return way;
}
void Fused::State::add(std::shared_ptr<const Way> way, at::TensorList in) {
    put_first(std::move(way));
    if (options.recapture) seen.add(in);
}
void Fused::State::put_first(std::shared_ptr<const Way> way) {
    std::lock_guard lock(mutex);
    auto all = std::make_shared<Ways>(*ways.load());
    std::erase(*all, way);
    all->insert(all->begin(), std::move(way));
    if (all->size() > kWays) all->pop_back();
    ways.store(std::move(all));
}

Tensors Fused::State::run(const std::shared_ptr<Variant>& v, std::size_t users, at::TensorList all) {
    const Executable& forward = v->forward();
    bool any = std::any_of(all.begin(), all.end(), [](const at::Tensor& t) { return t.requires_grad(); });
    bool differentiate = any && at::GradMode::is_enabled();
    Rerun rerun;
    Ran ran;
    ran.sizes.resize(forward.names().list().size(), kUnknown);
    for (std::size_t i = 0; i < v->integers.size(); ++i) ran.sizes[i] = all[v->integers[i].second].item<std::int64_t>();
    if (auto q = v->guard.quotients(all); !q.empty()) std::copy(q.begin(), q.end(), ran.sizes.begin() + v->integers.size());
    Tensors results;
    c10::OptionalDeviceGuard on_device(current(v->device));
    {
        at::NoGradGuard no_grad;
        for (std::size_t k = 0; k < all.size(); ++k) ran.in.push_back(array_of(all[k], v->device, "input", k));
        if (differentiate) {
            rerun = {&callable, all.vec(), {}, {}, v->random ? generator(v->device).get_state() : at::Tensor(), v->device, users};
            if (!v->captured.writes.empty()) rerun.before.resize(all.size());
            for (const auto& w : v->captured.writes) rerun.before[static_cast<std::size_t>(w.input)] = all[static_cast<std::size_t>(w.input)].clone();
        }
        at::AutoDispatchBelowADInplaceOrView below;
        ran.out.resize(v->pair.split.forward.outputs.size());
        forward.run(*v->host, std::span(ran.in.begin(), ran.in.end()), std::span(ran.out.begin(), ran.out.end()), ran.sizes);
        results = v->own_results(forward, ran.out.data());
    }
    calls.forward(v, ran.sizes);
    NodePtr node = differentiate ? attach(v, std::move(rerun), ran, results) : NodePtr();
    for (const auto& w : v->captured.writes) {
        at::AutoGradMode history(w.history && at::GradMode::is_enabled());
        all[static_cast<std::size_t>(w.input)].copy_(results[static_cast<std::size_t>(w.output)]);
    }
    if (node) static_cast<RegionBackward&>(*node).note_versions();
    v->other_results(results, all, forward, ran.sizes);
    return results;
}

// Null where no result has a gradient.
NodePtr Fused::State::attach(const std::shared_ptr<Variant>& v, Rerun rerun, const Ran& ran, Tensors& results) {
    const Executable& forward = v->forward();
    const Tensors& all = rerun.inputs;
    auto node = make_node<RegionBackward>();
    torch::autograd::edge_list edges;
    edges.reserve(all.size());
    for (const at::Tensor& t : all) edges.push_back(torch::autograd::impl::gradient_edge(t));
    node->set_next_edges(std::move(edges));
    int slots = 0;
    for (std::size_t k = 0; k < results.size(); ++k) {
        const auto& from = v->reaches[k];
        bool reached = v->results[k].own() && std::any_of(from.begin(), from.end(), [&](std::size_t i) { return all[i].requires_grad(); });
        node->slot.push_back(reached ? slots++ : -1);
        if (reached) torch::autograd::set_history(results[k], node);
    }
    if (slots == 0) return {};
    // Memory that the caller can write into is watched; what the callable itself wrote over is kept as it was.
    const bool hooks = at::SavedTensorDefaultHooks::get_hooks().has_value();
    const auto& reads = v->pair.split.backward_inputs;
    node->kept.reserve(reads.size());
    for (const auto& s : reads) {
        auto i = static_cast<std::size_t>(s.index);
        if (s.from == Split::Source::From::seed) {
            node->kept.emplace_back();
            continue;
        }
        int input = static_cast<int>(i);
        if (s.from == Split::Source::From::saved) i += v->forward_outputs, input = forward.same_input(i);
        if (input >= 0 && rerun.overwritten(static_cast<std::size_t>(input)).defined()) {
            at::NoGradGuard no_grad;
            node->kept.emplace_back(array_of(rerun.overwritten(static_cast<std::size_t>(input)), v->device, "input", static_cast<std::size_t>(input)));
        } else if (input >= 0) {
            node->kept.emplace_back(ran.in[static_cast<std::size_t>(input)]).watch(all[static_cast<std::size_t>(input)]);
        } else {
            Kept& kept = node->kept.emplace_back(ran.out[i]);
            for (std::size_t k = forward.first_same(i); k < results.size(); ++k)
                if (v->results[k].own() && forward.first_same(k) == forward.first_same(i)) {  // the first has this memory, others are copies
                    kept.watch(results[k]);
                    break;
                }
        }
        if (hooks) node->kept.back().pack();
    }
    node->variant = v;
    node->calls = {shared_from_this(), &calls};
    node->sizes = ran.sizes;
    node->rerun = std::move(rerun);
    return node;
}

Fused::Fused(std::shared_ptr<State> s) : state_(std::move(s)) {}

// None: the way doesn't hold for these inputs.
std::optional<Tensors> Fused::State::attempt(const Way& way, at::TensorList in) {
    if (!way.variant) return eagerly(in, way.reason);
    const auto& v = way.variant;
    Tensors held;
    if (v->holds_tensors() || in.size() != v->wants.size()) {
        held = v->with_held(in);
        if (held.empty() && !options.recapture) throw Error(v->gone());
        if (held.empty() || (options.recapture && !way.guard.holds(held))) return {};
    }
    at::TensorList all = held.empty() ? in : at::TensorList(held);
    if (!options.recapture && !way.guard.decides(all)) throw Error(options.name + ": these sizes take another way through the callable than those of the capture; fuse it again with these");
    if (!v->knows_gradients(all) || common_device(all) != v->device) return {};
    if (v->entangled(all)) return eagerly(in, "an input that is written shares its memory with another");
    at::Tensor before = v->guarded && v->random ? generator(v->device).get_state() : at::Tensor();
    try {
        return run(v, in.size(), all);
    } catch (const GuardFailed&) {
        if (before.defined()) generator(v->device).set_state(before);
        return {};
    }
}

Tensors Fused::operator()(at::TensorList inputs) const {
    State& s = *state_;
    if (capturing()) return s.callable(inputs.vec());  // part of a larger callable that is being fused
    if (const char* why = must_be_eager(inputs.data(), inputs.size())) return s.eagerly(inputs, why);
    const auto known = s.ways.load();
    for (const auto& way : *known) {
        if (s.options.recapture && !(way->variant && way->variant->holds_tensors()) && !way->guard.holds(inputs)) continue;
        auto out = s.attempt(*way, inputs);
        if (!out) continue;
        if (way != known->front()) s.put_first(way);
        return std::move(*out);
    }
    std::shared_ptr<const Way> way;
    {
        std::unique_lock lock(s.capturing, std::try_to_lock);
        if (!lock) return s.eagerly(inputs, "it is being captured at this moment");
        if (known != s.ways.load()) {  // by another thread, perhaps just for such inputs
            lock.unlock();
            return (*this)(inputs);
        }
        way = s.capture_for(inputs);
        if (way->variant) s.add(way, inputs);
    }
    auto out = s.attempt(*way, inputs);
    if (!way->variant) s.add(way, inputs);  // the callable ran, so what failed was the capture, and would again
    if (out) return std::move(*out);
    return s.eagerly(inputs, "what it reads on the host changes between two runs of the same call");
}

Report Fused::report() const {
    Report r;
    state_->calls.fill(r);
    for (const auto& v : state_->variants()) r.compile_seconds += v->compile_seconds();
    r.captures = state_->captures;
    return r;
}
std::vector<std::shared_ptr<Variant>> Fused::State::variants() const {
    std::vector<std::shared_ptr<Variant>> all;
    for (const auto& w : *ways.load())
        if (w->variant) all.push_back(w->variant);
    return all;
}
std::vector<std::string> Fused::dump(const std::string& folder) const { return dump_variants(state_->variants(), folder); }
std::string Fused::explain() const {
    std::string text;
    for (const auto& w : *state_->ways.load()) text += w->variant ? explain_variant(*w->variant) : "runs eagerly: " + w->reason + "\n";
    if (const DiskCache* cache = disk_cache())
        text += fmt::format("disk cache, in this process so far: {} hits, {} misses ({})\n", cache->stats().hits, cache->stats().misses, cache->folder());
    return text;
}
std::vector<std::pair<std::string, std::string>> Fused::cuda_kernels() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& v : state_->variants())
        for (auto& k : cuda_texts(*v)) all.push_back(std::move(k));
    return all;
}

std::vector<Traffic> Fused::cuda_traffic() const { return state_->calls.traffic(); }

Fused fuse(Callable callable, FuseOptions options) {
    return Fused(std::make_shared<Fused::State>(std::move(callable), std::move(options)));
}
Fused fuse(Callable callable, const Tensors& example, FuseOptions options) {
    auto s = std::make_shared<Fused::State>(std::move(callable), std::move(options));
    auto way = s->capture_for(example);
    s->add(way, example);
    if (!way->variant) s->calls.eager(way->reason);
    return Fused(s);
}

}  // namespace heddle
