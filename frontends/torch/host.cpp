// The host interface over ATen.
#include "frontends/torch/host.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

#include <array>

#include "frontends/torch/ops_host.h"

namespace heddle {

namespace {
constexpr std::array<at::ScalarType, 7> kTypes = {at::kBool, at::kInt, at::kLong, at::kHalf, at::kBFloat16, at::kFloat, at::kDouble};

Array owned(at::Tensor t) {
    Array a;
    a.dtype = dtype_of(t.scalar_type());
    a.sizes = t.sizes().vec();
    a.data = t.data_ptr();
    a.owner = std::make_shared<at::Tensor>(std::move(t));
    return a;
}
// What the library reads: a view of the memory with the strides the operand has.
at::Tensor operand(const Array& a, at::Device where) {
    auto sizes = a.sizes;
    std::vector<std::int64_t> strides(sizes.size(), 1);
    if (a.transposed) std::swap(sizes[sizes.size() - 1], sizes[sizes.size() - 2]);
    for (std::size_t k = sizes.size(); k-- > 1;) strides[k - 1] = strides[k] * std::max<std::int64_t>(1, sizes[k]);
    if (a.transposed) std::swap(strides[sizes.size() - 1], strides[sizes.size() - 2]);
    // The device is told, not asked for by address: memory of no element has none.
    return at::for_blob(a.data, a.sizes).strides(strides).target_device(where).options(at::TensorOptions().dtype(scalar_type(a.dtype)).device(where)).make_tensor();
}

class TorchHost final : public Host {
public:
    explicit TorchHost(at::Device where) : where_(where) {
        if (!where.is_cpu()) guard_ = c10::impl::getDeviceGuardImpl(where.type());
    }
    bool cuda() const override { return where_.is_cuda(); }
    void* stream() const override { return guard_ ? guard_->getStreamNativeHandle(guard_->getStream(where_)) : nullptr; }
    Array allocate(DType t, std::vector<std::int64_t> sizes) override {
        return owned(at::empty(sizes, at::TensorOptions().dtype(scalar_type(t)).device(where_)));
    }
    int threads() const override { return at::get_num_threads(); }
    void parallel(int tasks, const std::function<void(int)>& f) override {
        at::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
            for (auto i = begin; i < end; ++i) f(static_cast<int>(i));
        });
    }
    std::vector<Array> call(const Node& n, const std::vector<Array>& in, const Sizes& sizes) override {
        std::vector<at::Tensor> operands;
        for (const Array& a : in) operands.push_back(operand(a, where_));
        if (n.is(Op::call) && n.text("name") == "heddle.guard") {
            if (operands[0].item().toDouble() != n.number("value")) throw GuardFailed{};
            return {in[0]};
        }
        std::vector<Array> results;
        for (at::Tensor& t : calls_.run(n, operands, sizes)) results.push_back(owned(t.to(where_).contiguous()));
        return results;
    }

private:
    at::Device where_;
    const c10::impl::DeviceGuardImplInterface* guard_ = nullptr;
    CallCache calls_;
};
}  // namespace

at::ScalarType scalar_type(DType t) { return kTypes[static_cast<std::size_t>(t)]; }
DType dtype_of(at::ScalarType t) {
    for (std::size_t k = 0; k < kTypes.size(); ++k)
        if (kTypes[k] == t) return static_cast<DType>(k);
    throw Error(fmt::format("element type {}: heddle has no word for it; convert to bool, int32, int64, float16, bfloat16, float32 or float64", c10::toString(t)));
}
Array array_of(const at::Tensor& t, at::Device where, const char* who, std::size_t index) {
    if (t.device() == where) return owned(t.contiguous());
    if (t.dim() > 0 || !t.is_cpu()) throw Error(fmt::format("{} {}: is on {}, expected {}", who, index, t.device().str(), where.str()));
    return owned(t.to(where));
}
at::Tensor tensor_of(const Array& a) {
    if (a.owner) {
        const auto& t = *static_cast<const at::Tensor*>(a.owner.get());
        if (t.data_ptr() == a.data && t.sizes() == at::IntArrayRef(a.sizes) && !a.transposed) return t;
    }
    auto keep = a.owner;
    at::Tensor view = operand(a, keep ? static_cast<const at::Tensor*>(keep.get())->device() : at::Device(at::kCPU));
    return at::for_blob(a.data, view.sizes()).strides(view.strides()).deleter([keep](void*) {}).target_device(view.device()).options(view.options()).make_tensor();
}
std::unique_ptr<Host> torch_host(at::Device where) { return std::make_unique<TorchHost>(where); }
at::Device common_device(const std::vector<at::Tensor>& tensors) {
    for (const at::Tensor& t : tensors)
        if (t.is_cuda()) return t.device();
    return at::kCPU;
}

}  // namespace heddle
