// One run of a callable as a list of nodes with constant sizes; several such runs make a graph (merge.h).
// Law: a node refers to earlier nodes only, and every node is what one dispatched op computed.
#pragma once
#include <ATen/core/Tensor.h>

#include "frontends/capture/capture.h"

namespace heddle {

struct Recording {
    std::vector<Node> nodes;          // inputs, aten calls and their results
    std::vector<Id> inputs;           // the arguments, then tensors the callable holds
    std::vector<at::Tensor> tensors;  // of inputs
    std::vector<Id> outputs;
    std::vector<Captured::Origin> origins;
    std::vector<std::vector<int>> order;
    std::vector<Captured::Write> writes;  // output: position in `written`
    std::vector<Id> written;
    std::vector<Id> guards;
    std::vector<Id> counted;          // calls whose number of rows depends on values
    std::vector<Choice> choices;      // with this run's numbers
    std::vector<std::string> places;  // of choices
};

// `first`: the run to follow, whose guards' values are returned again; nullptr for the first. `extra_rows` are appended to what
// each nonzero finds, and `more_rows` for each nonzero before it, so that sizes that depend on values differ between runs and from each other.
// `integers`: per argument, is its value a size that the host may read.
Recording record(const Callable&, const std::vector<at::Tensor>& arguments, const std::vector<char>& integers, HostRead, const Recording* first, int extra_rows, int more_rows);

bool capturing();                  // in this thread
std::int64_t decide(Choice::Of, std::int64_t lhs, std::int64_t rhs);  // notes it, if this thread is capturing
void set_place(std::string where); // Node::loc of the ops recorded from here on, in place of all scopes

}  // namespace heddle
