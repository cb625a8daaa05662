// Writes the bouncing balls in the layout of D-NeRF's data sets.
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/data/scene.h"
#include "models/data/scene_directory.h"
#include "models/error.h"
#include "models/files.h"

namespace heddle::models {
namespace {

using nlohmann::json;

constexpr double kPi = 3.14159265358979323846;

json mark(const SceneOptions& o) {
    return {{"scene", "bouncing-balls"}, {"version", 1},   {"train", o.train_frames}, {"val", o.val_frames},
            {"test", o.test_frames},     {"size", o.size}, {"grid", o.grid}};
}

// The i-th number of the van der Corput sequence: spreads over [0, 1) evenly at every length.
double van_der_corput(int64_t i) {
    double out = 0, digit = 0.5;
    for (; i > 0; i /= 2, digit /= 2)
        if (i % 2) out += digit;
    return out;
}

// Training views are scattered over the upper hemisphere; held-out views circle at one height, as D-NeRF's do.
Camera camera_of(const std::string& split, int64_t i, int64_t frames) {
    if (split == "train") return orbit(i * kPi * (3 - std::sqrt(5.0)), (12 + 58 * van_der_corput(i + 1)) * kPi / 180);
    const double turn = split == "val" ? 0.5 : 0.0;
    return orbit(2 * kPi * (static_cast<double>(i) + turn) / static_cast<double>(frames), 28 * kPi / 180);
}

}  // namespace

bool write_bouncing_balls(const std::string& directory, const SceneOptions& o,
                          const std::function<void(int64_t, int64_t)>& progress) {
    if (o.train_frames < 1 || o.val_frames < 1 || o.test_frames < 1 || o.size < 1 || o.grid < 1)
        throw Error("empty scene", directory, "frames, size and grid must be at least 1");
    return write_scene_directory(directory, mark(o), [&](const std::filesystem::path& part) {
        const int64_t total = o.train_frames + o.val_frames + o.test_frames;
        int64_t done = 0;
        for (const auto& [split, frames] : {std::pair<std::string, int64_t>{"train", o.train_frames},
                                            {"val", o.val_frames},
                                            {"test", o.test_frames}}) {
            make_directories((part / split).string());
            json meta = {{"camera_angle_x", Camera{}.fov_x}, {"frames", json::array()}};
            for (int64_t i = 0; i < frames; ++i) {
                const std::string number = padded(i, 3);
                const double time = frames > 1 ? static_cast<double>(i) / static_cast<double>(frames - 1) : 0.0;
                const Camera camera = camera_of(split, i, frames);
                write_png((part / split / ("r_" + number + ".png")).string(), picture(camera, time, o.size, o.grid));
                meta["frames"].push_back({{"file_path", "./" + split + "/r_" + number},
                                          {"time", time},
                                          {"transform_matrix", camera.to_world}});
                if (progress) progress(++done, total);
            }
            replace_file((part / ("transforms_" + split + ".json")).string(), meta.dump(2) + "\n");
        }
    });
}

}  // namespace heddle::models
