// heddle data SCENE: makes a data set, so that nothing needs to be downloaded.
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>

#include "models/data/scene.h"
#include "models/data/video_scene.h"
#include "models/progress.h"
#include "tools/cli.h"

namespace heddle {
namespace {

struct DataCommand {
    std::string out;
    models::SceneOptions scene;
    models::VideoOptions video;
    bool quiet = false;
};

// A scene's subcommand, with the options that all have; `write(report)` writes it.
CLI::App* add_scene(CLI::App& data, const std::string& name, const std::string& what,
                    const std::shared_ptr<DataCommand>& c,
                    const std::function<bool(const std::function<void(int64_t, int64_t)>&)>& write) {
    auto* sub = data.add_subcommand(name, what);
    sub->add_option("--out", c->out, "Directory to make")->required();
    sub->add_flag("--quiet", c->quiet, "No progress");
    sub->callback([c, write] {
        std::optional<models::Progress> progress;
        const bool made = write([&](int64_t done, int64_t total) {
            if (!progress) progress.emplace("frames", total, c->quiet);
            progress->show(done, "");
        });
        progress.reset();
        std::printf("%s: %s\n", c->out.c_str(), made ? "made" : "already there");
    });
    return sub;
}

void add_number(CLI::App* sub, const std::string& name, int64_t& value, const std::string& what) {
    sub->add_option(name, value, what)->check(CLI::PositiveNumber)->capture_default_str();
}

}  // namespace

void add_data(CLI::App& app) {
    auto* data = app.add_subcommand("data", "Make a data set");
    data->require_subcommand(1);
    auto c = std::make_shared<DataCommand>();

    auto* balls = add_scene(*data, "bouncing-balls", "Views of a moving scene, in the layout of D-NeRF's data sets", c,
                            [c](const auto& report) { return models::write_bouncing_balls(c->out, c->scene, report); });
    add_number(balls, "--frames", c->scene.train_frames, "Training views, one for each moment");
    add_number(balls, "--held-out", c->scene.test_frames, "Test views");
    add_number(balls, "--size", c->scene.size, "Pixels along both edges");

    auto* video =
        add_scene(*data, "bouncing-balls-video",
                  "The scene in a room, filmed by one camera, in the layout of DynIBaR's monocular videos", c,
                  [c](const auto& report) { return models::write_bouncing_balls_video(c->out, c->video, report); });
    add_number(video, "--frames", c->video.frames, "Frames of the video");
    add_number(video, "--width", c->video.width, "Pixels");
    add_number(video, "--height", c->video.height, "Pixels");
    video->add_option("--held-out", c->video.held_out, "Pictures from beside the camera's path, to measure on")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
}

}  // namespace heddle
