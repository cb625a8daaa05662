// Capture, plan, compile; then one autograd node per call.
#include "frontends/torch/fuse.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <mutex>

#include "frontends/capture/recorder.h"
#include "frontends/torch/host.h"
#include "frontends/torch/region.h"
#include "frontends/torch/variant.h"

namespace heddle {

// One way to answer a call: a compiled variant, or eager with the reason.
struct Way {
    Guard guard;
    std::shared_ptr<Variant> variant;  // null: eager
    std::string reason;
};

// Element types and sizes of a call's arguments.
using Shapes = std::vector<std::pair<at::ScalarType, std::vector<std::int64_t>>>;

struct Fused::State : std::enable_shared_from_this<Fused::State> {
    Callable callable;
    FuseOptions options;
    std::mutex mutex;                                  // ways, sizes seen, and the report
    std::vector<std::shared_ptr<const Way>> ways;      // most recent first
    std::vector<Shapes> seen;                          // arguments of earlier captures
    Report report;

    std::shared_ptr<const Way> capture_for(const Tensors& in);
    std::vector<Varying> changed(const Tensors& in) const;
    std::vector<std::shared_ptr<Variant>> variants();
    void count_compile_seconds() {
        report.compile_seconds = 0;
        for (const auto& w : ways)
            if (w->variant) report.compile_seconds += w->variant->compile_seconds();
    }
    Tensors eagerly(const Tensors& in, const std::string& reason) {
        {
            std::lock_guard guard(mutex);
            report.eager_reason = reason;
        }
        return callable(in);
    }
    Tensors run(const std::shared_ptr<Variant>&, const Tensors& user, const Tensors& all);
    void attach(const std::shared_ptr<Variant>&, Rerun, const std::vector<Array>& in, const std::vector<Array>& out, const Sizes&, Tensors& results);
};

namespace {
constexpr std::size_t kWays = 16;
at::Generator generator(at::Device d) { return at::globalContext().defaultGenerator(d); }
// The CPU is no device that can be current.
std::optional<at::Device> current(at::Device d) { return d.is_cpu() ? std::nullopt : std::optional(d); }

bool shares(const Array& a, const Array& b) { return a.data == b.data && a.numel() > 0 && b.numel() > 0; }
// Does a tensor that the callable writes share its memory with another? Then order matters, which a plan doesn't keep.
bool entangled(const Variant& v, const Tensors& all) {
    for (const auto& w : v.captured.writes)
        for (std::size_t k = 0; k < all.size(); ++k)
            if (static_cast<int>(k) != w.input && all[k].is_alias_of(all[static_cast<std::size_t>(w.input)])) return true;
    return false;
}
Shapes shapes_of(const Tensors& in) {
    Shapes s;
    for (const at::Tensor& t : in) s.emplace_back(t.scalar_type(), t.sizes().vec());
    return s;
}
bool same_kind(const Shapes& a, const Shapes& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) { return x.first == y.first && x.second.size() == y.second.size(); });
}
}  // namespace

// Sizes that differ between this call and earlier captures, by name; those that always were equal to each other share one.
std::vector<Varying> Fused::State::changed(const Tensors& in) const {
    std::vector<Shapes> calls{shapes_of(in)};
    for (const Shapes& s : seen)
        if (same_kind(s, calls[0])) calls.push_back(s);
    std::vector<Varying> names;
    std::vector<std::vector<std::int64_t>> known;
    for (std::size_t k = 0; k < in.size(); ++k)
        for (int d = 0; d < in[k].dim(); ++d) {
            bool declared = std::any_of(options.dynamic.begin(), options.dynamic.end(), [&](const Varying& v) { return !v.tensor.defined() && v.input == static_cast<int>(k) && v.dim == d; });
            std::vector<std::int64_t> sizes;
            for (const Shapes& c : calls) sizes.push_back(c[k].second[static_cast<std::size_t>(d)]);
            if (declared || std::equal(sizes.begin() + 1, sizes.end(), sizes.begin())) continue;
            auto at = std::find(known.begin(), known.end(), sizes);
            if (at == known.end()) at = known.insert(at, sizes);
            names.push_back({static_cast<int>(k), {}, d, fmt::format("n{}", at - known.begin())});
        }
    return names;
}

