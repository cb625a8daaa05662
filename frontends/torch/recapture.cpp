// Sizes that vary, told from the calls before. Law: a name is given only to a size that was seen to change.
#include "frontends/torch/recapture.h"

#include <fmt/format.h>

#include <algorithm>

namespace heddle {

namespace {
constexpr std::size_t kSeen = 16;
SeenSizes::Shapes shapes_of(at::TensorList in) {
    SeenSizes::Shapes s;
    for (const at::Tensor& t : in) s.push_back(t.sizes().vec());
    return s;
}
bool same_kind(const SeenSizes::Shapes& a, const SeenSizes::Shapes& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) { return x.size() == y.size(); });
}
}  // namespace

std::vector<Varying> SeenSizes::changed(at::TensorList in, const std::vector<Varying>& declared) const {
    std::lock_guard lock(mutex_);
    std::vector<Shapes> calls{shapes_of(in)};
    for (const Shapes& s : seen_)
        if (same_kind(s, calls[0])) calls.push_back(s);
    std::vector<Varying> names;
    std::vector<std::vector<std::int64_t>> known;
    for (std::size_t k = 0; k < in.size(); ++k)
        for (int d = 0; d < in[k].dim(); ++d) {
            bool is_declared = std::any_of(declared.begin(), declared.end(), [&](const Varying& v) { return !v.tensor.defined() && v.input == static_cast<int>(k) && v.dim == d; });
            std::vector<std::int64_t> sizes;
            for (const Shapes& c : calls) sizes.push_back(c[k][static_cast<std::size_t>(d)]);
            if (is_declared || std::equal(sizes.begin() + 1, sizes.end(), sizes.begin())) continue;
            auto at = std::find(known.begin(), known.end(), sizes);
            if (at == known.end()) at = known.insert(at, sizes);
            names.push_back({static_cast<int>(k), {}, d, fmt::format("n{}", at - known.begin())});
        }
    return names;
}
void SeenSizes::add(at::TensorList in) {
    std::lock_guard lock(mutex_);
    seen_.push_back(shapes_of(in));
    if (seen_.size() > kSeen) seen_.erase(seen_.begin());
}

void capture_with(const std::vector<Varying>& names, const std::function<void(const std::vector<Varying>&)>& capture) {
    try {
        return capture(names);
    } catch (const Error&) {
        if (names.empty()) throw;
    }
    std::vector<Varying> kept;
    std::vector<std::string> tried;
    for (const Varying& v : names) {
        if (std::find(tried.begin(), tried.end(), v.name) != tried.end()) continue;
        tried.push_back(v.name);
        auto more = kept;
        for (const Varying& w : names)
            if (w.name == v.name) more.push_back(w);
        try {
            capture(more);
            kept = std::move(more);
        } catch (const Error&) {
        }
    }
    if (kept.empty()) capture({});
}

}  // namespace heddle
