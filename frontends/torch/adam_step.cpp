// Captures as heddle::fuse does; the plan is that of the whole step.
#include "frontends/torch/adam_step.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <mutex>

#include "frontends/capture/recorder.h"
#include "frontends/torch/host.h"
#include "frontends/torch/recapture.h"
#include "frontends/torch/step_plan.h"
#include "ir/text.h"
#include "passes/prepare.h"
#include "passes/step.h"
#include "runtime/device.h"
#include "runtime/traffic.h"

namespace heddle {

namespace {
constexpr std::size_t kWays = 16;  // plans of one loss
struct Replaced {};                // thrown: what the loss holds is gone since it was captured

AdamForm form_of(const AdamGroup& g) { return {g.weight_decay != 0, g.decoupled, g.amsgrad, g.maximize}; }

// One row of numbers, as torch.optim.Adam computes them in Python's floats.
void fill(double* row, const AdamGroup& g, double t) {
    const double bias1 = 1 - std::pow(g.beta1, t), bias2 = 1 - std::pow(g.beta2, t);
    row[kStepSize] = g.lr / bias1;
    row[kScale2] = 1 / std::sqrt(bias2);
    row[kOneMinusBeta1] = 1 - g.beta1;
    row[kBeta2] = g.beta2;
    row[kOneMinusBeta2] = 1 - g.beta2;
    row[kEps] = g.eps;
    row[kDecay] = g.weight_decay;
    row[kKept] = 1 - g.lr * g.weight_decay;
}
// What the plan computes them from.
void fill(double* row, const AdamGroup& g, bool counts) {
    row[kRate] = g.lr, row[kFirstBeta] = g.beta1, row[kSecondBeta] = g.beta2, row[kEpsilon] = g.eps, row[kWeightDecay] = g.weight_decay;
    row[kCounts] = counts;
}

// Room for the rows of a mask: an eighth more than there were, as numbers that don't change with every step.
std::int64_t room_for(std::int64_t rows, std::int64_t most) {
    constexpr std::int64_t kUnit = 256;
    return std::min(most, (rows + rows / 8 + 2 * kUnit - 1) / kUnit * kUnit);
}

// Numbers that a device writes in the middle of a step, for the host once they are there.
class Late {
public:
    void take(const at::Tensor& t) {
        if (t.is_cpu()) {
            here_ = t.clone();
            return;
        }
        if (!here_.defined() || here_.numel() != t.numel()) here_ = at::empty(t.sizes(), t.options().device(at::kCPU).pinned_memory(true));
        here_.copy_(t, true);
        if (!event_) event_.emplace(t.device().type());
        event_->record(c10::impl::VirtualGuardImpl(t.device().type()).getStream(t.device()));
    }
    at::IntArrayRef wait() {  // for them, and not for what comes after
        if (event_) event_->synchronize();
        return {here_.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(here_.numel())};
    }

private:
    at::Tensor here_;
    std::optional<c10::Event> event_;
};
}  // namespace

struct AdamStep::State {
    // A plan, and what it was made for.
    struct Way {
        std::shared_ptr<Variant> variant;
        std::vector<AdamForm> forms;         // of the parameters
        FoundPlan found;
        std::shared_ptr<const Executable> plan;
        std::vector<std::size_t> updated;    // parameters, in the order of the plan's states
        std::vector<Update> updates;         // asked for; those that aren't in place are copied
        std::size_t states = 0;              // position of the first state among the plan's inputs
        at::Tensor constants;                // numbers of the loss that the plan takes as an input, if any
        at::Tensor numbers, on_device;       // [parameters, kAdamNumbers or kAdamOptions], float64
        std::vector<std::int64_t> room;      // per bound; 0: not known yet
        Late late;
        at::Tensor check;                    // of the last step
        bool bounded = false;
        std::string waits;                   // why it isn't
        std::unique_ptr<KeepingHost> host;
        std::string reason;                  // no variant: why
        Guard guard;
        SizeValues sizes;                    // of the last run
        std::vector<Trained> trained;
        bool counts = false;                 // the plan counts steps
        Plan cuda_plan() const {
            std::optional<WholeStep> there;  // masks may be another matter there
            const Example& here = variant->example;
            if (here.machine != Machine::cuda && !here.rows.empty()) there = whole_step(pair_for(*found.plan, *variant, found.binding, Machine::cuda), variant->forward_outputs, 0, trained, static_cast<std::size_t>(numbers.size(0)), counts);
            const WholeStep& step = there ? *there : found.plan->step;
            return heddle::plan(step.graph, {}, {.machine = Machine::cuda, .updates = step.updates, .deterministic = plan->plan().deterministic, .bounded = bounded});
        }
    };

