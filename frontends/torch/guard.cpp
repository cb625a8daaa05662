// Tensors against what was captured, field by field.
#include "frontends/torch/guard.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <c10/util/SmallVector.h>
#include <fmt/format.h>

#include <algorithm>

namespace heddle {

namespace {
constexpr auto kOfValue = static_cast<std::size_t>(-1);
constexpr c10::DispatchKeySet kForeign({c10::DispatchKey::Python, c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::FuncTorchBatched,
                                        c10::DispatchKey::Functionalize, c10::DispatchKey::Conjugate, c10::DispatchKey::Negative, c10::DispatchKey::ZeroTensor});

void cast(const Ambient& a) {
    for (auto [device, c] : {std::pair(at::kCPU, a.cpu), std::pair(at::kCUDA, a.cuda)}) {
        at::autocast::set_autocast_enabled(device, c.on);
        at::autocast::set_autocast_dtype(device, c.to);
    }
}
}  // namespace

Ambient Ambient::now() {
    auto of = [](c10::DeviceType d) { return Cast{at::autocast::is_autocast_enabled(d), at::autocast::get_autocast_dtype(d)}; };
    return {of(at::kCPU), of(at::kCUDA), c10::GradMode::is_enabled(), at::globalContext().deterministicAlgorithms(), c10::get_default_dtype_as_scalartype()};
}
CastAgain::CastAgain(const Ambient& a) : before_(Ambient::now()) { cast(a); }
CastAgain::~CastAgain() { cast(before_); }

const char* must_be_eager(const at::Tensor* t, std::size_t n) {
    if (c10::impl::TorchDispatchModeTLS::any_modes_set()) return "a dispatch mode is on that wants to see every op";
    for (std::size_t k = 0; k < n; ++k) {
        if (!t[k].defined()) return "an input is undefined";
        auto keys = t[k].key_set();
        if (keys.has_any(kForeign)) return "an input is wrapped (torch.func, a tensor subclass, a or a lazy conjugate)";
        if (t[k].is_meta()) return "an input is on meta";
        if (t[k].layout() != at::kStrided) return "an input is sparse";
        if (t[k].is_quantized()) return "an input is quantised";
        if (t[k]._fw_grad(0).defined()) return "an input carries a forward-mode gradient";
    }
    return nullptr;
}

Guard::Guard(const std::vector<at::Tensor>& arguments, const std::vector<Varying>& dynamic, bool exact) : exact_(exact), ambient_(Ambient::now()) {
    std::vector<std::string>& names = names_;
    for (std::size_t k = 0; k < arguments.size(); ++k) {
        const at::Tensor& t = arguments[k];
        Input in{t.scalar_type(), t.device(), t.dim() == 0, t.requires_grad(), t.is_contiguous(), t.sizes().vec()};
        for (const Varying& v : dynamic) {
            if ((v.tensor.defined() ? !v.tensor.is_same(t) : v.input != static_cast<int>(k)) || v.dim < 0) continue;
            auto it = std::find(names.begin(), names.end(), v.name);
            if (it == names.end()) it = names.insert(it, v.name), found_.emplace_back(k, static_cast<std::size_t>(v.dim));
            in.sizes[static_cast<std::size_t>(v.dim)] = -1 - (it - names.begin());
        }
        inputs_.push_back(std::move(in));
    }
    slots_ = static_cast<int>(names.size());
    for (const Varying& v : dynamic)
        if (v.dim == Varying::kValue && std::find(names.begin(), names.end(), v.name) == names.end()) names.push_back(v.name), found_.emplace_back(static_cast<std::size_t>(v.input), kOfValue);
}

void Guard::decide_as(const Captured& c) {
    auto expression = [&](const Dim& d) {
        std::vector<std::string> used;
        d.names(used);
        for (const std::string& n : used)
            if (std::find(names_.begin(), names_.end(), n) == names_.end()) throw Error(fmt::format("{}: {} decides what runs, which no argument's size gives", c.graph.name, print(d)));
        return SizeExpr(d, SizeNames(names_));
    };
    for (const Captured::Quotient& q : c.quotients) {
        quotients_.push_back({Choice::Of::div, expression(q.of), expression(Dim(q.by)), 0});
        names_.push_back(q.name);
    }
    for (const Choice& d : c.choices) conditions_.push_back({d.of, expression(d.lhs), expression(d.rhs), d.outcome});
}
c10::SmallVector<std::int64_t, 16> Guard::values(at::TensorList arguments) const {
    c10::SmallVector<std::int64_t, 16> all;
    for (auto [input, dim] : found_) all.push_back(dim == kOfValue ? arguments[input].item<std::int64_t>() : arguments[input].size(static_cast<std::int64_t>(dim)));
    for (const Condition& q : quotients_) all.push_back(decided(q.of, q.lhs(all.data()), q.rhs(all.data())));
    return all;
}
bool Guard::decides(at::TensorList arguments) const {
    if (conditions_.empty()) return true;
    auto v = values(arguments);
    return std::all_of(conditions_.begin(), conditions_.end(), [&](const Condition& c) { return decided(c.of, c.lhs(v.data()), c.rhs(v.data())) == c.outcome; });
}
c10::SmallVector<std::int64_t, 4> Guard::quotients(at::TensorList arguments) const {
    if (quotients_.empty()) return {};
    auto v = values(arguments);
    return {v.end() - static_cast<std::ptrdiff_t>(quotients_.size()), v.end()};
}

bool Guard::holds(at::TensorList arguments) const {
    if (arguments.size() != inputs_.size()) return false;
    if (Ambient now = Ambient::now(); !(now == ambient_)) {
        now.grad = ambient_.grad;  // what was captured with gradients serves without as well
        if (exact_ || !(now == ambient_)) return false;
    }
    c10::SmallVector<std::int64_t, 16> slots(static_cast<std::size_t>(slots_), -1);
    for (std::size_t k = 0; k < inputs_.size(); ++k) {
        const Input& in = inputs_[k];
        const at::Tensor& t = arguments[k];
        auto sizes = t.sizes();
        if (t.scalar_type() != in.dtype || sizes.size() != in.sizes.size() || (!in.number && t.device() != in.device)) return false;
        if (in.number && t.is_cuda() && t.device() != in.device) return false;
        if (exact_ ? in.wants != t.requires_grad() || in.contiguous != t.is_contiguous() : !in.wants && t.requires_grad()) return false;
        for (std::size_t d = 0; d < sizes.size(); ++d) {
            std::int64_t want = in.sizes[d];
            if (want < 0) {
                std::int64_t& slot = slots[static_cast<std::size_t>(-1 - want)];
                if (slot < 0) slot = sizes[d];
                want = slot;
            }
            if (sizes[d] != want) return false;
        }
    }
    return decides(arguments);
}

}  // namespace heddle
