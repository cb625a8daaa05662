// Every check that makes a bad video one clear line stands here, before a tensor of the video is built from it.
#include "models/data/monocular.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "models/data/npy.h"
#include "models/data/png.h"
#include "models/data/scene_directory.h"
#include "models/error.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;

std::string by(int64_t width, int64_t height) { return std::to_string(width) + " x " + std::to_string(height); }

// -1 in `shape` takes any size.
at::Tensor with_shape(const at::Tensor& array, const std::vector<int64_t>& shape, const std::string& where) {
    bool fits = array.dim() == static_cast<int64_t>(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i)
        fits = shape[i] < 0 || array.size(static_cast<int64_t>(i)) == shape[i];
    const auto text = [](at::IntArrayRef sizes) {
        std::string out;
        for (const int64_t size : sizes) out += (out.empty() ? "[" : ", ") + (size < 0 ? "any" : std::to_string(size));
        return (out.empty() ? "[" : out) + "]";
    };
    if (!fits) throw Error("array of " + text(array.sizes()), where, "it must be " + text(shape));
    return array;
}

at::Tensor read_doubles(const fs::path& path, const std::vector<int64_t>& shape) {
    const auto array = with_shape(read_npy(path.string()), shape, path.string()).to(at::kDouble);
    if (!array.isfinite().all().item<bool>())
        throw Error("array holds NaN or infinity", path.string(), "restore the file");
    return array;
}

Image read_image(const fs::path& path) {
    if (!fs::is_regular_file(path)) throw Error("image not found", path.string(), "restore the file");
    return read_png(path.string());
}

// [3, H, W] in [0, 1], alpha ignored.
at::Tensor read_picture(const fs::path& path, int64_t width, int64_t height) {
    Image image = read_image(path);
    if (image.width != width || image.height != height)
        throw Error("picture of " + by(image.width, image.height), path.string(), "it must be " + by(width, height));
    const auto bytes = at::from_blob(image.rgba.data(), {height, width, 4}, at::kByte);
    return bytes.slice(2, 0, 3).permute({2, 0, 1}).to(at::kFloat).div(255).contiguous();
}

// [H, W], 1 where the stored mask isn't white; the nearest pixel's where it has another size.
at::Tensor read_mask(const fs::path& path, int64_t width, int64_t height) {
    Image image = read_image(path);
    const auto bytes = at::from_blob(image.rgba.data(), {1, image.height, image.width, 4}, at::kByte);
    const auto moves = (1 - bytes.select(3, 0).to(at::kFloat) / 255).gt(1e-3).to(at::kFloat);
    return at::upsample_nearest2d(moves.unsqueeze(1), {height, width}).view({height, width});
}

// [n, 3, 4] with columns down, right, backward, position -> [n, 4, 4] with right, down, forward, position.
at::Tensor to_world(const at::Tensor& llff) {
    const auto out = at::zeros({llff.size(0), 4, 4}, at::kDouble);
    out.slice(1, 0, 3).copy_(
        at::stack({llff.select(2, 1), llff.select(2, 0), -llff.select(2, 2), llff.select(2, 3)}, 2));
    out.select(1, 3).select(1, 3).fill_(1);
    return out;
}

// [n, 4, 4] for a principal point in the picture's middle; `focal` is [n].
at::Tensor lens(const at::Tensor& focal, int64_t width, int64_t height) {
    const auto out = at::eye(4, at::kDouble).repeat({focal.size(0), 1, 1});
    out.select(1, 0).select(1, 0).copy_(focal);
    out.select(1, 1).select(1, 1).copy_(focal);
    out.select(1, 0).select(1, 2).fill_(0.5 * static_cast<double>(width));
    out.select(1, 1).select(1, 2).fill_(0.5 * static_cast<double>(height));
    return out.to(at::kFloat);
}

// The file of poses, and the change of coordinates that follows from it.
struct Poses {
    at::Tensor rows;     // [F, 3, 5]
    at::Tensor bounds;   // [F, 2], scaled
    double scale = 1;    // from the file's unit to the video's
    at::Tensor centred;  // [4, 4]: from the world, scaled, to the mean camera

    at::Tensor video_coordinates(const at::Tensor& llff) const {
        auto poses = to_world(llff);
        poses.select(2, 3).slice(1, 0, 3).mul_(scale);
        return at::matmul(centred, poses).to(at::kFloat).contiguous();
    }
};

