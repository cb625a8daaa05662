// heddle data SCENE: makes a data set, so that nothing needs to be downloaded.
#include <cstdio>
#include <memory>

#include "models/data/scene.h"
#include "models/error.h"
#include "models/progress.h"
#include "tools/cli.h"

namespace heddle {
namespace {

struct DataCommand {
    std::string scene, out;
    models::SceneOptions options;
    bool quiet = false;
};

void run(const DataCommand& c) {
    if (c.scene != "bouncing-balls") throw models::Error("unknown scene", c.scene, "choose bouncing-balls");
    models::Progress progress("pictures", c.options.train_frames + c.options.val_frames + c.options.test_frames,
                              c.quiet);
    const bool made =
        models::write_bouncing_balls(c.out, c.options, [&](int64_t done, int64_t) { progress.show(done, ""); });
    std::printf("%s: %s\n", c.out.c_str(), made ? "made" : "already there");
}

}  // namespace

void add_data(CLI::App& app) {
    auto c = std::make_shared<DataCommand>();
    auto* sub = app.add_subcommand("data", "Make a data set");
    sub->add_option("scene", c->scene, "bouncing-balls")->required();
    sub->add_option("--out", c->out, "Directory to make")->required();
    sub->add_option("--frames", c->options.train_frames, "Training views, one for each moment")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    sub->add_option("--held-out", c->options.test_frames, "Test views")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    sub->add_option("--size", c->options.size, "Pixels along both edges")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    sub->add_flag("--quiet", c->quiet, "No progress");
    sub->callback([c] { run(*c); });
}

}  // namespace heddle
