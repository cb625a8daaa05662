// A monocular video with what DynIBaR trains from: frames, cameras, disparity, flows, masks.
// Law: tensors alone, float32 on the CPU and contiguous; pixel (u, v) is at u right, v down, centres at whole numbers.
// Source: DynIBaR, Li et al. 2023, section 4; the layout of its monocular loader.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

namespace heddle::models {

// Frames to which a frame has flows, relative to it, in this order.
inline constexpr std::array<int64_t, 6> kFlowOffsets = {1, 2, 3, -1, -2, -3};

// F frames of H x W pixels. A point p of the world is seen at z [u, v, 1]^T = intrinsics camera_to_world^-1 p with depth z > 0: cameras look
// along +z, x is right, y is down.
struct Video {
    at::Tensor images;           // [F, 3, H, W] in [0, 1]
    at::Tensor intrinsics;       // [F, 4, 4], pixels; the upper left 3 x 3 is the camera's, the rest is the identity's
    at::Tensor camera_to_world;  // [F, 4, 4], rigid; units of the scene
    at::Tensor disparity;        // [F, H, W] = 1 / z, one over the scene's unit
    at::Tensor
        flows;  // [F, 6, H, W, 2], pixels: where the point seen at (u, v) is seen in frame f + kFlowOffsets[k], minus (u, v)
    at::Tensor flow_masks;    // [F, 6, H, W], 1 where that flow can be trusted; 0 where the frame doesn't exist
    at::Tensor motion_masks;  // [F, H, W], 1 where something moves, tight; the model erodes it further
    at::Tensor static_masks;  // [F, H, W], 1 where something may move, generous: the static part isn't trained there

    // Optional: N pictures of each frame's moment from cameras nearby (in the original 8, warped by depth), of which a step draws some.
    // They have the frame's intrinsics. Undefined: none.
    at::Tensor virtual_images;           // [F, N, 3, H, W]
    at::Tensor virtual_camera_to_world;  // [F, N, 4, 4]

    double near = 0, far = 0;  // depths z of all samples lie between; 0 < near < far
};

// E pictures that aren't in the video, to measure on: of its moments (3 <= frame < F - 3), from other cameras.
struct HeldOutViews {
    at::Tensor images;           // [E, 3, H, W] in [0, 1]
    at::Tensor intrinsics;       // [E, 4, 4]
    at::Tensor camera_to_world;  // [E, 4, 4]
    at::Tensor frames;           // [E], int64: the frame whose moment it is
};

}  // namespace heddle::models