Poses read_poses(const fs::path& dense) {
    if (!fs::is_directory(dense))
        throw Error("video not found", dense.string(),
                    "check --data; `heddle data bouncing-balls-video --out DIR` makes one");
    const fs::path path = dense / "poses_bounds_cvd.npy";
    const auto all = read_doubles(path, {-1, 17});
    if (all.size(0) < 7)
        throw Error("video of " + std::to_string(all.size(0)) + " frames", path.string(),
                    "at least 7 are needed, for three on either side of one");
    Poses out{all.slice(1, 0, 15).reshape({-1, 3, 5}), all.slice(1, 15, 17)};
    if (out.bounds.min().item<double>() <= 0)
        throw Error("depth bound of 0 or less", path.string(), "depths are measured along the camera's axis");
    out.scale = 1 / (0.75 * out.bounds.min().item<double>());
    out.bounds = out.bounds * out.scale;

    const auto column = [&](int64_t i) { return out.rows.select(2, i); };
    const auto unit = [](const at::Tensor& v) { return v / v.norm(); };
    const auto back = unit(column(2).sum(0)), right = unit(at::linalg_cross(-column(0).sum(0), back)),
               up = at::linalg_cross(back, right);
    const auto mean = at::eye(4, at::kDouble);
    mean.slice(0, 0, 3).copy_(at::stack({right, up, back, column(3).mean(0) * out.scale}, 1));
    out.centred = at::linalg_inv(mean);
    return out;
}

struct Pictures {
    fs::path directory;
    int64_t width = 0, height = 0;
};

// images_WxH of that height, or the only one.
Pictures find_pictures(const fs::path& dense, int64_t height) {
    std::vector<Pictures> found;
    for (const auto& entry : fs::directory_iterator(dense)) {
        Pictures p{entry.path()};
        int used = 0;
        const std::string name = entry.path().filename().string();
        if (std::sscanf(name.c_str(), "images_%ldx%ld%n", &p.width, &p.height, &used) == 2 &&
            name.size() == static_cast<size_t>(used) && p.width > 0 && p.height > 0 &&
            (height == 0 || p.height == height))
            found.push_back(p);
    }
    if (found.empty())
        throw Error("pictures not found", (dense / ("images_Wx" + (height ? std::to_string(height) : "H"))).string(),
                    "make them with DynIBaR's save_monocular_cameras.py");
    if (found.size() > 1) throw Error("pictures of several sizes", dense.string(), "choose a height");
    return found.front();
}

std::vector<std::string> names_of(const Pictures& pictures, int64_t frames) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(pictures.directory))
        if (entry.path().extension() == ".png") names.push_back(entry.path().stem().string());
    std::sort(names.begin(), names.end());
    if (static_cast<int64_t>(names.size()) != frames)
        throw Error(std::to_string(names.size()) + " pictures for " + std::to_string(frames) + " poses",
                    pictures.directory.string(), "there must be as many");
    return names;
}

// Flow [H, W, 2] and mask [H, W] of one file.
std::pair<at::Tensor, at::Tensor> read_flow(const fs::path& path, int64_t width, int64_t height) {
    const auto arrays = read_npz(path.string());
    const auto get = [&](const std::string& key, const std::vector<int64_t>& shape) {
        const auto found = arrays.find(key);
        if (found == arrays.end())
            throw Error("no array named " + key, path.string(), "save it with numpy.savez(path, flow=..., mask=...)");
        return with_shape(found->second, shape, path.string() + " " + key).to(at::kFloat);
    };
    return {get("flow", {height, width, 2}), get("mask", {height, width})};
}

}  // namespace

