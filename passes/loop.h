// The last form before text: one nest as loops over scalar statements with explicit addresses.
// Law: a statement is defined before it is used, in its own scope or an enclosing one; both back ends print statements one to one.
//
//   for every point of outer:                         (parallel)
//     prologue
//     for every phase p, in order:
//       folds and carries of p start at their init
//       for i in 0..extent (or extent-1..0 when reverse), or where p's guard doesn't hold perhaps for none:   body
//       after                                        (sees the folds of p)
//
// Scopes from outside in: uniform (same for all points) < point (prologue, after) < body. A body sees uniform and point values and
// its own; never another body's.
#pragma once
#include "ir/program.h"

namespace heddle::loop {

using Val = int;  // index into Nest::values; -1: none

enum class What : std::uint8_t {
    constant,    // imm, of dtype
    size,        // i64: sizes[index]
    outer,       // i64: index of the point along outer axis `index`
    inner,       // i64: index i of the running phase (body only)
    map,         // op over in[], a MAP row of the table (cast included: result has dtype). Operands as the row says
    load,        // buffers[index][ in[0] ]; with a predicate in[1] (b1, may be -1): 0 (false) where it does not hold, and no access
    fold,        // the finished value of folds[index] (in `after` or later)
    carry,       // the value of carries[index] on entry of this iteration (body only)
    store,       // buffers[index][ in[0] ] = in[1]; with a predicate in[2] (b1), only where it holds
    accumulate,  // buffers[index][ in[0] ] += in[1], likewise; other points may hit the same address. Buffer was zeroed before
    fold_step,   // folds[index] = op(folds[index], in[0])
    carry_step,  // carries[index] = in[0], at the end of the iteration
};

struct Value {
    What what;
    Op op = Op::constant;         // of map and fold_step
    DType dtype = DType::f32;     // of the result, as computed: f16 and bf16 are computed in f32; loads and stores convert
    std::vector<Val> in;
    int index = -1;               // of buffer, size, axis, fold or carry
    double imm = 0;
    // Lane facts, filled by lower(): does the value change with the last outer axis / with the inner index, and if it is an
    // integer affine in it with a known step, that step. Loads: step of the address.
    bool varies_outer = false;    // with any outer axis
    bool varies_last = false;     // with the last outer axis
    bool varies_inner = false;
    std::optional<std::int64_t> step_last, step_inner;
    std::string name;             // short hint for readers of the generated text, may be empty
    std::string loc;              // the user's source line, may be empty
};

struct Fold {
    Op op;                        // a FOLD row: sum, prod, amax, amin
    DType dtype;
    double init;                  // already representable in dtype (an integer's amax starts at its lowest)
};
struct Carry {
    DType dtype;
    double init;
};
struct Phase {
    Dim extent;
    Val size = -1;                // the same as a uniform value
    bool reverse = false;
    bool ordered = false;         // has carries: iterations run in order, and lanes walk this loop only where these are recurrences
    std::vector<int> folds, carries;
    std::vector<Val> body, after;
    Val guard = -1;               // a condition of the point: where it doesn't hold, nothing needs this loop
};
struct Buffer {
    Id id;                        // the graph value it holds, dense and row-major
    DType dtype;                  // as stored; b1 is one byte, 0 or 1
    bool written = false;         // by a store; later phases of the same point may load it again
    bool accumulated = false;
    std::string name;             // identifier, unique within the nest: "v12" or "density_plane_0"
    Dim elements = 0;
    Dim below = 0;                // no element is negative or as large as this; 0: not known
};
struct Counted {                  // a size whose value is in memory; the host passes what it doesn't exceed, by which grids are sized
    std::string size;
    int buffer;
};
struct Nest {
    Shape outer;
    int stage = 0;                // of its launch
    std::vector<Val> outer_sizes; // uniform values, one per outer axis
    Schedule schedule;
    std::vector<Buffer> buffers;
    std::vector<std::string> sizes;  // names of size arguments, i64 each
    std::vector<Counted> counted;
    std::vector<Value> values;
    std::vector<Val> uniform, prologue;
    std::vector<Fold> folds;
    std::vector<Carry> carries;
    std::vector<Phase> phases;
};

// Where the axes of a root's domain run: k >= 0 is outer axis k, kInner the phase's loop, kUnroll a small constant axis written out.
// The domain of a fold is its operand, of a scatter its values, of anything else the root itself.
constexpr int kInner = -1, kUnroll = -2;
struct Binding {
    Shape domain;
    std::vector<int> axes;           // per domain axis
    std::optional<Dim> extent;       // of the inner loop
    bool accumulates = false;        // a sum over outer axes, or a scatter
};
Shape domain(const Graph&, Id root, int piece = -1);
std::optional<Binding> bind_root(const Graph&, Id root, const Shape& outer, int piece = -1);  // nothing: the root can't run at these points
// Per axis of the domain: short, known now, and what the root computes differs from part to part of it (a concat, a slice's gradient).
std::vector<char> cut_axes(const Graph&, Id root, int piece = -1);
constexpr std::int64_t kSmallFold = 12;  // elements, known now, of a fold that is written out wherever it is used, like a map: taps of a filter
bool is_small_fold(const Graph&, Id);

// Lowers nest `n` of the program. Throws Unfusable (below) if its roots cannot run in one nest. As many of its last axes as can
// be become one: where every address is that of whole row-major elements, so that lanes run over memory.
// Throws TooLarge (below) rather than write more than `most` statements.
constexpr std::size_t kAny = static_cast<std::size_t>(-1);
Nest lower(const Program&, const heddle::Nest&, std::size_t most = kAny);
std::optional<Nest> lower_flat(const Program&, const heddle::Nest&, std::size_t most = kAny);  // nothing: no two axes can become one
Nest with_guards(Nest);            // loops that are needed only where a condition holds say so
std::string print(const Nest&);   // for dumps and golden files
std::string exact(const std::vector<Nest>&);  // all that decides their code, for caches
std::string code(const Nest&);    // the same but for names, and for which values its buffers are: nests of equal code can share a function

// Loads or stores of a list that together cover memory without a gap: x[3 * i], x[3 * i + 1], x[3 * i + 2], for lanes along the inner
// loop or the last outer axis. Members are in the order of their addresses, as many as the step. None is under a predicate.
struct Stretch {
    std::vector<Val> members;
};
std::vector<Stretch> stretches(const Nest&, const std::vector<Val>& list, bool inner);

std::int64_t divisor(const Nest&, const Value&);  // the constant that an index is divided by, for its quotient or remainder; else 0

// What a thread may do that takes n neighbouring elements of an inner loop, from each i on that is a multiple of n.
int taken(const Nest&, const Phase&);                   // how many: the schedule's, where they divide the loop; else 1
std::optional<std::int64_t> step_of(const Nest&, Val);  // by which an integer grows with the inner index; nothing: not known, or no integer of indices
bool beside(const Nest&, Val access, int n);            // these elements of an access lie side by side, the first at a multiple of n
bool merges(const Nest&, const Value& accumulate, int n);  // a group that walks points may add up in registers what goes to one address
int run(const Nest&);                                   // points that it walks at most: the schedule's, where it has one loop of nothing but accumulations, or, by threads of their own, adds near; else 1
// What is added where, as the schedule says (Adds). Both are of floats or integers that nothing else writes.
bool ordered(const Nest&, const Buffer&);               // floats, in whole numbers
bool near(const Nest&, const Buffer&);                  // first in shared memory, of this size at most:
constexpr std::int64_t kNear = 32 << 10;                // bytes of a nest
std::int64_t near_bytes(const Nest&);                   // what a block of it takes there, each buffer from a multiple of 8 on
Dim additions(const Nest&, const Buffer&);              // of all points to all elements
Dim additions_to_one(const Nest&, const Buffer&);       // at most
// What a thread's values take on a GPU while most of them are alive, in registers of 32 bits: about what ptxas finds.
int registers(const Nest&);

// How a carry goes on from one iteration to the next, if that is a * carry + b with a and b of what the body has before it reads the
// carry: lanes can then walk the loop. a is a product (of none: 1), b a sum of products (of none: 0).
struct Recurrence {
    std::vector<Val> a;
    std::vector<std::vector<Val>> b;
};
std::optional<Recurrence> recurrence(const Nest&, const Phase&, int carry);
// Does this store put what a predicate lets through side by side: at a start plus the number of iterations before that it let through?
bool compresses(const Nest&, const Phase&, Val store);
bool walkable(const Nest&, const Phase&);  // by lanes: it has no carries, or these are recurrences

// Why two values can't share a nest: the reason string of the fusion matrix's "no".
struct Unfusable : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// More statements than asked for. In memory, `store` would divide them best; -1: nothing can be stored.
struct TooLarge : Unfusable {
    explicit TooLarge(Id store) : Unfusable("the nest would grow too large"), store(store) {}
    Id store;
};

}  // namespace heddle::loop
