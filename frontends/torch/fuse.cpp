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

struct Fused::State : std::enable_shared_from_this<Fused::State> {
    Callable callable;
    FuseOptions options;
    std::mutex mutex;                                  // variants and the report
    std::vector<std::shared_ptr<Variant>> variants;    // by the values of guards, most recent first
    Report report;

    std::shared_ptr<Variant> capture_for(const Tensors& in);  // nullptr: it can't be captured, and runs eagerly from now on
    void count_compile_seconds() {
        report.compile_seconds = 0;
        for (const auto& v : variants) report.compile_seconds += v->compile_seconds();
    }
    Tensors run(const std::shared_ptr<Variant>&, const Tensors& user, const Tensors& all);
    void attach(const std::shared_ptr<Variant>&, Rerun, const std::vector<Array>& in, const std::vector<Array>& out, Sizes, Tensors& results);
};

namespace {
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
}  // namespace

std::shared_ptr<Variant> Fused::State::capture_for(const Tensors& in) {
    try {
        auto v = make_variant(callable, in, options.dynamic, options.name);
        variants.insert(variants.begin(), v);
        if (variants.size() > 16) variants.pop_back();
        return v;
    } catch (const std::exception& e) {
        if (!options.eager_if_uncapturable) throw;
        report.eager_reason = e.what();
        return nullptr;
    }
}

Tensors Fused::State::run(const std::shared_ptr<Variant>& v, const Tensors& user, const Tensors& all) {
    const std::size_t n = v->outputs;
    bool any = std::any_of(all.begin(), all.end(), [](const at::Tensor& t) { return t.requires_grad(); });
    bool differentiate = any && at::GradMode::is_enabled();
    Rerun rerun;
    std::vector<Array> in, out;
    Sizes sizes;
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
            bool common = std::any_of(in.begin(), in.end(), [&](const Array& a) { return shares(a, out[k]); }) ||
                          std::any_of(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(k), [&](const Array& a) { return shares(a, out[k]); });
            if (v->is_input[k] >= 0) results.push_back(all[static_cast<std::size_t>(v->is_input[k])]);
            else results.push_back(common ? tensor_of(out[k]).clone() : tensor_of(out[k]));
        }
        for (const auto& w : v->captured.writes) all[static_cast<std::size_t>(w.input)].copy_(tensor_of(out[static_cast<std::size_t>(w.output)]));
    }
    {
        std::lock_guard guard(mutex);
        note_forward(report, *v, out);
        count_compile_seconds();
    }
    if (differentiate) attach(v, std::move(rerun), in, out, std::move(sizes), results);
    return results;
}

void Fused::State::attach(const std::shared_ptr<Variant>& v, Rerun rerun, const std::vector<Array>& in, const std::vector<Array>& out, Sizes sizes, Tensors& results) {
    const Tensors& all = rerun.inputs;
    auto node = make_node<RegionBackward>();
    node->variant = v;
    node->sizes = std::move(sizes);
    node->ran = [state = shared_from_this(), v = v.get()] {
        std::lock_guard guard(state->mutex);
        note_backward(state->report, *v);
        state->count_compile_seconds();
    };
    node->set_next_edges(torch::autograd::collect_next_edges(all));
    int slots = 0;
    for (std::size_t k = 0; k < results.size(); ++k) {
        bool reached = false;
        for (std::size_t i = 0; i < all.size(); ++i) reached |= v->reaches[k][i] && all[i].requires_grad();
        node->output_sizes.push_back(results[k].sizes().vec());
        node->slot.push_back(reached && v->is_input[k] < 0 ? slots++ : -1);
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
                if (v->is_input[k] < 0 && shares(out[k], kept.array) && results[k].data_ptr() == kept.array.data) kept.watched.emplace(results[k], node->slot[k] >= 0);
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
    std::vector<std::shared_ptr<Variant>> known;
    bool eager = false;
    {
        std::lock_guard guard(s.mutex);
        known = s.variants;
        eager = !s.report.eager_reason.empty();
    }
    if (eager) return s.callable(inputs);
    auto attempt = [&](const std::shared_ptr<Variant>& v) -> std::optional<Tensors> {
        Tensors all = v->with_held(inputs);
        if (!v->knows_gradients(all) || common_device(all) != v->device) return {};
        if (entangled(*v, all)) return s.callable(inputs);
        at::Tensor before = v->guarded && v->random ? generator(v->device).get_state() : at::Tensor();
        try {
            return s.run(v, inputs, all);
        } catch (const GuardFailed&) {
            if (before.defined()) generator(v->device).set_state(before);
            return {};
        }
    };
    for (const auto& v : known)
        if (auto out = attempt(v)) {
            if (v != known.front()) {
                std::lock_guard guard(s.mutex);
                if (std::erase(s.variants, v)) s.variants.insert(s.variants.begin(), v);
            }
            return *out;
        }
    std::shared_ptr<Variant> v;
    {
        std::lock_guard guard(s.mutex);
        v = s.capture_for(inputs);
    }
    if (v)
        if (auto out = attempt(v)) return *out;
    return s.callable(inputs);
}

const Report& Fused::report() const { return state_->report; }
std::vector<std::string> Fused::dump(const std::string& folder) const { return dump_variants(state_->variants, folder); }
std::string Fused::explain() const {
    std::string text = state_->report.eager_reason.empty() ? "" : "runs eagerly: " + state_->report.eager_reason + "\n";
    for (const auto& v : state_->variants) text += explain_variant(*v);
    return text;
}
std::vector<std::pair<std::string, std::string>> Fused::cuda_kernels() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& v : state_->variants)
        for (auto& k : cuda_texts(*v)) all.push_back(std::move(k));
    return all;
}

Fused fuse(Callable callable, const Tensors& example, FuseOptions options) {
    auto s = std::make_shared<Fused::State>();
    s->callable = std::move(callable);
    s->options = std::move(options);
    s->capture_for(example);
    return Fused(s);
}

}  // namespace heddle
