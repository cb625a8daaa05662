// The list of a step's inputs, and how it's drawn from a video.
#include "models/dynibar/inputs.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "models/error.h"

namespace heddle::models {
namespace {

struct Member {
    at::Tensor* tensor;
    std::vector<std::pair<int, const char*>> sizes;  // dimensions that vary, and their names
};

std::vector<Member> members(StepInputs& s) {
    std::vector<Member> out = {{&s.ray_o, {{0, "R"}}},
                               {&s.ray_d, {{0, "R"}}},
                               {&s.pixel, {{0, "R"}}},
                               {&s.rgb, {{0, "R"}}},
                               {&s.disparity, {{0, "R"}}},
                               {&s.motion_mask, {{0, "R"}}},
                               {&s.static_mask, {{0, "R"}}},
                               {&s.flows, {{1, "R"}}},
                               {&s.flow_masks, {{1, "R"}}},
                               {&s.depth_range, {}},
                               {&s.eye, {}}};
    for (auto [views, name] : {std::pair{&s.sources, "V"}, {&s.anchor_sources, "A"}, {&s.static_sources, "T"}})
        for (auto* t : {&views->images, &views->intrinsics, &views->camera_to_world}) out.push_back({t, {{0, name}}});
    for (auto* t : {&s.time, &s.anchor_time, &s.frame, &s.anchor}) out.push_back({t, {}});
    out.push_back({&s.offsets, {{0, "V"}}});
    out.push_back({&s.anchor_offsets, {{0, "A"}}});
    out.push_back({&s.pairs, {{0, "P"}}});
    for (auto* t : {&s.data_weight, &s.cycle_weight}) out.push_back({t, {}});
    out.push_back({&s.jitter, {{0, "R"}}});
    return out;
}

at::Tensor whole_numbers(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

// Ray directions [n, 3] through pixels [n, 2], with z = 1 in the camera.
at::Tensor directions(const at::Tensor& pixel, const at::Tensor& intrinsics, const at::Tensor& camera_to_world) {
    const auto to_camera = at::linalg_inv(intrinsics.slice(0, 0, 3).slice(1, 0, 3));
    const auto homogeneous = at::cat({pixel, at::ones_like(pixel.slice(1, 0, 1))}, 1);
    return at::matmul(homogeneous, at::matmul(camera_to_world.slice(0, 0, 3).slice(1, 0, 3), to_camera).t());
}

at::Tensor all_pixels(int64_t height, int64_t width) {
    const auto axes = at::meshgrid({at::arange(height, at::kFloat), at::arange(width, at::kFloat)}, "ij");
    return at::stack({axes[1].flatten(), axes[0].flatten()}, 1);
}

// Where a disc of that radius fits into the mask [F, H, W]; outside of the picture it does.
at::Tensor eroded(const at::Tensor& mask, int64_t radius) {
    const auto d = at::arange(-radius, radius + 1, mask.options()).pow(2);
    const auto disc = ((d.unsqueeze(0) + d.unsqueeze(1)) <= static_cast<double>(radius * radius)).to(mask.dtype());
    const auto outside = (mask <= 1e-3).to(mask.dtype()).unsqueeze(1);
    return (at::conv2d(outside, disc.view({1, 1, 2 * radius + 1, 2 * radius + 1}), {}, 1, radius) < 0.5)
        .squeeze(1)
        .to(mask.dtype());
}

Views converted(const Views& v, const at::TensorOptions& o) {
    return {v.images.to(o), v.intrinsics.to(o), v.camera_to_world.to(o)};
}

}  // namespace

std::vector<at::Tensor> StepInputs::list() const {
    std::vector<at::Tensor> out;
    for (const auto& m : members(const_cast<StepInputs&>(*this))) out.push_back(*m.tensor);
    if (!out.back().defined()) out.pop_back();
    return out;
}

StepInputs StepInputs::of(const std::vector<at::Tensor>& list) {
    StepInputs s;
    const auto all = members(s);
    TORCH_CHECK(list.size() == all.size() || list.size() + 1 == all.size(), "a step of DynIBaR: got ", list.size(),
                " inputs, expected ", all.size(), " or one less, without the jitter");
    for (size_t k = 0; k < list.size(); ++k) *all[k].tensor = list[k];
    return s;
}

std::vector<VaryingSize> StepInputs::sizes(bool jitter) {
    StepInputs s;
    std::vector<VaryingSize> out;
    const auto all = members(s);
    for (size_t k = 0; k + !jitter < all.size(); ++k)
        for (const auto& [dim, name] : all[k].sizes) out.push_back({static_cast<int>(k), dim, name});
    return out;
}

VideoSteps::VideoSteps(Video video, DynibarConfig config) : video_(std::move(video)), config_(std::move(config)) {
    const auto& v = video_;
    if (!v.images.defined() || v.images.dim() != 4 || v.images.size(1) != 3)
        throw Error("video", "images", "expected [frames, 3, height, width]");
    const int64_t f = v.images.size(0), h = v.images.size(2), w = v.images.size(3);
    if (f < 7) throw Error("video", std::to_string(f) + " frames", "a step needs 3 frames on either side of its own");
    const auto n = v.virtual_images.defined() ? v.virtual_images.size(1) : 0;
    std::vector<std::tuple<const char*, at::Tensor, std::vector<int64_t>>> expected = {
        {"intrinsics", v.intrinsics, {f, 4, 4}},
        {"camera_to_world", v.camera_to_world, {f, 4, 4}},
        {"disparity", v.disparity, {f, h, w}},
        {"flows", v.flows, {f, 6, h, w, 2}},
        {"flow_masks", v.flow_masks, {f, 6, h, w}},
        {"motion_masks", v.motion_masks, {f, h, w}},
        {"static_masks", v.static_masks, {f, h, w}}};
    if (n > 0) {
        expected.emplace_back("virtual_images", v.virtual_images, std::vector<int64_t>{f, n, 3, h, w});
        expected.emplace_back("virtual_camera_to_world", v.virtual_camera_to_world, std::vector<int64_t>{f, n, 4, 4});
    }
    for (const auto& [name, tensor, sizes] : expected) {
        if (!tensor.defined()) throw Error("video", name, "is missing");
        if (tensor.sizes() != at::IntArrayRef(sizes))
            throw Error("video", name,
                        "has sizes " + c10::str(tensor.sizes()) + ", expected " + c10::str(at::IntArrayRef(sizes)));
    }
    if (!(0 < v.near && v.near < v.far)) throw Error("video", "near and far", "expected 0 < near < far");
    config_.virtual_views = std::min(config_.virtual_views, n);
    surely_moving_ = eroded(v.motion_masks, config_.erosion_radius);
}

Views VideoSteps::frames(const std::vector<int64_t>& indices) const {
    const auto rows = whole_numbers(indices);
    return {video_.images.index_select(0, rows), video_.intrinsics.index_select(0, rows),
            video_.camera_to_world.index_select(0, rows)};
}

Views VideoSteps::static_views(std::vector<int64_t> indices) const {
    std::sort(indices.begin(), indices.end());
    auto views = frames(indices);
    views.images = views.images * (1 - video_.motion_masks.index_select(0, whole_numbers(indices)).unsqueeze(1));
    return views;
}

void VideoSteps::add_virtual_views(Views& views, int64_t frame, const at::Tensor& which) const {
    if (which.numel() == 0) return;
    views.images = at::cat({views.images, video_.virtual_images[frame].index_select(0, which)});
    views.intrinsics = at::cat({views.intrinsics, video_.intrinsics[frame].expand({which.numel(), 4, 4})});
    views.camera_to_world =
        at::cat({views.camera_to_world, video_.virtual_camera_to_world[frame].index_select(0, which)});
}

std::vector<int64_t> VideoSteps::nearest(const at::Tensor& camera_to_world, int64_t except) const {
    const auto away = (video_.camera_to_world - camera_to_world).slice(1, 0, 3).select(2, 3).norm(2, -1, false);
    const auto order = away.argsort().contiguous();
    std::vector<int64_t> out;
    for (int64_t i = 0; i < order.numel(); ++i)
        if (const int64_t f = order.const_data_ptr<int64_t>()[i]; f != except) out.push_back(f);
    return out;
}

StepInputs VideoSteps::step(int64_t iteration, uint64_t seed, const at::TensorOptions& o) const {
    const auto g = at::detail::createCPUGenerator(seed * 1000003 + static_cast<uint64_t>(iteration));
    const auto draw = [&](int64_t low, int64_t high) {  // low <= x < high
        return at::randint(low, high, {1}, g, at::kLong).item<int64_t>();
    };
    const int64_t f = video_.images.size(0), h = video_.images.size(2), w = video_.images.size(3);
    const int64_t frame = draw(3, f - 3);
    const int64_t range = anchor_range(config_, iteration), side = draw(0, 2 * range);
    const int64_t anchor = frame + (side < range ? side + 1 : range - side - 1);

    StepInputs s;
    const auto picked = at::randperm(h * w, g, at::kLong).slice(0, 0, std::min(config_.rays, h * w));
    const auto of_frame = [&](const at::Tensor& t) { return t[frame].flatten(-2).index_select(-1, picked); };
    s.pixel = all_pixels(h, w).index_select(0, picked).to(o);
    s.ray_d = directions(s.pixel.cpu().to(at::kFloat), video_.intrinsics[frame], video_.camera_to_world[frame]).to(o);
    s.eye = video_.camera_to_world[frame].slice(0, 0, 3).select(1, 3).to(o);
    s.ray_o = s.eye.expand_as(s.ray_d).contiguous();
    s.rgb = of_frame(video_.images).t().contiguous().to(o);
    s.disparity = of_frame(video_.disparity).to(o);
    s.motion_mask = of_frame(surely_moving_).to(o);
    s.static_mask = of_frame(video_.static_masks > 1e-3).to(o);
    s.flows = video_.flows[frame].flatten(1, 2).index_select(1, picked).to(o);
    s.flow_masks = of_frame(video_.flow_masks).unsqueeze(-1).to(o);
    s.depth_range = at::tensor({video_.near, video_.far}, at::kDouble).to(o);

    std::vector<int64_t> sources, offsets(kFlowOffsets.begin(), kFlowOffsets.end());
    for (const int64_t d : offsets) sources.push_back(frame + d);
    std::vector<int64_t> anchor_sources, anchor_offsets, pairs;
    const bool itself = draw(0, 200) == 0;  // once in a while the anchor's sources have the frame, too
    for (int64_t d = -3; d <= 3; ++d) {
        const int64_t source = anchor + d;
        if (source < 0 || source >= f || (source == frame && !itself)) continue;
        if (std::abs(source - frame) <= 3) pairs.push_back(static_cast<int64_t>(anchor_sources.size()));
        anchor_sources.push_back(source);
        anchor_offsets.push_back(d);
    }
    s.sources = frames(sources);
    s.anchor_sources = frames(anchor_sources);
    const int64_t n = config_.virtual_views, of = n ? video_.virtual_images.size(1) : 0;
    add_virtual_views(s.sources, frame, at::randperm(of, g, at::kLong).slice(0, 0, n));
    add_virtual_views(s.anchor_sources, anchor, at::randperm(of, g, at::kLong).slice(0, 0, n));
    offsets.insert(offsets.end(), static_cast<size_t>(n), 0);
    anchor_offsets.insert(anchor_offsets.end(), static_cast<size_t>(n), 0);

    std::vector<int64_t> far;
    const int64_t most = std::max<int64_t>(2, config_.static_range / config_.static_views);
    const int64_t stride = draw(std::max<int64_t>(2, most - 2), most + 1);
    for (int64_t i = -config_.static_views; i < config_.static_views; ++i) {
        const int64_t source = frame + stride * i + draw(1, stride + 1);
        if (source >= 0 && source < f && source != frame) far.push_back(source);
    }
    const auto near = nearest(video_.camera_to_world[frame], frame);
    for (size_t i = 0; i < near.size() && static_cast<int64_t>(far.size()) < 2 * config_.static_views; i += 5)
        if (std::find(far.begin(), far.end(), near[i]) == far.end()) far.push_back(near[i]);

    s.sources = converted(s.sources, o);
    s.anchor_sources = converted(s.anchor_sources, o);
    s.static_sources = converted(static_views(far), o);
    const auto moment = [&](int64_t i) {
        return at::full({1}, static_cast<double>(i) / static_cast<double>(f), o.dtype(at::kDouble));
    };
    const auto whole = [&](const std::vector<int64_t>& values) { return whole_numbers(values).to(o.device()); };
    s.time = moment(frame), s.anchor_time = moment(anchor);
    s.frame = whole({frame}), s.anchor = whole({anchor});
    s.offsets = whole(offsets), s.anchor_offsets = whole(anchor_offsets), s.pairs = whole(pairs);
    s.data_weight = at::full({}, data_weight(config_, iteration), o);
    s.cycle_weight = at::full({}, cycle_weight(config_, iteration), o);
    return s;
}

StepInputs VideoSteps::view(int64_t frame, const at::Tensor& intrinsics, const at::Tensor& camera_to_world,
                            const at::TensorOptions& o) const {
    const int64_t f = video_.images.size(0);
    if (frame < 3 || frame >= f - 3)
        throw Error("view", "frame " + std::to_string(frame), "choose one with 3 frames on either side");
    StepInputs s;
    s.pixel = all_pixels(video_.images.size(2), video_.images.size(3)).to(o);
    s.ray_d = directions(s.pixel.cpu().to(at::kFloat), intrinsics, camera_to_world).to(o);
    s.eye = camera_to_world.slice(0, 0, 3).select(1, 3).to(o);
    s.ray_o = s.eye.expand_as(s.ray_d).contiguous();
    s.depth_range = at::tensor({video_.near, video_.far}, at::kDouble).to(o);
    std::vector<int64_t> sources, offsets(kFlowOffsets.begin(), kFlowOffsets.end());
    for (const int64_t d : offsets) sources.push_back(frame + d);
    s.sources = frames(sources);
    add_virtual_views(s.sources, frame, at::arange(config_.virtual_views, at::kLong));
    offsets.insert(offsets.end(), static_cast<size_t>(config_.virtual_views), 0);
    // Static sources spread over the whole video, so that a region something passes through is seen in some.
    std::vector<int64_t> far;
    const int64_t n = std::min(2 * config_.static_views, f);
    for (int64_t i = 0; i < n; ++i) far.push_back(i * (f - 1) / std::max<int64_t>(1, n - 1));
    s.sources = converted(s.sources, o);
    s.static_sources = converted(static_views(far), o);
    s.time = at::full({1}, static_cast<double>(frame) / static_cast<double>(f), o.dtype(at::kDouble));
    s.frame = whole_numbers({frame}).to(o.device());
    s.offsets = whole_numbers(offsets).to(o.device());
    return s;
}

Video noise_video(const DynibarConfig& c, uint64_t seed) {
    const auto g = at::detail::createCPUGenerator(seed);
    const int64_t f = c.frames, h = c.height, w = c.width, n = c.virtual_views + 1;
    const auto uniform = [&](std::vector<int64_t> sizes) { return at::rand(sizes, g, at::TensorOptions(at::kFloat)); };
    Video v;
    v.near = 1, v.far = 12;
    v.images = uniform({f, 3, h, w});
    v.intrinsics = at::eye(4).repeat({f, 1, 1});
    for (const int64_t k : {0, 1}) v.intrinsics.select(2, k).select(1, k).fill_(0.9 * static_cast<double>(w));
    v.intrinsics.select(2, 2).select(1, 0).fill_(0.5 * static_cast<double>(w - 1));
    v.intrinsics.select(2, 2).select(1, 1).fill_(0.5 * static_cast<double>(h - 1));
    // On a line of length 2, each turned a little about its vertical axis.
    const auto cameras = [&](const at::Tensor& x, const at::Tensor& angle) {
        auto m = at::eye(4).repeat({x.numel(), 1, 1});
        m.select(2, 0).select(1, 0).copy_(at::cos(angle)), m.select(2, 2).select(1, 2).copy_(at::cos(angle));
        m.select(2, 2).select(1, 0).copy_(at::sin(angle)), m.select(2, 0).select(1, 2).copy_(-at::sin(angle));
        m.select(2, 3).select(1, 0).copy_(x);
        return m;
    };
    const auto x = at::linspace(-1, 1, f);
    v.camera_to_world = cameras(x, 0.1 * uniform({f}) - 0.05);
    v.disparity = 1 / (2 + 8 * uniform({f, h, w}));
    v.flows = 4 * uniform({f, 6, h, w, 2}) - 2;
    v.flow_masks = (uniform({f, 6, h, w}) < 0.8).to(at::kFloat);
    v.motion_masks = (at::arange(w) < w / 3).to(at::kFloat).expand({f, h, w}).contiguous();
    v.static_masks = (at::arange(w) < w / 2).to(at::kFloat).expand({f, h, w}).contiguous();
    v.virtual_images = uniform({f, n, 3, h, w});
    v.virtual_camera_to_world =
        cameras((x.unsqueeze(1) + 0.2 * uniform({f, n}) - 0.1).flatten(), 0.1 * uniform({f * n}) - 0.05)
            .view({f, n, 4, 4});
    return v;
}

}  // namespace heddle::models