    State(Callable loss, FuseOptions options, StepOptions step) : loss(std::move(loss)), options(std::move(options)), form(step), seen(this->options.earlier) { this->options.recapture = true; }
    Callable loss;
    FuseOptions options;
    StepOptions form;
    bool looks_elsewhere = true;
    SeenSizes seen;
    Tensors laid_out;                        // anew, since the loss was last captured
    std::vector<AdamParameter> parameters;
    at::Tensor steps;                        // capturable: f32[parameters]
    std::vector<std::shared_ptr<Way>> ways;  // most recent first
    std::string reason;
    int captures = 0, compiles = 0;
    double capture_seconds = 0, plan_seconds = 0;
    std::int64_t allocations = 0;            // of ways that are gone
    int repeated = 0;
    mutable std::mutex mutex;                // one step at a time

    std::shared_ptr<Variant> as_they_lie(const std::function<std::shared_ptr<Variant>()>& capture);
    std::shared_ptr<Variant> variant(at::TensorList in, const std::vector<Varying>& dynamic, const std::vector<AdamGroup>&, bool once);
    std::vector<Trained> trained(const Variant&, at::TensorList in, const std::vector<AdamGroup>&) const;
    std::string key(const Variant&, const std::vector<Trained>&) const;
    std::shared_ptr<Variant> captured_elsewhere(const Variant&, at::TensorList in);
    std::shared_ptr<Way> make(at::TensorList in, const std::vector<AdamGroup>&);
    std::shared_ptr<Way> make_once(at::TensorList in, const std::vector<AdamGroup>&);
    void compile(StepPlan&, at::Device, const std::vector<std::string>& names) const;
    std::optional<Tensors> run(Way&, at::TensorList in, const std::vector<AdamGroup>&, bool wait);
    std::optional<Tensors> step(at::TensorList in, const std::vector<AdamGroup>&, bool wait);
    void count_on(at::Device);
    void numbers(Way&, const std::vector<AdamGroup>&);
    bool holds(Way&, const SizeValues&);
};

// Lies as `order` says; values, sizes and the tensor itself stay.
namespace {
void lay_out(const at::Tensor& t, const std::vector<int>& order) {
    if (!t.defined()) return;
    at::NoGradGuard no_grad;
    const auto back = inverse(order);
    t.set_data(t.detach().permute(std::vector<std::int64_t>(order.begin(), order.end())).contiguous().permute(std::vector<std::int64_t>(back.begin(), back.end())));
}
std::vector<int> identity(const at::Tensor& t) { return axes_from_to(0, static_cast<int>(t.dim())); }
// As it lies in memory.
at::Tensor as_it_lies(const at::Tensor& t, const std::vector<int>& order) { return order.empty() ? t : t.permute(std::vector<std::int64_t>(order.begin(), order.end())); }
}  // namespace

// What the step updates, by inputs of the loss.
std::vector<Trained> AdamStep::State::trained(const Variant& v, at::TensorList in, const std::vector<AdamGroup>& groups) const {
    const Tensors all = v.with_held(in);
    std::vector<Trained> found;
    for (std::size_t k = 0; k < parameters.size(); ++k)
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (!all[i].is_same(parameters[k].parameter)) continue;
            if (i < in.size() && !all[i].is_contiguous()) throw Error(fmt::format("{}: parameter {} is an argument and isn't contiguous; let the function hold it", options.name, k));
            const auto& reached = v.reaches.at(0);
            found.push_back({static_cast<int>(i), k, std::find(reached.begin(), reached.end(), i) != reached.end(), form_of(groups.at(parameters[k].group))});
            break;
        }
    return found;
}
std::string AdamStep::State::key(const Variant& v, const std::vector<Trained>& trained) const {
    return fmt::format("{} of {} {} {}", step_key(v, trained, options), parameters.size(), form.capturable, form.bounded.value_or(v.device.is_cuda()));
}

