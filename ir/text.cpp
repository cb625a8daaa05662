// Printing and parsing of graphs. The grammar stands in text.h.
#include "ir/text.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>

namespace heddle {

namespace {

std::string value(const std::vector<int>& number, Id id) { return "%" + std::to_string(number[static_cast<std::size_t>(id)]); }

std::string line(const Graph& g, Id id, const std::vector<int>& number) {
    const Node& n = g[id];
    std::string s = value(number, id) + " = " + (n.is(Op::call) ? n.text("name") : std::string(n.def().name));
    const char* sep = " ";
    for (Id i : n.in) s += sep + value(number, i), sep = ", ";
    for (const auto& [k, v] : n.attrs) {
        if (n.is(Op::call) && k == "name") continue;
        s += sep + k + "=" + print(v), sep = ", ";
    }
    s += " : " + print(n.type);
    for (const Type& t : n.more) s += ", " + print(t);
    if (!n.loc.empty()) s += "  # " + n.loc;
    return s;
}
std::vector<int> identity(const Graph& g) { return axes_from_to(0, g.size()); }

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}
    Graph graph() {
        word("graph"), punct('@');
        Graph g;
        g.name = identifier();
        punct('(');
        while (!accept(')')) {
            if (!g.inputs.empty()) punct(',');
            int n = value_number();
            std::string input_name = peek() == '"' ? string() : "";
            punct(':');
            define(n, g.input(type(), input_name));
        }
        punct('{');
        while (peek() == '%') node(g);
        word("return");
        if (peek() == '%')
            do g.outputs.push_back(use());
            while (accept(','));
        punct('}');
        if (skip(), at_ < text_.size()) fail("end of text");
        return g;
    }

private:
    void node(Graph& g) {
        std::size_t start = at_;
        int number = value_number();
        punct('=');
        Node n;
        std::string op = identifier(true);
        if (op.find('.') != std::string::npos) {
            n.op = Op::call;
            n.attrs.emplace_back("name", op);
        } else if (const OpDef* d = op_named(op); d && d->name != "input" && d->name != "call") {
            n.op = static_cast<Op>(d - &def(Op{}));
        } else {
            fail("an op, got " + op);
        }
        while (peek() != ':') {
            if (!n.in.empty() || n.attrs.size() > (n.op == Op::call ? 1u : 0u)) punct(',');
            if (peek() == '%') {
                n.in.push_back(use());
            } else {
                std::size_t first = at_;
                std::string key = identifier();
                if (n.has(key)) at_ = first, fail("an attribute other than " + key + ", which is given");
                punct('=');
                n.attrs.emplace_back(key, attr());
            }
        }
        punct(':');
        n.type = type();
        while (accept(',')) n.more.push_back(type());
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
        if (at_ < text_.size() && text_[at_] == '#') {
            std::size_t end = text_.find('\n', at_);
            n.loc = std::string(text_.substr(at_ + 1, (end == text_.npos ? text_.size() : end) - at_ - 1));
            while (!n.loc.empty() && n.loc.front() == ' ') n.loc.erase(0, 1);
            at_ = end == text_.npos ? text_.size() : end;
        }
        Type written = n.type;
        std::size_t end = at_;
        at_ = start;  // errors of the node point at its line
        try {
            Id id = g.add(std::move(n));
            if (g.type(id) != written) fail("the inferred type " + print(g.type(id)));
            define(number, id);
        } catch (const Error& e) {
            std::string what = e.what();
            if (!what.empty() && std::isdigit(static_cast<unsigned char>(what[0]))) throw;
            throw Error(where() + ": " + what);
        }
        at_ = end;
    }
    Attr attr(bool in_list = false) {
        char c = peek();
        if (c == '[') {
            if (in_list) fail("sizes, reals or operands in this list");
            punct('[');
            std::vector<Attr> items;
            while (!accept(']')) {
                if (!items.empty()) punct(',');
                items.push_back(attr(true));
            }
            bool refs = false, reals = false;
            for (const Attr& a : items) refs |= std::holds_alternative<Ref>(a) || std::holds_alternative<None>(a), reals |= std::holds_alternative<double>(a);
            if (refs) {
                std::vector<Ref> v;
                for (const Attr& a : items) {
                    if (!std::holds_alternative<Ref>(a) && !std::holds_alternative<None>(a)) fail("operands only in this list");
                    v.push_back(std::holds_alternative<Ref>(a) ? std::get<Ref>(a) : Ref{});
                }
                return v;
            }
            if (reals) {
                std::vector<double> v;
                for (const Attr& a : items) {
                    if (!std::holds_alternative<double>(a)) fail("reals only in this list");
                    v.push_back(std::get<double>(a));
                }
                return v;
            }
            std::vector<Dim> v;
            for (const Attr& a : items) {
                if (!std::holds_alternative<Dim>(a)) fail("sizes, reals or operands in this list");
                v.push_back(std::get<Dim>(a));
            }
            return v;
        }
        if (c == '"') return string();
        if (c == '$') {
            punct('$');
            const int operand = integer();
            if (operand < 0) fail("the number of an operand");
            return Ref{operand};
        }
        std::size_t start = at_;  // peek() skipped the space
        while (at_ < text_.size() && std::string_view(",]:# \n").find(text_[at_]) == std::string_view::npos) ++at_;
        std::string_view token = text_.substr(start, at_ - start);
        if (token == "none") return None{};
        if (token == "true") return true;
        if (token == "false") return false;
        if (token == "inf") return HUGE_VAL;
        if (token == "-inf") return -HUGE_VAL;
        if (token == "nan") return std::nan("");
        bool digit = !token.empty() && (std::isdigit(static_cast<unsigned char>(token[0])) || (token[0] == '-' && token.size() > 1 && std::isdigit(static_cast<unsigned char>(token[1]))));
        if (digit && token.find_first_of(".e") != token.npos) {
            double v = 0;
            auto [p, ec] = std::from_chars(token.data(), token.data() + token.size(), v);
            if (p == token.data() + token.size() && ec == std::errc{}) return v;
        }
        try {
            return parse_dim(token);
        } catch (const Error&) {
            at_ = start;
            fail("an attribute");
        }
    }
    Type type() {
        Type t;
        auto d = dtype_named(identifier());
        if (!d) fail("a dtype");
        t.dtype = *d;
        punct('[');
        while (!accept(']')) {
            if (!t.shape.empty()) punct(',');
            skip();
            std::size_t start = at_;
            while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != ']' && text_[at_] != '\n') ++at_;
            try {
                t.shape.push_back(parse_dim(text_.substr(start, at_ - start)));
            } catch (const Error&) {
                at_ = start;
                fail("a size");
            }
        }
        return t;
    }
    std::string string() {
        punct('"');
        std::string s;
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
                ++at_;
                s += text_[at_] == 'n' ? '\n' : text_[at_];
            } else {
                s += text_[at_];
            }
            ++at_;
        }
        punct('"');
        return s;
    }
    int integer() {
        skip();
        int v = 0;
        auto [p, ec] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), v);
        if (ec != std::errc{}) fail("a number");
        at_ = static_cast<std::size_t>(p - text_.data());
        return v;
    }
    int value_number() {
        punct('%');
        return integer();
    }
    Id use() {
        std::size_t start = (skip(), at_);
        auto it = values_.find(value_number());
        if (it == values_.end()) {
            at_ = start;
            fail("a value that is defined above");
        }
        return it->second;
    }
    void define(int number, Id id) {
        if (!values_.emplace(number, id).second) fail(fmt::format("a new value, %{} is taken", number));
    }
    std::string identifier(bool dots = false) {
        skip();
        std::size_t start = at_;
        while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_' || (dots && text_[at_] == '.'))) ++at_;
        if (at_ == start) fail("a name");
        return std::string(text_.substr(start, at_ - start));
    }
    void word(std::string_view w) {
        std::size_t start = (skip(), at_);
        if (identifier() != w) {
            at_ = start;
            fail(std::string(w));
        }
    }
    void punct(char c) {
        if (!accept(c)) fail(std::string("'") + c + "'");
    }
    bool accept(char c) {
        if (peek() != c) return false;
        ++at_;
        return true;
    }
    char peek() {
        skip();
        return at_ < text_.size() ? text_[at_] : '\0';
    }
    void skip() {
        while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    }
    std::string where() const {
        std::size_t row = 1, column = 1;
        for (std::size_t i = 0; i < at_ && i < text_.size(); ++i) text_[i] == '\n' ? (++row, column = 1) : ++column;
        return fmt::format("{}:{}", row, column);
    }
    [[noreturn]] void fail(const std::string& expected) const { throw Error(where() + ": expected " + expected); }

    std::string_view text_;
    std::size_t at_ = 0;
    std::unordered_map<int, Id> values_;
};

