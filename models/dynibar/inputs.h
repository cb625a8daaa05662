// What one step of DynIBaR reads: rays of a frame with what is known of them, and source views for each part of the model.
// Law: all that changes from step to step is here, as tensors: indices and weights too. A list of them, in one order, is what a step's function takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/dynibar/config.h"
#include "models/dynibar/projection.h"
#include "models/dynibar/video.h"
#include "models/task.h"

namespace heddle::models {

struct StepInputs {
    // R rays of the frame.
    at::Tensor ray_o, ray_d;  // [R, 3]; a direction has z = 1 in the camera
    at::Tensor pixel;         // [R, 2]: (u, v)
    at::Tensor rgb;           // [R, 3]
    at::Tensor disparity;     // [R]
    at::Tensor motion_mask;   // [R], 1 where something surely moves
    at::Tensor static_mask;   // [R], 1 where something may move
    at::Tensor flows;         // [6, R, 2], to the frames in kFlowOffsets
    at::Tensor flow_masks;    // [6, R, 1]
    at::Tensor depth_range;   // [2]: near, far
    at::Tensor eye;           // [3]: where the camera is

    Views sources;         // V: the frames in kFlowOffsets, then virtual views of the frame
    Views anchor_sources;  // A: neighbours of the anchor, then virtual views of it
    Views static_sources;  // T: far frames, black where something moves

    at::Tensor time, anchor_time;        // [1], float64, in [0, 1)
    at::Tensor frame, anchor;            // [1], int64
    at::Tensor offsets, anchor_offsets;  // [V], [A], int64: frames relative to them; 0 for virtual views
    at::Tensor pairs;                    // [P], int64: which of the anchor's sources are within 3 frames of the frame

    at::Tensor data_weight;   // []: what the losses from data are multiplied by
    at::Tensor cycle_weight;  // []
    at::Tensor jitter;        // [R, S] in [0, 1); may be undefined: then the step draws it

    // In the order above. `of` takes the list with or without its last member, the jitter.
    std::vector<at::Tensor> list() const;
    static StepInputs of(const std::vector<at::Tensor>& list);

    // Which dimensions of the list's tensors vary, by name: R, V, A, T and P as above; of the list with or without the jitter.
    static std::vector<VaryingSize> sizes(bool jitter = true);
};

// Draws steps from a video. The same seed and iteration give the same step.
class VideoSteps {
public:
    // Throws Error when the video is too short, lacks a tensor, or its tensors' sizes disagree.
    VideoSteps(Video video, DynibarConfig config);

    // dtype and device as `options`.
    StepInputs step(int64_t iteration, uint64_t seed, const at::TensorOptions& options) const;

    // All pixels of a picture taken at a frame's moment by another camera; what only a loss reads is undefined.
    StepInputs view(int64_t frame, const at::Tensor& intrinsics, const at::Tensor& camera_to_world,
                    const at::TensorOptions& options) const;

    const Video& video() const { return video_; }

private:
    Views frames(const std::vector<int64_t>& indices) const;
    Views static_views(std::vector<int64_t> indices) const;
    void add_virtual_views(Views& views, int64_t frame, const at::Tensor& which) const;
    std::vector<int64_t> nearest(const at::Tensor& camera_to_world, int64_t except) const;

    Video video_;
    DynibarConfig config_;
    at::Tensor surely_moving_;  // [F, H, W]
};

// A video of noise with cameras on a line, of the config's sizes: what benches and tests run on.
Video noise_video(const DynibarConfig& config, uint64_t seed);

}  // namespace heddle::models
