// The runs that make a capture: the example, then other sizes; everything the callable holds is put back afterwards.
#include "frontends/capture/capture.h"

#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "frontends/capture/merge.h"

namespace heddle {

namespace {
// Sizes to try, three for each name: of all remainders by 2 and by 3, so that quotients show. Those of seven names are such that a multiple of
// one up to 4 and a number up to 4 more, sums and differences of two and a number up to 3, and products of two differ. Of several names, one that is
// small in the example stays smaller, as what it counts may be large; but not as small: there may be indices into it.
constexpr std::size_t kNames = 7, kTrials = 3;
constexpr std::int64_t kSizes[kNames][kTrials] = {{23, 61, 30}, {97, 38, 54}, {31, 83, 42}, {72, 43, 101}, {47, 90, 58}, {107, 66, 79}, {73, 102, 59}};
constexpr std::int64_t kFew = 7, kFewSizes[kNames][kTrials] = {{13, 8, 24}, {24, 13, 8}, {25, 9, 14}, {29, 10, 12}, {14, 28, 9}, {9, 11, 28}, {8, 24, 13}};
constexpr std::size_t kRuns = 1 + kTrials;

class Random {  // the default generators, as they were
public:
    explicit Random(const std::vector<at::Tensor>& used) {
        devices_.emplace_back(at::kCPU);
        for (const auto& t : used)
            if (t.defined() && t.is_cuda() && std::find(devices_.begin(), devices_.end(), t.device()) == devices_.end()) devices_.push_back(t.device());
        for (auto d : devices_) {
            at::Generator g = at::globalContext().defaultGenerator(d);
            states_.push_back(g.get_state());
        }
    }
    ~Random() { restore(); }
    void restore() {
        for (std::size_t i = 0; i < devices_.size(); ++i) {
            at::Generator g = at::globalContext().defaultGenerator(devices_[i]);
            g.set_state(states_[i]);
        }
    }

private:
    std::vector<c10::Device> devices_;
    std::vector<at::Tensor> states_;
};

// A tensor that lies in memory like `t`, with other values of the same range: floats drawn towards zero, integers and bools moved on. What
// the function reads of it by other means than PyTorch's ops (numpy, a loop over data_ptr) then differs between runs, and is no constant.
at::Tensor with_other_values(const at::Tensor& t, std::size_t run) {
    constexpr std::int64_t kLargest = 1 << 24;  // bytes
    std::int64_t span = t.numel() > 0 ? 1 : 0;
    for (std::int64_t d = 0; d < t.dim() && span > 0; ++d) span += (t.size(d) - 1) * t.stride(d);
    if (span == 0 || span * static_cast<std::int64_t>(t.element_size()) > kLargest) return t;
    c10::AutoGradMode off(false);
    at::Tensor flat = t.detach().as_strided({span}, {1}, t.storage_offset());
    flat = at::isFloatingType(t.scalar_type()) ? flat.mul(1 - static_cast<double>(run) / 128) : flat.roll(static_cast<std::int64_t>(run));
    return flat.as_strided(t.sizes(), t.strides()).set_requires_grad(t.requires_grad());
}

struct Held {  // a tensor the callable holds, shown another storage for one run
    at::Tensor tensor, data;
    ~Held() { tensor.set_data(data); }
};

// The runs after the first: at sizes of their own, chosen so that the function decides everything as it did in the first.
class Trials {
public:
    Trials(const Callable& f, const std::vector<at::Tensor>& example, const CaptureOptions& options);
    Captured run();

private:
    std::optional<Sizes> other_sizes(std::size_t r, int attempt) const;
    Recording once(std::size_t r, const Sizes&, bool other_values, bool apart);
    Recording once(std::size_t r, const Sizes&);
    void trial(std::size_t r);

