// What a capture holds for: which calls may run it.
// Law: holds() is true only where the captured graph computes what the callable would; it allocates nothing.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <vector>

#include "frontends/capture/capture.h"
#include "runtime/sizes.h"

namespace heddle {

// Why these tensors can only run eagerly, or nullptr: wrapped by a transform (torch.func, vmap), subclasses, forward-mode gradients,
// a dispatch mode that wants to see every op.
const char* must_be_eager(const at::Tensor*, std::size_t);
inline const char* must_be_eager(const std::vector<at::Tensor>& t) { return must_be_eager(t.data(), t.size()); }

// What ops do besides what their arguments say: PyTorch's modes of this thread and its defaults.
struct Ambient {
    struct Cast {
        bool on;
        at::ScalarType to;
        bool operator==(const Cast&) const = default;
    };
    Cast cpu, cuda;                      // autocast
    bool grad, deterministic;
    at::ScalarType floats;               // the type of a float of the host
    static Ambient now();
    bool operator==(const Ambient&) const = default;
};
// Autocast as it was, while this lives.
class CastAgain {
public:
    explicit CastAgain(const Ambient&);
    ~CastAgain();

private:
    Ambient before_;
};

class Guard {
public:
    Guard() = default;
    // `dynamic`: sizes that may differ. `exact`: what only Python code can tell, or shows in the strides of results, is part of it too: which
    // inputs require a gradient and which are contiguous, and whether gradients are on.
    Guard(const std::vector<at::Tensor>& arguments, const std::vector<Varying>& dynamic, bool exact);
    // Element types, ranks, sizes, devices, what is ambient, and no gradient wanted that wasn't wanted then.
    bool holds(at::TensorList arguments) const;
    const Ambient& ambient() const { return ambient_; }
    // Sizes have to decide the same as they did in the capture, too. Throws Error where that takes a size that no argument gives.
    void decide_as(const Captured&);
    bool decides(at::TensorList arguments) const;  // that alone
    // Values of the capture's quotients.
    c10::SmallVector<std::int64_t, 4> quotients(at::TensorList arguments) const;

private:
    struct Input {
        at::ScalarType dtype;
        at::Device device;
        bool number, wants, contiguous;  // number: 0-dim, on any device
        std::vector<std::int64_t> sizes; // >= 0: this; < 0: slot -1 - size
    };
    std::vector<Input> inputs_;
    int slots_ = 0;
    c10::SmallVector<std::int64_t, 16> values(at::TensorList arguments) const;
    std::vector<std::string> names_;     // of slots, then those that are an argument's value, then quotients
    std::vector<std::pair<std::size_t, std::size_t>> found_;  // per name but quotients: the argument, and the dimension or kOfValue
    struct Condition {                   // of quotients: rhs is a number
        Choice::Of of;
        SizeExpr lhs, rhs;
        std::int64_t outcome;
    };
    std::vector<Condition> conditions_, quotients_;
    bool exact_ = false;
    Ambient ambient_ = {};
};

}  // namespace heddle
