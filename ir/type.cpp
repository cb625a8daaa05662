// Element types and symbolic sizes: arithmetic, printing, parsing.
#include "ir/type.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace heddle {

void bug(const char* file, int line, const std::string& what) {
    throw Bug(fmt::format("heddle bug: {} ({}:{})", what, file, line));
}

namespace {
constexpr std::size_t kMostTerms = 256;  // of a size: a product of sums grows without bound
std::int64_t checked(bool overflows, std::int64_t v) {
    if (overflows) throw Error("a size is over 64 bits");
    return v;
}
std::int64_t sum_of(std::int64_t a, std::int64_t b) {
    std::int64_t v = 0;
    const bool over = __builtin_add_overflow(a, b, &v);
    return checked(over, v);
}
std::int64_t product_of(std::int64_t a, std::int64_t b) {
    std::int64_t v = 0;
    const bool over = __builtin_mul_overflow(a, b, &v);
    return checked(over, v);
}
struct Row {
    std::string_view name;
    int bytes;
};
constexpr Row kTypes[] = {{"b1", 1}, {"i32", 4}, {"i64", 8}, {"f16", 2}, {"bf16", 2}, {"f32", 4}, {"f64", 8}};
}  // namespace

std::string_view name(DType t) { return kTypes[static_cast<int>(t)].name; }
int bytes(DType t) { return kTypes[static_cast<int>(t)].bytes; }
std::optional<DType> dtype_named(std::string_view s) {
    for (int i = 0; i < 7; ++i)
        if (kTypes[i].name == s) return static_cast<DType>(i);
    return {};
}

