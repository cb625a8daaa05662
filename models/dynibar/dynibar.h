// DynIBaR (Li et al. 2023) for monocular video as a plain libtorch module: colours of a ray are gathered from frames nearby, along
// learnt trajectories for what moves, and from frames far away for what doesn't.
// Law: plain libtorch, as a user would write it; whatever changes from step to step is an input; nothing is read on the host.
#pragma once

#include <memory>
#include <vector>

#include "models/dynibar/aggregation.h"
#include "models/dynibar/composite.h"
#include "models/dynibar/config.h"
#include "models/dynibar/feature_net.h"
#include "models/dynibar/inputs.h"
#include "models/dynibar/motion.h"
#include "models/task.h"

namespace heddle::models {

// Feature maps of the source views.
struct FeatureMaps {
    at::Tensor sources, anchor_sources, static_sources;
};

// Where samples [R, S, 3] of a frame are in the frames of its sources, and how they move from 3 frames before to 3 after.
struct Motion {
    at::Tensor paths;  // [7, R, S, 3]: displacements from the basis's origin at frame - 3 ... frame + 3
    at::Tensor moved;  // [V, R, S, 3]
};

// What the losses read.
struct Prediction {
    Composite here;           // at the frame
    Rendering dynamic_alone;  // without the static part
    at::Tensor positions;     // [R, S], see DepthSamples
    at::Tensor flow;          // [6, R, 2]
    Composite anchor;         // rendered from the anchor's sources
    Rendering anchor_dynamic_alone;
    at::Tensor seen;                        // [R, S]: how far both moments agree on a sample's weight; no gradient
    at::Tensor seen_rays, seen_rays_alone;  // [R]
    at::Tensor scene_flow;                  // [6, R, S, 3]: between consecutive frames
    at::Tensor path, anchor_path;           // [P, R, S, 3]: the samples in frames that both reach, from each
};

class Dynibar : public torch::nn::Module {
public:
    explicit Dynibar(DynibarConfig config);

    // A step's losses in the order of `loss_terms`; the inputs are StepInputs' list.
    std::vector<at::Tensor> loss(const std::vector<at::Tensor>& inputs, Phase phase);

    // The stages of a step.
    FeatureMaps feature_maps(const StepInputs& in);
    Motion motion(const at::Tensor& points, const at::Tensor& coefficients, const StepInputs& in) const;
    Prediction predict(const StepInputs& in);
    std::vector<at::Tensor> losses(const Prediction& p, const StepInputs& in, Phase phase) const;

    // Rays in any number, in pieces of `chunk`, without jitter or gradients -> rgb [R, 3].
    at::Tensor render(const StepInputs& in, int64_t chunk = 1024);

    // At the first iteration's rates.
    std::vector<ParameterGroup> groups() const;

    const DynibarConfig& config() const { return config_; }

    std::shared_ptr<FeatureNet> feature_net, feature_net_static;
    std::shared_ptr<MotionMlp> motion_mlp;
    std::shared_ptr<DynamicNet> net_dynamic;
    std::shared_ptr<StaticNet> net_static;
    at::Tensor trajectory_basis;  // [frames, basis]

private:
    struct Static {
        at::Tensor raw, valid;
    };
    Static static_part(const at::Tensor& points, const StepInputs& in, const at::Tensor& maps);
    std::vector<at::Tensor> bootstrap(const StepInputs& in);
    DepthSamples samples(const StepInputs& in, bool train) const;

    DynibarConfig config_;
};

// Names of the losses: the sum, the mean squared error of the colours (which isn't trained), the terms.
std::vector<std::string> loss_terms();

}  // namespace heddle::models
