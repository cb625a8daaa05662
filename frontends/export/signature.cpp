// Sizes that are names are bound from left to right, then expressions in them are compared.
#include "frontends/export/signature.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "frontends/torch/host.h"

namespace heddle {

namespace {
std::string word(at::ScalarType t) {
    try {
        return std::string(name(dtype_of(t)));
    } catch (const Error&) {
        return c10::toString(t);
    }
}
template <class F>
bool all_names(const Dim& d, F f) {
    std::vector<std::string> names;
    d.names(names);
    return std::all_of(names.begin(), names.end(), f);
}
}  // namespace

std::string ExportSignature::type(const ExportInput& in) {
    if (in.of == ExportInput::Of::integer) return "i64[] = " + in.integer.text;
    std::vector<std::string> sizes;
    for (const auto& s : in.tensor.sizes) sizes.push_back(s.text);
    return fmt::format("{}[{}]", word(in.tensor.dtype), fmt::join(sizes, ", "));
}

int ExportSignature::symbol(const std::string& name) {
    for (std::size_t k = 0; k < symbols_.size(); ++k)
        if (symbols_[k].name == name) return static_cast<int>(k);
    symbols_.push_back({name});
    return static_cast<int>(symbols_.size()) - 1;
}

ExportSignature::Size ExportSignature::size(const ExportSize& s) {
    Size out{.text = s.text};
    if (!s.dim) return out;
    if (s.dim->is_const()) {
        out.constant = s.dim->value();
    } else if (const auto& terms = s.dim->terms(); terms.size() == 1 && terms[0].names.size() == 1 && terms[0].coef > 0) {
        out.symbol = symbol(terms[0].names[0]);
        out.factor = terms[0].coef;
        symbols_[static_cast<std::size_t>(out.symbol)].plain |= out.factor == 1;
    } else {
        out.dim = s.dim;
    }
    return out;
}

ExportSignature::ExportSignature(const ExportProgram& p, std::string who) : who_(std::move(who)) {
    for (const ExportInput& in : p.inputs) {
        if (in.of == ExportInput::Of::integer) inputs_.push_back({in.name, at::kLong, {size(in.integer)}, true, false});
        if (in.of != ExportInput::Of::tensor) continue;
        inputs_.push_back({in.name, in.tensor.dtype, {}, false, false});
        for (const ExportSize& s : in.tensor.sizes) inputs_.back().sizes.push_back(size(s));
    }
    for (Symbol& s : symbols_) {
        auto range = p.ranges.find(s.name);
        if (range == p.ranges.end()) continue;
        // The exporter writes 2 for any size at all, as it knows nothing of 0 and 1.
        if (auto least = range->second.first.value_or(0); least > 2) s.least = least;
        s.most = range->second.second.value_or(s.most);
    }
    auto plain = [&](const std::string& n) {
        return std::any_of(symbols_.begin(), symbols_.end(), [&](const Symbol& s) { return s.plain && s.name == n; });
    };
    for (std::size_t k = 0; k < inputs_.size(); ++k) {
        int at = inputs_[k].integer ? Varying::kValue : 0;
        for (std::size_t d = 0; d < inputs_[k].sizes.size(); ++d, ++at) {
            const Size& s = inputs_[k].sizes[d];
            auto vary = [&](std::string name) { varying_.push_back({.input = static_cast<int>(k), .dim = at, .name = std::move(name)}); };
            if (s.symbol < 0) {
                inputs_[k].compares |= s.dim.has_value();
                if (s.dim && all_names(*s.dim, plain)) vary(print(*s.dim));
                else if (s.constant < 0) all_named_ = false;
                continue;
            }
            const Symbol& symbol = symbols_[static_cast<std::size_t>(s.symbol)];
            vary(symbol.plain ? s.text : symbol.name);
            if (symbol.plain || inputs_[k].integer) continue;
            splits_.push_back({k, at, s.factor});
            ++at;
        }
    }
}

std::vector<at::Tensor> ExportSignature::split(std::vector<at::Tensor> inputs) const {
    for (const Split& s : splits_) inputs[s.input] = inputs[s.input].unflatten(s.dim, {inputs[s.input].size(s.dim) / s.factor, s.factor});
    return inputs;
}
std::vector<at::Tensor> ExportSignature::joined(std::vector<at::Tensor> inputs) const {
    for (auto s = splits_.rbegin(); s != splits_.rend(); ++s) inputs[s->input] = inputs[s->input].flatten(s->dim, s->dim + 1);
    return inputs;
}

void ExportSignature::check(const std::vector<at::Tensor>& given) const {
    if (given.size() != inputs_.size()) {
        std::vector<std::string> names;
        for (const Input& in : inputs_) names.push_back(in.name);
        throw Error(fmt::format("{}: got {} inputs, expected {} ({})", who_, given.size(), inputs_.size(), fmt::join(names, ", ")));
    }
    std::vector<std::int64_t> bound(symbols_.size(), -1);
    for (std::size_t k = 0; k < inputs_.size(); ++k) bind(inputs_[k], given[k], bound);
    if (std::none_of(inputs_.begin(), inputs_.end(), [](const Input& in) { return in.compares; })) return;
    Sizes sizes;
    for (std::size_t i = 0; i < symbols_.size(); ++i)
        if (bound[i] >= 0) sizes[symbols_[i].name] = bound[i];
    for (std::size_t k = 0; k < inputs_.size(); ++k)
        for (std::size_t d = 0; d < inputs_[k].sizes.size(); ++d) {
            const Size& s = inputs_[k].sizes[d];
            if (!s.dim || !all_names(*s.dim, [&](const auto& n) { return sizes.count(n) != 0; })) continue;
            const std::int64_t got = actual(inputs_[k], given[k], d);
            if (auto want = s.dim->eval(sizes); got != want) wrong(inputs_[k], d, got, fmt::format("{} = {}", s.text, want));
        }
}

// What needs no other input, and sizes that are names, multiplied or not.
void ExportSignature::bind(const Input& in, const at::Tensor& t, std::vector<std::int64_t>& bound) const {
    auto refuse = [&](const std::string& what) { throw Error(fmt::format("{}: input {}: {}", who_, in.name, what)); };
    const std::size_t rank = in.integer ? 0 : in.sizes.size();
    if (!t.defined()) refuse("is undefined");
    if (t.scalar_type() != in.dtype) refuse(fmt::format("got {}, expected {}", word(t.scalar_type()), word(in.dtype)));
    if (static_cast<std::size_t>(t.dim()) != rank) refuse(fmt::format("got {} dimensions, expected {}", t.dim(), rank));
    for (std::size_t d = 0; d < in.sizes.size(); ++d) {
        const Size& s = in.sizes[d];
        if (s.constant < 0 && s.symbol < 0) continue;
        const std::int64_t got = actual(in, t, d);
        if (s.constant >= 0 && got != s.constant) wrong(in, d, got, s.text);
        if (s.symbol < 0) continue;
        const Symbol& symbol = symbols_[static_cast<std::size_t>(s.symbol)];
        std::int64_t& value = bound[static_cast<std::size_t>(s.symbol)];
        if (value >= 0 && got != s.factor * value) wrong(in, d, got, fmt::format("{} = {}", s.text, s.factor * value));
        if (got % s.factor != 0) wrong(in, d, got, s.text);
        value = got / s.factor;
        if (value >= symbol.least && value <= symbol.most) continue;
        const std::string range = symbol.most == INT64_MAX ? fmt::format("at least {}", symbol.least) : fmt::format("from {} to {}", symbol.least, symbol.most);
        wrong(in, d, got, fmt::format("{} with {} {}", s.text, symbol.name, range));
    }
}
std::int64_t ExportSignature::actual(const Input& in, const at::Tensor& t, std::size_t d) {
    return in.integer ? t.item<std::int64_t>() : t.size(static_cast<std::int64_t>(d));
}
void ExportSignature::wrong(const Input& in, std::size_t d, std::int64_t got, const std::string& want) const {
    throw Error(fmt::format("{}: input {}: {} is {}, expected {}", who_, in.name, in.integer ? "its value" : fmt::format("size {}", d), got, want));
}

}  // namespace heddle
