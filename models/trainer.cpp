// One run of training. Losses are read from the device in groups, since each read waits for the device to finish.
#include "models/trainer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/optim/adam.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/files.h"
#include "models/progress.h"
#include "models/views.h"

namespace heddle::models {
namespace {

using Clock = std::chrono::steady_clock;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::AdamParamState;

constexpr size_t kLossesPerRead = 25;  // on a device other than the CPU

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string format(const char* pattern, double a, double b, double c) {
    char text[128];
    std::snprintf(text, sizeof text, pattern, a, b, c);
    return text;
}

// Rays in the order of a permutation that depends on the seed and the pass alone, so a position is two numbers.
class Sampler {
public:
    Sampler(int64_t count, int64_t batch, uint64_t seed) : count_(count), batch_(std::min(batch, count)), seed_(seed) {}

    at::Tensor next() {
        if (!order_.defined() || cursor_ + batch_ > count_) {
            if (order_.defined()) ++pass_, cursor_ = 0;
            shuffle();
        }
        cursor_ += batch_;
        return order_.slice(0, cursor_ - batch_, cursor_);
    }

    at::Tensor position() const { return at::tensor({pass_, cursor_}, at::kLong); }
    void seek(const at::Tensor& position) {
        pass_ = position[0].item<int64_t>();
        cursor_ = position[1].item<int64_t>();
        shuffle();
    }

private:
    void shuffle() {
        order_ = at::randperm(count_, at::detail::createCPUGenerator(seed_ * 1000003 + static_cast<uint64_t>(pass_)),
                              at::kLong);
    }

    int64_t count_, batch_;
    uint64_t seed_;
    int64_t pass_ = 0, cursor_ = 0;
    at::Tensor order_;
};

class Run {
public:
    Run(const Task& task, const Feed& feed, const HeldOut& held_out, const TrainOptions& options)
        : task_(task), feed_(feed), held_out_(held_out), o_(options) {
        if (!o_.out.empty()) make_directories(o_.out);  // now, so that a bad path costs no training
        for (const auto& file : {o_.checkpoint, o_.log})
            if (const auto parent = std::filesystem::path(file).parent_path(); !parent.empty()) make_directories(parent);
        rebuild_optimiser();
        if (!o_.resume.empty()) resume();
    }

    TrainResult go() {
        const int64_t last = o_.stop_after > 0 ? std::min(o_.stop_after, task_.iterations) : task_.iterations;
        Progress progress(task_.model, last, o_.quiet);
        const int64_t first = iteration_;
        result_.first = first;
        double mse = 0;
        while (iteration_ < last) {
            const auto start = Clock::now();
            step();
            result_.seconds += seconds_since(start);
            ++iteration_;
            if (!result_.losses.empty()) {
                const double latest = result_.losses.back()[1];
                mse = mse == 0 ? latest : 0.95 * mse + 0.05 * latest;
            }
            if (progress.due() || iteration_ == last) {
                read_losses();
                const double rate = static_cast<double>(iteration_ - first) / result_.seconds;
                progress.show(iteration_,
                              format("%.2f it/s  loss %.5f  PSNR %.2f dB", rate, result_.losses.back()[0], psnr(mse)),
                              true);
            }
            const bool end = iteration_ == last;
            if (end || (o_.evaluate_every > 0 && iteration_ % o_.evaluate_every == 0)) evaluate(progress, end);
            if (!o_.checkpoint.empty() && (end || iteration_ % o_.checkpoint_every == 0)) save();
        }
        result_.iterations = iteration_;
        if (!o_.log.empty()) write_log();
        return result_;
    }

private:
    at::TensorOptions options() const { return at::TensorOptions().dtype(o_.dtype).device(o_.device); }

