// Parts of a step, cut where the stages of Dynibar::predict end.
#include "models/dynibar/parts.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "models/dynibar/losses.h"

namespace heddle::models {
namespace {

using Tensors = std::vector<at::Tensor>;

// The tensors of a prediction, in one order.
std::vector<at::Tensor*> members(Prediction& p) {
    std::vector<at::Tensor*> out;
    for (auto* c : {&p.here, &p.anchor})
        for (auto* t : {&c->rgb, &c->depth, &c->weights, &c->mask, &c->rgb_static, &c->rgb_dynamic, &c->weights_static,
                        &c->weights_dynamic})
            out.push_back(t);
    for (auto* r : {&p.dynamic_alone, &p.anchor_dynamic_alone})
        for (auto* t : {&r->rgb, &r->depth, &r->weights, &r->mask}) out.push_back(t);
    for (auto* t :
         {&p.positions, &p.flow, &p.seen, &p.seen_rays, &p.seen_rays_alone, &p.scene_flow, &p.path, &p.anchor_path})
        out.push_back(t);
    return out;
}

}  // namespace

std::function<StepInputs(int64_t)> dynibar_steps(const DynibarConfig& config, uint64_t seed, at::ScalarType dtype) {
    const auto steps = std::make_shared<VideoSteps>(noise_video(config, seed), config);
    return [steps, samples = config.samples, seed, dtype](int64_t iteration) {
        auto in = steps->step(iteration, seed, at::TensorOptions(at::kFloat));
        const auto g = at::make_generator<at::CPUGeneratorImpl>(seed + 1 + static_cast<uint64_t>(iteration));
        in.jitter = at::rand({in.ray_o.size(0), samples}, g);
        auto list = in.list();
        for (auto& t : list)
            if (t.scalar_type() == at::kFloat) t = t.to(dtype);
        return StepInputs::of(list);
    };
}

StepInputs dynibar_step_inputs(const DynibarConfig& config, uint64_t seed, at::ScalarType dtype) {
    return dynibar_steps(config, seed, dtype)(bootstrap_iterations(config));
}

void stir(Dynibar& model, uint64_t seed) {
    const at::NoGradGuard no_grad;
    const auto g = at::make_generator<at::CPUGeneratorImpl>(seed);
    for (const auto& p : model.motion_mlp->named_parameters())
        if (p.key().rfind("coeff_linear", 0) == 0)
            p.value().copy_((0.1 * at::randn(p.value().sizes(), g)).to(p.value().dtype()));
}

std::vector<Part> dynibar_parts(std::shared_ptr<Dynibar> model, uint64_t seed, at::ScalarType dtype) {
    const auto& c = model->config();
    const auto g = at::make_generator<at::CPUGeneratorImpl>(seed + 2);
    const auto step = dynibar_step_inputs(c, seed, dtype), narrow = dynibar_step_inputs(c, seed);
    const int64_t r = step.ray_o.size(0), s = c.samples, v = step.sources.images.size(0),
                  t = step.static_sources.images.size(0), width = c.feature_channels + 3;
    const auto normal = [&](std::vector<int64_t> sizes) { return at::randn(sizes, g); };
    const auto uniform = [&](std::vector<int64_t> sizes) { return at::rand(sizes, g); };
    const auto fixed = [&](const at::Tensor& x) { return x.to(dtype).contiguous(); };
    const auto leaf = [&](const at::Tensor& x) { return fixed(x).clone().requires_grad_(); };
    const auto mask = [&](std::vector<int64_t> sizes) { return fixed((uniform(sizes) < 0.8).to(at::kFloat)); };
    const auto valid = [&] { return uniform({r, s}) < 0.9; };
    const auto place = sample_rays(narrow.ray_o, narrow.ray_d, narrow.depth_range, s, narrow.jitter);
    const auto direction = unit(narrow.ray_d);
    const auto height = (step.sources.images.size(2) + 3) / 4, across = (step.sources.images.size(3) + 3) / 4;

    std::vector<Part> parts;
    parts.push_back({"feature_net",
                     [model](const Tensors& in) { return Tensors{model->feature_net->forward(in[0]).first}; },
                     {step.sources.images},
                     {{0, 0, "V"}}});
    parts.push_back(
        {"motion_mlp",
         [model](const Tensors& in) { return Tensors{motion_coefficients(*model->motion_mlp, in[0], in[1])}; },
         {leaf(place.points), step.time},
         {{0, 0, "R"}}});
    parts.push_back({"trajectory",
                     [model](const Tensors& in) {
                         StepInputs step;
                         step.frame = in[2], step.offsets = in[3];
                         const auto motion = model->motion(in[1], in[0], step);
                         return Tensors{motion.moved, motion.paths.slice(0, 1) - motion.paths.slice(0, 0, -1)};
                     },
                     {leaf(0.1 * normal({r, s, 3 * c.basis})), leaf(place.points), step.frame, step.offsets},
                     {{0, 0, "R"}, {1, 0, "R"}, {3, 0, "V"}}});
    parts.push_back(
        {"projection",
         [c](const Tensors& in) {
             const Views views{in[1], in[2], in[3]};
             const auto projection = project(in[0], views);
             return Tensors{sample_views(projection, views, in[4].slice(1, 0, c.feature_channels)), projection.visible};
         },
         {leaf(place.points.unsqueeze(0) + 0.05 * normal({v, r, s, 3})), step.sources.images, step.sources.intrinsics,
          step.sources.camera_to_world, leaf(normal({v, 2 * c.feature_channels, height, across}))},
         {{0, 0, "V"}, {0, 1, "R"}, {1, 0, "V"}, {2, 0, "V"}, {3, 0, "V"}, {4, 0, "V"}}});
    parts.push_back(
        {"dynamic_net",
         [model](const Tensors& in) { return Tensors{model->net_dynamic->forward(in[0], in[1], in[2], in[3], in[4])}; },
         {leaf(place.points), leaf(normal({r, s, v, width})), fixed(direction), mask({r, s, v, 1}), step.time},
         {{0, 0, "R"}, {1, 0, "R"}, {1, 2, "V"}, {2, 0, "R"}, {3, 0, "R"}, {3, 2, "V"}}});
    const auto sources = source_ray_coordinates(place.points, narrow.static_sources),
               angles = angle_difference(place.points, narrow.eye, narrow.static_sources);
    parts.push_back({"static_net",
                     [model](const Tensors& in) {
                         return Tensors{model->net_static->forward(in[0], in[1], in[2], in[3], in[4], in[5])};
                     },
                     {fixed(place.points), fixed(ray_coordinates(narrow.ray_o, narrow.ray_d)), fixed(sources),
                      leaf(uniform({r, s, t, width})), fixed(angles), mask({r, s, t, 1})},
                     {{0, 0, "R"},
                      {1, 0, "R"},
                      {2, 0, "R"},
                      {2, 2, "T"},
                      {3, 0, "R"},
                      {3, 2, "T"},
                      {4, 0, "R"},
                      {4, 2, "T"},
                      {5, 0, "R"},
                      {5, 2, "T"}}});

    const auto raw = [&] { return at::cat({uniform({r, s, 3}), 2 * normal({r, s, 1}) - 2}, -1); };
    const at::Tensor raws[] = {raw(), raw(), raw()}, valids[] = {valid(), valid(), valid()};
    parts.push_back(
        {"compositing",
         [](const Tensors& in) {
             const auto whole = composite(in[0], in[1], in[2], in[3], in[4]);
             const auto alone = render(in[0], in[2], in[3]), still = render(in[1], in[2], in[4]);
             return Tensors{
                 whole.rgb,         whole.depth,          whole.weights,         whole.mask, whole.rgb_static,
                 whole.rgb_dynamic, whole.weights_static, whole.weights_dynamic, alone.rgb,  alone.weights,
                 still.rgb,         still.weights};
         },
         {leaf(raws[0]), leaf(raws[1]), fixed(place.depth), valids[0], valids[1]},
         {{0, 0, "R"}, {1, 0, "R"}, {2, 0, "R"}, {3, 0, "R"}, {4, 0, "R"}}});

    Prediction p;
    p.here = composite(raws[0], raws[1], place.depth, valids[0], valids[1]);
    p.anchor = composite(raws[2], raws[1], place.depth, valids[2], valids[1]);
    p.dynamic_alone = render(raws[0], place.depth, valids[0]),
    p.anchor_dynamic_alone = render(raws[2], place.depth, valids[2]);
    p.positions = place.position, p.flow = normal({6, r, 2}), p.scene_flow = 0.1 * normal({6, r, s, 3});
    p.seen = uniform({r, s}), p.seen_rays = uniform({r}), p.seen_rays_alone = uniform({r});
    const int64_t pairs = step.pairs.numel();
    p.path = normal({pairs, r, s, 3}), p.anchor_path = p.path + 0.1 * normal({pairs, r, s, 3});
    Part losses{"losses",
                [model](const Tensors& in) {
                    Prediction p;
                    const auto all = members(p);
                    for (size_t k = 0; k < all.size(); ++k) *all[k] = in[k];
                    return model->losses(
                        p, StepInputs::of(Tensors(in.begin() + static_cast<int64_t>(all.size()), in.end())),
                        Phase::moving);
                },
                {},
                {}};
    const auto learns = [&](const at::Tensor* t) {
        return t != &p.positions && t != &p.seen && t != &p.seen_rays && t != &p.seen_rays_alone;
    };
    for (const auto* m : members(p)) {
        const bool by_frame = m == &p.flow || m == &p.scene_flow || m == &p.path || m == &p.anchor_path;
        losses.sizes.push_back({static_cast<int>(losses.inputs.size()), by_frame, "R"});
        if (m == &p.path || m == &p.anchor_path)
            losses.sizes.push_back({static_cast<int>(losses.inputs.size()), 0, "P"});
        losses.inputs.push_back(!m->is_floating_point() ? *m : learns(m) ? leaf(*m) : fixed(*m));
    }
    const auto offset = static_cast<int>(losses.inputs.size());
    for (const auto& size : StepInputs::sizes()) losses.sizes.push_back({size.input + offset, size.dim, size.name});
    for (const auto& x : step.list()) losses.inputs.push_back(x);
    parts.push_back(std::move(losses));

    parts.push_back({"iteration", [model](const Tensors& in) { return model->loss(in, Phase::moving); }, step.list(),
                     StepInputs::sizes()});
    return parts;
}

}  // namespace heddle::models
