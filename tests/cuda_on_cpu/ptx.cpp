// A small reader of asm statements; see ptx.h.
#include "tests/cuda_on_cpu/ptx.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <vector>

namespace heddle::cuda_on_cpu {

namespace {

bool word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

struct Reader {
    const std::string& s;
    std::size_t i;
    const std::string& kernel;
    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error(fmt::format("{}.cu:{}: asm: {}", kernel, 1 + std::count(s.begin(), s.begin() + static_cast<std::ptrdiff_t>(std::min(i, s.size())), '\n'), what));
    }
    void space() {
        while (i < s.size() && std::isspace(static_cast<unsigned char>(s[i]))) ++i;
    }
    bool take(char c) {
        space();
        return i < s.size() && s[i] == c ? ++i, true : false;
    }
    std::string string() {  // with those that follow it at once, as the preprocessor joins them
        std::string r;
        while (take('"')) {
            while (i < s.size() && s[i] != '"')
                if (s[i] == '\\') i += 2, r += ' ';  // \n, \t
                else r += s[i++];
            ++i;
        }
        return r;
    }
    std::string expression() {
        if (!take('(')) fail("an operand without an expression");
        std::size_t from = i;
        for (int depth = 1; depth > 0; ++i) {
            if (i >= s.size()) fail("a parenthesis that isn't closed");
            depth += s[i] == '(' ? 1 : s[i] == ')' ? -1 : 0;
        }
        return s.substr(from - 1, i - from + 1);
    }
};

// The call for a template and its operands.
std::string call(const Reader& r, std::string instruction, const std::vector<std::string>& operands) {
    auto trim = [](std::string& t) {
        t.erase(0, std::min(t.size(), t.find_first_not_of(' ')));
        t.erase(t.find_last_not_of(' ') + 1);
    };
    trim(instruction);
    if (instruction.ends_with(';')) instruction.pop_back();
    if (instruction.find(';') != std::string::npos) r.fail("several instructions in `" + instruction + "`");
    std::size_t end = instruction.find(' ');
    std::string name = instruction.substr(0, end), arguments;
    for (char& c : name) c = word(c) ? c : c == '.' ? '_' : '?';
    if (name.empty() || name.find('?') != std::string::npos) r.fail("no instruction in `" + instruction + "`");
    for (std::size_t k = end; k < instruction.size(); ++k) {
        char c = instruction[k];
        if (c == '%') {
            std::size_t n = 0, from = k + 1;
            while (k + 1 < instruction.size() && std::isdigit(static_cast<unsigned char>(instruction[k + 1]))) n = n * 10 + static_cast<std::size_t>(instruction[++k] - '0');
            if (k < from || n >= operands.size()) r.fail("`" + instruction + "` names an operand that isn't there");
            arguments += (arguments.empty() ? "" : ", ") + operands[n];
        } else if (c != ' ' && c != ',' && c != '[' && c != ']' && c != '{' && c != '}') {
            r.fail("`" + instruction + "` has more than numbered operands");
        }
    }
    return fmt::format("ptx::{}({})", name, arguments);
}

}  // namespace

std::string without_asm(const std::string& text, const std::string& kernel) {
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
        if (text.compare(i, 2, "//") == 0 || text.compare(i, 2, "/*") == 0) {  // comments stay
            std::size_t end = text[i + 1] == '/' ? text.find('\n', i) : text.find("*/", i + 2);
            end = end == std::string::npos ? text.size() : end;
            out += text.substr(i, end - i), i = end;
            continue;
        }
        std::size_t j = i;
        while (j < text.size() && word(text[j])) ++j;
        std::string token = text.substr(i, std::max<std::size_t>(j - i, 1));
        if (token != "asm" && token != "__asm__") {
            out += token, i += token.size();
            continue;
        }
        Reader r{text, j, kernel};
        r.space();
        for (const char* q : {"volatile", "__volatile__"})
            if (text.compare(r.i, std::char_traits<char>::length(q), q) == 0) r.i += std::char_traits<char>::length(q);
        if (!r.take('(')) r.fail("no statement");
        std::string instruction = r.string();
        std::vector<std::string> operands;
        for (int part = 0; !r.take(')');) {
            if (r.take(':')) ++part;
            else if (r.take(',')) continue;
            else if (std::string constraint = r.string(); constraint.empty()) r.fail("neither a constraint nor an end");
            else if (part < 3) operands.push_back(r.expression());  // after the third colon: what it clobbers
        }
        out += call(r, instruction, operands);
        out += std::string(static_cast<std::size_t>(std::count(text.begin() + static_cast<std::ptrdiff_t>(i), text.begin() + static_cast<std::ptrdiff_t>(r.i), '\n')), '\n');
        i = r.i;
    }
    return out;
}

}  // namespace heddle::cuda_on_cpu
