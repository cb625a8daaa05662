// The verifier: re-runs the type rules that built the nodes.
#include "ir/verify.h"

#include <fmt/format.h>

#include "ir/text.h"

namespace heddle {

namespace {
[[noreturn]] void broken(std::string_view after, const std::string& what) { throw Bug(fmt::format("after {}: {}", after, what)); }
}  // namespace

void verify(const Graph& g, std::string_view after) {
    for (Id id = 0; id < g.size(); ++id) {
        const Node& n = g[id];
        for (Id i : n.in)
            if (i < 0 || i >= id) broken(after, fmt::format("%{} uses %{}, which is not above it", id, i));
        if (n.def().arity >= 0 && static_cast<int>(n.in.size()) != n.def().arity) broken(after, fmt::format("%{}: wrong number of operands", id));
        try {
            if (n.def().type && n.def().type(g, n) != n.type) broken(after, fmt::format("{}: its operands give {}", print_line(g, id), print(n.def().type(g, n))));
            if (n.is(Op::call)) (void)n.text("name");
        } catch (const Error& e) {
            broken(after, fmt::format("{}: {}", print_line(g, id), e.what()));
        }
    }
    for (Id i : g.inputs)
        if (i < 0 || i >= g.size() || !g[i].is(Op::input)) broken(after, "an argument is not an input node");
    for (Id i : g.outputs)
        if (i < 0 || i >= g.size()) broken(after, "an output is not defined");
}

void verify(const Program& p, std::string_view after) {
    verify(p.graph, after);
    std::vector<char> written(p.graph.nodes.size());
    for (Id i : p.graph.inputs) written[static_cast<std::size_t>(i)] = 1;
    auto write = [&](Id id) {
        if (std::exchange(written[static_cast<std::size_t>(id)], 1)) broken(after, fmt::format("%{} is written twice", id));
    };
    std::vector<std::vector<Id>> results(p.graph.nodes.size());
    for (Id id = 0; id < p.graph.size(); ++id)
        if (p.graph[id].is(Op::result)) results[static_cast<std::size_t>(p.graph[id].in[0])].push_back(id);
    for (const Step& s : p.steps) {
        if (s.launch >= 0) {
            for (const Nest& n : p.launches.at(static_cast<std::size_t>(s.launch)).nests)
                for (Id r : n.roots)
                    if (p.is_stored(r) && n.piece <= 0) write(r);
        } else if (!s.reads.empty()) {
            for (Id id : s.reads) {
                const Node& n = p.graph[id];
                const Id number = library_operand(p.graph, n.in.back()).base;
                if (!written[static_cast<std::size_t>(number)]) broken(after, fmt::format("%{} is read before it is written", number));
                if (!n.is(Op::compact)) write(id);
            }
        } else {
            for (Id i : p.graph[s.call].in)
                if (!written[static_cast<std::size_t>(library_operand(p.graph, i).base)]) broken(after, fmt::format("call %{} reads %{} before it is written", s.call, i));
            write(s.call);
            for (Id r : results[static_cast<std::size_t>(s.call)]) write(r);
        }
    }
    for (Id i : p.graph.outputs)
        if (!written[static_cast<std::size_t>(i)]) broken(after, fmt::format("output %{} is never written", i));
}

}  // namespace heddle
