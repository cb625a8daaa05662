// Every check that makes a bad data set one clear line stands here, before any tensor is built from it.
#include "models/data/blender.h"

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/data/png.h"
#include "models/error.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kLargestEdge = 400;

struct Frame {
    std::string path;
    double time;
    at::Tensor to_world;  // [4, 4]
};

json read_json(const fs::path& path) {
    std::ifstream file(path);
    if (!file)
        throw Error("file not found", path.string(),
                    "check --data; `heddle data bouncing-balls --out DIR` makes a scene");
    try {
        return json::parse(file);
    } catch (const json::parse_error& e) {
        throw Error("broken JSON", path.string() + " at byte " + std::to_string(e.byte), "restore the file");
    }
}

at::Tensor matrix(const json& rows, const std::string& where) {
    const Error bad("transform_matrix isn't 4 x 4 numbers", where, "restore the file");
    if (!rows.is_array() || rows.size() != 4) throw bad;
    auto out = at::empty({4, 4}, at::kFloat);
    auto cells = out.accessor<float, 2>();
    for (size_t r = 0; r < 4; ++r) {
        if (!rows[r].is_array() || rows[r].size() != 4) throw bad;
        for (size_t c = 0; c < 4; ++c) {
            if (!rows[r][c].is_number()) throw bad;
            cells[static_cast<int64_t>(r)][static_cast<int64_t>(c)] = rows[r][c].get<float>();
        }
    }
    return out;
}

std::vector<Frame> read_frames(const json& meta, const fs::path& path) {
    if (!meta.is_object() || !meta.contains("camera_angle_x") || !meta["camera_angle_x"].is_number())
        throw Error("camera_angle_x is missing", path.string(), "add the horizontal field of view in radians");
    if (!meta.contains("frames") || !meta["frames"].is_array() || meta["frames"].empty())
        throw Error("no frames", path.string(), "add at least one frame");
    std::vector<Frame> out;
    for (const auto& f : meta["frames"]) {
        const std::string where = path.string() + " frame " + std::to_string(out.size());
        if (!f.is_object() || !f.contains("file_path") || !f["file_path"].is_string())
            throw Error("frame without file_path", where, "add the picture's path");
        if (!f.contains("time") || !f["time"].is_number())
            throw Error("frame without time", where, "add its time in [0, 1]");
        if (!f.contains("transform_matrix"))
            throw Error("frame without transform_matrix", where, "add the camera's pose");
        out.push_back(
            {f["file_path"].get<std::string>(), f["time"].get<double>(), matrix(f["transform_matrix"], where)});
    }
    return out;
}

// [H, W, 3] in [0, 1] on white, averaged over `factor` x `factor` pixels.
at::Tensor on_white(const Image& image, int64_t factor) {
    const auto bytes =
        at::from_blob(const_cast<uint8_t*>(image.rgba.data()), {image.height, image.width, 4}, at::kByte);
    const auto rgba = bytes.to(at::kFloat) / 255;
    const auto alpha = rgba.slice(2, 3);
    const auto rgb = rgba.slice(2, 0, 3) * alpha + (1 - alpha);
    return rgb.view({image.height / factor, factor, image.width / factor, factor, 3}).mean({1, 3});
}

// Unit directions [H, W, 3] in camera coordinates, through pixel middles.
at::Tensor directions(int64_t height, int64_t width, double fov_x) {
    const double focal = 0.5 * static_cast<double>(width) / std::tan(0.5 * fov_x);
    const auto options = at::TensorOptions(at::kDouble);
    const auto x = (at::arange(width, options) + 0.5 - 0.5 * static_cast<double>(width)) / focal;
    const auto y = (at::arange(height, options) + 0.5 - 0.5 * static_cast<double>(height)) / focal;
    const auto d = at::stack({x.unsqueeze(0).expand({height, width}), -y.unsqueeze(1).expand({height, width}),
                              at::full({height, width}, -1.0, options)},
                             -1);
    return (d / d.norm(2, -1, true)).to(at::kFloat);
}

int64_t choose_factor(const Image& image, int64_t asked, const std::string& path) {
    int64_t factor = std::max<int64_t>(asked, 1);
    if (asked == 0)
        while (image.width / factor > kLargestEdge && factor < image.width) ++factor;
    if (image.width % factor != 0 || image.height % factor != 0)
        throw Error("picture of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                        " can't be reduced " + std::to_string(factor) + " times",
                    path, "choose a --downsample that divides both edges");
    return factor;
}

}  // namespace

at::Tensor meets_box(const at::Tensor& rays, double box) {
    const auto origin = rays.slice(1, 0, 3), direction = rays.slice(1, 3, 6);
    const auto safe = at::where(direction == 0, at::full_like(direction, 1e-6), direction);
    const auto a = (box - origin) / safe, b = (-box - origin) / safe;
    return at::maximum(a, b).amin(-1) > at::minimum(a, b).amax(-1);
}

BlenderSplit load_blender(const std::string& directory, const std::string& split, const BlenderOptions& options) {
    if (!fs::is_directory(directory))
        throw Error("data set not found", directory,
                    "check --data; `heddle data bouncing-balls --out DIR` makes a scene");
    const fs::path meta_path = fs::path(directory) / ("transforms_" + split + ".json");
    const json meta = read_json(meta_path);
    auto frames = read_frames(meta, meta_path);
    const auto count = static_cast<int64_t>(frames.size());
    if (options.max_views > 0 && options.max_views < count) {
        std::vector<Frame> kept;
        for (int64_t i = 0; i < options.max_views; ++i)
            kept.push_back(frames[static_cast<size_t>(i * count / options.max_views)]);
        frames = std::move(kept);
    }

    BlenderSplit out;
    std::vector<at::Tensor> rays, rgb, time;
    at::Tensor local;
    int64_t factor = 1, width = 0, height = 0;
    for (const auto& frame : frames) {
        const std::string path = (fs::path(directory) / (frame.path + ".png")).lexically_normal().string();
        const Image image = read_png(path);
        if (out.views++ == 0) {
            width = image.width, height = image.height;
            factor = choose_factor(image, options.downsample, path);
            out.width = width / factor, out.height = height / factor;
            local = directions(out.height, out.width, meta["camera_angle_x"].get<double>());
        } else if (image.width != width || image.height != height) {
            throw Error("picture of " + std::to_string(image.width) + " x " + std::to_string(image.height), path,
                        "all pictures of a split must be " + std::to_string(width) + " x " + std::to_string(height));
        }
        const auto pose = frame.to_world;
        const auto direction = at::matmul(local, pose.slice(0, 0, 3).slice(1, 0, 3).t()).view({-1, 3});
        const auto origin = pose.slice(0, 0, 3).select(1, 3).expand_as(direction);
        auto these = at::cat({origin, direction}, 1);
        auto colours = on_white(image, factor).reshape({-1, 3});
        if (options.drop_outside > 0) {
            const auto keep = meets_box(these, options.drop_outside).nonzero().squeeze(1);
            these = these.index_select(0, keep);
            colours = colours.index_select(0, keep);
        }
        time.push_back(at::full({these.size(0), 1}, frame.time * 2 - 1, at::kFloat));
        rays.push_back(these);
        rgb.push_back(colours);
    }
    out.rays = at::cat(rays);
    out.rgb = at::cat(rgb);
    out.time = at::cat(time);
    return out;
}

}  // namespace heddle::models
