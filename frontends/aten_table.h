// What the rows of the lowering are written in: one call, its arguments by schema name, and PyTorch's typing rules.
// Law: a row returns its results in the types that the call has; broadcasting and promotion happen here, never in the IR.
#pragma once
#include <functional>
#include <optional>

#include "ir/graph.h"

namespace heddle::aten {

class Call {
public:
    Call(Graph& out, const Node& n, std::vector<V> operands) : g(out), node(n), operands_(std::move(operands)) {}
    Graph& g;
    const Node& node;                                  // of the captured graph: its type is the result's

    const Type& type() const { return node.type; }
    bool has(std::string_view name) const;             // given and not None
    V tensor(std::string_view name) const;             // a tensor argument; throws Error if it isn't one
    std::optional<V> maybe(std::string_view name) const;
    std::vector<std::optional<V>> tensors(std::string_view name) const;
    double number(std::string_view name, double otherwise = 0) const;
    bool flag(std::string_view name, bool otherwise = false) const;
    std::optional<Dim> dim(std::string_view name) const;
    int axis(std::string_view name, int rank, int otherwise = 0) const;               // negative counts from the end
    std::vector<int> axes(std::string_view name, int rank, bool empty_is_all = true) const;  // sorted; None is all
    // The operand `name`, tensor or number, in dtype t and broadcast to shape s.
    V operand(std::string_view name, DType t, const Shape& s) const;
    std::vector<V> all_tensors() const { return operands_; }

private:
    std::vector<V> operands_;
};

using Row = std::function<std::optional<V>(Call&)>;    // nullopt: stays a call
using Table = std::vector<std::pair<std::string_view, Row>>;
const Table& pointwise_rows();
const Table& view_rows();
const Table& reduce_rows();
const Table& index_rows();
const Table& nn_rows();

V broadcast(V, const Shape&);                          // PyTorch's rule: sizes 1 and missing leading axes grow
V fill(Graph&, const Type&, double);
V clamp(V, std::optional<double> lo, std::optional<double> hi);  // gradient 1 on the closed interval
DType promoted(const Call&, std::string_view a, std::string_view b);  // dtype that two operands are compared in

}  // namespace heddle::aten
