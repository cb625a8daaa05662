// Held-out views: rendered in chunks without gradients, measured in PSNR, and written as pictures.
#pragma once

#include <string>
#include <vector>

#include "models/data/blender.h"
#include "models/task.h"

namespace heddle::models {

// -10 log10(mean squared error), dB.
double psnr(double mean_squared_error);

// The views of `split`, which must hold all their rays, rendered in that dtype and on that device. `task` and `split` outlive it.
HeldOut held_out_views(const RayTask& task, const BlenderSplit& split, const at::TensorOptions& options);

// PSNR of each view; both [views, height, width, 3].
std::vector<double> view_psnr(const at::Tensor& rendered, const at::Tensor& truth);

// Writes view_NNN.png: the rendered view on the left, the truth on the right.
void write_views(const std::string& directory, const at::Tensor& rendered, const at::Tensor& truth);

}  // namespace heddle::models
