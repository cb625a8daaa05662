// The host interface over ATen.
#include "frontends/torch/host.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

#include <array>

#include "frontends/torch/ops_host.h"
#include "frontends/torch/product.h"

namespace heddle {

namespace {
constexpr std::array<at::ScalarType, 7> kTypes = {at::kBool, at::kInt, at::kLong, at::kHalf, at::kBFloat16, at::kFloat, at::kDouble};

// What an Array of PyTorch's owns: a storage, so that a tensor that shares it, and whatever hangs on that tensor, may go.
constexpr Owner::Ways kStorage = {[](void* p) { c10::raw::intrusive_ptr::incref(static_cast<c10::StorageImpl*>(p)); },
                                  [](void* p) { c10::raw::intrusive_ptr::decref(static_cast<c10::StorageImpl*>(p)); },
                                  [](void* p) { return c10::raw::intrusive_ptr::use_count(static_cast<c10::StorageImpl*>(p)) == 1; }};
Owner owner_of(c10::Storage s) { return {s.unsafeReleaseStorageImpl(), kStorage}; }
Array owned(const at::Tensor& t) {
    return {t.data_ptr(), dtype_of(t.scalar_type()), {t.sizes().begin(), t.sizes().end()}, false, owner_of(t.storage())};
}

class TorchHost final : public Host {
public:
    explicit TorchHost(at::Device where) : where_(where) {
        if (!where.is_cpu()) guard_ = c10::impl::getDeviceGuardImpl(where.type());
    }
    bool cuda() const override { return where_.is_cuda(); }
    void* stream() const override { return guard_ ? guard_->getStreamNativeHandle(guard_->getStream(where_)) : nullptr; }
    Array allocate(DType t, const Extents& sizes) override {
        Array a{nullptr, t, sizes, false, {}};
        auto bytes = a.bytes();
        c10::Storage memory;
        if (where_.is_cpu()) memory = c10::Storage(c10::Storage::use_byte_size_t(), static_cast<std::size_t>(bytes), c10::GetCPUAllocator(), true);
        else memory = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(where_)).storage();
        a.data = memory.mutable_data();
        a.owner = owner_of(std::move(memory));
        return a;
    }
    int threads() const override { return at::get_num_threads(); }
    std::int64_t grain() const override { return 1 << 15; }  // as ATen's: about what waking a thread costs
    void parallel(int tasks, const std::function<void(int)>& f) override {
        at::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
            for (auto i = begin; i < end; ++i) f(static_cast<int>(i));
        });
    }
    void dot(const std::vector<Array>& in, const Array& out, bool relu) override {
        at::AutoDispatchBelowADInplaceOrView below;
        c10::impl::ExcludeDispatchKeyGuard cast(c10::autocast_dispatch_keyset);
        at::Tensor result = tensor_of(out), a = tensor_of(in[0]), b = tensor_of(in[1]);
        if (in.size() == 3) linear(result, tensor_of(in[2]), a, b, relu);
        else product(result, a, b);
    }
    std::vector<Array> call(const Node& n, const std::vector<Array>& in, const Sizes& sizes) override {
        std::vector<at::Tensor> operands;
        for (const Array& a : in) operands.push_back(tensor_of(a));
        std::vector<Array> results;
        for (const at::Tensor& t : calls_.run(n, operands, sizes)) results.push_back(owned(t.to(where_).contiguous()));
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
    if (t.device() == where) return t.is_contiguous() ? owned(t) : owned(t.contiguous());
    if (t.dim() > 0 || !t.is_cpu()) throw Error(fmt::format("{} {}: is on {}, expected {}", who, index, t.device().str(), where.str()));
    return owned(t.to(where));
}
at::Tensor tensor_of(const Array& a) {
    auto* owner = static_cast<c10::StorageImpl*>(a.owner.get());
    HEDDLE_CHECK(owner, "an array without an owner");
    auto from = static_cast<const char*>(owner->data());
    auto offset = a.numel() > 0 ? (static_cast<const char*>(a.data) - from) / bytes(a.dtype) : 0;
    c10::DispatchKeySet keys(c10::computeDispatchKey(std::nullopt, std::nullopt, owner->device()));
    auto t = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(owner)), keys,
                                                      c10::scalarTypeToTypeMeta(scalar_type(a.dtype)));
    at::IntArrayRef sizes(a.sizes.data(), a.sizes.size());
    auto* impl = t.unsafeGetTensorImpl();
    impl->set_storage_offset(offset);
    if (!a.transposed) {
        impl->set_sizes_contiguous(sizes);
        return t;
    }
    auto inner = a.sizes;  // as they lie in memory
    std::swap(inner[inner.size() - 1], inner[inner.size() - 2]);
    Extents strides(inner.size(), 1);
    for (std::size_t k = inner.size(); k-- > 1;) strides[k - 1] = strides[k] * std::max<std::int64_t>(1, inner[k]);
    std::swap(strides[inner.size() - 1], strides[inner.size() - 2]);
    impl->set_sizes_and_strides(sizes, at::IntArrayRef(strides.data(), strides.size()));
    return t;
}
std::unique_ptr<Host> torch_host(at::Device where) { return std::make_unique<TorchHost>(where); }
at::Device common_device(at::TensorList tensors) {
    for (const at::Tensor& t : tensors)
        if (t.is_cuda()) return t.device();
    return at::kCPU;
}

}  // namespace heddle
