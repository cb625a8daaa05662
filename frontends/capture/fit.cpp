// The search, simplest first: constants, what was found before, a * names, a * names + b, products of shifted names, sums of two.
#include "frontends/capture/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace heddle {

namespace {
using Values = Fit::Values;
template <class F>
Values zip(const Values& a, const Values& b, F f) {
    Values r(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) r[i] = f(a[i], b[i]);
    return r;
}
Values times(const Values& a, const Values& b) {
    return zip(a, b, [](std::int64_t x, std::int64_t y) { return static_cast<std::int64_t>(static_cast<std::uint64_t>(x) * static_cast<std::uint64_t>(y)); });
}
}  // namespace

void Fit::name(const std::string& n, const Values& v) {
    HEDDLE_CHECK(v.size() == runs_, "a value per run");
    names_.emplace_back(n, v);
    known_.emplace_back(v, Dim::symbol(n));
}
std::optional<Dim> Fit::operator()(const Values& v) {
    if (std::all_of(v.begin(), v.end(), [&](std::int64_t x) { return x == v[0]; })) return Dim(v[0]);
    for (const auto& [values, d] : known_)
        if (values == v) return d;
    auto found = search(v);
    if (!found) found = quotient(v);
    if (found) known_.emplace_back(v, *found);
    return found;
}
// (name + b) / c, rounded down, where only one b and c will do.
std::optional<Dim> Fit::quotient(const Values& v) {
    constexpr std::int64_t kBy = 8, kOff = 32;
    std::optional<Captured::Quotient> found;
    for (const auto& [n, x] : names_) {
        if (n[0] == 'u' && n.size() > 1 && std::isdigit(static_cast<unsigned char>(n[1]))) continue;  // known during a run only
        for (std::int64_t c = 2; c <= kBy; ++c)
            for (std::int64_t b = -kOff; b <= kOff; ++b) {
                bool same = true;
                for (std::size_t r = 0; r < runs_ && same; ++r) same = decided(Choice::Of::div, x[r] + b, c) == v[r];
                if (!same) continue;
                if (found) return {};
                found = {fmt::format("q{}", quotients_.size()), Dim::symbol(n) + Dim(b), c};
            }
    }
    if (!found) return {};
    quotients_.push_back(*found);
    return Dim::symbol(found->name);
}
std::optional<Dim> Fit::line(const Dim& product, const Values& at, const Values& v, bool offset) const {
    std::int64_t a = 0, b = 0;
    if (offset) {
        std::size_t k = 1;
        while (k < runs_ && at[k] == at[0]) ++k;
        if (k == runs_ || (v[k] - v[0]) % (at[k] - at[0]) != 0) return {};
        a = (v[k] - v[0]) / (at[k] - at[0]);
        b = v[0] - a * at[0];
    } else {
        if (at[0] == 0 || v[0] % at[0] != 0) return {};
        a = v[0] / at[0];
    }
    if (a == 0) return {};
    for (std::size_t r = 0; r < runs_; ++r)
        if (a * at[r] + b != v[r]) return {};
    return Dim(a) * product + Dim(b);
}
std::optional<Dim> Fit::search(const Values& v) const {
    std::vector<std::pair<Values, Dim>> singles, pairs, triples, shifted;
    for (const auto& [n, x] : names_) singles.emplace_back(x, Dim::symbol(n));
    for (std::size_t i = 0; i < singles.size(); ++i)
        for (std::size_t j = i; j < singles.size(); ++j) pairs.emplace_back(times(singles[i].first, singles[j].first), singles[i].second * singles[j].second);
    for (const auto& p : pairs)
        for (const auto& s : singles) triples.emplace_back(times(p.first, s.first), p.second * s.second);
    for (const auto* products : {&singles, &pairs, &triples})
        for (const auto& [at, d] : *products)
            if (auto f = line(d, at, v, false)) return f;
    for (const auto* products : {&singles, &pairs})
        for (const auto& [at, d] : *products)
            if (auto f = line(d, at, v, true)) return f;
    auto shift = [](const std::pair<Values, Dim>& s, std::int64_t c) {
        Values x = s.first;
        for (auto& e : x) e += c;
        return std::pair(x, s.second + Dim(c));
    };
    constexpr std::int64_t kShift = 4;
    for (std::size_t i = 0; i < singles.size(); ++i)
        for (std::size_t j = i; j < singles.size(); ++j)
            for (std::int64_t c = -kShift; c <= kShift; ++c)
                for (std::int64_t e = -kShift; e <= kShift; ++e) {
                    auto a = shift(singles[i], c), b = shift(singles[j], e);
                    if (auto f = line(a.second * b.second, times(a.first, b.first), v, false)) return f;
                }
    auto close = [&](const Values& sum, const Dim& d) -> std::optional<Dim> {  // up to a constant
        std::int64_t b = v[0] - sum[0];
        for (std::size_t r = 0; r < runs_; ++r)
            if (v[r] - sum[r] != b) return {};
        return d + Dim(b);
    };
    for (const auto& [x, dx] : known_)
        if (auto f = line(dx, x, v, false)) return f;
    for (const auto& [x, dx] : known_)
        for (const auto& [y, dy] : known_) {
            if (auto f = close(zip(x, y, std::plus<>()), dx + dy)) return f;
            if (auto f = close(zip(x, y, std::minus<>()), dx - dy)) return f;
            if (auto f = line(dx * dy, times(x, y), v, false)) return f;
        }
    return {};
}

}  // namespace heddle
