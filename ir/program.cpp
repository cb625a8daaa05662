// What library calls read.
#include "ir/program.h"

#include <algorithm>

namespace heddle {

std::vector<std::string> names_in(const Attrs& attrs) {
    std::vector<std::string> names;
    for (const auto& [key, a] : attrs)
        if (auto* d = std::get_if<Dim>(&a)) d->names(names);
        else if (auto* list = std::get_if<std::vector<Dim>>(&a))
            for (const Dim& x : *list) x.names(names);
    return names;
}
std::vector<std::string> names_in(const Node& n) {
    std::vector<std::string> names = names_in(n.attrs);
    for (const Dim& d : n.type.shape) d.names(names);
    for (const Type& t : n.more)
        for (const Dim& d : t.shape) d.names(names);
    return names;
}
bool is_guard(const Node& n) { return n.is(Op::call) && n.text("name") == "heddle.guard"; }

Operand library_operand(const Graph& g, Id id) {
    Operand o{id};
    for (;;) {
        const Node& n = g[o.base];
        if (n.is(Op::reshape) && !o.transposed) o.base = n.in[0];
        else if (n.is(Op::permute) && !o.transposed && n.type.rank() >= 2 && o.base == id) {
            auto axes = axes_from_to(0, n.type.rank());
            std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
            if (n.ints("axes") != axes) return o;
            o = {n.in[0], true};
        } else {
            return o;
        }
    }
}

}  // namespace heddle
