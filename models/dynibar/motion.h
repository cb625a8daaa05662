// Where a point of space goes with time: a learnt combination of basis trajectories.
// Law: frames and offsets are tensors of whole numbers, read when the step runs.
// Source: DynIBaR section 3.2; the basis starts as cosines (Wang et al. 2021, Neural Trajectory Fields).
#pragma once

#include <torch/nn/modules/linear.h>

#include <vector>

namespace heddle::models {

// The lowest `count` cosines that aren't constant: sqrt(2/F) cos(pi/(2F) (2f + 1) k), k = 1...count -> [F, count].
at::Tensor cosine_basis(int64_t frames, int64_t count);

class MotionMlp : public torch::nn::Module {
public:
    explicit MotionMlp(int64_t basis);

    // Points and their time [..., 4] -> coefficients [..., 3 * basis], axis by axis; zeros before training.
    at::Tensor forward(const at::Tensor& xyzt);

private:
    std::vector<double> frequencies_;
    std::vector<torch::nn::Linear> linears_;
    torch::nn::Linear coeff_linear_;
};

// Coefficients of `points` [R, S, 3] at `time` (one number, [1]): [R, S, 3 * basis]. The last tenth of the samples doesn't move. The
// time may be float64: it joins the points before they're rounded to the network's dtype.
at::Tensor motion_coefficients(MotionMlp& mlp, const at::Tensor& points, const at::Tensor& time);

// Trajectories at `frames` [n] (int64): coefficients [R, S, 3 * K] and basis [F, K] -> [n, R, S, 3].
at::Tensor trajectories(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& frames);

}  // namespace heddle::models