// A capture on parameters that were laid out anew; on what they were, if it views what doesn't lie together then.
std::shared_ptr<Variant> AdamStep::State::as_they_lie(const std::function<std::shared_ptr<Variant>()>& capture) {
    try {
        return capture();
    } catch (const std::exception&) {
        for (const at::Tensor& t : laid_out) lay_out(t, identity(t));
        form.restride = false;
        return capture();
    }
}
// `once`: a capture that a plan is known for, or nothing. Else one that plans can be made from. Parameters are laid out anew.
std::shared_ptr<Variant> AdamStep::State::variant(at::TensorList in, const std::vector<Varying>& dynamic, const std::vector<AdamGroup>& groups, bool once) {
    at::AutoGradMode on(true);
    const Elsewhere alone{.once = once};
    auto capture = [&] { return capture_variant(loss, in.vec(), dynamic, options, true, &alone); };
    std::shared_ptr<Variant> v = laid_out.empty() ? capture() : as_they_lie(capture);
    laid_out.clear();
    if (form.restride) {
        const Tensors all = v->with_held(in);
        const auto better = better_orders(v->lowered());
        for (const AdamParameter& p : parameters)
            for (std::size_t k = in.size(); k < all.size(); ++k)
                if (all[k].is_same(p.parameter) && !better[k].empty() && v->orders[k].empty()) laid_out.push_back(p.parameter), lay_out(p.parameter, better[k]);
        if (!laid_out.empty()) v->lower(all);
    }
    if (!once) return v;
    return v->returned > 0 && find_plan(key(*v, trained(*v, in, groups)), *v) ? v : nullptr;
}
// The same loss where what it samples has other sizes; nothing if it samples nothing, or fails there.
std::shared_ptr<Variant> AdamStep::State::captured_elsewhere(const Variant& v, at::TensorList in) {
    auto capture = [&]() -> std::shared_ptr<Variant> {
        at::AutoGradMode on(true);
        const Tensors all = v.with_held(in);
        const OtherSizes apart = other_sizes(v, all, in.size(), true), together = other_sizes(v, all, in.size(), false);
        if (apart.held.empty()) return {};
        for (const auto& [sizes, arguments] : {std::pair(apart.held, apart.arguments), std::pair(apart.held, in.vec()), std::pair(together.held, together.arguments)}) try {
                const Elsewhere there{.at = sizes, .as = &v.captured};
                return capture_variant(loss, arguments, v.dynamic(), options, true, &there);
            } catch (const std::exception&) {
            }
        return {};
    };
    if (!looks_elsewhere || v.with_held(in).empty()) return {};
    auto w = capture();
    if (!v.with_held(in).empty()) return w;
    looks_elsewhere = false;  // it makes tensors of its own for those sizes
    throw Replaced();
}

