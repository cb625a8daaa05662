// Held-out views: rendered in chunks without gradients, measured in PSNR, and written as pictures.
#pragma once

#include <string>
#include <vector>

#include "models/data/blender.h"
#include "models/task.h"

namespace heddle::models {

// -10 log10(mean squared error), dB.
double psnr(double mean_squared_error);

// Renders every view of `split`, which must hold all its rays, in the dtype and on the device of `like`.
// -> rgb [views, height, width, 3], float32 on the CPU.
at::Tensor render_views(const Task& task, const BlenderSplit& split, const at::Tensor& like);

// PSNR of each view.
std::vector<double> view_psnr(const at::Tensor& rendered, const BlenderSplit& split);

// Writes view_NNN.png: the rendered view on the left, the truth on the right.
void write_views(const std::string& directory, const at::Tensor& rendered, const BlenderSplit& split);

}  // namespace heddle::models