std::shared_ptr<const Way> Fused::State::capture_for(const Tensors& in) {
    auto way = std::make_shared<Way>();
    ++report.captures;
    if (report.captures == 9) TORCH_WARN(options.name, ": captured 9 times; each time a call's sizes, types or branches were new. Look at explain()");
    auto with = [&](const std::vector<Varying>& more) {
        std::vector<Varying> dynamic = options.dynamic;
        dynamic.insert(dynamic.end(), more.begin(), more.end());
        way->variant = make_variant(callable, in, dynamic, options);
        way->guard = way->variant->guard;
    };
    std::vector<Varying> names = options.recapture ? changed(in) : std::vector<Varying>{};
    try {
        try {
            with(names);
        } catch (const std::exception&) {
            if (names.empty()) throw;
            // Not all of them can be names: those that can, one after the other.
            std::vector<Varying> kept;
            std::vector<std::string> tried;
            for (const Varying& v : names) {
                if (std::find(tried.begin(), tried.end(), v.name) != tried.end()) continue;
                tried.push_back(v.name);
                auto more = kept;
                for (const Varying& w : names)
                    if (w.name == v.name) more.push_back(w);
                try {
                    with(more);
                    kept = std::move(more);
                } catch (const std::exception&) {
                }
            }
            if (kept.empty()) with({});
        }
    } catch (const std::exception& e) {
        if (!options.eager_if_uncapturable) throw;
        way->variant = nullptr;
        way->reason = std::string(e.what()).substr(0, std::string(e.what()).find('\n'));
        names.insert(names.end(), options.dynamic.begin(), options.dynamic.end());
        way->guard = Guard(in, names, options.recapture);
    }
    if (options.recapture) seen.push_back(shapes_of(in));
    if (seen.size() > kWays) seen.erase(seen.begin());
    ways.insert(ways.begin(), way);
    if (ways.size() > kWays) ways.pop_back();
    return way;
}

Tensors Fused::State::run(const std::shared_ptr<Variant>& v, const Tensors& user, const Tensors& all) {
    const std::size_t n = v->outputs;
    bool any = std::any_of(all.begin(), all.end(), [](const at::Tensor& t) { return t.requires_grad(); });
    bool differentiate = any && at::GradMode::is_enabled();
    Rerun rerun;
    std::vector<Array> in, out;
    Sizes sizes;
    for (const auto& [name, k] : v->integers) sizes[name] = all[k].item<std::int64_t>();
    Tensors results;
    c10::OptionalDeviceGuard on_device(current(v->device));
    {
        at::NoGradGuard no_grad;
        for (std::size_t k = 0; k < all.size(); ++k) in.push_back(array_of(all[k], v->device, "input", k));
        if (differentiate) {
            rerun = {&callable, all, Tensors(all.size()), {}, v->random ? generator(v->device).get_state() : at::Tensor(), v->device, user.size()};
            for (const auto& w : v->captured.writes) rerun.before[static_cast<std::size_t>(w.input)] = all[static_cast<std::size_t>(w.input)].clone();
        }
        {
            at::AutoDispatchBelowADInplaceOrView below;
            out = v->forward().run(*v->host, in, sizes);
        }
        // A result has memory of its own, unless it is an input itself.
        for (std::size_t k = 0; k < n; ++k) {
            const Variant::Result& r = v->results[k];
            if (!r.own()) {
                results.emplace_back();
                continue;
            }
            bool common = std::any_of(in.begin(), in.end(), [&](const Array& a) { return shares(a, out[k]); });
            for (std::size_t j = 0; j < k; ++j) common |= v->results[j].own() && shares(out[j], out[k]);
            at::Tensor t = tensor_of(out[k]);
            if (common) t = t.clone();
            at::AutoDispatchBelowADInplaceOrView below;
            results.push_back(r.back.empty() ? t : t.permute(r.back));
        }
        for (const auto& w : v->captured.writes) all[static_cast<std::size_t>(w.input)].copy_(tensor_of(out[static_cast<std::size_t>(w.output)]));
    }
    {
        std::lock_guard guard(mutex);
        report.eager_reason.clear();
        note_forward(report, *v, out);
        count_compile_seconds();
    }
    if (differentiate) attach(v, std::move(rerun), in, out, sizes, results);
    for (std::size_t k = 0; k < n; ++k) {
        const Variant::Result& r = v->results[k];
        if (r.own()) continue;
        results[k] = r.of == Captured::Origin::Of::input ? all[r.index] : results[r.index];
        for (const PreparedCall& view : r.views) results[k] = view.view(results[k], sizes);
    }
    return results;
}

