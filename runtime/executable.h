// A compiled plan: inputs in, outputs out.
// Law: a run reads inputs, writes fresh outputs, and touches no other memory that the host didn't give it for the run. Runs may
// overlap in time, from any threads.
#pragma once
#include <memory>
#include <span>

#include "runtime/launch.h"
#include "runtime/published.h"

namespace heddle {

struct Stats {                        // of one run
    int launches = 0, calls = 0, reads = 0;  // reads: times that the host waits for numbers
    std::int64_t bytes = 0;           // that launches must move: every buffer read or written once
    std::int64_t arena = 0;           // bytes of intermediate memory
};

class Executable {
public:
    // Compiles, for this machine's CPU or for a CUDA device (which it takes a driver to run on, not to compile for). `names` take
    // the first slots of SizeValues, so that a plan can go on with the sizes of another. Throws Error.
    explicit Executable(Plan, const Target& = {}, const std::vector<std::string>& names = {});
    ~Executable();
    // Outputs for inputs in argument order; `sizes` may know names beforehand and gets those that inputs and calls bind. Throws Error
    // "input name: size ..., expected ..." where sizes disagree with the capture.
    // `checked` gets the array of Plan::check as soon as what writes it is under way (on a device it may not be there yet).
    using Checked = std::function<void(const Array&)>;
    void run(Host&, std::span<const Array> inputs, std::span<Array> outputs, SizeValues& sizes, const Checked& checked = {}) const;
    std::vector<Array> run(Host&, const std::vector<Array>& inputs, Sizes& sizes) const;
    const Plan& plan() const { return plan_; }
    const SizeNames& names() const { return frame_.names; }
    Stats stats(const SizeValues& sizes) const;  // of a run that ended with these sizes
    std::int64_t output_bytes(std::size_t k, const SizeValues& sizes) const { return frame_.bytes(frame_.of(plan_.program.graph.outputs[k]), sizes.data()); }
    Extents input_sizes(std::size_t k, const SizeValues& sizes) const { return extents(inputs_[k].shape.shape(), sizes); }
    std::int64_t most(std::size_t bound, const SizeValues& sizes) const { return bounded_[bound].most(sizes.data()); }
    // Whose memory output k is: the first output's that is the same value, or input's, -1 if it is none.
    std::size_t first_same(std::size_t k) const { return first_[k]; }
    int same_input(std::size_t k) const;
    double compile_seconds() const { return compile_seconds_; }
    // Text of each launch: (name.cu or name.ll, what is compiled).
    std::vector<std::pair<std::string, std::string>> texts() const;

private:
    struct Input {
        int buffer;
        DType dtype;
        ShapeBinding shape;
    };
    struct Fresh {                    // a value that a launch or a matrix product writes
        int buffer, output;           // the output it is, or -1: lies in the arena
        ShapeExpr shape;              // of outputs
        int first, last;              // steps, inclusive
    };
    struct Layout {                   // of an arena, for sizes
        SizeValues sizes;
        std::vector<std::int64_t> offsets;
        std::int64_t total = 0;
    };
    struct Stretch {                  // from a step at which sizes become known
        std::vector<Fresh> outputs, arena;
        mutable Published<Layout> last;
        Stretch() = default;
        Stretch(Stretch&& o) noexcept : outputs(std::move(o.outputs)), arena(std::move(o.arena)) {}
    };
    struct Operand {
        int buffer;
        bool transposed;
        ShapeExpr shape;
    };
    struct Result {
        std::size_t index;            // among what the call returns
        int buffer;
        ShapeBinding shape;
    };
    struct Read {                     // a number that the host takes from memory
        int buffer;
        int slot = -1;                // the size it is, or a guard's:
        double expected = 0;
    };
    struct Derived {                  // the number of blocks of an axis
        int slot;
        SizeExpr of;
        std::int64_t width;
    };
    struct Bounded {                  // a size that only memory knows
        int size, capacity;           // slots
        SizeExpr most;
    };
    struct Work {                     // one step
        std::vector<Read> reads;
        int stretch = -1;             // that starts here
        int launch = -1;              // or a call:
        const Node* call = nullptr;
        int product = -1;             // of a dot: its buffer
        ShapeExpr shape;              // and sizes
        bool named = false;           // it asks for sizes by name
        bool checks = false;          // it writes Plan::check
        std::vector<Operand> operands;
        std::vector<Result> results;
        std::vector<std::size_t> dropped;  // results of calls whose last reader this is
    };
    struct Source {                   // of a value's memory
        enum class From { input, output, arena, call } from = From::call;
        std::size_t index = 0;        // of the input, the output, the stretch or among the results of all calls
    };
    struct Running;

    static Extents extents(const ShapeExpr&, const SizeValues&);
    void number(const std::vector<std::string>& names);
    void arrange();
    std::vector<int> needed(const Work&) const;  // slots without which it can't run
    Layout laid_out(const Stretch&, const SizeValues&) const;
    std::shared_ptr<const Layout> layout(const Stretch&, const SizeValues&) const;  // the last one, if it is for these sizes
    void bind(std::span<const Array> inputs, SizeValues& sizes) const;
    void begin(int stretch, Running&) const;
    void call(const Work&, Running&) const;
    std::vector<Array> operands(const Work&, const Running&) const;
    void read(const Work&, Running&) const;
    void derive(SizeValues&) const;  // sizes that others give
    Array array(int buffer, const Running&) const;

    Plan plan_;
    Frame frame_;
    std::vector<Input> inputs_;
    bool rest_ = false;               // an input's size is an expression
    std::vector<int> given_;          // slots that nothing binds before they are needed
    std::vector<Bounded> bounded_;
    std::vector<Derived> derived_;    // in an order in which each can be known
    std::vector<Stretch> stretches_;
    std::vector<Work> work_;
    std::vector<Source> sources_;     // per buffer
    std::size_t results_ = 0;         // of all calls
    std::vector<int> outputs_;        // per output: its buffer
    std::vector<std::size_t> first_;  // per output: the first one of its buffer
    std::unique_ptr<Launcher> launcher_;
    double compile_seconds_ = 0;
};

}  // namespace heddle
