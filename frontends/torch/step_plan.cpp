// Plans are kept for the whole process, since training that resumes at other sizes often does so with an optimiser and a step of its own.
#include "frontends/torch/step_plan.h"

#include <ATen/Functions.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <set>

namespace heddle {

namespace {
constexpr std::size_t kPlans = 16, kCaptures = 6;  // kept; that a plan is made from
struct Plans {
    std::mutex mutex;
    std::list<std::shared_ptr<const StepPlan>> all;  // most recent first
    std::vector<std::shared_ptr<const StepPlan>> with(const std::string& key) {
        std::lock_guard lock(mutex);
        std::vector<std::shared_ptr<const StepPlan>> found;
        std::copy_if(all.begin(), all.end(), std::back_inserter(found), [&](const auto& p) { return p->key == key; });
        return found;
    }
    void first(const std::shared_ptr<const StepPlan>& p, const std::shared_ptr<const StepPlan>& instead = nullptr) {
        std::lock_guard lock(mutex);
        all.remove(p);
        if (instead) all.remove(instead);
        all.push_front(p);
        if (all.size() > kPlans) all.pop_back();
    }
};
Plans& plans() {
    static auto* p = new Plans;  // outlives every step
    return *p;
}

// Per input: its dimensions that are sampled by coordinates, as the tensor has them.
std::vector<std::vector<int>> sampled(const Graph& captured) {
    std::vector<std::vector<int>> dims(captured.inputs.size());
    for (const Node& n : captured.nodes) {
        if (!n.is(Op::call) || n.text("name").find("grid_sampler") == std::string::npos) continue;
        const auto at = std::find(captured.inputs.begin(), captured.inputs.end(), n.in.at(0));
        if (at == captured.inputs.end()) continue;
        auto& mine = dims[static_cast<std::size_t>(at - captured.inputs.begin())];
        mine.clear();
        for (int d = 2; d < captured.type(*at).rank(); ++d) mine.push_back(d);
    }
    return dims;
}

// May a size get a name, if it was seen to differ? Not the channels of what is trained: kernels are written around them, and another number of
// them is another model. What is sampled grows, arguments come as they come, and rows may be added to anything.
class Varies {
public:
    Varies(const Variant& v, std::size_t arguments) : v_(v), arguments_(arguments), sampled_(sampled(v.captured.graph)) {}
    bool operator()(std::size_t input, std::size_t dim) const {
        if (input < arguments_ || !v_.wants[input]) return true;
        const auto& order = v_.orders[input];
        const int own = order.empty() ? static_cast<int>(dim) : order[dim];
        if (const auto& s = sampled_[input]; !s.empty()) return std::find(s.begin(), s.end(), own) != s.end();
        return own == 0 || v_.body.type(v_.body.inputs[input]).rank() != 2;
    }

private:
    const Variant& v_;
    std::size_t arguments_;
    std::vector<std::vector<int>> sampled_;
};
}  // namespace

at::Tensor FoundPlan::numbers(at::Device device) const {
    if (binding.numbers.empty()) return {};
    at::Tensor t = at::empty({static_cast<std::int64_t>(binding.numbers.size())}, at::kDouble);
    std::copy(binding.numbers.begin(), binding.numbers.end(), t.mutable_data_ptr<double>());
    return t.to(device);
}
void FoundPlan::give(SizeValues& sizes, std::size_t first) const {
    for (const std::string& name : plan->general.given) sizes[first++] = binding.sizes.at(name);
}

std::string step_key(const Variant& v, const std::vector<Trained>& trained, const FuseOptions& options) {
    std::string key = fmt::format("{} {} {} {} {} {} {}", v.captured.graph.name, v.device.str(), options.deterministic, v.returned, v.outputs, v.forward_outputs, fmt::join(v.wants, ""));
    for (const auto& o : v.orders) key += fmt::format(" [{}]", fmt::join(o, ","));
    for (const auto& r : v.results) key += fmt::format(" r{}:{}:{}", static_cast<int>(r.of), r.index, fmt::join(r.back, ","));
    for (const auto& o : v.captured.order) key += fmt::format(" o{}", fmt::join(o, ","));
    for (const auto& [name, input] : v.integers) key += fmt::format(" i{}={}", name, input);
    for (const auto& q : v.captured.quotients) key += fmt::format(" {}={}/{}", q.name, print(q.of), q.by);
    for (const auto& w : v.captured.writes) key += fmt::format(" w{}:{}", w.input, w.output);
    for (const Trained& t : trained)
        key += fmt::format(" t{}:{}:{}{}{}{}{}", t.input, t.row, t.reached ? 1 : 0, t.form.weight_decay ? 1 : 0, t.form.decoupled ? 1 : 0, t.form.amsgrad ? 1 : 0, t.form.maximize ? 1 : 0);
    return key;
}

FoundPlan find_plan(const std::string& key, const Variant& v) {
    for (const auto& p : plans().with(key))
        if (auto b = bind(p->general, v.body)) {
            plans().first(p);
            return {p, std::move(*b)};
        }
    return {};
}

namespace {
std::shared_ptr<StepPlan> drafted(const std::string& key, const Variant& v, std::vector<Graph> captures) {
    std::vector<const Graph*> all;
    for (const Graph& g : captures) all.push_back(&g);
    auto general = generalise(all, Varies(v, v.wants.size() - v.holds()));
    if (!general) return {};
    auto made = std::make_shared<StepPlan>();
    made->key = key, made->captures = std::move(captures), made->general = std::move(*general);
    return made;
}
}  // namespace

bool knows_plan(const std::string& name) {
    std::lock_guard lock(plans().mutex);
    return std::any_of(plans().all.begin(), plans().all.end(), [&](const auto& p) { return p->general.graph.name == name; });
}
std::shared_ptr<StepPlan> draft_with_known(const std::string& key, const Variant& v) {
    for (const auto& p : plans().with(key)) {
        std::vector<Graph> captures{v.body};
        captures.insert(captures.end(), p->captures.begin(), p->captures.begin() + static_cast<std::ptrdiff_t>(std::min(p->captures.size(), kCaptures - 1)));
        if (auto made = drafted(key, v, std::move(captures))) {
            made->instead = p;
            return made;
        }
    }
    return {};
}
std::shared_ptr<StepPlan> draft(const std::string& key, const Variant& v, const Variant* other) {
    if (!other) return drafted(key, v, {v.body});
    return step_key(*other, {}, {}) == step_key(v, {}, {}) ? drafted(key, v, {v.body, other->body}) : nullptr;
}
Pair pair_for(const StepPlan& plan, const Variant& v, const Binding& binding, Machine machine) {
    Example example = v.example;
    example.machine = machine;
    for (const auto& [name, size] : binding.sizes) example.sizes[name] = size;
    example.positive.insert(plan.general.names.begin(), plan.general.names.end());
    std::vector<char> wants = v.wants;
    if (plan.general.numbers > 0) wants.push_back(0);
    Pair pair = forward_and_backward(plan.general.graph, wants, example);
    v.lay_out_results(pair.split.forward);
    return pair;
}
FoundPlan make_plan(const std::shared_ptr<StepPlan>& made, const Variant& v, const std::function<void(StepPlan&, const Pair&)>& compile) {
    auto binding = bind(made->general, v.body);
    HEDDLE_CHECK(binding, "a general graph is each that it was made from");
    Pair pair = pair_for(*made, v, *binding, v.example.machine);
    made->masks = pair.masks;
    compile(*made, pair);
    plans().first(made, std::exchange(made->instead, nullptr));
    return {made, std::move(*binding)};
}

OtherSizes other_sizes(const Variant& v, at::TensorList all, std::size_t arguments, bool apart) {
    // Small, and such that a number of samples which follows from one, as of a diagonal (1.73 or 3.46 times it), isn't another.
    constexpr std::int64_t kSizes[] = {23, 31, 42, 55, 61, 74, 83, 29, 37, 47, 59, 67, 26, 35, 44};
    constexpr std::int64_t kFew = 16;  // sizes of arguments that may be what they are: coordinates, colours
    enum From { kArgument, kTrained, kOther };
    const auto dims = sampled(v.captured.graph);
    std::map<std::pair<int, std::int64_t>, std::int64_t> others;
    std::set<std::int64_t> used;
    for (const at::Tensor& t : all) used.insert(t.sizes().begin(), t.sizes().end());
    auto other = [&](From from, std::int64_t size) {
        const auto [at, fresh] = others.emplace(std::pair(apart ? from : kOther, size), size);
        if (!fresh) return at->second;
        const auto* free = std::find_if(std::begin(kSizes), std::end(kSizes), [&](std::int64_t s) { return !used.count(s); });
        if (free != std::end(kSizes)) at->second = *free;
        used.insert(at->second);
        return at->second;
    };
    OtherSizes sizes;
    for (std::size_t k = arguments; k < all.size(); ++k)
        for (int d : dims[k]) sizes.held.push_back({all[k], d, other(v.wants[k] ? kTrained : kOther, all[k].size(d))});
    for (std::size_t k = 0; k < arguments; ++k) {
        std::vector<std::pair<int, std::int64_t>> to;
        for (int d = 0; d < all[k].dim(); ++d)
            if (all[k].size(d) > kFew) to.emplace_back(d, other(kArgument, all[k].size(d)));
        sizes.arguments.push_back(resized(all[k], to));
    }
    return sizes;
}

}  // namespace heddle