    const Callable& f_;
    const std::vector<at::Tensor>& example_;
    const CaptureOptions& options_;
    Sizes sizes_;
    std::vector<std::string> names_;
    std::vector<char> integers_;       // per argument: its value is a size
    std::vector<std::string> values_;  // names that are the value of an integer
    std::vector<at::Tensor> all_;
    std::unique_ptr<Random> random_;
    std::vector<Sizes> at_;
    std::vector<Recording> runs_;
    bool asks_more_ = false;           // of values than their range: seen once, it isn't tried again
};

Trials::Trials(const Callable& f, const std::vector<at::Tensor>& example, const CaptureOptions& options)
    : f_(f), example_(example), options_(options), integers_(example.size()), all_(example) {
    for (const auto& v : options.dynamic) {
        const at::Tensor& t = v.tensor.defined() ? v.tensor : (v.input >= 0 && static_cast<std::size_t>(v.input) < example.size() ? example[static_cast<std::size_t>(v.input)] : v.tensor);
        const bool value = v.dim == Varying::kValue && t.defined() && t.dim() == 0 && t.scalar_type() == at::kLong;
        if (!t.defined() || (!value && (v.dim < 0 || v.dim >= t.dim())))
            throw Error(fmt::format("capture: size {}: there is no dimension {} of input {}", v.name, v.dim, v.input));
        if (v.tensor.defined()) all_.push_back(v.tensor);
        if (value) integers_[static_cast<std::size_t>(v.input)] = 1;
        if (!parse_dim(v.name).is_symbol()) continue;
        std::int64_t size = value ? t.item<std::int64_t>() : t.size(v.dim);
        auto [it, fresh] = sizes_.emplace(v.name, size);
        if (fresh) names_.push_back(v.name);
        if (value) values_.push_back(v.name);
        if (it->second != size) throw Error(fmt::format("capture: size {} is {} and {}: a name has one size", v.name, it->second, size));
    }
    random_ = std::make_unique<Random>(all_);
}

// Another one than in the example.
std::int64_t trial_size(std::size_t name, std::size_t trial, std::int64_t here, bool few) {
    const auto& sizes = few ? kFewSizes : kSizes;
    const std::int64_t size = sizes[name % kNames][trial];
    return size == here ? sizes[(name + 2) % kNames][trial] : size;
}

// Attempt 0 takes sizes that tell most apart; the others stay nearer to the example, integers first: an index has to be in range.
std::optional<Sizes> Trials::other_sizes(std::size_t r, int attempt) const {
    constexpr int kNear[][2] = {{0, 0}, {1, 0}, {-1, 0}, {1, 1}, {-1, -1}};  // steps of integers, of sizes
    if (static_cast<std::size_t>(attempt) >= std::size(kNear) || (attempt > 0 && names_.empty())) return {};
    Sizes other;
    for (std::size_t k = 0; k < names_.size(); ++k) {
        const std::int64_t here = sizes_.at(names_[k]);
        const bool value = std::find(values_.begin(), values_.end(), names_[k]) != values_.end();
        if (int step = kNear[attempt][value ? 0 : 1]) other[names_[k]] = here + step * static_cast<std::int64_t>((k + 1) * r);
        else other[names_[k]] = trial_size(k, r - 1, here, names_.size() > 1 && here <= kFew);
        if (other[names_[k]] < (value ? 0 : 1)) return {};
    }
    return other;
}

// As much changed as the function bears: values, unless it asks more of them than their range (that they are sorted, or distinct); and rows of
// masks that happened to be as many as each other's, unless it needs them to be.
Recording Trials::once(std::size_t r, const Sizes& sizes) {
    std::exception_ptr last;
    const bool masks = runs_[0].counted.size() > 1;
    for (bool apart : {true, false})
        for (bool other_values : {true, false}) {
            if ((apart && !masks) || (other_values && asks_more_)) continue;
            try {
                Recording run = once(r, sizes, other_values, apart);
                asks_more_ |= !other_values;
                return run;
            } catch (const Error&) {
                if (!apart) throw;
                last = std::current_exception();
                break;  // whatever the values are
            } catch (const std::exception&) {
                last = std::current_exception();
            }
        }
    std::rethrow_exception(last);
}
Recording Trials::once(std::size_t r, const Sizes& sizes, bool other_values, bool apart) {
    auto changes = [&](auto matches) {
        std::vector<std::pair<int, std::int64_t>> c;
        for (const auto& v : options_.dynamic)
            if (matches(v)) c.emplace_back(v.dim, parse_dim(v.name).eval(sizes));
        return c;
    };
    std::vector<at::Tensor> arguments;
    for (std::size_t i = 0; i < example_.size(); ++i) {
        auto of = changes([&](const Varying& v) { return !v.tensor.defined() && v.input == static_cast<int>(i); });
        arguments.push_back(resized(other_values ? with_other_values(example_[i], r) : example_[i], of));
    }
    std::vector<std::unique_ptr<Held>> held;
    for (const auto& v : options_.dynamic) {
        if (!v.tensor.defined() || std::any_of(held.begin(), held.end(), [&](auto& h) { return h->tensor.is_same(v.tensor); })) continue;
        at::Tensor now = v.tensor, before = now.detach();
        held.push_back(std::make_unique<Held>(Held{now, before}));
        now.set_data(resized(before, changes([&](const Varying& w) { return w.tensor.defined() && w.tensor.is_same(now); })));
    }
    constexpr int kExtra[] = {0, 3, 11, 5}, kMore[] = {0, 2, 1, 7};
    random_->restore();
    return record(f_, arguments, integers_, options_.host_read, &runs_[0], kExtra[r], apart ? kMore[r] : 0);
}

void Trials::trial(std::size_t r) {
    std::optional<Recording> last;
    std::exception_ptr error;
    for (int attempt = 0; auto sizes = other_sizes(r, attempt); ++attempt) {
        try {
            Recording run = once(r, *sizes);
            const auto &a = runs_[0].choices, &b = run.choices;
            bool same = std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Choice& x, const Choice& y) {
                return x.of == y.of && (x.outcome == y.outcome || x.of == Choice::Of::mod || x.of == Choice::Of::div);
            });
            if (!last || same) last = std::move(run), at_.resize(r), at_.push_back(*sizes);
            if (same) break;
        } catch (const Error&) {
            if (!error) error = std::current_exception();
        } catch (const std::exception& e) {
            if (error) continue;
            std::string text, what = e.what();
            for (const auto& [n, v] : *sizes) text += fmt::format("{}{}={}", text.empty() ? "" : " ", n, v);
            error = std::make_exception_ptr(Error(fmt::format("capture: the function fails at sizes {} though it ran at the example's: {}", text, what.substr(0, what.find('\n')))));
        }
    }
    if (!last) std::rethrow_exception(error);
    runs_.push_back(std::move(*last));
}

