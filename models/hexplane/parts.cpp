// Parts of a step, cut where HexPlane's own methods end.
#include "models/hexplane/parts.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace heddle::models {
namespace {

at::Tensor unit(const at::Tensor& v) { return v / v.norm(2, -1, true); }

}  // namespace

std::vector<at::Tensor> hexplane_step_inputs(const HexPlane& model, uint64_t seed, at::ScalarType dtype) {
  const auto g = at::make_generator<at::CPUGeneratorImpl>(seed);
  const int64_t b = model.config().rays;
  const auto origin = unit(at::randn({b, 3}, g)) * 4.0;
  const auto target = at::rand({b, 3}, g) * 1.6 - 0.8;
  const auto rays = at::cat({origin, unit(target - origin)}, 1);
  const auto rgb = at::rand({b, 3}, g), time = at::rand({b, 1}, g) * 2.0 - 1.0;
  return {rays.to(dtype), rgb.to(dtype), time.to(dtype), at::full({}, model.config().tv_weight_density, dtype),
          at::full({}, model.config().tv_weight_app, dtype)};
}

void thicken(HexPlane& model, uint64_t seed) {
  const at::NoGradGuard no_grad;
  const auto g = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (int i = 0; i < 3; ++i)
    for (auto* plane : {&model.density_plane[static_cast<size_t>(i)], &model.density_line_time[static_cast<size_t>(i)]})
      plane->copy_((at::randn(plane->sizes(), g) * 0.3 + 0.33).to(plane->dtype()));
}

std::vector<Part> hexplane_parts(std::shared_ptr<HexPlane> model, uint64_t seed, at::ScalarType dtype) {
  const auto g = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto step = hexplane_step_inputs(*model, seed, dtype);
  const int64_t b = model->config().rays, n = model->samples();
  const auto jitter = at::rand({1, n}, g).to(dtype);
  const auto [points, distance, inside] = model->sample_rays(step[0], jitter, n);
  const auto xyz = model->normalise(points).index({inside}).contiguous();
  const auto t = step[2].unsqueeze(1).expand({-1, n, 1}).index({inside}).contiguous();
  const int64_t k = std::max<int64_t>(1, xyz.size(0) / 25);  // about as many samples as weigh something (4 %)
  const auto picked = at::randperm(xyz.size(0), g, at::kLong).slice(0, 0, k);
  const auto few_xyz = xyz.index_select(0, picked), few_t = t.index_select(0, picked);
  const auto few_dir = unit(at::randn({k, 3}, g)).to(dtype);
  const auto sigma = at::softplus(at::randn({b, n}, g) * 3.0 - 2.0).to(dtype).requires_grad_();
  const auto rgb = at::rand({b, n, 3}, g).to(dtype).requires_grad_();
  const auto picture = at::rand({b, 3}, g).to(dtype).requires_grad_();
  const auto dist = at::full({1, n}, 4.0 / static_cast<double>(n), dtype);

  std::vector<Part> parts;
  parts.push_back({"sample_rays",
                   [model, n](const std::vector<at::Tensor>& in) {
                     const auto [p, d, within] = model->sample_rays(in[0], in[1], n);
                     return std::vector<at::Tensor>{model->normalise(p), within};
                   },
                   {step[0], jitter},
                   {{0, 0, "B"}}});
  parts.push_back({"density_feature",
                   [model](const std::vector<at::Tensor>& in) { return std::vector<at::Tensor>{model->density_feature(in[0], in[1])}; },
                   {xyz, t},
                   {{0, 0, "M"}, {1, 0, "M"}}});
  parts.push_back({"volume_rendering",
                   [model](const std::vector<at::Tensor>& in) {
                     const auto opacity = raw2alpha(in[0], in[1] * model->config().distance_scale);
                     const auto seen = (opacity.weights.unsqueeze(-1) * in[2]).sum(-2);
                     return std::vector<at::Tensor>{(seen + (1.0 - opacity.weights.sum(-1).unsqueeze(-1))).clamp(0, 1)};
                   },
                   {sigma, dist, rgb},
                   {{0, 0, "B"}, {2, 0, "B"}}});
  parts.push_back({"colour",
                   [model](const std::vector<at::Tensor>& in) {
                     return std::vector<at::Tensor>{model->colour(model->app_feature(in[0], in[1]), in[2])};
                   },
                   {few_xyz, few_t, few_dir},
                   {{0, 0, "K"}, {1, 0, "K"}, {2, 0, "K"}}});
  parts.push_back({"loss_block",
                   [model](const std::vector<at::Tensor>& in) {
                     const auto mse = (in[0] - in[1]).pow(2).mean();
                     return std::vector<at::Tensor>{mse + model->tv_density() * in[2] + model->tv_app() * in[3]};
                   },
                   {picture, step[1], step[3], step[4]},
                   {{0, 0, "B"}, {1, 0, "B"}}});
  parts.push_back({"iteration",
                   [model](const std::vector<at::Tensor>& in) { return model->loss(in); },
                   {step[0], step[1], step[2], step[3], step[4], jitter},  // given, so that float32 and float64 see the same samples
                   {{0, 0, "B"}, {1, 0, "B"}, {2, 0, "B"}}});
  return parts;
}

}  // namespace heddle::models
