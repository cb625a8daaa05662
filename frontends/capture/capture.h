// Captures what plain libtorch code computes: every op it calls, as a graph of aten.* calls with symbolic sizes.
// Law: the callable sees real tensors and real values; afterwards parameters, inputs and the random generators are as before.
//
// The recorder is a boxed fallback above autograd: ops with a derivative of their own (grid_sampler_2d, cumprod, softplus)
// are kept whole, ops that PyTorch composes of others are recorded as those. Writes and views become values: an in-place op is its
// functional form, and what it wrote is put back through the views that lead to the memory it shares.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace heddle {

using Callable = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// What a read of a value by the host does (item, a branch on a tensor).
enum class HostRead {
    error,  // Error that names the op and what to write instead
    guard,  // a heddle.guard call: the graph holds as long as the value read is the same (bool and integer only)
};

// One dimension whose size varies. All that have one name have one size.
struct Varying {
    int input = -1;          // position among the arguments, or
    at::Tensor tensor = {};  // a tensor that the callable holds (a parameter, a buffer)
    int dim = 0;             // kValue: not a size, but the value of this int64 argument of no dimensions, which the host may read
    std::string name;        // or a polynomial in names that other dimensions give: "2*N"
    static constexpr int kValue = -1;
};

// What the callable decided by sizes. A capture holds for sizes that decide it the same.
struct Choice {
    enum class Of { less, equal, mod, div, value } of;  // lhs < rhs, lhs == rhs, lhs mod rhs and lhs / rhs rounded down; lhs itself
    Dim lhs, rhs;
    std::int64_t outcome = 0;
};
std::int64_t decided(Choice::Of, std::int64_t lhs, std::int64_t rhs);

struct Captured;
struct CaptureOptions {
    std::vector<Varying> dynamic;
    HostRead host_read = HostRead::error;
    std::string name = "f";
    struct Size {                      // of a tensor that the callable holds, which has it while it's captured: a capture for other sizes
        at::Tensor tensor;
        int dim;
        std::int64_t size;
    };
    std::vector<Size> at = {};
    const Captured* as = nullptr;      // guards have the values that they have there
    bool once = false;                 // where no size is named: one run alone. All sizes are numbers then, those that depend on values too, and nothing
                                       // tells what was computed by other means than PyTorch's ops: only good for what another capture is known to be
};

struct Captured {
    Graph graph;                       // inputs: the arguments, then `implicit`; outputs: the callable's, then writes, then guards
    std::vector<at::Tensor> implicit;  // tensors that the callable holds, in order of first use
    std::vector<bool> implicit_requires_grad;
    std::size_t results = 0;           // how many of the outputs are the callable's
    // What a result shares memory with. The graph computes its value all the same.
    struct Origin {
        enum class Of { itself, input, result } of = Of::itself;
        int index = -1;                // position in graph.inputs, or among the results before this one
        std::vector<Id> views;         // calls of the graph that lead from there to the result, outermost first; none: it is the same tensor
    };
    std::vector<Origin> origins;       // per result
    std::vector<std::vector<int>> order;  // per result: its axes as they lie in memory, outermost first, if dense but not row-major
    struct Write {
        int input, output;             // after a run, input (position in graph.inputs) holds this output,
        bool history;                  // and has its history; else it keeps its own
    };
    std::vector<Write> writes;
    std::size_t guards = 0;            // how many outputs at the end are guards
    std::vector<Choice> choices;       // that other sizes might take another way
    struct Quotient {                  // a name of the graph that is `of` / `by`, rounded down: (N + 1) / 2 of every other row
        std::string name;
        Dim of;                        // in names of sizes
        std::int64_t by;
    };
    std::vector<Quotient> quotients;
    Sizes rows;                        // that each nonzero found in the example, by name: u0, u1, ..
};

// Runs `f` on the example once, and at other sizes to tell sizes from constants: an integer that differs between runs is fitted as a
// polynomial in the named sizes, in u0, u1, .. (the number of rows of each nonzero) and in q0, q1, .. (quotients). Throws Error, in one line,
// where f can't be captured: a read by the host, a float literal or an order of ops that depends on sizes or values,
// a tensor filled by other means than PyTorch's ops with varying values, an autograd Function of its own.
Captured capture(const Callable& f, const std::vector<at::Tensor>& example, const CaptureOptions& = {});
// The same tensor with other sizes, (dim, size) each: values are its own, repeated or cut, and strides have its order.
at::Tensor resized(const at::Tensor&, const std::vector<std::pair<int, std::int64_t>>& sizes);

// Names the ops that are recorded while it lives: Node::loc.
class Scope {
public:
    explicit Scope(std::string name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

private:
    std::string outer_;
};

}  // namespace heddle
