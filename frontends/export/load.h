// heddle::load: a program that Python exported, run and trained from C++ with no Python, fused.
// Law: outputs, gradients and what is written into buffers and inputs are those of the exported program; every error is one line.
//
// Python: torch.export.save(torch.export.export(module, inputs, dynamic_shapes=...), "loss.pt2"). Export the training form, as here:
// ExportedProgram.run_decompositions() drops torch.no_grad. Assertions inside the program hold no fused call up.
#pragma once
#include "frontends/export/archive.h"
#include "frontends/torch/fuse.h"

namespace heddle {

struct LoadOptions {
    std::string model = {};                      // which program, if the file holds several
    std::optional<at::Device> device = {};       // where weights lie and constants are made, instead of where it was exported
    FuseOptions fuse = {.name = ""};             // `dynamic` is filled in: sizes exported as dynamic have names; `name`: else the file's
};

class Exported {
public:
    // In the order of the exported signature: positional arguments, then keyword arguments, flattened. Tensors are inputs of a call; an
    // integer that was exported as dynamic is an input too, an int64 tensor of no dimensions; other arguments stay what they were at export.
    struct Argument {
        std::string name, type;                  // "x", "f32[s0, 4]"
        bool input = true;                       // of a call
        c10::IValue fixed = {};                  // what it was at export, if it's no input
    };
    // Tensors are results of a call; so are numbers that depend on sizes, as tensors of no dimensions. Others stay what they were.
    struct Output {
        bool result = true;
        c10::IValue fixed = {};
    };
    Tensors operator()(const Tensors& inputs) const;
    Tensors eagerly(const Tensors& inputs) const;  // the same, op by op

    // Written in place, by an optimiser or by hand, never replaced. One that has several names is listed once, under the first.
    const NamedTensors& named_parameters() const;
    const NamedTensors& named_buffers() const;   // with those that a state_dict leaves out
    Tensors parameters() const;
    const std::vector<Argument>& arguments() const;
    const std::vector<Output>& outputs() const;
    // Inputs with which it was exported; empty if the file has none, or some that only Python can read.
    Tensors example() const;
    const std::string& in_spec() const;          // how arguments and results nest: torch.utils._pytree.treespec_loads reads it
    const std::string& out_spec() const;

    const Fused& fused() const;                  // throws Error before the first call
    std::string explain() const;

    struct State;
    explicit Exported(std::shared_ptr<State>);

private:
    std::shared_ptr<State> state_;
};

// Throws Error: no such file, not a .pt2, of another schema, an op that this PyTorch hasn't, or a part that isn't supported.
Exported load(const std::string& path, LoadOptions = {});

}  // namespace heddle
