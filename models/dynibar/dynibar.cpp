// One step, from source views to losses. Formulas of the stages are in the files beside this one.
#include "models/dynibar/dynibar.h"

#include <ATen/ATen.h>

#include "models/dynibar/losses.h"

namespace heddle::models {
namespace {

constexpr int64_t kReach = 3;  // frames that trajectories are followed in each direction

// Samples [R, S] that more than `views` views see.
at::Tensor seen_by(const at::Tensor& mask, int64_t views) { return mask.select(3, 0).sum(2) > views; }

// How far two sets of weights agree: 1 - |difference|, for each sample and for each ray. No gradient.
at::Tensor agreement(const at::Tensor& difference) { return 1.0 - difference.abs(); }

}  // namespace

std::vector<std::string> loss_terms() {
    return {"loss", "mse", "rgb", "cycle", "flow", "disparity", "scene_flow", "entropy", "distortion", "static"};
}

Dynibar::Dynibar(DynibarConfig config) : config_(std::move(config)) {
    net_static = register_module("net_static", std::make_shared<StaticNet>(config_.feature_channels));
    net_dynamic = register_module(
        "net_dynamic", std::make_shared<DynamicNet>(config_.feature_channels, config_.samples, config_.density_shift));
    feature_net = register_module("feature_net", std::make_shared<FeatureNet>(config_.feature_channels));
    feature_net_static = register_module("feature_net_static", std::make_shared<FeatureNet>(config_.feature_channels));
    motion_mlp = register_module("motion_mlp", std::make_shared<MotionMlp>(config_.basis));
    trajectory_basis = register_parameter("trajectory_basis", cosine_basis(config_.frames, config_.basis));
}

std::vector<ParameterGroup> Dynibar::groups() const {
    const double half = 0.5;
    return {{net_static->parameters(), half * config_.network_rate},
            {feature_net_static->parameters(), half * config_.feature_rate},
            {net_dynamic->parameters(), config_.network_rate},
            {feature_net->parameters(), config_.feature_rate},
            {motion_mlp->parameters(), config_.network_rate},
            {{trajectory_basis}, config_.basis_rate}};
}

FeatureMaps Dynibar::feature_maps(const StepInputs& in) {
    const int64_t v = in.sources.images.size(0);
    const auto maps = feature_net->forward(at::cat({in.sources.images, in.anchor_sources.images})).first;
    return {maps.slice(0, 0, v), maps.slice(0, v), feature_net_static->forward(in.static_sources.images).first};
}

DepthSamples Dynibar::samples(const StepInputs& in, bool train) const {
    std::optional<at::Tensor> jitter;
    if (train)
        jitter = in.jitter.defined() ? in.jitter : at::rand({in.ray_o.size(0), config_.samples}, in.ray_o.options());
    return sample_rays(in.ray_o, in.ray_d, in.depth_range, config_.samples, jitter);
}

Motion Dynibar::motion(const at::Tensor& points, const at::Tensor& coefficients, const StepInputs& in) const {
    const auto reach = at::arange(-kReach, kReach + 1, in.frame.options());
    const auto paths = trajectories(coefficients, trajectory_basis, in.frame + reach);
    return {paths, points + (paths.index_select(0, in.offsets + kReach) - paths.select(0, kReach))};
}

Dynibar::Static Dynibar::static_part(const at::Tensor& points, const StepInputs& in, const at::Tensor& maps) {
    const auto& views = in.static_sources;
    const auto projection = project(points.unsqueeze(0).expand({views.images.size(0), -1, -1, -1}), views);
    const auto raw = net_static->forward(points, ray_coordinates(in.ray_o, in.ray_d),
                                         source_ray_coordinates(points, views), sample_views(projection, views, maps),
                                         angle_difference(points, in.eye, views), projection.visible);
    return {raw, seen_by(projection.visible, 1)};
}

Prediction Dynibar::predict(const StepInputs& in) {
    const auto maps = feature_maps(in);
    const auto [points, depth, positions] = samples(in, true);
    const auto direction = unit(in.ray_d);
    Prediction p;
    p.positions = positions;

    // At the frame.
    const auto [paths, moved] = motion(points, motion_coefficients(*motion_mlp, points, in.time), in);
    const auto start = paths.select(0, kReach);
    const auto projection = project(moved, in.sources);
    const auto raw = net_dynamic->forward(points, sample_views(projection, in.sources, maps.sources), direction,
                                          projection.visible, in.time);
    const auto valid = seen_by(projection.visible, 1);
    const auto still = static_part(points, in, maps.static_sources);
    p.here = composite(raw, still.raw, depth, valid, still.valid);
    p.dynamic_alone = models::render(raw, depth, valid);
    const auto neighbours = static_cast<int64_t>(kFlowOffsets.size());
    const Views first = {in.sources.images.slice(0, 0, neighbours), in.sources.intrinsics.slice(0, 0, neighbours),
                         in.sources.camera_to_world.slice(0, 0, neighbours)};
    p.flow = optical_flow(p.here.weights, moved.slice(0, 0, neighbours), first, in.pixel);
    p.scene_flow = paths.slice(0, 1) - paths.slice(0, 0, -1);

    // The same rays, their samples displaced to the anchor's moment and seen from its sources.
    const auto anchor_time = in.anchor_time.to(points.dtype());
    const auto anchor_points = points + (paths.index_select(0, in.anchor - in.frame + kReach).squeeze(0) - start);
    const auto coefficients = motion_coefficients(*motion_mlp, anchor_points, anchor_time);
    const auto anchor_start = trajectories(coefficients, trajectory_basis, in.anchor);
    const auto anchor_moved =
        anchor_points + (trajectories(coefficients, trajectory_basis, in.anchor + in.anchor_offsets) - anchor_start);
    p.anchor_path = anchor_moved.index_select(0, in.pairs);
    p.path = points +
             paths.index_select(0, in.anchor + in.anchor_offsets.index_select(0, in.pairs) - in.frame + kReach) - start;

    const auto anchor_projection = project(anchor_moved, in.anchor_sources);
    const auto anchor_raw =
        net_dynamic->forward(anchor_points, sample_views(anchor_projection, in.anchor_sources, maps.anchor_sources),
                             direction, anchor_projection.visible, anchor_time);
    const auto anchor_valid = seen_by(anchor_projection.visible, 0);
    p.anchor = composite(anchor_raw, still.raw, depth, anchor_valid, still.valid);
    p.anchor_dynamic_alone = models::render(anchor_raw, depth, anchor_valid);

    // Next to each other the moments are compared as a whole; farther apart only what moves.
    const auto far = (in.frame - in.anchor).abs() > 1;
    const auto difference =
        at::where(far, p.here.weights_dynamic - p.anchor.weights_dynamic, p.here.weights - p.anchor.weights).detach();
    const auto alone = (p.dynamic_alone.weights - p.anchor_dynamic_alone.weights).detach();
    p.seen = agreement(difference);
    p.seen_rays = agreement(difference.sum(1));
    p.seen_rays_alone = agreement(alone.sum(1));
    return p;
}

std::vector<at::Tensor> Dynibar::losses(const Prediction& p, const StepInputs& in, Phase phase) const {
    const auto type = in.rgb.dtype();
    const auto mask = p.here.mask.to(type), anchor_mask = p.anchor.mask.to(type);
    auto rgb =
        charbonnier(p.here.rgb, in.rgb, mask) + cross_time_colour(p.anchor.rgb, in.rgb, anchor_mask, p.seen_rays);
    if (phase == Phase::moving) rgb += charbonnier(p.here.rgb_dynamic, in.rgb, mask * in.motion_mask);
    rgb += charbonnier(p.dynamic_alone.rgb, in.rgb, p.dynamic_alone.mask.to(type) * in.motion_mask) * in.data_weight;
    rgb += cross_time_colour(p.anchor_dynamic_alone.rgb, in.rgb, p.anchor_dynamic_alone.mask.to(type) * in.motion_mask,
                             p.seen_rays_alone) *
           in.data_weight;

    const auto disparity =
        in.data_weight * config_.disparity_weight * disparity_loss(p.here.depth, in.disparity, p.here.mask);
    const auto flow_mask = p.here.mask.unsqueeze(0).unsqueeze(-1) * in.flow_masks;
    const auto flow = in.data_weight * config_.flow_weight * flow_loss(p.flow, in.flows, flow_mask);
    const auto cycle = in.cycle_weight * cycle_loss(p.path, p.anchor_path, p.seen);
    const auto scene_flow = config_.scene_flow_weight * scene_flow_loss(p.scene_flow);
    const auto share = dynamic_share(p.here.weights_dynamic, p.here.weights_static);
    const auto entropy = config_.entropy_weight * entropy_loss(share);
    const auto distortion = config_.distortion_weight * distortion_loss(p.here.weights.slice(1, 0, -1), p.positions);

    auto static_mask = 1.0 - in.static_mask;
    static_mask *= mask;
    static_mask *= (1.0 - share).detach();
    auto still = charbonnier(p.here.rgb_static, in.rgb, static_mask);
    if (phase == Phase::sparse)
        still += config_.sparsity_weight * sparsity_loss(p.here.weights_dynamic.sum(-1), share, static_mask);

    const auto sum = rgb + cycle + flow + disparity + scene_flow + entropy + distortion + still;
    const auto mse = (p.here.rgb.detach() - in.rgb).pow(2).mean();
    return {sum, mse, rgb, cycle, flow, disparity, scene_flow, entropy, distortion, still};
}

std::vector<at::Tensor> Dynibar::bootstrap(const StepInputs& in) {
    const auto [points, depth, positions] = samples(in, true);
    // Of the dynamic part only which samples its sources see counts: a ray's mask is that of both.
    const auto moved = motion(points, motion_coefficients(*motion_mlp, points, in.time), in).moved;
    const auto valid = seen_by(project(moved, in.sources).visible, 1);
    const auto still = static_part(points, in, feature_net_static->forward(in.static_sources.images).first);
    const auto seen = at::bitwise_or(enough(valid), enough(still.valid)).to(in.rgb.dtype());
    const auto rgb = models::render(still.raw, depth, still.valid).rgb;
    const auto loss = charbonnier(rgb, in.rgb, (1.0 - in.static_mask) * seen);
    std::vector<at::Tensor> out(loss_terms().size(), at::zeros({}, in.rgb.options()));
    out.front() = out.back() = loss;
    out[1] = (rgb.detach() - in.rgb).pow(2).mean();
    return out;
}

std::vector<at::Tensor> Dynibar::loss(const std::vector<at::Tensor>& inputs, Phase phase) {
    const auto in = StepInputs::of(inputs);
    return phase == Phase::bootstrap ? bootstrap(in) : losses(predict(in), in, phase);
}

at::Tensor Dynibar::render(const StepInputs& whole, int64_t chunk) {
    const at::NoGradGuard no_grad;
    const auto maps = feature_net->forward(whole.sources.images).first;
    const auto static_maps = feature_net_static->forward(whole.static_sources.images).first;
    std::vector<at::Tensor> pieces;
    for (int64_t i = 0; i < whole.ray_o.size(0); i += chunk) {
        auto in = whole;
        in.ray_o = whole.ray_o.slice(0, i, i + chunk);
        in.ray_d = whole.ray_d.slice(0, i, i + chunk);
        const auto [points, depth, positions] = samples(in, false);
        const auto moved = motion(points, motion_coefficients(*motion_mlp, points, in.time), in).moved;
        const auto projection = project(moved, in.sources);
        const auto raw = net_dynamic->forward(points, sample_views(projection, in.sources, maps), unit(in.ray_d),
                                              projection.visible, in.time);
        const auto still = static_part(points, in, static_maps);
        pieces.push_back(composite(raw, still.raw, depth, seen_by(projection.visible, 1), still.valid).rgb);
    }
    return at::cat(pieces);
}

}  // namespace heddle::models
