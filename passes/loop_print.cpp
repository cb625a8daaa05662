// Loop nests as text, for dumps: one statement a line, indented by scope.
#include <fmt/format.h>

#include "passes/loop.h"

namespace heddle::loop {

namespace {
std::string statement(const Nest& n, Val id) {
    const Value& v = n.values[static_cast<std::size_t>(id)];
    auto in = [&](std::size_t k) { return k < v.in.size() ? fmt::format("{}", v.in[k]) : std::string("-"); };
    auto buffer = [&] { return n.buffers[static_cast<std::size_t>(v.index)].name; };
    std::string left = fmt::format("{}: {} = ", id, name(v.dtype));
    switch (v.what) {
        case What::constant: return left + print_number(v.imm);
        case What::size: return left + "size " + n.sizes[static_cast<std::size_t>(v.index)];
        case What::outer: return left + fmt::format("outer {}", v.index);
        case What::inner: return left + "inner";
        case What::map: {
            std::string s = left + std::string(def(v.op).name);
            for (Val i : v.in) s += fmt::format(" {}", i);
            return s;
        }
        case What::load: return left + fmt::format("{}[{}]{}", buffer(), in(0), v.in.size() > 1 ? " if " + in(1) : "");
        case What::fold: return left + fmt::format("fold {}", v.index);
        case What::carry: return left + fmt::format("carry {}", v.index);
        case What::store: return fmt::format("{}[{}] = {}{}", buffer(), in(0), in(1), v.in.size() > 2 ? " if " + in(2) : "");
        case What::accumulate: return fmt::format("{}[{}] += {}{}", buffer(), in(0), in(1), v.in.size() > 2 ? " if " + in(2) : "");
        case What::fold_step: return fmt::format("fold {} {} {}", v.index, def(v.op).name, in(0));
        case What::carry_step: return fmt::format("carry {} = {}", v.index, in(0));
    }
    return {};
}
}  // namespace

std::string print(const Nest& n) {
    std::string s = fmt::format("for {}{}", print(n.outer), n.stage > 0 ? fmt::format(" stage={}", n.stage) : "");
    if (n.schedule.adds != Adds::none) s += fmt::format(" adds={}", name(n.schedule.adds));
    for (const Counted& c : n.counted) s += fmt::format(", {} in {}", c.size, n.buffers[static_cast<std::size_t>(c.buffer)].name);
    s += "\n";
    auto block = [&](const char* indent, const std::vector<Val>& list) {
        for (Val v : list) s += indent + statement(n, v) + "\n";
    };
    block("  ", n.uniform);
    block("  ", n.prologue);
    for (const Phase& p : n.phases) {
        s += fmt::format("  loop {}{}{}{}\n", print(p.extent), p.reverse ? " reverse" : "", p.ordered ? " ordered" : "", p.guard < 0 ? "" : fmt::format(" if {}", p.guard));
        block("    ", p.body);
        block("  ", p.after);
    }
    return s;
}

}  // namespace heddle::loop
