// Reads ops.def as text once more; see row_text.h.
#include "tests/core/row_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace heddle::mutant {

namespace {

struct Columns {
    const char *scalar = "", *vjp = "", *aten = "";
    struct { double lo, hi; } range = {};
    bool commutes = false;
    double init = 0;
};
#define C(...) #__VA_ARGS__
#define VJP(...) #__VA_ARGS__
constexpr const char *concat_vjp = "concat_vjp", *prod_vjp = "prod_vjp", *extremum_vjp = "extremum_vjp", *scan_vjp = "scan_vjp", *gather_vjp = "gather_vjp",
                     *scatter_add_vjp = "scatter_add_vjp", *scatter_vjp = "scatter_vjp", *dot_vjp = "dot_vjp";
const Columns kColumns[] = {
#define OP(name, FORM, ...) {__VA_ARGS__},
#include "ir/ops.def"
#undef OP
};
#undef C
#undef VJP

using Tokens = std::vector<std::string>;
bool word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; }
Tokens tokens(std::string_view s) {
    static constexpr std::string_view kTwo[] = {"<=", ">=", "==", "!=", "&&", "||"};
    Tokens out;
    for (std::size_t i = 0; i < s.size();) {
        std::size_t n = 1;
        if (s[i] == ' ') {
            ++i;
            continue;
        }
        if (word_char(s[i])) while (i + n < s.size() && word_char(s[i + n])) ++n;
        else if (std::find(std::begin(kTwo), std::end(kTwo), s.substr(i, 2)) != std::end(kTwo)) n = 2;
        out.emplace_back(s.substr(i, n));
        i += n;
    }
    return out;
}
bool is_word(const std::string& t) { return word_char(t[0]); }
bool is_number(const std::string& t) { return std::isdigit(static_cast<unsigned char>(t[0])); }
bool unary(const Tokens& t, std::size_t i) { return i == 0 || (!is_word(t[i - 1]) && t[i - 1] != ")"); }

constexpr std::pair<std::string_view, std::string_view> kOperators[] = {{"+", "add"}, {"-", "sub"}, {"*", "mul"}, {"/", "div"}, {"<", "lt"}, {"<=", "le"},
                                                                        {">", "gt"}, {">=", "ge"}, {"==", "eq"}, {"!=", "ne"}, {"&&", "and_"}, {"||", "or_"}};
class Reader {
public:
    explicit Reader(std::string_view s) : text_(s), t_(tokens(s)) {}
    Tree all() {
        Tree t = binary(0);
        if (i_ != t_.size()) fail();
        return t;
    }

private:
    [[noreturn]] void fail() const { throw Error(fmt::format("{}: no expression over rows", text_)); }
    bool next(std::string_view s) { return i_ < t_.size() && t_[i_] == s && ++i_; }
    Tree binary(std::size_t level) {
        static const std::vector<std::vector<std::string>> kLevels{{"||"}, {"&&"}, {"==", "!="}, {"<", "<=", ">", ">="}, {"+", "-"}, {"*", "/"}};
        if (level == kLevels.size()) return prefix();
        Tree left = binary(level + 1);
        while (i_ < t_.size() && std::find(kLevels[level].begin(), kLevels[level].end(), t_[i_]) != kLevels[level].end()) {
            const std::string sign = t_[i_++];
            auto row = std::find_if(std::begin(kOperators), std::end(kOperators), [&](const auto& o) { return o.first == sign; });
            Tree right = binary(level + 1);
            left = {std::string(row->second), 0, {left, right}, true};
        }
        return left;
    }
    Tree prefix() {
        if (next("-")) return {"neg", 0, {prefix()}, true};
        if (next("!")) return {"not_", 0, {prefix()}, true};
        if (next("(")) {
            Tree t = binary(0);
            if (!next(")")) fail();
            return t;
        }
        if (i_ == t_.size() || !is_word(t_[i_])) fail();
        const std::string word = t_[i_++];
        if (is_number(word)) return {"", std::stod(word), {}, false};
        if (!next("(")) {
            if (word.size() > 1 && word != "out") fail();
            return {word, 0, {}, false};
        }
        if (!row_of_word(word) && word != "zeros_like" && word != "none") fail();
        Tree t{word, 0, {}, true};
        while (!next(")")) {
            t.in.push_back(binary(0));
            if (!next(",") && (i_ == t_.size() || t_[i_] != ")")) fail();
        }
        return t;
    }
    std::string text_;
    Tokens t_;
    std::size_t i_ = 0;
};

