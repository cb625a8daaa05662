// DynIBaR's schedule: phases differ in which losses there are, so that a step is made again when one ends.
#include "models/dynibar/task.h"

#include <ATen/ATen.h>

namespace heddle::models {

Task dynibar_task(std::shared_ptr<Dynibar> model) {
    const DynibarConfig c = model->config();
    const auto now = std::make_shared<Phase>(phase(c, 0));
    Task task;
    task.model = "dynibar";
    task.terms = loss_terms();
    task.iterations = c.iterations;
    task.loss = [model, now](const std::vector<at::Tensor>& inputs) { return model->loss(inputs, *now); };
    task.sizes = StepInputs::sizes(/*jitter=*/false);
    task.parameters = [model] {
        std::map<std::string, at::Tensor> out;
        for (const auto& p : model->named_parameters()) out[p.key()] = p.value();
        return out;
    };
    task.groups = [model] { return model->groups(); };
    task.rate_factor = [c](int64_t iteration) { return rate_factor(c, iteration); };
    task.after = [c, now](int64_t iteration) {
        const auto before = *now;
        *now = phase(c, iteration + 1);
        return *now == before ? Change::none : Change::loss;
    };
    task.state = [now] {
        return std::map<std::string, at::Tensor>{{"phase", at::tensor({static_cast<int64_t>(*now)}, at::kLong)}};
    };
    task.restore = [now](const std::map<std::string, at::Tensor>& state) {
        *now = static_cast<Phase>(state.at("phase")[0].item<int64_t>());
    };
    return task;
}

Feed video_feed(std::shared_ptr<const VideoSteps> steps, uint64_t seed, const at::TensorOptions& options) {
    return {[=](int64_t iteration) { return steps->step(iteration, seed, options).list(); },
            [] { return at::empty({0}, at::kLong); }, [](const at::Tensor&) {}};
}

HeldOut held_out_views(std::shared_ptr<Dynibar> model, std::shared_ptr<const VideoSteps> steps, HeldOutViews views,
                       const at::TensorOptions& options) {
    const auto pictures = views.images.permute({0, 2, 3, 1}).contiguous();
    return {pictures, [=] {
                std::vector<at::Tensor> out;
                for (int64_t i = 0; i < pictures.size(0); ++i) {
                    const auto in = steps->view(views.frames[i].item<int64_t>(), views.intrinsics[i], views.camera_to_world[i], options);
                    out.push_back(model->render(in).view({pictures.size(1), pictures.size(2), 3}).to(at::kCPU, at::kFloat));
                }
                return at::stack(out);
            }};
}

}  // namespace heddle::models
