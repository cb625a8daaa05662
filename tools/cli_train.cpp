// heddle train MODEL: trains one of the models on a scene, eager or fused, and measures it on held-out views.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <cstdio>
#include <memory>

#include "models/error.h"
#include "models/hexplane/task.h"
#include "models/trainer.h"
#include "tools/cli.h"

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

void run(TrainCommand c) {
    if (c.model != "hexplane") throw Error("unknown model", c.model, "choose hexplane");
    auto config = models::hexplane_config(c.scale);
    if (c.iterations > 0) config.iterations = c.iterations;
    auto& o = c.options;
    if (c.fused) o.make_step = fused_step();
    if (c.threads > 0) at::set_num_threads(static_cast<int>(c.threads));
    o.seed = c.seed;
    o.dtype = c.dtype == "float64" ? at::kDouble : at::kFloat;
    o.device = at::Device(c.device);
    if (o.device.is_cuda() && !at::hasCUDA()) throw Error("no CUDA device", c.device, "use --device cpu");
    o.run = {{"model", c.model},
             {"scale", c.scale},
             {"iterations", std::to_string(config.iterations)},
             {"seed", std::to_string(c.seed)},
             {"dtype", c.dtype}};

    models::BlenderOptions read{c.downsample, 0, config.box};
    const auto data = models::load_blender(c.data, "train", read);
    models::BlenderSplit held_out;
    if (c.views > 0) held_out = models::load_blender(c.data, "test", {c.downsample, c.views, 0});

    torch::manual_seed(c.seed);
    const auto model = std::make_shared<models::HexPlane>(config);
    model->to(o.device, o.dtype);
    if (!o.quiet)
        std::fprintf(
            stderr,
            "hexplane %s, %s, %ld rays of %ld views at %ld x %ld, %ld rays an iteration, grid %ld, %ld samples a ray\n",
            c.fused ? "fused" : "eager", c.dtype.c_str(), data.rays.size(0), data.views, data.width, data.height,
            config.rays, model->grid(), model->samples());
    const auto result = models::train(models::hexplane_task(model), data, held_out, o);
    const auto done = static_cast<double>(result.iterations - result.first);
    if (done > 0)
        std::printf("%.0f iterations in %.2f s, %.2f ms each", done, result.seconds, 1e3 * result.seconds / done);
    else std::printf("nothing to do: all %ld iterations are behind the checkpoint", result.iterations);
    if (!result.evaluations.empty()) std::printf(", held-out PSNR %.2f dB", result.evaluations.back().psnr);
    std::printf("\n");
}

}  // namespace

__attribute__((weak)) models::MakeStep fused_step() { throw Error("fused", "not built", "use --eager"); }

void add_train(CLI::App& app) {
    auto c = std::make_shared<TrainCommand>();
    auto* sub = app.add_subcommand("train", "Train a model on a scene");
    sub->add_option("model", c->model, "hexplane")->required();
    sub->add_option("--data", c->data, "A scene in D-NeRF's layout (heddle data makes one)")->required();
    sub->add_option("--scale", c->scale, "full, demo, tiny or a number up to 1: the size of the model and of a step")
        ->capture_default_str();
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