std::shared_ptr<AdamStep::State::Way> AdamStep::State::make(at::TensorList in, const std::vector<AdamGroup>& groups) {
    try {
        return make_once(in, groups);
    } catch (const Replaced&) {
        at::AutoGradMode on(true);
        try {
            capture_variant(loss, in.vec(), options.dynamic, options);  // makes them again
        } catch (const std::exception&) {
        }
        return make_once(in, groups);
    }
}
std::shared_ptr<AdamStep::State::Way> AdamStep::State::make_once(at::TensorList in, const std::vector<AdamGroup>& groups) {
    using Clock = std::chrono::steady_clock;
    auto seconds = [](Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); };
    auto way = std::make_shared<Way>();
    ++captures;
    std::vector<Varying> names = seen.changed(in, options.dynamic);
    try {
        auto start = Clock::now();
        std::shared_ptr<Variant> v;
        if (ways.empty() && knows_plan(options.name)) v = variant(in, options.dynamic, groups, true);
        if (!v)
            capture_with(names, [&](const std::vector<Varying>& more) {
                std::vector<Varying> dynamic = options.dynamic;
                dynamic.insert(dynamic.end(), more.begin(), more.end());
                v = variant(in, dynamic, groups, false);
            });
        Tensors all = v->with_held(in);
        if (v->returned == 0 || !v->results[0].own()) throw Error(options.name + ": returns no loss of its own");
        if (const Type& t = v->body.type(v->body.outputs[0]); !is_float(t.dtype) || numel(t.shape) != Dim(1)) throw Error(fmt::format("{}: the loss is {}, expected one floating-point number", options.name, print(t)));
        if (v->reaches[0].empty()) throw Error(options.name + ": the loss doesn't depend on anything that requires a gradient");
        for (const auto& w : v->captured.writes)
            for (const AdamParameter& p : parameters)
                if (all[static_cast<std::size_t>(w.input)].is_alias_of(p.parameter)) throw Error(options.name + ": writes into a parameter that it trains");
        all.clear();  // what the loss alone holds may go
        for (const AdamParameter& p : parameters) way->forms.push_back(form_of(groups.at(p.group)));
        std::vector<Trained> trained = this->trained(*v, in, groups);
        std::string key = this->key(*v, trained);
        way->found = find_plan(key, *v);
        std::shared_ptr<StepPlan> made;
        if (!way->found && !(made = draft_with_known(key, *v))) {
            if (auto other = captured_elsewhere(*v, in)) made = draft(key, *v, other.get());
            if (!made && !laid_out.empty()) {
                const auto dynamic = v->dynamic();
                at::AutoGradMode on(true);
                v = as_they_lie([&] { return capture_variant(loss, in.vec(), dynamic, options, true); });
                trained = this->trained(*v, in, groups);
                key = this->key(*v, trained);
                if (auto other = captured_elsewhere(*v, in)) made = draft(key, *v, other.get());
            }
            if (!made) made = draft(key, *v);
            if (!made) throw Error(options.name + ": its graph isn't itself");
        }
        capture_seconds += seconds(start);
        if (made) {
            start = Clock::now();
            way->found = make_plan(made, *v, [&](StepPlan& made, const Pair& pair) {
                made.step = whole_step(pair, v->forward_outputs, 0, trained, parameters.size(), form.capturable);
                std::vector<std::string> names;
                for (const auto& [name, input] : v->integers) names.push_back(name);
                for (const auto& q : v->captured.quotients) names.push_back(q.name);
                names.insert(names.end(), made.general.given.begin(), made.general.given.end());
                compile(made, v->device, names);
            });
            ++compiles;
            plan_seconds += seconds(start);
        }
        const StepPlan& plan = *way->found.plan;
        way->plan = plan.executable;
        for (std::size_t k : plan.step.updated) way->updated.push_back(trained[k].row);
        way->updates = plan.step.updates;
        way->states = plan.step.states;
        way->bounded = plan.bounded, way->waits = plan.waits;
        way->room.assign(way->plan->plan().bounds.size(), 0);
        way->constants = way->found.numbers(v->device);
        way->numbers = at::zeros({static_cast<std::int64_t>(parameters.size()), form.capturable ? int{kAdamOptions} : int{kAdamNumbers}}, at::kDouble);
        way->host = keeping_host(*v->host);
        way->guard = v->guard;
        way->trained = std::move(trained), way->counts = form.capturable;
        way->variant = std::move(v);
    } catch (const Replaced&) {
        throw;
    } catch (const std::exception& e) {
        way->reason = first_line(e);
        names.insert(names.end(), options.dynamic.begin(), options.dynamic.end());
        way->guard = Guard(in.vec(), names, true);
    }
    seen.add(in);
    return way;
}

void AdamStep::State::compile(StepPlan& made, at::Device device, const std::vector<std::string>& names) const {
    Target target;
    if (device.is_cuda()) target = {device_info(device.index()).arch, device.index()};
    PlanOptions how{.machine = device.is_cuda() ? Machine::cuda : Machine::cpu, .updates = made.step.updates, .deterministic = options.deterministic, .bounded = form.bounded.value_or(device.is_cuda())};
    Plan plan;
    try {
        plan = heddle::plan(made.step.graph, {}, how);
    } catch (const Error& e) {
        if (!std::exchange(how.bounded, false)) throw;
        made.waits = first_line(e);
        plan = heddle::plan(made.step.graph, {}, how);
    }
    made.bounded = how.bounded;
    made.executable = std::make_shared<const Executable>(std::move(plan), target, names);
}

