// What a capture holds for: which calls may run it.
// Law: holds() is true only where the captured graph computes what the callable would; it allocates nothing.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "frontends/capture/capture.h"

namespace heddle {

// Why these tensors can only run eagerly, or nullptr: wrapped by a transform (torch.func, vmap), subclasses, forward-mode gradients,
// a dispatch mode that wants to see every op.
const char* must_be_eager(const at::Tensor*, std::size_t);
inline const char* must_be_eager(const std::vector<at::Tensor>& t) { return must_be_eager(t.data(), t.size()); }

class Guard {
public:
    Guard() = default;
    // `dynamic`: sizes that may differ. `layouts`: which inputs are contiguous is part of it, as results' strides follow from it.
    Guard(const std::vector<at::Tensor>& arguments, const std::vector<Varying>& dynamic, bool layouts);
    // Element types, ranks, sizes, devices, autocast, and no gradient wanted that wasn't wanted then.
    bool holds(at::TensorList arguments) const;

private:
    struct Input {
        at::ScalarType dtype;
        at::Device device;
        bool number, wants, contiguous;  // number: 0-dim, on any device
        std::vector<std::int64_t> sizes; // >= 0: this; < 0: slot -1 - size
    };
    std::vector<Input> inputs_;
    int slots_ = 0;
    bool layouts_ = false;
    std::int64_t ambient_ = 0;           // autocast
};

}  // namespace heddle
