// One captured form of a callable: its graphs, plans and compiled code. Guards decide at run time which form holds.
// Law: the backward is compiled when it is first needed, never before.
#pragma once
#include <c10/core/UndefinedTensorImpl.h>

#include <atomic>
#include <mutex>

#include "frontends/torch/fuse.h"
#include "frontends/torch/guard.h"
#include "frontends/torch/host.h"
#include "frontends/torch/ops_host.h"
#include "passes/pipeline.h"

namespace heddle {

// How a capture that goes with another one differs from a plain one: CaptureOptions says what each means.
struct Elsewhere {
    std::vector<CaptureOptions::Size> at = {};
    const Captured* as = nullptr;
    bool once = false;
};

struct Variant {
    Captured captured;
    at::Device device = at::kCPU;      // where the example and the callable's own tensors are
    std::shared_ptr<Host> host;        // of that device
    Pair pair;
    std::vector<std::vector<int>> orders;  // per input: its axes as they lie in memory, outermost first; empty: row-major
    std::vector<char> wants;           // per input, implicit ones last: had requires_grad at capture
    std::size_t returned = 0;          // the user's outputs
    std::size_t outputs = 0;           // these, then what is written into inputs
    std::size_t forward_outputs = 0;   // with guards, before the saved values
    // Per user output: the inputs that a differentiable path leads to. Asked before any rewriting, as eager's None is.
    std::vector<std::vector<std::size_t>> reaches;
    struct Result {                    // how a user output comes from what the plan computes, or from another tensor
        Captured::Origin::Of of = Captured::Origin::Of::itself;
        std::size_t index = 0;
        std::vector<PreparedCall> views;   // of input or result `index`
        std::vector<std::int64_t> back;    // not empty: the plan's value lies in memory order; this permutation of it is the result
        bool own() const { return of == Captured::Origin::Of::itself; }
    };
    std::vector<Result> results;
    Guard guard;
    std::vector<std::pair<std::string, std::size_t>> integers;  // sizes that are the value of an input: with quotients, the forward's first slots
    bool guarded = false, random = false;
    std::vector<std::pair<std::string, Graph>> stages;  // after each pass, for dumps
    Graph body;                        // what passes start from: lowered, held tensors as they lie, no gradient through results that are other tensors
    Example example;                   // its names' sizes, and what its masks selected

    void lower(const Tensors& everything);  // from the capture, again if tensors lie in another order now
    void lay_out_results(Graph& forward) const;  // in memory as eager's do
    // As `pair`, for one machine: masks may be another matter there. Its own where it is for that one, or has no mask.
    Pair pair_for(Machine, const Watch& = {}) const;
    const Graph& lowered() const { return stages.at(1).second; }
    const Executable& forward();
    const Executable& backward();      // its first sizes are those of the forward
    double compile_seconds() const;
    const Type& input_type(std::size_t k) const { return pair.split.forward.type(pair.split.forward.inputs[k]); }
    bool holds_tensors() const { return !held_.empty(); }
    std::size_t holds() const { return held_.size(); }
    const std::vector<Varying>& dynamic() const { return dynamic_; }
    // The arguments, then what the callable holds; empty where one of these is gone since the capture.
    Tensors with_held(at::TensorList arguments) const;
    std::string gone() const;          // what to say then
    // Results of a run: those that the plan computed, each with memory of its own; then, once inputs are written, those that are other tensors.
    Tensors own_results(const Executable&, const Array* out) const;
    void other_results(Tensors& results, at::TensorList inputs, const Executable&, const SizeValues&) const;
    bool deterministic() const { return deterministic_; }
    bool entangled(at::TensorList inputs) const;  // does a tensor that the callable writes share its memory with another? Then order matters
    // requires_grad may be dropped since the capture, never added.
    bool knows_gradients(at::TensorList all) const;

private:
    friend std::shared_ptr<Variant> capture_variant(const Callable&, const Tensors&, const std::vector<Varying>&, const FuseOptions&, bool, const Elsewhere*);
    std::vector<c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>> held_;  // weak, to see when one is replaced
    std::size_t arguments_ = 0;
    std::vector<Varying> dynamic_;
    bool deterministic_ = false, exact_ = false, as_it_lies_ = false;
    double budget_ = 1;
    struct Compiled {
        std::unique_ptr<const Executable> owned;
        std::exception_ptr failed;
        std::atomic<const Executable*> ready = nullptr;  // once it is
    };
    const Executable& compiled(Compiled&, const Graph&, const std::vector<std::string>& names);
    Compiled forward_, backward_;
    mutable std::mutex mutex_;
};

// What the last calls of a fused callable were. A call only notes it; report() works it out.
class LastCalls {
public:
    void eager(std::string reason);
    void forward(const std::shared_ptr<Variant>&, const SizeValues&);
    void backward(const std::shared_ptr<Variant>&, const SizeValues&);
    void fill(Report&) const;
    std::vector<Traffic> traffic() const;

private:
    struct Call {
        std::shared_ptr<Variant> variant;
        SizeValues sizes;
        void set(const std::shared_ptr<Variant>& v, const SizeValues& s) {
            if (variant != v) variant = v;
            sizes = s;
        }
    };
    mutable std::mutex mutex_;
    Call forward_, backward_;
    std::string reason_;
};

std::shared_ptr<Variant> make_variant(const Callable&, const Tensors& example, const std::vector<Varying>& dynamic, const FuseOptions&);
// Before any pass. `as_it_lies`: tensors that the callable holds are read as they lie in memory, if dense, and not from row-major copies.
std::shared_ptr<Variant> capture_variant(const Callable&, const Tensors& example, const std::vector<Varying>& dynamic, const FuseOptions&, bool as_it_lies = false, const Elsewhere* = nullptr);
std::vector<int> memory_order(const at::Tensor&);  // its axes as they lie, outermost first: empty if row-major. Throws Error where it isn't dense
std::string decisions(const Plan&);  // what each value joined or began, and why
std::string explain_variant(Variant&);
std::string first_line(const std::exception&);  // of what it says
std::vector<std::pair<std::string, std::string>> cuda_texts(const Plan&);
std::vector<std::pair<std::string, std::string>> cuda_texts(Variant&);
std::vector<std::string> dump_variants(const std::vector<std::shared_ptr<Variant>>&, const std::string& folder);

}  // namespace heddle
