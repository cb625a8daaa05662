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
        if (in.of == ExportInput::Of::integer) inputs_.push_back({in.name, at::kLong, {size(in.integer)}, true});
        if (in.of != ExportInput::Of::tensor) continue;
        inputs_.push_back({in.name, in.tensor.dtype, {}, false});
        for (const ExportSize& s : in.tensor.sizes) inputs_.back().sizes.push_back(size(s));
    }
    for (Symbol& s : symbols_) {
        auto range = p.ranges.find(s.name);
        if (range == p.ranges.end()) continue;
        // The exporter writes 2 for any size at all, as it knows nothing of 0 and 1.
        if (auto least = range->second.first.value_or(0); least > 2) s.least = least;
        s.most = range->second.second.value_or(s.most);
    }
    auto plain = [&](const Dim& d) {
        std::vector<std::string> names;
        d.names(names);
        return std::all_of(names.begin(), names.end(), [&](const auto& n) { return std::any_of(symbols_.begin(), symbols_.end(), [&](const Symbol& s) { return s.plain && s.name == n; }); });
    };
    for (std::size_t k = 0; k < inputs_.size(); ++k) {
        int at = inputs_[k].integer ? Varying::kValue : 0;
        for (std::size_t d = 0; d < inputs_[k].sizes.size(); ++d, ++at) {
            const Size& s = inputs_[k].sizes[d];
            auto vary = [&](std::string name) { varying_.push_back({.input = static_cast<int>(k), .dim = at, .name = std::move(name)}); };
            if (s.symbol < 0) {
                if (s.dim && plain(*s.dim)) vary(print(*s.dim));
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
    for (bool again : {false, true})
        for (std::size_t k = 0; k < inputs_.size(); ++k) {
            const Input& in = inputs_[k];
            const at::Tensor& t = given[k];
            auto wrong = [&](std::size_t d, std::int64_t got, const std::string& want) {
                throw Error(fmt::format("{}: input {}: {} is {}, expected {}", who_, in.name, in.integer ? "its value" : fmt::format("size {}", d), got, want));
            };
            if (!again) {
                if (!t.defined()) throw Error(fmt::format("{}: input {}: is undefined", who_, in.name));
                if (t.scalar_type() != in.dtype) throw Error(fmt::format("{}: input {}: got {}, expected {}", who_, in.name, word(t.scalar_type()), word(in.dtype)));
                if (t.dim() != (in.integer ? 0 : static_cast<std::int64_t>(in.sizes.size())))
                    throw Error(fmt::format("{}: input {}: got {} dimensions, expected {}", who_, in.name, t.dim(), in.integer ? 0 : in.sizes.size()));
            }
            for (std::size_t d = 0; d < in.sizes.size(); ++d) {
                const Size& s = in.sizes[d];
                if (again && !s.dim) continue;
                const std::int64_t got = in.integer ? (s.symbol < 0 && s.constant < 0 && !s.dim ? 0 : t.item<std::int64_t>()) : t.size(static_cast<std::int64_t>(d));
                if (s.constant >= 0 && got != s.constant) wrong(d, got, s.text);
                if (s.symbol >= 0) {
                    const Symbol& symbol = symbols_[static_cast<std::size_t>(s.symbol)];
                    std::int64_t& value = bound[static_cast<std::size_t>(s.symbol)];
                    if (got % s.factor != 0 || (value >= 0 && got != s.factor * value)) wrong(d, got, value < 0 ? s.text : fmt::format("{} = {}", s.text, s.factor * value));
                    value = got / s.factor;
                    if (value < symbol.least || value > symbol.most)
                        wrong(d, got, fmt::format("{} with {} {}", s.text, symbol.name, symbol.most == INT64_MAX ? fmt::format("at least {}", symbol.least) : fmt::format("from {} to {}", symbol.least, symbol.most)));
                }
                if (again) {
                    Sizes sizes;
                    std::vector<std::string> names;
                    s.dim->names(names);
                    for (std::size_t i = 0; i < symbols_.size(); ++i)
                        if (bound[i] >= 0) sizes[symbols_[i].name] = bound[i];
                    if (!std::all_of(names.begin(), names.end(), [&](const auto& n) { return sizes.count(n) != 0; })) continue;
                    if (auto want = s.dim->eval(sizes); got != want) wrong(d, got, fmt::format("{} = {}", s.text, want));
                }
            }
        }
}

}  // namespace heddle
