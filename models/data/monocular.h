// Reads a video in the layout of DynIBaR's monocular loader. Law: units and axes are those that DynIBaR trains in: 3/4 of
// the least depth is 1, and the mean camera stands at the origin, x to its right, y up, z backward.
//
// Below DIR/dense, for F frames of W x H; i is a frame in five digits, unless said otherwise. Sources: google/dynibar
// (monocular.py, llff_data_utils.py, save_monocular_cameras.py, render_source_vv.py) and NSFF's run_flows_video.py.
//
//     images_WxH/*.png          the frames, in the order of their names; NAME is such a name
//     poses_bounds_cvd.npy      [F, 17]: 3 x 5 row by row, whose columns are down, right, backward, position and
//                               (height, width, focal length in pixels); then the least and the largest depth z
//     disp/NAME.npy             [H, W]: 1 / z
//     flow_i{1,2,3}/i_fwd.npz   flow [H, W, 2], pixels from frame i to i + {1,2,3}; mask [H, W], 1 where it's to be trusted
//     flow_i{1,2,3}/i_bwd.npz   the same from frame i to i - {1,2,3}
//     dynamic_masks/i.png       0 where something moves, 255 elsewhere, tight; of any size; i without leading zeros
//     static_masks/i.png        the same, generous
//     source_vv_poses.npy       [N, 3, 4, F], optional: poses of N virtual views of each frame, columns as above
//     source_virtual_views_WxH/i/k.png  their pictures; k in two digits
//
// `heddle data` adds DIR/held_out: k.png, k in five digits; poses.npy [E, 15] as above; frames.npy [E] int64.
#pragma once

#include <optional>
#include <string>

#include "models/dynibar/video.h"

namespace heddle::models {

// `height` chooses among several images_WxH; 0: there is one. Throws Error for anything missing or malformed.
Video load_monocular(const std::string& directory, int64_t height = 0);

// Nothing when there is no DIR/held_out.
std::optional<HeldOutViews> load_held_out(const std::string& directory);

}  // namespace heddle::models
