// Convolutions pad by reflection; norms are over each channel of each picture.
#include "models/dynibar/feature_net.h"

#include <ATen/ATen.h>

namespace heddle::models {
namespace {

using torch::nn::Conv2d;
using torch::nn::Conv2dOptions;
using torch::nn::InstanceNorm2d;
using torch::nn::InstanceNorm2dOptions;

Conv2d convolution(int64_t in, int64_t out, int64_t edge, int64_t stride, bool bias = false) {
    return Conv2d(
        Conv2dOptions(in, out, edge).stride(stride).padding(edge / 2).bias(bias).padding_mode(torch::kReflect));
}

InstanceNorm2d norm(int64_t channels) { return InstanceNorm2d(InstanceNorm2dOptions(channels).affine(true)); }

torch::nn::ModuleList blocks(int64_t in, int64_t out, int64_t count) {
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < count; ++i)
        list->push_back(std::make_shared<ResidualBlock>(i == 0 ? in : out, out, i == 0 ? 2 : 1));
    return list;
}

// A convolution and its norm, of the decoder that isn't called.
struct Decoder : torch::nn::Module {
    Decoder(int64_t in, int64_t out) {
        register_module("conv", convolution(in, out, 3, 1, /*bias=*/true));
        register_module("bn", norm(out));
    }
};

}  // namespace

ResidualBlock::ResidualBlock(int64_t in, int64_t out, int64_t stride)
    : conv1_(register_module("conv1", convolution(in, out, 3, stride))),
      conv2_(register_module("conv2", convolution(out, out, 3, 1))),
      norm1_(register_module("bn1", norm(out))),
      norm2_(register_module("bn2", norm(out))) {
    if (stride == 1 && in == out) return;
    shortcut_ = register_module("downsample_conv", convolution(in, out, 1, stride));
    shortcut_norm_ = register_module("downsample_bn", norm(out));
}

at::Tensor ResidualBlock::forward(const at::Tensor& x) {
    auto out = norm1_->forward(conv1_->forward(x));
    at::relu_(out);
    out = norm2_->forward(conv2_->forward(out));
    out += shortcut_.is_empty() ? x : shortcut_norm_->forward(shortcut_->forward(x));
    return at::relu_(out);
}

FeatureNet::FeatureNet(int64_t channels)
    : channels_(channels),
      conv1_(register_module("conv1", convolution(3, 64, 7, 2))),
      out_conv_(register_module("out_conv", convolution(2 * channels, 2 * channels, 1, 1, /*bias=*/true))),
      norm1_(register_module("bn1", norm(64))),
      layer1_(register_module("layer1", blocks(64, 2 * channels, 3))) {
    register_module("layer2", blocks(64, 128, 4));
    register_module("layer3", blocks(128, 256, 6));
    register_module("upconv3", std::make_shared<Decoder>(256, 128));
    register_module("iconv3", std::make_shared<Decoder>(256, 128));
    register_module("upconv2", std::make_shared<Decoder>(128, 64));
    register_module("iconv2", std::make_shared<Decoder>(128, 2 * channels));
}

std::pair<at::Tensor, at::Tensor> FeatureNet::forward(const at::Tensor& images) {
    auto x = norm1_->forward(conv1_->forward(images));
    at::relu_(x);
    for (const auto& block : *layer1_) x = block->as<ResidualBlock>()->forward(x);
    x = out_conv_->forward(x);
    return {x.slice(1, 0, channels_), x.slice(1, channels_)};
}

}  // namespace heddle::models
