// Which sizes of a callable's arguments vary, told from the calls that were captured; and a capture with as many of them as can be.
#pragma once
#include <mutex>

#include "frontends/torch/fuse.h"

namespace heddle {

class SeenSizes {
public:
    using Shapes = std::vector<std::vector<std::int64_t>>;      // of a call's arguments
    explicit SeenSizes(std::vector<Shapes> earlier = {}) : seen_(std::move(earlier)) {}
    // Sizes that differ between this call and earlier ones, less those `declared`, by name; those that always were equal to each other share one.
    std::vector<Varying> changed(at::TensorList in, const std::vector<Varying>& declared) const;
    void add(at::TensorList in);

private:
    mutable std::mutex mutex_;
    std::vector<Shapes> seen_;
};

// Calls `capture` with names, or with those of them that it doesn't throw Error for.
void capture_with(const std::vector<Varying>& names, const std::function<void(const std::vector<Varying>&)>& capture);

}  // namespace heddle
