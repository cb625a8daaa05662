// What the frontends are tested on: libtorch functions with inputs of any size. A new row is captured, lowered, run and differentiated.
#pragma once
#include "frontends/capture/capture.h"

namespace heddle::testing {

using Tensors = std::vector<at::Tensor>;
struct Case {
    const char* name;
    std::function<Tensors(std::int64_t)> inputs;  // float64; of a size B
    Callable f;
    std::vector<std::pair<int, int>> varying;     // (input, dim) that are B; {0, 0} unless said otherwise
    int calls = 0;                                // calls that stay after lowering
};
std::vector<Case> pointwise_cases();
std::vector<Case> view_cases();
std::vector<Case> index_cases();
std::vector<Case> reduce_cases();
std::vector<Case> write_cases();
at::Tensor real(std::vector<std::int64_t> sizes, double low = -2, double high = 2, bool grad = true);
at::Tensor whole(std::vector<std::int64_t> sizes, std::int64_t low, std::int64_t high);

}  // namespace heddle::testing
