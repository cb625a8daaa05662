// HexPlane as the trainer sees it.
#pragma once

#include <memory>

#include "models/hexplane/hexplane.h"
#include "models/task.h"

namespace heddle::models {

RayTask hexplane_task(std::shared_ptr<HexPlane> model);

}  // namespace heddle::models