// The numbers of steps as one tensor on the device, of which each parameter has a view; they may have been replaced, by a checkpoint say.
void AdamStep::State::count_on(at::Device device) {
    const auto n = static_cast<std::int64_t>(parameters.size());
    bool same = steps.defined() && steps.device() == device && steps.size(0) == n;
    for (std::int64_t k = 0; same && k < n; ++k) {
        const at::Tensor& t = parameters[static_cast<std::size_t>(k)].step;
        same = t.is_alias_of(steps) && t.storage_offset() == k && t.scalar_type() == at::kFloat;
    }
    if (same) return;
    at::Tensor now = at::empty({n}, at::kFloat);
    for (std::int64_t k = 0; k < n; ++k) now.mutable_data_ptr<float>()[k] = parameters[static_cast<std::size_t>(k)].step.item<float>();
    steps = now.to(device);
    for (std::int64_t k = 0; k < n; ++k) parameters[static_cast<std::size_t>(k)].step = steps.select(0, k);
}

// Of this step. To a device they go only if they differ from those that are there.
void AdamStep::State::numbers(Way& way, const std::vector<AdamGroup>& groups) {
    const at::Tensor before = way.on_device.defined() ? way.numbers.clone() : at::Tensor();
    const std::int64_t columns = way.numbers.size(1);
    for (std::size_t k : way.updated) {
        const AdamParameter& p = parameters[k];
        double* row = way.numbers.mutable_data_ptr<double>() + static_cast<std::int64_t>(k) * columns;
        if (form.capturable) fill(row, groups[p.group], true);
        else fill(row, groups[p.group], p.step.item<double>() + 1);
    }
    const at::Device device = way.variant->device;
    if (device.is_cuda() && (!before.defined() || !before.equal(way.numbers))) {
        if (!way.on_device.defined()) way.on_device = at::empty_like(way.numbers, way.numbers.options().device(device));
        way.on_device.copy_(way.numbers, true);
    }
}

// Did the step that is under way hold? If a mask had more rows than there was room for, there is more now.
bool AdamStep::State::holds(Way& way, const SizeValues& sizes) {
    const auto told = way.late.wait();
    const Plan& plan = way.plan->plan();
    bool grown = false;
    for (std::size_t k = 0; k < plan.bounds.size(); ++k) {
        const std::int64_t rows = told[k + 1], had = sizes[static_cast<std::size_t>(way.plan->names().slot(plan.bounds[k].size))];
        std::int64_t& room = way.room[k];
        const std::int64_t wanted = room_for(rows, way.plan->most(k, sizes));
        if (rows > had) room = wanted, grown = true;
        else if (told[0] == 0 && (room == 0 || wanted < room - room / 4)) room = wanted;
    }
    if (told[0] == 0) return true;
    if (!grown) throw GuardFailed{};
    ++repeated;
    return false;
}

