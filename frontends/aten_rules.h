// What a row of the lowering table sees, and the words that rows are written in.
// Law: a row gives all results of its call, or none: then the call stays.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace heddle::aten {

// One call, its operands lowered. Sizes and dtypes of results are known from the call's own types.
struct Call {
    Graph& g;
    const Node& n;
    const std::vector<V>& in;
    std::vector<V>& outside;  // what is true where an index is out of range, for the guard

    const Type& type(std::size_t result = 0) const { return result == 0 ? n.type : n.more.at(result - 1); }
    const Shape& shape() const { return n.type.shape; }
    bool given(std::string_view name) const;                        // present and not None
    V tensor(std::string_view name) const;                          // none() if None or a number
    std::vector<V> tensors(std::string_view name) const;            // none() for each None
    Dim dim(std::string_view name, Dim otherwise = 0) const;
    double number(std::string_view name, double otherwise = 0) const;
    bool flag(std::string_view name, bool otherwise = false) const;
    std::string text(std::string_view name, std::string otherwise = "") const;
    std::vector<Dim> dims(std::string_view name) const;             // {} if None; one number is a list of one
    int axis(std::string_view name, int rank, int otherwise = 0) const;                // wrapped
    std::vector<int> axes(std::string_view name, int rank) const;   // wrapped, sorted; all of them if None or empty
    // A number argument or a tensor, as dtype and shape: sizes become `size` nodes.
    V scalar(std::string_view name, const Type&, double otherwise = 0) const;
    DType scalar_dtype(std::string_view name) const;                // of a number argument: b1, i64 or f64
    V operand(std::string_view name, const Type&) const;            // tensor or number, cast and broadcast
    // An index into `size` elements, made safe. `from_end`: negative ones count from the end.
    V place(V index, const Dim& size, bool from_end) const;
    void check(V wrong) const;                                      // eager raises an error where it is true
};
using Results = std::vector<V>;
using Rule = Results (*)(const Call&);
struct Row {
    std::string_view name;
    Rule rule;
};

// One table per file.
std::vector<Row> pointwise_rows();
std::vector<Row> activation_rows();
std::vector<Row> view_rows();
std::vector<Row> reduce_rows();
std::vector<Row> index_rows();
std::vector<Row> make_rows();
std::vector<Row> nn_rows();
std::vector<Row> sample_rows();

// ---- words
V to(V, DType);                                   // cast; to b1 means != 0
V broadcast(V, Shape);                            // throws Error if it doesn't fit
V as(V, Type);                                    // both
V number(Graph&, const Type&, const Dim&);        // a size as a value
V lift(Graph&, const Type&, double);
V iota(Graph&, DType, const Shape&, int axis);
V unsqueeze(V, int axis);
V squeeze(V, int axis);
V move_axis(V, int from, int to);
V count(V like, const std::vector<int>& axes);    // number of elements over axes, as a constant or size of like's type
V keep(V folded, const std::vector<int>& axes, Shape before);  // folded axes come back as 1
V back(V folded, const std::vector<int>& axes, Shape before);  // folded axes come back whole
V sloped(V value, V x, V slope);                 // the value, whose gradient reaches x multiplied by slope, whatever the value is made of
V root(V);                                        // sqrt whose gradient is 0 at 0, as that of PyTorch's norms
V take(V x, int axis, V index);                   // x.index_select(axis, index) with index of any shape
V clamp_min(V, V);
V clamp_max(V, V);
DType promoted(const Type& a, const Type& b);     // PyTorch's rule: a tensor without dimensions counts less within its category
Shape broadcast_shape(const Shape&, const Shape&);
std::optional<std::vector<std::int64_t>> literal_ints(V);  // values of a literal or arange-like index list, if known

}  // namespace heddle::aten
