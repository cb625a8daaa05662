// HexPlane's schedule: planes grow, the emptiness mask is rebuilt, rates and TV weights fall together.
#include "models/hexplane/task.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace heddle::models {
namespace {

bool holds(const std::vector<int64_t>& values, int64_t v) {
    return std::find(values.begin(), values.end(), v) != values.end();
}

Change after(HexPlane& model, int64_t iteration) {
    const auto& c = model.config();
    auto change = Change::none;
    if (holds(emptiness_iterations(c), iteration)) {
        model.update_emptiness_mask();
        change = Change::loss;
    }
    if (holds(upsample_iterations(c), iteration)) {
        for (const auto& stage : stages(c))
            if (stage.from == iteration + 1) model.upsample(stage.grid, stage.time);
        change = Change::parameters;
    }
    return change;
}

}  // namespace

RayTask hexplane_task(std::shared_ptr<HexPlane> model) {
    const HexPlaneConfig c = model->config();
    RayTask task;
    task.model = "hexplane";
    task.terms = {"loss", "mse", "tv_density", "tv_app"};
    task.rays = c.rays;
    task.iterations = c.iterations;
    task.betas = {0.9, 0.99};
    for (int k : {0, 1, 2}) task.sizes.push_back({k, 0, "B"});
    task.loss = [model](const std::vector<at::Tensor>& inputs) { return model->loss(inputs); };
    task.parameters = [model] {
        std::map<std::string, at::Tensor> out;
        for (const auto& p : model->named_parameters()) out[p.key()] = p.value();
        return out;
    };
    task.groups = [model, c] {
        return std::vector<ParameterGroup>{{model->plane_parameters(), c.plane_rate},
                                           {model->network_parameters(), c.network_rate}};
    };
    task.rate_factor = [c](int64_t iteration) { return rate_factor(c, iteration); };
    task.inputs = [c](const Batch& b, int64_t iteration) {
        const double factor = rate_factor(c, iteration);
        return std::vector<at::Tensor>{b.rays, b.rgb, b.time,
                                       at::full({}, factor * c.tv_weight_density, b.rays.options()),
                                       at::full({}, factor * c.tv_weight_app, b.rays.options())};
    };
    task.after = [model](int64_t iteration) { return after(*model, iteration); };
    task.render = [model](const at::Tensor& rays, const at::Tensor& time) {
        const at::NoGradGuard no_grad;
        return model->render(rays, time, /*train=*/false, /*white_bg=*/true);
    };
    task.state = [model] {
        std::map<std::string, at::Tensor> out;
        out["size"] = at::tensor({model->grid(), model->time()}, at::kLong);
        if (model->emptiness().defined()) out["emptiness"] = model->emptiness();
        return out;
    };
    task.restore = [model](const std::map<std::string, at::Tensor>& state) {
        const auto size = state.at("size");
        const int64_t grid = size[0].item<int64_t>(), time = size[1].item<int64_t>();
        if (grid != model->grid() || time != model->time()) model->upsample(grid, time);
        if (state.count("emptiness")) model->set_emptiness(state.at("emptiness").to(model->density_plane[0].device()));
    };
    return task;
}

}  // namespace heddle::models