// Nothing: the plan doesn't hold for these inputs; nothing has changed.
std::optional<Tensors> AdamStep::State::run(Way& way, at::TensorList in, const std::vector<AdamGroup>& groups, bool wait) {
    const Variant& v = *way.variant;
    const Tensors all = v.holds_tensors() ? v.with_held(in) : in.vec();
    if (all.empty() || !way.guard.holds(all) || !v.knows_gradients(all) || common_device(all) != v.device || v.entangled(all)) return {};
    for (std::size_t k = 0; k < parameters.size(); ++k)
        if (!(way.forms[k] == form_of(groups.at(parameters[k].group)))) return {};
    c10::OptionalDeviceGuard on_device(v.device.is_cpu() ? std::nullopt : std::optional(v.device));
    at::NoGradGuard no_grad;
    const Executable& e = *way.plan;
    SizeValues given;
    given.resize(e.names().list().size(), kUnknown);
    for (std::size_t i = 0; i < v.integers.size(); ++i) given[i] = all[v.integers[i].second].item<std::int64_t>();
    if (auto q = v.guard.quotients(all); !q.empty()) std::copy(q.begin(), q.end(), given.begin() + static_cast<std::ptrdiff_t>(v.integers.size()));
    way.found.give(given, v.integers.size() + v.captured.quotients.size());
    c10::SmallVector<Array, 64> arrays, out(e.plan().program.graph.outputs.size());
    for (std::size_t k = 0; k < all.size(); ++k) arrays.push_back(array_of(as_it_lies(all[k], v.orders[k]), v.device, "input", k));
    if (way.constants.defined()) arrays.push_back(array_of(way.constants, v.device, "constants", 0));
    if (form.capturable) count_on(v.device);
    numbers(way, groups);
    arrays.push_back(array_of(v.device.is_cuda() ? way.on_device : way.numbers, v.device, "numbers", 0));
    Tensors states;  // from the plan's input after the numbers on
    if (form.capturable) states.push_back(steps), arrays.push_back(array_of(steps, v.device, "steps", 0));
    for (std::size_t k : way.updated) {
        AdamParameter& p = parameters[k];
        for (at::Tensor* s : {&p.exp_avg, &p.exp_avg_sq, &p.max_exp_avg_sq}) {
            if (s == &p.max_exp_avg_sq && !way.forms[k].amsgrad) continue;
            const std::vector<int> order = memory_order(p.parameter);
            if (!s->defined()) *s = at::zeros_like(p.parameter);
            if (s->sizes() != p.parameter.sizes() || s->scalar_type() != p.parameter.scalar_type() || s->device() != p.parameter.device())
                throw Error(fmt::format("{}: a state of the optimiser is {}, expected one like its parameter of {}", options.name, c10::str(s->sizes()), c10::str(p.parameter.sizes())));
            if (!as_it_lies(*s, order).is_contiguous()) lay_out(*s, order.empty() ? identity(*s) : order);
            arrays.push_back(array_of(as_it_lies(*s, order), v.device, "state", k));
            states.push_back(*s);
        }
    }
    at::Generator generator;
    at::Tensor before;
    const bool may_fail = v.guarded || e.plan().check >= 0;
    if (may_fail && v.random && wait) generator = at::globalContext().defaultGenerator(v.device), before = generator.get_state();
    SizeValues sizes;
    for (bool again = true; std::exchange(again, false);) try {
        at::AutoDispatchBelowADInplaceOrView below;
        sizes = given;
        for (std::size_t k = 0; k < way.room.size(); ++k)
            if (way.room[k] > 0) sizes[static_cast<std::size_t>(e.names().slot(e.plan().bounds[k].capacity))] = way.room[k];
        way.check.reset();  // its memory is used again
        way.host->begin();
        e.run(*way.host, std::span(arrays.begin(), arrays.end()), std::span(out.begin(), out.end()), sizes, [&](const Array& a) {
            way.check = tensor_of(a);
            if (wait) way.late.take(way.check);
        });
        again = wait && e.plan().check >= 0 && !holds(way, sizes);
        if (again && before.defined()) generator.set_state(before);
    } catch (const GuardFailed&) {
        if (before.defined()) generator.set_state(before);
        return {};
    }
    way.sizes = sizes;
    Tensors results = v.own_results(e, out.data());
    for (const auto& w : v.captured.writes) all[static_cast<std::size_t>(w.input)].copy_(results[static_cast<std::size_t>(w.output)]);
    v.other_results(results, all, e, sizes);
    for (at::Tensor& r : results) r = r.detach();
    const auto& done = e.plan().program.updates;
    const std::size_t first_state = way.states - (form.capturable ? 1 : 0);
    for (const Update& u : way.updates) {
        const auto i = static_cast<std::size_t>(u.input);
        const at::Tensor& t = i < first_state ? all[i] : states[i - first_state];
        if (std::find(done.begin(), done.end(), u) == done.end()) as_it_lies(t.detach(), memory_order(t)).copy_(tensor_of(out[static_cast<std::size_t>(u.output)]));
        else t.unsafeGetTensorImpl()->bump_version();
    }
    if (!form.capturable)
        for (std::size_t k : way.updated) parameters[k].step.add_(1);
    return results;
}

std::optional<Tensors> AdamStep::State::step(at::TensorList in, const std::vector<AdamGroup>& groups, bool wait) {
    reason.clear();
    for (int attempt = 0; attempt < 2; ++attempt) {
        for (std::size_t k = 0; k < ways.size(); ++k) {
            auto way = ways[k];
            if (!way->variant) {
                if (!way->guard.holds(in)) continue;
                reason = way->reason;
                return {};
            }
            auto out = run(*way, in, groups, wait);
            if (!out) continue;
            std::rotate(ways.begin(), ways.begin() + static_cast<std::ptrdiff_t>(k), ways.begin() + static_cast<std::ptrdiff_t>(k) + 1);
            return out;
        }
        if (attempt == 0) ways.insert(ways.begin(), make(in, groups));
        if (ways.size() > kWays) ways.pop_back();
    }
    reason = "what it reads on the host changes between two runs of the same step";
    return {};
}