    void step() {
        const auto inputs = feed_.next(iteration_);
        const double factor = task_.rate_factor(iteration_);
        for (size_t i = 0; i < rates_.size(); ++i) optimiser_->param_groups()[i].options().set_lr(rates_[i] * factor);
        if (!step_) step_ = o_.make_step ? o_.make_step(task_.loss, *optimiser_) : eager_step();
        unread_.push_back(at::stack(step_(inputs)));
        if (o_.device.is_cpu() || unread_.size() == kLossesPerRead) read_losses();

        const Change change = task_.after(iteration_);
        if (change != Change::none) step_ = nullptr;
        if (change == Change::parameters) rebuild_optimiser();
    }

    StepFn eager_step() {
        return [this](const std::vector<at::Tensor>& inputs) {
            optimiser_->zero_grad();
            auto losses = task_.loss(inputs);
            losses[0].backward();
            optimiser_->step();
            for (auto& l : losses) l = l.detach();
            return losses;
        };
    }

    void rebuild_optimiser() {
        std::vector<torch::optim::OptimizerParamGroup> groups;
        rates_.clear();
        for (const auto& g : task_.groups()) {
            auto options = std::make_unique<AdamOptions>(g.rate);
            options->betas({task_.betas[0], task_.betas[1]}).eps(1e-8);
            groups.emplace_back(g.parameters, std::move(options));
            rates_.push_back(g.rate);
        }
        optimiser_ = std::make_unique<Adam>(groups);
    }

    void read_losses() {
        if (unread_.empty()) return;
        const auto rows = at::stack(unread_).to(at::kCPU, at::kDouble).contiguous();
        const auto values = rows.accessor<double, 2>();
        for (int64_t i = 0; i < rows.size(0); ++i) {
            result_.losses.emplace_back(&values[i][0], &values[i][0] + rows.size(1));
            check_finite(result_.losses.back(), iteration_of(result_.losses.size() - 1));
        }
        unread_.clear();
    }

    int64_t iteration_of(size_t index) const { return result_.first + static_cast<int64_t>(index); }

    // Names the guilty term before the sum, which is bad because of it.
    void check_finite(const std::vector<double>& losses, int64_t iteration) const {
        for (size_t k = losses.size(); k-- > 0;)
            if (!std::isfinite(losses[k]))
                throw Error("loss isn't finite", "iteration " + std::to_string(iteration) + ", " + task_.terms[k],
                            "lower the learning rates or check the data");
    }

    void evaluate(Progress& progress, bool end) {
        if (!held_out_.pictures.defined()) return;
        const auto rendered = held_out_.render();
        Evaluation e{iteration_, 0, view_psnr(rendered, held_out_.pictures)};
        for (double v : e.views) e.psnr += v / static_cast<double>(e.views.size());
        result_.evaluations.push_back(e);
        progress.say(format("held-out views: PSNR %.2f dB (%.0f views) after %.0f iterations", e.psnr,
                            static_cast<double>(e.views.size()), static_cast<double>(iteration_)));
        if (end && !o_.out.empty()) write_views(o_.out, rendered, held_out_.pictures);
    }

    at::Generator device_generator() const { return at::globalContext().defaultGenerator(o_.device); }

    void save() {
        read_losses();
        Checkpoint c{o_.run, {}};
        c.tensors["iteration"] = at::tensor({iteration_}, at::kLong);
        c.tensors["sampler"] = feed_.position();
        c.tensors["generator/cpu"] = at::detail::getDefaultCPUGenerator().get_state();
        if (!o_.device.is_cpu()) c.tensors["generator/device"] = device_generator().get_state();
        for (const auto& [name, value] : task_.state()) c.tensors["state/" + name] = value.detach().cpu();
        for (const auto& [name, p] : task_.parameters()) {
            c.tensors["parameter/" + name] = p.detach().cpu();
            const auto found = optimiser_->state().find(p.unsafeGetTensorImpl());
            if (found == optimiser_->state().end()) continue;  // it never had a gradient
            const auto& adam = static_cast<const AdamParamState&>(*found->second);
            c.tensors["step/" + name] = at::tensor({adam.step()}, at::kLong);
            c.tensors["exp_avg/" + name] = adam.exp_avg().cpu();
            c.tensors["exp_avg_sq/" + name] = adam.exp_avg_sq().cpu();
        }
        save_checkpoint(o_.checkpoint, c);
    }