std::string header(const Graph& g, const std::vector<int>& number) {
    std::string s;
    for (Id id : g.inputs) {
        const std::string& n = g[id].text("name");
        s += (s.empty() ? "" : ", ") + value(number, id) + (n.empty() ? "" : " " + print(Attr(n))) + ": " + print(g.type(id));
    }
    return "@" + g.name + "(" + s + ")";
}
std::string footer(const Graph& g, const std::vector<int>& number) {
    std::string s = "  return";
    for (std::size_t i = 0; i < g.outputs.size(); ++i) s += (i ? ", " : " ") + value(number, g.outputs[i]);
    return s + "\n}\n";
}
}  // namespace

std::string print_line(const Graph& g, Id id) { return line(g, id, identity(g)); }

std::string print(const Graph& g) {
    std::vector<int> number(g.nodes.size(), -1);
    int next = 0;
    for (Id id : g.inputs) number[static_cast<std::size_t>(id)] = next++;
    for (auto& n : number)
        if (n < 0) n = next++;
    std::string s = "graph " + header(g, number) + " {\n";
    for (Id id = 0; id < g.size(); ++id)
        if (!g[id].is(Op::input)) s += "  " + line(g, id, number) + "\n";
    return s + footer(g, number);
}

Graph parse(std::string_view text) { return Parser(text).graph(); }

