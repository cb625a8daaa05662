// Dims to numbers and slots.
#include "runtime/sizes.h"

#include <fmt/format.h>

#include <algorithm>

namespace heddle {

void SizeNames::add(const std::string& n) {
    if (std::find(names_.begin(), names_.end(), n) == names_.end()) names_.push_back(n);
}
int SizeNames::slot(const std::string& n) const {
    auto it = std::find(names_.begin(), names_.end(), n);
    HEDDLE_CHECK(it != names_.end(), "size " + n + " has no slot");
    return static_cast<int>(it - names_.begin());
}
SizeValues SizeNames::values(const Sizes& sizes) const {
    SizeValues v(names_.size(), kUnknown);
    for (std::size_t k = 0; k < names_.size(); ++k)
        if (auto it = sizes.find(names_[k]); it != sizes.end()) v[k] = it->second;
    return v;
}
Sizes SizeNames::named(const SizeValues& v) const {
    Sizes sizes;
    for (std::size_t k = 0; k < v.size(); ++k)
        if (v[k] != kUnknown) sizes[names_[k]] = v[k];
    return sizes;
}

SizeExpr::SizeExpr(const Dim& d, const SizeNames& names) {
    if (d.is_const()) constant_ = d.value();
    else if (d.is_symbol()) slot_ = names.slot(d.terms()[0].names[0]);
    else
        for (const Dim::Term& t : d.terms()) {
            terms_.push_back({t.coef, {}});
            for (const auto& n : t.names) terms_.back().slots.push_back(names.slot(n));
        }
}
std::int64_t SizeExpr::sum(const std::int64_t* values) const {
    std::int64_t sum = 0;
    for (const Term& t : terms_) {
        std::int64_t p = t.coef;
        for (int s : t.slots) p *= values[s];
        sum += p;
    }
    return sum;
}
void SizeExpr::slots(std::vector<int>& out) const {
    if (slot_ >= 0) out.push_back(slot_);
    for (const Term& t : terms_) out.insert(out.end(), t.slots.begin(), t.slots.end());
}
bool SizeExpr::known(const std::int64_t* values) const {
    if (slot_ >= 0) return values[slot_] != kUnknown;
    for (const Term& t : terms_)
        for (int s : t.slots)
            if (values[s] == kUnknown) return false;
    return true;
}
ShapeExpr shape_expr(const Shape& shape, const SizeNames& names) {
    ShapeExpr e;
    for (const Dim& d : shape) e.emplace_back(d, names);
    return e;
}

ShapeBinding::ShapeBinding(const Shape& shape, const SizeNames& names, std::string who, std::string remedy)
    : dims_(shape_expr(shape, names)), shape_(shape), who_(std::move(who)), remedy_(std::move(remedy)) {
    has_rest_ = std::any_of(dims_.begin(), dims_.end(), [](const SizeExpr& e) { return e.symbol() < 0 && !e.is_const(); });
}
void ShapeBinding::bind(std::span<const std::int64_t> actual, std::int64_t* values) const {
    if (actual.size() != dims_.size()) throw Error(fmt::format("{}: got {} dimensions, expected {}{}", who_, actual.size(), print(shape_), remedy_));
    for (std::size_t k = 0; k < dims_.size(); ++k) {
        if (int s = dims_[k].symbol(); s >= 0 && values[s] == kUnknown) values[s] = actual[k];
        else if ((s >= 0 || dims_[k].is_const()) && dims_[k](values) != actual[k]) mismatch(k, actual[k], dims_[k](values));
    }
}
void ShapeBinding::check(std::span<const std::int64_t> actual, const std::int64_t* values) const {
    for (std::size_t k = 0; k < dims_.size(); ++k)
        if (dims_[k].known(values) && dims_[k](values) != actual[k]) mismatch(k, actual[k], dims_[k](values));
}
void ShapeBinding::mismatch(std::size_t k, std::int64_t actual, std::int64_t want) const {
    throw Error(fmt::format("{}: size {} of dimension {} is {}, expected {}{}", who_, print(shape_[k]), k, actual, want, remedy_));
}

}  // namespace heddle
