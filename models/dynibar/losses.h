// DynIBaR's losses, each a number, before their weights.
// Law: a mean over masked elements divides by the mask's sum, and by a little more so that an empty mask gives 0.
// Source: DynIBaR section 3.4 and its supplement; the distortion loss: Barron et al. 2022, computed in O(n) after Sun et al. 2022.
#pragma once

#include <ATen/core/Tensor.h>

namespace heddle::models {

// sqrt((x - y)^2 + 1e-6) over [R, 3], in the mean that mask [R] weighs.
at::Tensor charbonnier(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask);

// The same of a ray rendered from another moment, weighed by how far both moments see the same: mask [R], seen [R].
at::Tensor cross_time_colour(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask, const at::Tensor& seen);

// |1 / max(depth, 0.01) - disparity| where mask [R] (bool).
at::Tensor disparity_loss(const at::Tensor& depth, const at::Tensor& disparity, const at::Tensor& mask);

// |flow - truth| over [n, R, 2] where mask [n, R, 1].
at::Tensor flow_loss(const at::Tensor& flow, const at::Tensor& truth, const at::Tensor& mask);

// |a - b| of trajectories [P, R, S, 3], weighed by seen [R, S].
at::Tensor cycle_loss(const at::Tensor& a, const at::Tensor& b, const at::Tensor& seen);

// Scene flow [n, R, S, 3] from each frame to the next: small, smooth in time, smooth along the ray.
at::Tensor scene_flow_loss(const at::Tensor& scene_flow);

// The dynamic part's share of each ray's opacity: [R].
at::Tensor dynamic_share(const at::Tensor& weights_dynamic, const at::Tensor& weights_static);

// Shares near 0 or 1 cost nothing.
at::Tensor entropy_loss(const at::Tensor& share);

// sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 l_i, in the mean over rays: weights [R, S] of intervals between the positions
// [R, S + 1], m their middles, l their lengths.
at::Tensor distortion_loss(const at::Tensor& weights, const at::Tensor& positions);

// |w| summed over rays with mask [R], where the share is below 0.1, over their number.
at::Tensor sparsity_loss(const at::Tensor& opacity_dynamic, const at::Tensor& share, const at::Tensor& mask);

}  // namespace heddle::models
