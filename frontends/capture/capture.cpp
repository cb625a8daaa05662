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
constexpr std::int64_t kPrimes[] = {23, 61, 29, 97, 37, 53, 31, 83, 41, 71, 43, 103, 47, 89, 59, 107, 67, 79, 73, 101};
constexpr std::size_t kRuns = 4;

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

// The same tensor with other sizes: values are the example's, repeated or cut, and strides have the example's order.
at::Tensor resized(const at::Tensor& t, const std::vector<std::pair<int, std::int64_t>>& sizes) {
    if (sizes.empty()) return t;
    c10::AutoGradMode off(false);
    std::vector<std::int64_t> target = t.sizes().vec(), order(static_cast<std::size_t>(t.dim()));
    at::Tensor x = t.detach();
    for (auto [dim, n] : sizes) {
        if (dim == Varying::kValue) return at::full_like(t, n);
        target[static_cast<std::size_t>(dim)] = n;
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

struct Held {  // a tensor the callable holds, shown another storage for one run
    at::Tensor tensor, data;
    ~Held() { tensor.set_data(data); }
};
}  // namespace

Captured capture(const Callable& f, const std::vector<at::Tensor>& example, const CaptureOptions& options) {
    std::vector<at::Tensor> all = example;
    Sizes sizes;
    std::vector<std::string> names;
    std::vector<char> integers(example.size());
    for (const auto& v : options.dynamic) {
        const at::Tensor& t = v.tensor.defined() ? v.tensor : (v.input >= 0 && static_cast<std::size_t>(v.input) < example.size() ? example[static_cast<std::size_t>(v.input)] : v.tensor);
        const bool value = v.dim == Varying::kValue && t.defined() && t.dim() == 0 && t.scalar_type() == at::kLong;
        if (!t.defined() || (!value && (v.dim < 0 || v.dim >= t.dim())))
            throw Error(fmt::format("capture: size {}: there is no dimension {} of input {}", v.name, v.dim, v.input));
        if (v.tensor.defined()) all.push_back(v.tensor);
        if (value) integers[static_cast<std::size_t>(v.input)] = 1;
        if (!parse_dim(v.name).is_symbol()) continue;
        std::int64_t size = value ? t.item<std::int64_t>() : t.size(v.dim);
        auto [it, fresh] = sizes.emplace(v.name, size);
        if (fresh) names.push_back(v.name);
        if (it->second != size) throw Error(fmt::format("capture: size {} is {} and {}: a name has one size", v.name, it->second, size));
    }
    Random random(all);
    std::vector<Sizes> at{sizes};
    std::vector<Recording> runs;
    runs.push_back(record(f, example, integers, options.host_read, nullptr, 0));
    const bool varies = !names.empty() || !runs[0].counted.empty();
    for (std::size_t r = 1; r < (varies ? kRuns : 2); ++r) {
        Sizes other;
        for (std::size_t k = 0; k < names.size(); ++k) other[names[k]] = kPrimes[(k * (kRuns - 1) + r - 1 + (sizes[names[k]] == kPrimes[(k * (kRuns - 1) + r - 1) % std::size(kPrimes)] ? 7 : 0)) % std::size(kPrimes)];
        auto changes = [&](auto matches) {
            std::vector<std::pair<int, std::int64_t>> c;
            for (const auto& v : options.dynamic)
                if (matches(v)) c.emplace_back(v.dim, parse_dim(v.name).eval(other));
            return c;
        };
        auto arguments = [&](bool others) {
            std::vector<at::Tensor> a;
            for (std::size_t i = 0; i < example.size(); ++i)
                a.push_back(resized(others ? with_other_values(example[i], r) : example[i], changes([&](const Varying& v) { return !v.tensor.defined() && v.input == static_cast<int>(i); })));
            return a;
        };
        std::vector<std::unique_ptr<Held>> held;
        for (const auto& v : options.dynamic) {
            if (!v.tensor.defined() || std::any_of(held.begin(), held.end(), [&](auto& h) { return h->tensor.is_same(v.tensor); })) continue;
            at::Tensor now = v.tensor, before = now.detach();
            held.push_back(std::make_unique<Held>(Held{now, before}));
            now.set_data(resized(before, changes([&](const Varying& w) { return w.tensor.defined() && w.tensor.is_same(now); })));
        }
        auto run = [&](bool others) {
            constexpr int kExtra[] = {0, 3, 11, 5};
            random.restore();
            runs.push_back(record(f, arguments(others), integers, options.host_read, &runs[0], kExtra[r]));
        };
        try {
            try {
                run(true);
            } catch (const Error&) {
                throw;
            } catch (const std::exception&) {
                run(false);  // it asks more of its values than their range: that they are sorted, or distinct
            }
        } catch (const Error&) {
            throw;
        } catch (const std::exception& e) {
            std::string text, what = e.what();
            for (const auto& [n, v] : other) text += fmt::format("{}{}={}", text.empty() ? "" : " ", n, v);
            throw Error(fmt::format("capture: the function fails at sizes {} though it ran at the example's: {}", text, what.substr(0, what.find('\n'))));
        }
        at.push_back(other);
    }
    return merge(runs, at, example.size(), options.name);
}

}  // namespace heddle
