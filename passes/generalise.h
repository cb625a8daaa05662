// Graphs that are the same but for sizes and numbers, as one: sizes that differ get names, numbers that differ become an input.
// Law: a graph that `bind` accepts is, node by node, the general one at those sizes and numbers; any other is refused. It stands before all
// rewriting, so that nothing was dropped yet because a number was 0 or 1 or a size divided another.
#pragma once
#include <functional>
#include <optional>

#include "ir/graph.h"

namespace heddle {

struct General {
    Graph graph;                        // inputs: theirs, then f64[numbers] if any number differs
    std::vector<std::string> names;     // of sizes, that it gave; none of these is ever less than 1
    std::vector<std::string> given;     // of these, those that no input has for a size: a run is told their values
    std::size_t numbers = 0;
    // The nodes that graphs are compared with, each as often as the graphs need it apart; and for a constant that differs, which number it is.
    std::deque<Node> nodes;
    std::vector<Id> inputs, outputs;
    std::vector<int> number;            // per node, or -1
};

// What one graph is of a general one.
struct Binding {
    Sizes sizes;                        // of `names`, and of others that are a number in the graph
    std::vector<double> numbers;
};

// `varies`: may this dimension of this input get a name? Nothing where they differ in anything but sizes and the values of constants, or where a
// size can't be told from others: a name of its own has to be the whole of some size.
std::optional<General> generalise(const std::vector<const Graph*>&, const std::function<bool(std::size_t input, std::size_t dim)>& varies);
std::optional<Binding> bind(const General&, const Graph&);

}  // namespace heddle
