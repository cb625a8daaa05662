// Sizes as sympy spells them: "Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(1))", or "2*s0 + 1".
// Law: what isn't a sum of products of names and integers has no Dim, whatever else it is.
#include <algorithm>
#include <charconv>

#include "frontends/export/program.h"

namespace heddle {

namespace {
constexpr int kDepth = 32;  // of nesting; no size is deeper

class Parser {
public:
    explicit Parser(std::string_view text) : rest_(text) {}
    std::optional<Dim> whole() {
        auto d = term(0);
        return rest_.empty() ? d : std::nullopt;
    }

private:
    bool take(std::string_view what) {
        while (rest_.starts_with(' ')) rest_.remove_prefix(1);
        if (!rest_.starts_with(what)) return false;
        rest_.remove_prefix(what.size());
        return true;
    }
    std::optional<Dim> symbol() {  // 's0', positive=True)
        const auto end = rest_.find('\''), close = rest_.find(')');
        if (end == rest_.npos || close == rest_.npos || close < end) return {};
        std::string name(rest_.substr(0, end));
        rest_.remove_prefix(close + 1);
        if (name.empty() || !std::all_of(name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; })) return {};
        return Dim::symbol(name);
    }
    std::optional<Dim> integer() {
        std::int64_t n = 0;
        auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), n);
        if (error != std::errc()) return {};
        rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
        return take(")") ? std::optional(Dim(n)) : std::nullopt;
    }
    template <class F>
    std::optional<Dim> fold(int depth, F combine) {
        auto all = term(depth);
        while (all && take(",")) {
            auto next = term(depth);
            if (!next) return {};
            all = combine(*all, *next);
        }
        return all && take(")") ? all : std::nullopt;
    }
    std::optional<Dim> term(int depth) {
        if (depth > kDepth) return {};
        if (take("Symbol('")) return symbol();
        if (take("Integer(")) return integer();
        if (take("Add(")) return fold(depth + 1, [](const Dim& a, const Dim& b) { return a + b; });
        if (take("Mul(")) return fold(depth + 1, [](const Dim& a, const Dim& b) { return a * b; });
        if (take("Pow(")) return fold(depth + 1, [](const Dim& a, const Dim& b) {
            Dim p = 1;
            if (!b.is_const() || b.value() < 0 || b.value() > 8) return Dim();
            for (std::int64_t k = 0; k < b.value(); ++k) p = p * a;
            return p;
        });
        return {};
    }
    std::string_view rest_;
};
}  // namespace

ExportSize parse_size(const std::string& text) {
    std::optional<Dim> d = Parser(text).whole();
    if (!d) try {
            d = parse_dim(text);
        } catch (const Error&) {
        }
    return {d ? print(*d) : text, d};
}

}  // namespace heddle