// As much of a run as another one follows.
Recording guards_of(const Captured& c) {
    Recording r;
    for (std::size_t k = c.graph.outputs.size() - c.guards; k < c.graph.outputs.size(); ++k) {
        r.guards.push_back(static_cast<Id>(r.nodes.size()));
        r.nodes.push_back(c.graph[c.graph.outputs[k]]);
    }
    return r;
}

Captured Trials::run() {
    at_.push_back(sizes_);
    const Recording as = options_.as ? guards_of(*options_.as) : Recording{};
    runs_.push_back(record(f_, example_, integers_, options_.host_read, options_.as ? &as : nullptr, 0, 0));
    const bool varies = !names_.empty() || !runs_[0].counted.empty();
    for (std::size_t r = 1; r < (varies ? kRuns : 2) && !(options_.once && names_.empty()); ++r) trial(r);
    return merge(runs_, at_, example_.size(), options_.name);
}
}  // namespace

at::Tensor resized(const at::Tensor& t, const std::vector<std::pair<int, std::int64_t>>& sizes) {
    if (sizes.empty()) return t;
    c10::AutoGradMode off(false);
    std::vector<std::int64_t> target = t.sizes().vec(), order(static_cast<std::size_t>(t.dim()));
    at::Tensor x = t.detach();
    for (auto [dim, n] : sizes) {
        if (dim == Varying::kValue) return at::full_like(t, n);
        target[static_cast<std::size_t>(dim)] = n;
        if (t.size(dim) == 0) x = x.new_zeros(t.sizes()).sum(dim, true).to(t.scalar_type());  // nothing to repeat
        if (t.stride(dim) == 0) x = x.narrow(dim, 0, 1);
        else x = x.index_select(dim, at::arange(n, x.options().dtype(at::kLong)).remainder(x.size(dim)));
    }
    for (std::int64_t d = 0; d < t.dim(); ++d)
        if (t.stride(d) == 0) x = x.narrow(d, 0, 1);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return t.stride(a) > t.stride(b); });
    std::vector<std::int64_t> back(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) back[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
    x = x.permute(order).contiguous().permute(back).expand(target);
    return x.set_requires_grad(t.requires_grad());
}

Captured capture(const Callable& f, const std::vector<at::Tensor>& example, const CaptureOptions& options) {
    std::vector<std::unique_ptr<Held>> held;
    for (const auto& s : options.at) {
        if (std::any_of(held.begin(), held.end(), [&](auto& h) { return h->tensor.is_same(s.tensor); })) continue;
        std::vector<std::pair<int, std::int64_t>> sizes;
        for (const auto& t : options.at)
            if (t.tensor.is_same(s.tensor)) sizes.emplace_back(t.dim, t.size);
        held.push_back(std::make_unique<Held>(Held{s.tensor, s.tensor.detach()}));
        at::Tensor(s.tensor).set_data(resized(held.back()->data, sizes));
    }
    return Trials(f, example, options).run();
}

}  // namespace heddle
