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

// `typical`: likely sizes, to price bytes with. `budget`: the most bytes that are kept, as a share of those that cost least time: at less than 1,
// products and encodings are computed again, the cheapest for each byte first. Where nothing spares as much, what spares most.
Split partition(const Joint&, const Sizes& typical, double budget = 1);

}  // namespace heddle