    void resume() {
        const auto c = load_checkpoint(o_.resume);
        check_same_run(o_.resume, c, o_.run);
        const auto at_key = [&](const std::string& key) {
            const auto found = c.tensors.find(key);
            if (found == c.tensors.end())
                throw Error("checkpoint without " + key, o_.resume, "resume from another file or start anew");
            return found->second;
        };
        std::map<std::string, at::Tensor> state;
        for (const auto& [key, value] : c.tensors)
            if (key.rfind("state/", 0) == 0) state[key.substr(6)] = value;
        task_.restore(state);
        rebuild_optimiser();
        const at::NoGradGuard no_grad;
        for (const auto& [name, p] : task_.parameters()) {
            at::Tensor(p).copy_(at_key("parameter/" + name));
            if (!c.tensors.count("step/" + name)) continue;
            auto adam = std::make_unique<AdamParamState>();
            adam->step(at_key("step/" + name).item<int64_t>());
            adam->exp_avg(at_key("exp_avg/" + name).to(options()));
            adam->exp_avg_sq(at_key("exp_avg_sq/" + name).to(options()));
            optimiser_->state()[p.unsafeGetTensorImpl()] = std::move(adam);
        }
        iteration_ = at_key("iteration").item<int64_t>();
        feed_.seek(at_key("sampler"));
        at::Generator(at::detail::getDefaultCPUGenerator()).set_state(at_key("generator/cpu"));
        if (!o_.device.is_cpu() && c.tensors.count("generator/device"))
            device_generator().set_state(at_key("generator/device"));
    }

    void write_log() const {
        nlohmann::json log = {{"run", o_.run},
                              {"terms", task_.terms},
                              {"first", result_.first},
                              {"losses", result_.losses},
                              {"seconds", result_.seconds},
                              {"evaluations", nlohmann::json::array()}};
        for (const auto& e : result_.evaluations)
            log["evaluations"].push_back({{"iteration", e.iteration}, {"psnr", e.psnr}, {"views", e.views}});
        replace_file(o_.log, log.dump() + "\n");
    }

    const Task& task_;
    const Feed& feed_;
    const HeldOut& held_out_;
    const TrainOptions& o_;
    StepFn step_;
    std::unique_ptr<Adam> optimiser_;
    std::vector<double> rates_;
    std::vector<at::Tensor> unread_;  // losses still on the device, one tensor an iteration
    int64_t iteration_ = 0;
    TrainResult result_;
};

}  // namespace

TrainResult train(const Task& task, const Feed& feed, const HeldOut& held_out, const TrainOptions& options) {
    return Run(task, feed, held_out, options).go();
}

TrainResult train(const RayTask& task, const BlenderSplit& data, const BlenderSplit& held_out,
                  const TrainOptions& o) {
    if (data.rays.size(0) == 0) throw Error("no rays", "training split", "no picture looks at the scene's box");
    const auto options = at::TensorOptions().dtype(o.dtype).device(o.device);
    Sampler sampler(data.rays.size(0), task.rays, o.seed);
    Feed feed;
    feed.next = [&](int64_t iteration) {
        const auto rows = sampler.next();
        const auto pick = [&](const at::Tensor& t) { return t.index_select(0, rows).to(options); };
        return task.inputs({pick(data.rays), pick(data.rgb), pick(data.time)}, iteration);
    };
    feed.position = [&] { return sampler.position(); };
    feed.seek = [&](const at::Tensor& position) { sampler.seek(position); };
    return train(task, feed, held_out_views(task, held_out, options), o);
}

}  // namespace heddle::models