std::string print(const Schedule& c) {
    std::string s = fmt::format("lanes={}, width={}, chunk={}, group={}, threads={}", c.lanes_inner ? "inner" : "outer", c.width, c.chunk, c.group, c.threads);
    if (c.vector > 1) s += fmt::format(", vector={}", c.vector);
    if (c.adds != Adds::none) s += fmt::format(", adds={}", name(c.adds));
    if (c.run > 1) s += fmt::format(", run={}, full={}", c.run, c.full);
    return s;
}

std::string print(const Program& p) {
    auto number = identity(p.graph);
    std::string s = "program " + header(p.graph, number) + " {\n";
    for (const Step& step : p.steps) {
        for (Id id : step.reads)
            if (const Node& n = p.graph[id]; n.is(Op::compact)) s += fmt::format("  size {} = %{}\n", print(n.type.shape[0]), n.in[2]);
            else s += "  " + line(p.graph, id, number) + "\n";
        if (!step.reads.empty()) continue;
        if (step.launch < 0) {
            s += "  " + line(p.graph, step.call, number) + "\n";
            continue;
        }
        const Launch& l = p.launches[static_cast<std::size_t>(step.launch)];
        s += "  kernel " + l.name + " {\n";
        for (const Nest& n : l.nests) {
            const Schedule& c = n.schedule;
            std::string stage = n.stage > 0 ? fmt::format(" stage={}", n.stage) : "";
            s += fmt::format("    for {}{} schedule({})\n", print(n.outer), stage, print(c));
            if (n.piece >= 0) s += n.pieces > 1 ? fmt::format("      parts {} to {} of\n", n.piece, n.piece + n.pieces - 1) : fmt::format("      part {} of\n", n.piece);
            for (Id r : n.roots) s += (p.is_stored(r) ? "      store " : "      keep  ") + line(p.graph, r, number) + "\n";
        }
        s += "  }\n";
    }
    for (const Update& u : p.updates)
        s += fmt::format("  %{} is written over %{} \"{}\"\n", p.graph.outputs[static_cast<std::size_t>(u.output)], p.graph.inputs[static_cast<std::size_t>(u.input)],
                         p.graph[p.graph.inputs[static_cast<std::size_t>(u.input)]].text("name"));
    return s + footer(p.graph, number);
}

}  // namespace heddle