AdamStep::AdamStep(Callable loss, std::vector<AdamParameter> parameters, FuseOptions options, StepOptions form)
    : state_(std::make_shared<State>(std::move(loss), std::move(options), form)) {
    this->parameters(std::move(parameters));
}
std::optional<Tensors> AdamStep::operator()(at::TensorList inputs, const std::vector<AdamGroup>& groups, bool wait) {
    State& s = *state_;
    std::lock_guard lock(s.mutex);
    for (const AdamParameter& p : s.parameters)
        if (p.group >= groups.size()) throw Error(fmt::format("{}: parameters of {} groups, but {} were given", s.options.name, p.group + 1, groups.size()));
    if (const char* why = must_be_eager(inputs.data(), inputs.size())) {
        s.reason = why;
        return {};
    }
    return s.step(inputs, groups, wait);
}
at::Tensor AdamStep::failed() const {
    std::lock_guard lock(state_->mutex);
    return state_->ways.empty() ? at::Tensor() : state_->ways[0]->check;
}
const std::vector<AdamParameter>& AdamStep::parameters() const { return state_->parameters; }
void AdamStep::parameters(std::vector<AdamParameter> all) {
    std::lock_guard lock(state_->mutex);
    for (AdamParameter& p : all) {
        if (!p.parameter.defined() || !p.parameter.is_leaf() || !p.parameter.requires_grad()) throw Error(state_->options.name + ": what is trained has to be a leaf that requires a gradient");
        if (!p.step.defined()) p.step = at::zeros({}, at::kLong);
        if ((!p.step.is_cpu() && !state_->form.capturable) || p.step.numel() != 1) throw Error(state_->options.name + ": a parameter's step is one number on the CPU; capturable optimisers keep it elsewhere");
    }
    bool same = all.size() == state_->parameters.size();
    for (std::size_t k = 0; same && k < all.size(); ++k) same = all[k].parameter.is_same(state_->parameters[k].parameter) && all[k].group == state_->parameters[k].group;
    state_->parameters = std::move(all);
    if (!same) state_->ways.clear();
}

AdamStep::Report AdamStep::report() const {
    const State& s = *state_;
    std::lock_guard lock(s.mutex);
    Report r;
    r.captures = s.captures, r.compiles = s.compiles;
    r.capture_seconds = s.capture_seconds, r.plan_seconds = s.plan_seconds;
    r.eager_reason = s.reason;
    if (s.ways.empty() || !s.ways[0]->plan) return r;
    const State::Way& way = *s.ways[0];
    r.bounded = way.bounded, r.waits = way.waits, r.repeated = s.repeated;
    const Program& p = way.plan->plan().program;
    for (const Step& step : p.steps)
        if (step.call >= 0) r.library_calls.push_back(p.graph[step.call].is(Op::dot) ? "dot" : p.graph[step.call].text("name"));
    const Stats stats = way.plan->stats(way.sizes);
    r.launches = stats.launches, r.calls = stats.calls, r.host_reads = stats.reads, r.bytes = stats.bytes, r.arena = stats.arena;
    r.in_place = static_cast<int>(p.updates.size()), r.copied = static_cast<int>(way.updates.size() - p.updates.size());
    for (const auto& w : s.ways)
        if (w->host) r.allocations += w->host->allocations();
    return r;
}
std::string AdamStep::explain() const {
    std::lock_guard lock(state_->mutex);
    std::string text;
    for (const auto& w : state_->ways) {
        if (w->plan)
            for (const std::string& note : w->found.plan->masks) text += note + "\n";
        text += w->plan ? print(w->plan->plan().program) + decisions(w->plan->plan()) : "runs eagerly: " + w->reason + "\n";
    }
    return text;
}
std::vector<std::pair<std::string, std::string>> AdamStep::cuda_kernels() const {
    std::lock_guard lock(state_->mutex);
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& w : state_->ways)
        if (w->plan)
            for (auto& k : cuda_texts(w->cuda_plan())) all.push_back(std::move(k));
    return all;
}
std::vector<Traffic> AdamStep::cuda_traffic() const {
    std::lock_guard lock(state_->mutex);
    if (state_->ways.empty() || !state_->ways[0]->plan) return {};
    const State::Way& way = *state_->ways[0];
    Sizes sizes = way.plan->names().named(way.sizes);  // a number of rows that this machine didn't find is the example's
    sizes.insert(way.variant->example.sizes.begin(), way.variant->example.sizes.end());
    return {traffic(way.cuda_plan(), sizes)};
}

}  // namespace heddle