Video load_monocular(const std::string& directory, int64_t asked_height) {
    const fs::path dense = fs::path(directory) / "dense";
    const Poses poses = read_poses(dense);
    const Pictures pictures = find_pictures(dense, asked_height);
    const int64_t frames = poses.rows.size(0), width = pictures.width, height = pictures.height;
    const auto sizes = poses.rows.select(2, 4).slice(1, 0, 2);
    if (!sizes.eq(at::tensor({static_cast<double>(height), static_cast<double>(width)}, at::kDouble))
             .all()
             .item<bool>())
        throw Error("focal lengths are of other pictures than " + by(width, height),
                    (dense / "poses_bounds_cvd.npy").string(), "restore the file or choose another height");

    const auto virtual_file = dense / "source_vv_poses.npy";
    const bool has_views = fs::exists(virtual_file);
    const auto virtual_poses = has_views ? read_doubles(virtual_file, {-1, 3, 4, frames}).permute({3, 0, 1, 2})
                                         : at::empty({frames, 0, 3, 4}, at::kDouble);

    std::vector<at::Tensor> images, disparity, moving, generous, flows, flow_masks, views;
    const auto names = names_of(pictures, frames);
    for (int64_t i = 0; i < frames; ++i) {
        const std::string number = padded(i, 5);
        images.push_back(read_picture(pictures.directory / (names[static_cast<size_t>(i)] + ".png"), width, height));
        disparity.push_back(
            (read_doubles(dense / "disp" / (names[static_cast<size_t>(i)] + ".npy"), {height, width}) / poses.scale)
                .to(at::kFloat));
        moving.push_back(read_mask(dense / "dynamic_masks" / (std::to_string(i) + ".png"), width, height));
        generous.push_back(read_mask(dense / "static_masks" / (std::to_string(i) + ".png"), width, height));
        for (const int64_t offset : kFlowOffsets) {
            const bool exists = i + offset >= 0 && i + offset < frames;
            const fs::path path = dense / ("flow_i" + std::to_string(std::abs(offset))) /
                                  (number + (offset > 0 ? "_fwd.npz" : "_bwd.npz"));
            auto [flow, mask] = exists ? read_flow(path, width, height)
                                       : std::pair(at::zeros({height, width, 2}), at::zeros({height, width}));
            flows.push_back(flow);
            flow_masks.push_back(mask);
        }
        for (int64_t k = 0; k < virtual_poses.size(1); ++k)
            views.push_back(
                read_picture(dense / ("source_virtual_views_" + std::to_string(width) + "x" + std::to_string(height)) /
                                 number / (padded(k, 2) + ".png"),
                             width, height));
    }

    Video out;
    const auto per_offset = static_cast<int64_t>(kFlowOffsets.size());
    out.images = at::stack(images);
    out.intrinsics = lens(poses.rows.select(2, 4).select(1, 2), width, height);
    out.camera_to_world = poses.video_coordinates(poses.rows);
    out.disparity = at::stack(disparity);
    out.flows = at::stack(flows).view({frames, per_offset, height, width, 2});
    out.flow_masks = at::stack(flow_masks).view({frames, per_offset, height, width});
    out.motion_masks = at::stack(moving);
    out.static_masks = at::stack(generous);
    if (has_views && virtual_poses.size(1) > 0) {
        out.virtual_images = at::stack(views).view({frames, -1, 3, height, width});
        out.virtual_camera_to_world =
            poses.video_coordinates(virtual_poses.reshape({-1, 3, 4})).view({frames, -1, 4, 4});
    }
    // DynIBaR's bounds: room behind near scenes, so that the static part can hold what depends on the view.
    const double least = poses.bounds.min().item<double>(), most = poses.bounds.max().item<double>();
    out.near = 0.9 * least;
    out.far = 1.5 * (most < 10 ? std::min(20.0, most + 15) : std::min(50.0, std::max(20.0, most)));
    return out;
}

std::optional<HeldOutViews> load_held_out(const std::string& directory) {
    const Poses poses = read_poses(fs::path(directory) / "dense");
    const fs::path held_out = fs::path(directory) / "held_out";
    if (!fs::is_directory(held_out)) return std::nullopt;
    const auto rows = read_doubles(held_out / "poses.npy", {-1, 15}).view({-1, 3, 5});
    HeldOutViews out;
    out.frames =
        with_shape(read_npy((held_out / "frames.npy").string()), {rows.size(0)}, (held_out / "frames.npy").string())
            .to(at::kLong);
    if (rows.size(0) == 0) throw Error("no held-out views", held_out.string(), "remove the directory");
    if (out.frames.min().item<int64_t>() < 3 || out.frames.max().item<int64_t>() >= poses.rows.size(0) - 3)
        throw Error("held-out view of a frame that lacks neighbours", (held_out / "frames.npy").string(),
                    "take frames with three on either side");
    const auto width = static_cast<int64_t>(rows[0][1][4].item<double>()),
               height = static_cast<int64_t>(rows[0][0][4].item<double>());
    std::vector<at::Tensor> images;
    for (int64_t k = 0; k < rows.size(0); ++k)
        images.push_back(read_picture(held_out / (padded(k, 5) + ".png"), width, height));
    out.images = at::stack(images);
    out.intrinsics = lens(rows.select(2, 4).select(1, 2), width, height);
    out.camera_to_world = poses.video_coordinates(rows);
    return out;
}

}  // namespace heddle::models
