// MKL, which ATen's products of float32 are in the usual builds, has no AVX-512 kernels for processors other than Intel's; oneDNN, in the same
// builds, has: 2.0 to 3.4 times as fast on a core of Zen 5 from about 2 MFLOP on (bench/products.py).
#include "frontends/torch/product.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <map>
#include <mutex>
#include <tuple>

// Exported by libtorch in builds with oneDNN, declared in a header that isn't installed: weak, so that other builds do without.
// y = alpha * a x b + beta * y; matrices are row-major or transposed, else copied.
namespace at::native {
__attribute__((weak)) void mkldnn_matmul(const Tensor& a, const Tensor& b, const Tensor& y, float beta, float alpha);
}

namespace heddle {

namespace {
constexpr std::int64_t kLeast = 1 << 20;    // multiplications of a product, below which a call of oneDNN's is mostly its own start
constexpr std::int64_t kLeastColumns = 8;   // or, of batches, 64 elements of each result
constexpr std::int64_t kRows = 1024;        // that are multiplied, then finished while they are in the cache

bool others_processor() {
#if defined(__x86_64__)
    return !__builtin_cpu_is("intel");
#else
    return false;
#endif
}
bool takes_onednn(const at::Tensor& a, const at::Tensor& b) {
    static const bool faster = at::native::mkldnn_matmul != nullptr && others_processor();
    if (!faster || !a.is_cpu() || a.scalar_type() != at::kFloat || !at::globalContext().userEnabledMkldnn()) return false;
    const std::int64_t rows = a.size(-2), columns = b.size(-1);
    return a.numel() * columns >= kLeast && (a.dim() == 2 ? columns >= kLeastColumns : rows * columns >= kLeastColumns * kLeastColumns);
}

// What a CUDA library does at the end of a product need not keep a NaN, as PyTorch's relu does: asked of each kind of product that comes by, once.
bool keeps_nans(const at::Tensor& row, const at::Tensor& a, const at::Tensor& b) {
    static std::mutex mutex;
    static std::map<std::tuple<int, at::ScalarType, std::int64_t, std::int64_t>, bool> known;  // by device, type and sizes but the number of rows
    std::lock_guard lock(mutex);
    auto [it, fresh] = known.try_emplace({a.device().index(), a.scalar_type(), b.size(0), b.size(1)}, false);
    if (fresh) it->second = at::_addmm_activation(at::full_like(row, NAN), a, b).isnan().all().item<bool>();
    return it->second;
}
}  // namespace

void product(at::Tensor& result, const at::Tensor& a, const at::Tensor& b) {
    if (takes_onednn(a, b)) at::native::mkldnn_matmul(a, b, result, 0, 1);
    else if (result.dim() == 3) at::bmm_out(result, a, b);
    else at::mm_out(result, a, b);
}

void linear(at::Tensor& result, const at::Tensor& row, const at::Tensor& a, const at::Tensor& b, bool relu) {
    if (takes_onednn(a, b)) {
        const std::int64_t rows = a.size(0);
        at::parallel_for(0, (rows + kRows - 1) / kRows, 1, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t k = from; k < to; ++k) {
                const std::int64_t count = std::min(kRows, rows - k * kRows);
                at::Tensor some = result.narrow(0, k * kRows, count);
                at::native::mkldnn_matmul(a.narrow(0, k * kRows, count), b, some, 0, 1);
                some.add_(row);
                if (relu) at::relu_(some);
            }
        });
        return;
    }
    if (relu && result.is_cuda() && result.numel() > 0 && keeps_nans(row, a, b)) {
        at::_addmm_activation_out(result, row, a, b);
        return;
    }
    at::addmm_out(result, row, a, b);
    if (relu) at::relu_(result);
}

}  // namespace heddle