Dim::Dim(std::int64_t value) {
    if (value != 0) terms_.push_back({{}, value});
}
Dim Dim::symbol(std::string name) {
    Dim d;
    d.terms_.push_back({{std::move(name)}, 1});
    return d;
}
bool Dim::is_const() const { return terms_.empty() || (terms_.size() == 1 && terms_[0].names.empty()); }
bool Dim::is_symbol() const { return terms_.size() == 1 && terms_[0].coef == 1 && terms_[0].names.size() == 1; }
std::int64_t Dim::value() const {
    HEDDLE_CHECK(is_const(), "size " + print(*this) + " is not a constant");
    return terms_.empty() ? 0 : terms_[0].coef;
}
std::int64_t Dim::eval(const Sizes& sizes) const {
    std::int64_t sum = 0;
    for (const Term& t : terms_) {
        std::int64_t p = t.coef;
        for (const auto& n : t.names) {
            auto it = sizes.find(n);
            if (it == sizes.end()) throw Error("size " + n + " has no value");
            p *= it->second;
        }
        sum += p;
    }
    return sum;
}
void Dim::names(std::vector<std::string>& out) const {
    for (const Term& t : terms_)
        for (const auto& n : t.names)
            if (std::find(out.begin(), out.end(), n) == out.end()) out.push_back(n);
}
void Dim::add(const Term& t) {
    // Terms are kept by descending degree, then by name: B*N before N before 1.
    auto before = [](const Term& a, const Term& b) {
        return a.names.size() != b.names.size() ? a.names.size() > b.names.size() : a.names < b.names;
    };
    auto it = std::lower_bound(terms_.begin(), terms_.end(), t, before);
    if (it != terms_.end() && it->names == t.names) {
        it->coef = sum_of(it->coef, t.coef);
        if (it->coef == 0) terms_.erase(it);
    } else if (t.coef != 0) {
        terms_.insert(it, t);
    }
}
Dim operator+(const Dim& a, const Dim& b) {
    Dim r = a;
    for (const auto& t : b.terms_) r.add(t);
    return r;
}
Dim operator-(const Dim& a, const Dim& b) {
    Dim r = a;
    for (auto t : b.terms_) {
        t.coef = product_of(t.coef, -1);
        r.add(t);
    }
    return r;
}
Dim operator*(const Dim& a, const Dim& b) {
    Dim r;
    for (const auto& x : a.terms_)
        for (const auto& y : b.terms_) {
            Dim::Term t{x.names, product_of(x.coef, y.coef)};
            t.names.insert(t.names.end(), y.names.begin(), y.names.end());
            std::sort(t.names.begin(), t.names.end());
            r.add(t);
            if (r.terms_.size() > kMostTerms) throw Error("a size has too many terms");
        }
    return r;
}
std::optional<Dim> Dim::divided_by(const Dim& d) const {
    // Polynomial long division by the leading term; exact or nothing.
    if (d.terms_.empty()) return {};
    Dim rest = *this, quotient;
    const Term& lead = d.terms_[0];
    for (int guard = 0; !rest.terms_.empty(); ++guard) {
        const Term& t = rest.terms_[0];
        if (guard > 64 || t.coef % lead.coef != 0 ||
            !std::includes(t.names.begin(), t.names.end(), lead.names.begin(), lead.names.end()))
            return {};
        Dim q;
        Term qt{{}, t.coef / lead.coef};
        std::set_difference(t.names.begin(), t.names.end(), lead.names.begin(), lead.names.end(),
                            std::back_inserter(qt.names));
        q.terms_.push_back(qt);
        quotient = quotient + q;
        rest = rest - q * d;
    }
    return quotient;
}
Dim Dim::substitute(const std::map<std::string, Dim>& with) const {
    Dim sum;
    for (const Term& t : terms_) {
        Dim p = t.coef;
        for (const auto& n : t.names) {
            auto it = with.find(n);
            p = p * (it == with.end() ? Dim::symbol(n) : it->second);
        }
        sum = sum + p;
    }
    return sum;
}
std::string print(const Dim& d) {
    if (d.terms().empty()) return "0";
    std::string s;
    for (const auto& t : d.terms()) {
        std::int64_t c = t.coef;
        if (!s.empty()) {
            s += c < 0 ? "-" : "+";
            c = c < 0 ? -c : c;
        }
        std::string body;
        for (const auto& n : t.names) body += (body.empty() ? "" : "*") + n;
        if (body.empty())
            s += std::to_string(c);
        else if (c == 1)
            s += body;
        else if (c == -1)
            s += "-" + body;
        else
            s += std::to_string(c) + "*" + body;
    }
    return s;
}
Dim parse_dim(std::string_view text) {
    std::size_t i = 0;
    auto skip = [&] { while (i < text.size() && text[i] == ' ') ++i; };
    Dim sum;
    bool first = true;
    while (skip(), i < text.size()) {
        std::int64_t sign = 1;
        if (text[i] == '+' || text[i] == '-') {
            sign = text[i++] == '-' ? -1 : 1;
        } else if (!first) {
            throw Error(fmt::format("size \"{}\": expected + or - at column {}", text, i + 1));
        }
        Dim product = sign;
        for (bool more = true; more;) {
            skip();
            std::size_t j = i;
            if (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]))) {
                while (j < text.size() && std::isdigit(static_cast<unsigned char>(text[j]))) ++j;
                if (j - i > 18) throw Error(fmt::format("size \"{}\": number too large", text));
                product = product * Dim(static_cast<std::int64_t>(std::stoll(std::string(text.substr(i, j - i)))));
            } else {
                while (j < text.size() && (std::isalnum(static_cast<unsigned char>(text[j])) || text[j] == '_')) ++j;
                if (j == i) throw Error(fmt::format("size \"{}\": expected a number or a name at column {}", text, i + 1));
                product = product * Dim::symbol(std::string(text.substr(i, j - i)));
            }
            i = j;
            skip();
            more = i < text.size() && text[i] == '*';
            if (more) ++i;
        }
        sum = sum + product;
        first = false;
    }
    if (first) throw Error("empty size");
    return sum;
}
Dim numel(const Shape& s) {
    Dim n = 1;
    for (const auto& d : s) n = n * d;
    return n;
}
std::string print(const Shape& s) {
    std::string out;
    for (const auto& d : s) out += (out.empty() ? "" : ", ") + print(d);
    return "[" + out + "]";
}
std::string print(const Type& t) { return std::string(name(t.dtype)) + print(t.shape); }
std::string print_number(double v) {
    if (std::isnan(v)) return "nan";
    if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
    return fmt::format("{}", v);  // shortest text that reads back bit-equal
}

}  // namespace heddle
