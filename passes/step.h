// A whole training step as one graph: forward, backward, and what the optimiser makes of the gradients.
// Law: the new parameters are those that PyTorch's optimiser would compute from eager's gradients; gradients exist only on the way.
// Source: Kingma and Ba 2015 (Adam, algorithm 1), Loshchilov and Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad), in the form and order of torch.optim.Adam.
#pragma once
#include "passes/pipeline.h"

namespace heddle {

// What of Adam's options decides the arithmetic. The rest are numbers that a step is given.
struct AdamForm {
    bool weight_decay = false, decoupled = false, amsgrad = false, maximize = false;
    bool operator==(const AdamForm&) const = default;
};
struct Trained {                   // a parameter
    int input = -1;                // position among the forward's inputs
    std::size_t row = 0;           // of the numbers
    bool reached = true;           // by the loss: a gradient that rewriting found to be nothing is zeros then, else it is None and there is no update
    AdamForm form;
};
// One row of numbers per parameter, float64, computed from the options and the number of the step t: on the host, or by the plan.
enum AdamNumber : int {
    kStepSize,                     // lr / (1 - beta1^t)
    kScale2,                       // 1 / sqrt(1 - beta2^t), as a factor: a division by a number is one more for each element
    kOneMinusBeta1, kBeta2, kOneMinusBeta2, kEps,
    kDecay,                        // weight_decay, added to the gradient
    kKept,                         // 1 - lr * weight_decay, of a decoupled one
    kAdamNumbers
};
// What the plan computes them from, likewise. kCounts: 1 where a step counts, 0 where there is no gradient.
enum AdamOption : int { kRate, kFirstBeta, kSecondBeta, kEpsilon, kWeightDecay, kCounts, kAdamOptions };

struct WholeStep {
    // Inputs: the forward's; numbers f64[rows, kAdamNumbers], or where the plan counts options f64[rows, kAdamOptions] and steps f32[rows] (as
    // torch.optim's capturable optimisers count); then exp_avg, exp_avg_sq (and max_exp_avg_sq) of each that is updated.
    Graph graph;
    // Of outputs, which are the forward's (results, writes, guards), then steps, then parameter, exp_avg, exp_avg_sq (max_exp_avg_sq) of each.
    std::vector<Update> updates;
    std::vector<std::size_t> updated;  // which of `trained`: those that have a gradient
    std::size_t states = 0;        // position of the first state among the inputs
};
// `loss`: which of the forward's outputs the gradient is of. `outputs`: how many of the forward's outputs are not saved values. `rows`: of the
// numbers. `counts`: the plan counts the steps and computes the numbers, so that it can run again and again with no host.
WholeStep whole_step(const Pair&, std::size_t outputs, std::size_t loss, const std::vector<Trained>&, std::size_t rows, bool counts = false);

}  // namespace heddle