// What a slip of the pen would write instead.
const std::map<std::string, std::string>& slips() {
    static const std::map<std::string, std::string> all{
        {"+", "-"}, {"*", "/"}, {"/", "*"}, {"<", "<="}, {">", ">="}, {"<=", "<"}, {">=", ">"}, {"==", "!="}, {"!=", "=="}, {"&&", "||"}, {"||", "&&"},
        {"exp", "expm1"}, {"expm1", "exp"}, {"log", "log1p"}, {"log1p", "log"}, {"sin", "cos"}, {"cos", "sin"}, {"sinh", "cosh"}, {"cosh", "sinh"}, {"tan", "sin"},
        {"asin", "acos"}, {"acos", "asin"}, {"atan", "tanh"}, {"tanh", "atan"}, {"erf", "tanh"}, {"floor", "ceil"}, {"ceil", "floor"}, {"rint", "floor"},
        {"trunc", "floor"}, {"sqrt", "fabs"}, {"rsqrt", "sqrt"}, {"fabs", "exp"}, {"sign_", "fabs"}, {"sign", "abs"}, {"mod_", "floordiv_"}, {"floordiv_", "mod_"},
        {"floordiv", "mod"}, {"gt", "ge"}, {"lt", "le"}, {"eq", "ne"}, {"pow", "atan2"}, {"atan2", "pow"}};
    return all;
}

}  // namespace

const OpDef* row_of_word(std::string_view word) {
    static const std::map<std::string_view, std::string_view> kWords{{"fabs", "abs"}, {"sign_", "sign"}, {"rint", "round"}, {"floordiv_", "floordiv"}, {"mod_", "mod"}};
    auto w = kWords.find(word);
    const OpDef* d = op_named(w == kWords.end() ? word : w->second);
    return d && d->kind == Kind::map && d->scalar.eval ? d : nullptr;
}

const RowText& row_text(Op op) {
    static const std::vector<RowText> all = [] {
        std::vector<RowText> rows;
        for (const Columns& c : kColumns) {
            RowText r{c.scalar, {}};
            int depth = 0;
            for (const char* p = c.vjp; *p; ++p) {
                depth += *p == '(' ? 1 : *p == ')' ? -1 : 0;
                if (r.vjp.empty()) r.vjp.emplace_back();
                if (*p == ',' && depth == 0) r.vjp.emplace_back();
                else if (*p != ' ' || !r.vjp.back().empty()) r.vjp.back() += *p;
            }
            rows.push_back(r);
        }
        return rows;
    }();
    return all[static_cast<std::size_t>(op)];
}

Tree parse_row_text(std::string_view s) { return Reader(s).all(); }

std::vector<std::string> one_token_off(const std::string& text, const std::vector<std::string>& names) {
    const Tokens t = tokens(text);
    std::vector<std::string> out;
    auto with = [&](std::size_t i, const std::string& instead) {
        std::string s;
        for (std::size_t k = 0; k < t.size(); ++k) {
            const std::string& word = k == i ? instead : t[k];
            const bool infix = !word.empty() && !is_word(word) && word != "(" && word != ")" && word != "," && word != "!" && !unary(t, k);
            s += infix ? " " + word + " " : word == "," ? ", " : word;
        }
        out.push_back(s);
    };
    for (std::size_t i = 0; i < t.size(); ++i) {
        const std::string& w = t[i];
        auto slip = slips().find(w);
        auto name = std::find(names.begin(), names.end(), w);
        if (i > 1 && t[i - 2] == "zeros_like") continue;  // of any of that type
        if (w == "-") with(i, unary(t, i) ? "" : "+");
        else if (w == "!") with(i, "");
        else if (is_number(w)) with(i, std::stod(w) > 1000 ? "0" : fmt::format("{}", std::stod(w) + 1));
        else if (slip != slips().end()) with(i, slip->second);
        else if (name != names.end() && names.size() > 1) with(i, name + 1 == names.end() ? names.front() : name[1]);
    }
    return out;
}

}  // namespace heddle::mutant
