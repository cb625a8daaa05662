// A program before it is cut into kernels: nodes in topological order, values numbered by node.
// Law: a node is made by add(), which checks its type by its row's rule and shares equal nodes.
#pragma once
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "ir/op.h"

namespace heddle {

using Id = int;                                       // of a node, and of its (first) value
struct Ref {                                          // "$k": operand k of a call; -1 is None
    int operand = -1;
    bool operator==(const Ref&) const = default;
};
struct None {
    bool operator==(const None&) const = default;
};
// Every integer is a Dim, so sizes stay symbolic.
using Attr = std::variant<None, bool, Dim, double, std::string, Ref, std::vector<Dim>, std::vector<double>, std::vector<Ref>>;
using Attrs = std::vector<std::pair<std::string, Attr>>;
std::string print(const Attr&);

struct Node {
    Op op = Op::constant;
    std::vector<Id> in;
    Attrs attrs;
    Type type;                                        // of result 0
    std::vector<Type> more;                           // of results 1.. (calls)
    std::string loc;                                  // the user's source line, may be empty

    const OpDef& def() const { return heddle::def(op); }
    Kind kind() const { return def().kind; }
    bool is(Op o) const { return op == o; }
    const Attr* find(std::string_view name) const;    // nullptr if absent
    bool has(std::string_view name) const { return find(name) != nullptr; }
    const Dim& dim(std::string_view name) const;      // these throw Error if absent or of another type
    int integer(std::string_view name) const;
    double number(std::string_view name) const;       // an integer is one too
    bool flag(std::string_view name) const;           // absent: false
    const std::string& text(std::string_view name) const;
    std::vector<int> ints(std::string_view name) const;
    bool operator==(const Node&) const = default;
};

// A value of a graph under construction; arithmetic on it adds nodes.
struct V {
    Graph* graph = nullptr;
    Id id = -1;
    explicit operator bool() const { return graph != nullptr; }
    const Type& type() const;
    const Node& node() const;
};
inline V none() { return {}; }

class Graph {
public:
    std::string name = "f";
    std::deque<Node> nodes;                           // a deque: references to nodes and their types stay good while nodes are added
    std::vector<Id> inputs;                           // the input nodes, in the order of arguments
    std::vector<Id> outputs;
    std::string here;                                 // source line given to nodes that have none

    const Node& operator[](Id id) const { return nodes[static_cast<std::size_t>(id)]; }
    int size() const { return static_cast<int>(nodes.size()); }
    const Type& type(Id id) const { return (*this)[id].type; }

    Id add(Node);                                     // typed, shared; throws Error
    Id input(Type, std::string name);                 // never shared
    V value(Id id) { return {this, id}; }
    std::vector<std::vector<Id>> users() const;       // of each node, without outputs
    std::vector<std::string> symbols() const;         // names of sizes, in order of first use

    // Structural equality: nodes, inputs and outputs. Source lines don't count.
    bool operator==(const Graph&) const;

private:
    std::unordered_multimap<std::size_t, Id> shared_;
};

Graph live(const Graph&);                             // without what no output needs; inputs stay

// ---- builders. One per pointwise row; the operands have one type.
V apply(Op, std::vector<V>, Attrs = {}, Type as = {});
#define BUILD_LEAF(name)
#define BUILD_MAP1(name) inline V name(V a) { return apply(Op::name, {a}); }
#define BUILD_MAP1F BUILD_MAP1
#define BUILD_BOOL1 BUILD_MAP1
#define BUILD_MAP2(name) inline V name(V a, V b) { return apply(Op::name, {a, b}); }
#define BUILD_MAP2F BUILD_MAP2
#define BUILD_BOOL2 BUILD_MAP2
#define BUILD_CMP2 BUILD_MAP2
#define BUILD_SELECT(name) inline V name(V a, V b, V c) { return apply(Op::name, {a, b, c}); }
#define BUILD_CAST BUILD_LEAF
#define BUILD_VIEW BUILD_LEAF
#define BUILD_CONCAT BUILD_LEAF
#define BUILD_FOLD(name) V name(V a, std::vector<int> axes);
#define BUILD_SCAN BUILD_LEAF
#define BUILD_GATHER BUILD_LEAF
#define BUILD_SCATTER_ADD BUILD_LEAF
#define BUILD_SCATTER BUILD_LEAF
#define BUILD_COMPACT BUILD_LEAF
#define BUILD_DOT BUILD_LEAF
#define BUILD_CALL BUILD_LEAF
#define BUILD_RESULT BUILD_LEAF
#define OP(name, FORM, ...) BUILD_##FORM(name)
#include "ir/ops.def"
#undef OP

V constant(Graph&, Type, double value);
V size(Graph&, Type, Dim);
V iota(Graph&, Type, int axis);
V zeros_like(V);
V like(V, double);                                    // a constant of the same type
V cast(V, DType);                                     // itself if it has that type
V expand(V, std::vector<int> axes, const Shape&);     // Shape is the result's; itself if axes is empty
V permute(V, std::vector<int> axes);                  // itself if identity
V reshape(V, const Shape&);                           // itself if equal
V slice(V, int axis, Dim start, Dim end);             // itself if whole
V pad(V, int axis, Dim lo, Dim hi);                   // itself if both 0
V flip(V, int axis);
V concat(std::vector<V>, int axis);
V realize(V);
V stop_grad(V);
V scan(V a, V b, int axis, int mode, bool reverse, double init);
V gather(V x, std::vector<V> index);
V scatter_add(Type, std::vector<V> index, V v);
V scatter(V base, std::vector<V> index, V v);
V blocks(V x, int width);                             // rows of its elements; their number is blocks_of(n, width)
Dim blocks_of(const Dim& n, int width);               // a name of its own where n has names: whoever runs the graph gives it ceil(n / width)
V compact(V mask, V starts, V count, Type);
V dot(V a, V b);
V transpose(V);                                       // last two axes swapped
std::vector<int> inverse(const std::vector<int>& permutation);
std::vector<int> axes_from_to(int from, int to);      // {from, .., to-1}

inline V operator-(V a) { return neg(a); }
inline V operator+(V a, V b) { return add(a, b); }
inline V operator-(V a, V b) { return sub(a, b); }
inline V operator*(V a, V b) { return mul(a, b); }
inline V operator/(V a, V b) { return div(a, b); }
inline V operator+(V a, double b) { return add(a, like(a, b)); }
inline V operator-(V a, double b) { return sub(a, like(a, b)); }
inline V operator*(V a, double b) { return mul(a, like(a, b)); }
inline V operator/(V a, double b) { return div(a, like(a, b)); }
inline V operator+(double a, V b) { return add(like(b, a), b); }
inline V operator-(double a, V b) { return sub(like(b, a), b); }
inline V operator/(double a, V b) { return div(like(b, a), b); }

}  // namespace heddle
