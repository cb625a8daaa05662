// What library calls read.
#include "ir/program.h"

#include <algorithm>

namespace heddle {

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
