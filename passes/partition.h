// What the forward keeps for the backward: a minimum cut over the joint graph, priced in bytes moved.
// Law: the two graphs together compute what the joint graph does, and only the cut is kept between them.
// Source: minimum-cut rematerialisation, as in Chen et al. 2016 (sublinear memory) and PyTorch's partitioner; priced here given the fusion.
#pragma once
#include "passes/grad.h"

namespace heddle {

struct Split {
    Graph forward;                 // outputs: the user's, then the saved values
    Graph backward;                // outputs: the gradients that exist, in the order of Joint::gradients
    struct Source {
        enum class From { input, saved, seed } from;
        int index;                 // which forward input, saved value (0..), or forward output whose gradient comes in
    };
    std::vector<Source> backward_inputs;
    std::size_t saved = 0;
};

// `typical`: likely sizes, to price bytes with.
Split partition(const Joint&, const Sizes& typical);

}  // namespace heddle
