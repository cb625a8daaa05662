// DynIBaR as the trainer sees it.
#pragma once

#include <memory>

#include "models/dynibar/dynibar.h"
#include "models/task.h"

namespace heddle::models {

Task dynibar_task(std::shared_ptr<Dynibar> model);

// A step for each iteration, drawn from the seed; a checkpoint needs to hold nothing of it.
Feed video_feed(std::shared_ptr<const VideoSteps> steps, uint64_t seed, const at::TensorOptions& options);

// Pictures of the video's moments from elsewhere, rendered from the video's frames.
HeldOut held_out_views(std::shared_ptr<Dynibar> model, std::shared_ptr<const VideoSteps> steps, HeldOutViews views,
                       const at::TensorOptions& options);

}  // namespace heddle::models
