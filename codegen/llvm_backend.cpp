// How a nest is cut into units on the CPU. Law: the same arithmetic as the emitted function (codegen/llvm/llvm.cpp).
#include "codegen/llvm_backend.h"

namespace heddle {

std::int64_t units(const loop::Nest& n, const std::int64_t* outer) {
    std::int64_t count = 1;
    for (std::size_t i = 0; i < n.outer.size(); ++i) {
        std::int64_t size = outer[i];
        if (i + 1 == n.outer.size()) size = (size + n.schedule.chunk - 1) / n.schedule.chunk;
        count *= size;
    }
    return count;
}
std::int64_t units(const loop::Nest& n, const Sizes& sizes) {
    std::vector<std::int64_t> outer;
    for (const Dim& d : n.outer) outer.push_back(d.eval(sizes));
    return units(n, outer.data());
}

}  // namespace heddle