void Fused::State::attach(const std::shared_ptr<Variant>& v, Rerun rerun, const std::vector<Array>& in, const std::vector<Array>& out, const Sizes& sizes, Tensors& results) {
    const Tensors& all = rerun.inputs;
    auto node = make_node<RegionBackward>();
    node->variant = v;
    node->sizes = sizes;
    node->ran = [state = shared_from_this(), v = v.get()] {
        std::lock_guard guard(state->mutex);
        note_backward(state->report, *v);
        state->count_compile_seconds();
    };
    node->set_next_edges(torch::autograd::collect_next_edges(all));
    int slots = 0;
    for (std::size_t k = 0; k < results.size(); ++k) {
        bool reached = false, own = v->results[k].own();
        for (std::size_t i = 0; i < all.size(); ++i) reached |= v->reaches[k][i] && all[i].requires_grad();
        node->output_sizes.push_back(own ? results[k].sizes().vec() : std::vector<std::int64_t>{});
        node->slot.push_back(reached && own ? slots++ : -1);
        if (node->slot[k] >= 0) torch::autograd::set_history(results[k], node);
    }
    if (slots == 0) return;
    // Memory that the caller can write into is watched; what the callable itself wrote over is kept as it was.
    for (const auto& s : v->pair.split.backward_inputs) {
        Kept kept;
        auto i = static_cast<std::size_t>(s.index);
        if (s.from == Split::Source::From::input && rerun.before[i].defined()) {
            at::NoGradGuard no_grad;
            kept.array = array_of(rerun.before[i], v->device, "input", i);
        } else if (s.from == Split::Source::From::input) {
            kept.array = in[i];
            kept.watched.emplace(all[i], false);
        } else if (s.from == Split::Source::From::saved) {
            kept.array = out[v->forward_outputs + i];
            for (std::size_t k = 0; k < results.size() && !kept.watched; ++k)
                if (v->results[k].own() && shares(out[k], kept.array) && results[k].data_ptr() == kept.array.data) kept.watched.emplace(results[k], node->slot[k] >= 0);
            for (std::size_t k = 0; k < in.size() && !kept.watched; ++k)
                if (shares(in[k], kept.array) && !rerun.before[k].defined()) kept.watched.emplace(all[k], false);
        }
        node->kept.push_back(std::move(kept));
    }
    for (const at::Tensor& t : all) rerun.versions.push_back(version_of(t));
    node->rerun = std::move(rerun);
}

Fused::Fused(std::shared_ptr<State> s) : state_(std::move(s)) {}

Tensors Fused::operator()(const Tensors& inputs) const {
    State& s = *state_;
    if (capturing()) return s.callable(inputs);  // part of a larger callable that is being fused
    if (const char* why = must_be_eager(inputs)) return s.eagerly(inputs, why);
    std::vector<std::shared_ptr<const Way>> known;
    {
        std::lock_guard guard(s.mutex);
        known = s.ways;
    }
    auto attempt = [&](const Way& way) -> std::optional<Tensors> {
        if (!way.variant) return s.eagerly(inputs, way.reason);
        const auto& v = way.variant;
        Tensors all = v->with_held(inputs);
        if (!v->knows_gradients(all) || common_device(all) != v->device) return {};
        if (entangled(*v, all)) return s.eagerly(inputs, "an input that is written shares its memory with another");
        at::Tensor before = v->guarded && v->random ? generator(v->device).get_state() : at::Tensor();
        try {
            return s.run(v, inputs, all);
        } catch (const GuardFailed&) {
            if (before.defined()) generator(v->device).set_state(before);
            return {};
        }
    };
    for (const auto& way : known) {
        if (s.options.recapture ? !way->guard.holds(inputs) : false) continue;
        auto out = attempt(*way);
        if (!out) continue;
        if (way != known.front()) {
            std::lock_guard guard(s.mutex);
            if (std::erase(s.ways, way)) s.ways.insert(s.ways.begin(), way);
        }
        return *out;
    }
    std::shared_ptr<const Way> way;
    {
        std::lock_guard guard(s.mutex);
        way = s.capture_for(inputs);
    }
    if (auto out = attempt(*way)) return *out;
    return s.eagerly(inputs, "what it reads on the host changes between two runs of the same call");
}

const Report& Fused::report() const { return state_->report; }
std::vector<std::shared_ptr<Variant>> Fused::State::variants() {
    std::lock_guard guard(mutex);
    std::vector<std::shared_ptr<Variant>> all;
    for (const auto& w : ways)
        if (w->variant) all.push_back(w->variant);
    return all;
}
std::vector<std::string> Fused::dump(const std::string& folder) const { return dump_variants(state_->variants(), folder); }
std::string Fused::explain() const {
    std::string text;
    for (const auto& w : state_->ways) text += w->variant ? explain_variant(*w->variant) : "runs eagerly: " + w->reason + "\n";
    return text;
}
std::vector<std::pair<std::string, std::string>> Fused::cuda_kernels() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& v : state_->variants())
        for (auto& k : cuda_texts(*v)) all.push_back(std::move(k));
    return all;
}

Fused fuse(Callable callable, FuseOptions options) {
    auto s = std::make_shared<Fused::State>();
    s->callable = std::move(callable);
    s->options = std::move(options);
    return Fused(s);
}
Fused fuse(Callable callable, const Tensors& example, FuseOptions options) {
    auto s = std::make_shared<Fused::State>();
    s->callable = std::move(callable);
    s->options = std::move(options);
    auto way = s->capture_for(example);
    s->report.eager_reason = way->reason;
    return Fused(s);
}

}  // namespace heddle
