// heddle train MODEL: trains one of the models on a scene, eager or fused, and measures it on held-out views.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/utils.h>

#include <cstdio>
#include <memory>

#include "models/data/monocular.h"
#include "models/dynibar/task.h"
#include "models/error.h"
#include "models/hexplane/task.h"
#include "models/trainer.h"
#include "tools/cli.h"
#include "tools/subject.h"

namespace heddle {
namespace {

using models::Error;

struct TrainCommand {
    std::string model, data, scale = "demo", dtype = "float32", device = "cpu";
    int64_t iterations = 0, threads = 0, downsample = 0, views = 4;
    uint64_t seed = 0;
    bool eager = false, fused = false;
    models::TrainOptions options;
};

// What every model's run has in common, once it's known how long it is.
void prepare(TrainCommand& c, int64_t& iterations) {
    if (c.iterations > 0) iterations = c.iterations;
    c.options.run = {{"model", c.model},
                     {"scale", c.scale},
                     {"iterations", std::to_string(iterations)},
                     {"seed", std::to_string(c.seed)},
                     {"dtype", c.dtype}};
}

// Says what is about to run, with `size`: what it runs on.
void announce(const TrainCommand& c, const std::string& size) {
    if (!c.options.quiet)
        std::fprintf(stderr, "%s %s, %s, %s\n", c.model.c_str(), c.fused ? "fused" : "eager", c.dtype.c_str(), size.c_str());
}

models::TrainResult train_hexplane(TrainCommand& c) {
    auto config = models::hexplane_config(c.scale);
    prepare(c, config.iterations);
    models::BlenderOptions read{c.downsample, 0, config.box};
    const auto data = models::load_blender(c.data, "train", read);
    models::BlenderSplit held_out;
    if (c.views > 0) held_out = models::load_blender(c.data, "test", {c.downsample, c.views, 0});

    torch::manual_seed(c.seed);
    const auto model = std::make_shared<models::HexPlane>(config);
    model->to(c.options.device, c.options.dtype);
    announce(c, fmt::format("{} rays of {} views at {} x {}, {} rays an iteration, grid {}, {} samples a ray", data.rays.size(0), data.views, data.width,
                            data.height, config.rays, model->grid(), model->samples()));
    const auto task = models::hexplane_task(model);
    if (c.fused) c.options.make_step = fused_step(task);
    return models::train(task, data, held_out, c.options);
}

models::TrainResult train_dynibar(TrainCommand& c) {
    auto config = models::dynibar_config(c.scale);
    prepare(c, config.iterations);
    if (c.downsample > 0) throw Error("--downsample", c.model, "make the video smaller instead");
    const auto video = models::load_monocular(c.data);
    config.frames = video.images.size(0);
    const auto steps = std::make_shared<models::VideoSteps>(video, config);
    const auto options = at::TensorOptions().dtype(c.options.dtype).device(c.options.device);

    torch::manual_seed(c.seed);
    const auto model = std::make_shared<models::Dynibar>(config);
    model->to(c.options.device, c.options.dtype);
    models::HeldOut held_out;
    if (auto views = c.views > 0 ? models::load_held_out(c.data) : std::nullopt) {
        for (auto* t : {&views->images, &views->intrinsics, &views->camera_to_world, &views->frames}) *t = t->slice(0, 0, c.views);
        held_out = models::held_out_views(model, steps, *views, options);
    }
    announce(c, fmt::format("{} frames at {} x {}, {} rays an iteration, {} samples a ray", config.frames, video.images.size(3), video.images.size(2), config.rays,
                            config.samples));
    const auto task = models::dynibar_task(model);
    if (c.fused) c.options.make_step = fused_step(task);
    return models::train(task, models::video_feed(steps, c.seed, options), held_out, c.options);
}

void run(TrainCommand c) {
    auto& o = c.options;
    if (c.threads > 0) at::set_num_threads(static_cast<int>(c.threads));
    o.seed = c.seed;
    o.dtype = c.dtype == "float64" ? at::kDouble : at::kFloat;
    o.device = at::Device(c.device);
    if (o.device.is_cuda() && !at::hasCUDA()) throw Error("no CUDA device", c.device, "use --device cpu");
    if (c.model != "hexplane" && c.model != "dynibar") throw Error("unknown model", c.model, fmt::format("choose {}", kModels));
    const auto result = c.model == "hexplane" ? train_hexplane(c) : train_dynibar(c);
    const auto done = static_cast<double>(result.iterations - result.first);
    if (done > 0)
        std::printf("%.0f iterations in %.2f s, %.2f ms each", done, result.seconds, 1e3 * result.seconds / done);
    else std::printf("nothing to do: all %ld iterations are behind the checkpoint", result.iterations);
    if (!result.evaluations.empty()) std::printf(", held-out PSNR %.2f dB", result.evaluations.back().psnr);
    std::printf("\n");
}

}  // namespace

__attribute__((weak)) models::MakeStep fused_step(const models::Task&) { throw Error("fused", "not built", "use --eager"); }

void add_train(CLI::App& app) {
    auto c = std::make_shared<TrainCommand>();
    auto* sub = app.add_subcommand("train", "Train a model on a scene");
    sub->add_option("model", c->model, kModels)->required();
    sub->add_option("--data", c->data, "A scene in D-NeRF's layout, for dynibar a video in that of its monocular loader (heddle data makes both)")->required();
    sub->add_option("--scale", c->scale, std::string(kScales) + ": the size of the model and of a step")->capture_default_str();
    sub->add_option("--iters", c->iterations, "Length of the schedule (default: the scale's)")
        ->check(CLI::PositiveNumber);
    sub->add_option("--stop-after", c->options.stop_after, "Stop after this iteration of the schedule")
        ->check(CLI::PositiveNumber);
    auto* eager = sub->add_flag("--eager", c->eager, "Steps as PyTorch runs them (default)");
    sub->add_flag("--fused", c->fused, "Whole steps through heddle")->excludes(eager);
    sub->add_option("--seed", c->seed, "Of the model, the jitter and the order of rays")->capture_default_str();
    sub->add_option("--threads", c->threads, "CPU threads (default: PyTorch's choice)")->check(CLI::PositiveNumber);
    sub->add_option("--device", c->device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
    sub->add_option("--dtype", c->dtype, "float32 or float64")
        ->check(CLI::IsMember({"float32", "float64"}))
        ->capture_default_str();
    sub->add_option("--downsample", c->downsample, "Pixels averaged along each edge (default: to at most 400 pixels)")
        ->check(CLI::PositiveNumber);
    sub->add_option("--views", c->views, "Held-out views to measure on")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    sub->add_option("--evaluate-every", c->options.evaluate_every,
                    "Iterations between measurements (default: at the end)")
        ->check(CLI::PositiveNumber);
    sub->add_option("--checkpoint", c->options.checkpoint, "File to save the run in, replaced whole");
    sub->add_option("--checkpoint-every", c->options.checkpoint_every, "Iterations between saves")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    sub->add_option("--resume", c->options.resume, "Checkpoint to go on from");
    sub->add_option("--out", c->options.out, "Directory for the rendered held-out views, each beside the truth");
    sub->add_option("--log", c->options.log, "JSON file of losses and measurements");
    sub->add_flag("--quiet", c->options.quiet, "No progress");
    sub->callback([c] { run(*c); });
}

}  // namespace heddle
