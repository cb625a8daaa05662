// The reference interpreter: what every op means, in double and in plain loops. Slow on purpose; the oracle of all tests.
#pragma once
#include <functional>

#include "ir/graph.h"

namespace heddle {

// A dense row-major tensor; integers and booleans are held as doubles too (exact below 2^53).
struct Tensor {
    DType dtype = DType::f64;
    std::vector<std::int64_t> sizes;
    std::vector<double> data;
    std::int64_t numel() const;
};
// Results of a call node for its operands; may bind names that only it knows (sizes that depend on data) in Sizes.
using CallFn = std::function<std::vector<Tensor>(const Node&, const std::vector<Tensor>&, Sizes&)>;

// Outputs for inputs in argument order. Named sizes are bound from the inputs' sizes. Throws Error where they disagree.
std::vector<Tensor> evaluate(const Graph&, const std::vector<Tensor>& inputs, const CallFn& call = {}, Sizes sizes = {});

// Binds the names in `shape` from actual sizes: first plain names, then everything is checked. Throws Error naming `who`,
// and then what to do.
void bind_sizes(const Shape& shape, const std::vector<std::int64_t>& actual, Sizes& sizes, std::string_view who, std::string_view remedy = "");

}  // namespace heddle
