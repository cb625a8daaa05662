// The CNN that turns a source view into a feature map: the stem of a ResNet, at a quarter of the picture's size.
// Law: as in the original, the layers after the stem are registered though nothing calls them: their gradients are None.
// Source: DynIBaR's feature network, after IBRNet (Wang et al. 2021) and He et al. 2016.
#pragma once

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/instancenorm.h>

#include <utility>

namespace heddle::models {

// Two 3x3 convolutions, each with instance norm, around a shortcut; the first one may halve the size.
class ResidualBlock : public torch::nn::Module {
public:
    ResidualBlock(int64_t in, int64_t out, int64_t stride);
    at::Tensor forward(const at::Tensor& x);

private:
    torch::nn::Conv2d conv1_, conv2_, shortcut_{nullptr};
    torch::nn::InstanceNorm2d norm1_, norm2_, shortcut_norm_{nullptr};
};

class FeatureNet : public torch::nn::Module {
public:
    // Makes twice `channels`: a coarse and a fine half.
    explicit FeatureNet(int64_t channels);

    // Pictures [V, 3, H, W] in [0, 1] -> the coarse half and the fine half, [V, channels, H/4, W/4] each (H, W rounded up to multiples of 4): slices
    // of one tensor.
    std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& images);

private:
    int64_t channels_;
    torch::nn::Conv2d conv1_, out_conv_;
    torch::nn::InstanceNorm2d norm1_;
    torch::nn::ModuleList layer1_;
};

}  // namespace heddle::models
