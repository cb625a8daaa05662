// Writes the video. Everything is traced at float64 and stored at the width that DynIBaR's own scripts store.
#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/data/npy.h"
#include "models/data/scene_directory.h"
#include "models/data/video_scene.h"
#include "models/dynibar/video.h"
#include "models/error.h"
#include "models/files.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;

nlohmann::json mark(const VideoOptions& o) {
    return {{"scene", "bouncing-balls-video"},
            {"version", 1},
            {"frames", o.frames},
            {"width", o.width},
            {"height", o.height},
            {"held_out", o.held_out},
            {"grid", o.grid}};
}

// [3, 4] with LLFF's columns: down, right, backward, position.
at::Tensor pose(const Pinhole& c) {
    auto out = at::empty({3, 4}, at::kDouble);
    auto cells = out.accessor<double, 2>();
    for (int64_t i = 0; i < 3; ++i) {
        const auto row = static_cast<size_t>(i);
        cells[i][0] = c.down[row], cells[i][1] = c.right[row], cells[i][2] = -c.forward[row],
        cells[i][3] = c.position[row];
    }
    return out;
}

// [15]: the pose with a fifth column of height, width and focal length, row by row.
at::Tensor pose_and_lens(const Pinhole& c) {
    const auto lens = at::tensor({static_cast<double>(c.height), static_cast<double>(c.width), c.focal}, at::kDouble);
    return at::cat({pose(c), lens.unsqueeze(1)}, 1).flatten();
}

// Black where the mask is set, as both kinds of mask are stored.
void write_mask(const fs::path& path, const at::Tensor& mask) {
    Image image{mask.size(1), mask.size(0), std::vector<uint8_t>(static_cast<size_t>(4 * mask.numel()), 255)};
    const auto flat = mask.flatten();
    const auto set = flat.accessor<bool, 1>();
    for (int64_t i = 0; i < set.size(0); ++i)
        if (set[i]) image.rgba[static_cast<size_t>(4 * i)] = 0;
    write_png(path.string(), image, 1);
}

}  // namespace

bool write_bouncing_balls_video(const std::string& directory, const VideoOptions& o,
                                const std::function<void(int64_t, int64_t)>& progress) {
    if (o.frames < kFewestFrames || o.frames > kMostFrames)
        throw Error("video of " + std::to_string(o.frames) + " frames", directory,
                    "choose from " + std::to_string(kFewestFrames) + " to " + std::to_string(kMostFrames));
    if (o.width < 2 || o.height < 2 || o.held_out < 0 || o.grid < 1)
        throw Error("empty video", directory, "width and height must be at least 2, and grid 1");
    return write_scene_directory(directory, mark(o), [&](const fs::path& part) {
        const std::string size = "_" + std::to_string(o.width) + "x" + std::to_string(o.height);
        const fs::path dense = part / "dense", held_out = part / "held_out";
        for (const auto& name :
             {"images" + size, std::string("images"), std::string("disp"), std::string("dynamic_masks"),
              std::string("static_masks"), std::string("flow_i1"), std::string("flow_i2"), std::string("flow_i3")})
            make_directories((dense / name).string());

        std::vector<at::Tensor> disparity, poses, virtual_poses;
        double nearest = 1e300;
        for (int64_t i = 0; i < o.frames; ++i) {
            const Pinhole camera = video_camera(o, i);
            disparity.push_back(video_disparity(camera, video_time(i)));
            const double near = 1 / disparity.back().max().item<double>(),
                         far = 1 / disparity.back().min().item<double>();
            poses.push_back(at::cat({pose_and_lens(camera), at::tensor({near, far}, at::kDouble)}));
            nearest = std::min(nearest, near);
        }
        write_npy((dense / "poses_bounds_cvd.npy").string(), at::stack(poses));

        for (int64_t i = 0; i < o.frames; ++i) {
            const Pinhole camera = video_camera(o, i);
            const double time = video_time(i);
            const std::string name = padded(i, 5);
            const fs::path picture = dense / ("images" + size) / (name + ".png");
            write_png(picture.string(), video_picture(camera, time, o.grid), 3);
            fs::copy_file(picture,
                          dense / "images" / (name + ".png"));  // whose size DynIBaR takes for that of the original
            write_npy((dense / "disp" / (name + ".npy")).string(), disparity[static_cast<size_t>(i)].to(at::kFloat));

            const MotionMasks masks = video_masks(camera, time, o.grid);
            write_mask(dense / "dynamic_masks" / (std::to_string(i) + ".png"), masks.tight);
            write_mask(dense / "static_masks" / (std::to_string(i) + ".png"), masks.generous);

            for (const int64_t offset : kFlowOffsets) {
                if (i + offset < 0 || i + offset >= o.frames) continue;
                const Flow flow = video_flow(camera, time, video_camera(o, i + offset), video_time(i + offset));
                write_npz((dense / ("flow_i" + std::to_string(std::abs(offset))) /
                           (name + (offset > 0 ? "_fwd.npz" : "_bwd.npz")))
                              .string(),
                          {{"flow", flow.flow.to(at::kFloat)}, {"mask", flow.mask}});
            }

            const fs::path views = dense / ("source_virtual_views" + size) / name;
            make_directories(views.string());
            std::vector<at::Tensor> these;
            for (const Pinhole& view : virtual_cameras(camera, nearest)) {
                write_png((views / (padded(static_cast<int64_t>(these.size()), 2) + ".png")).string(),
                          video_picture(view, time, o.grid, &camera), 3);
                these.push_back(pose(view));
            }
            virtual_poses.push_back(at::stack(these));
            if (progress) progress(i + 1, o.frames);
        }
        write_npy((dense / "source_vv_poses.npy").string(), at::stack(virtual_poses, -1).to(at::kFloat));

        if (o.held_out == 0) return;
        make_directories(held_out.string());
        std::vector<int64_t> frames;
        poses.clear();
        for (int64_t i = 0; i < o.held_out; ++i) {
            frames.push_back(3 + i * (o.frames - 6) / o.held_out);  // those that have all flows
            const Pinhole camera = held_out_camera(o, frames.back());
            poses.push_back(pose_and_lens(camera));
            write_png((held_out / (padded(i, 5) + ".png")).string(),
                      video_picture(camera, video_time(frames.back()), o.grid), 3);
        }
        write_npy((held_out / "poses.npy").string(), at::stack(poses));
        write_npy((held_out / "frames.npy").string(), at::tensor(frames));
    });
}

}  // namespace heddle::models
