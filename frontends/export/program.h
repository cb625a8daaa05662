// What a .pt2 holds, as plain data: calls over numbered values, and what the inputs and outputs mean.
// Law: every number of a value is within its graph, and is made before it is read.
#pragma once
#include <ATen/core/ivalue.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/type.h"

namespace heddle {

struct ExportGraph;

// An argument of a call, or an output: a value, a list, a graph, or a constant.
struct ExportArg {
    enum class Kind { constant, value, list, graph } kind = Kind::constant;
    std::string name = {};               // the schema's; empty where a higher-order op counts positions
    c10::IValue constant = {};           // dtypes, layouts, memory formats: PyTorch's numbers
    int value = -1;
    enum class Number { none, whole, real } number = Number::none;  // an int, float or bool that's a constant or a size; a computed float
    std::vector<ExportArg> list = {};
    std::shared_ptr<const ExportGraph> graph = nullptr;
};

struct ExportNode {
    std::string target;                  // "torch.ops.aten.mul.Tensor", "_operator.add", "torch.ops.higher_order.cond"
    std::string name;                    // what Python calls its result
    std::string module;                  // whose forward it is in, "encoder.0"
    std::vector<ExportArg> args;
    std::vector<int> results;            // lists of tensors flattened; -1: not kept
};

struct ExportGraph {
    std::vector<int> inputs;             // -1: a constant that was passed at export, and is written where it's used
    std::vector<ExportArg> outputs;
    std::vector<ExportNode> nodes;
    int values = 0;
};

// A size: "2*s0+1". `dim` is none where heddle has no word for it, and `text` is then the file's.
struct ExportSize {
    std::string text;
    std::optional<Dim> dim;
};
ExportSize parse_size(const std::string&);
struct ExportTensor {
    at::ScalarType dtype = at::kFloat;
    std::vector<ExportSize> sizes, strides;
    ExportSize offset;
    bool requires_grad = false;
    at::Device device = at::kCPU;
    at::Layout layout = at::kStrided;
};

struct ExportInput {
    enum class Of { parameter, buffer, constant_tensor, tensor, integer, fixed } of = Of::tensor;
    std::string name;                    // the argument's, or the parameter's, buffer's or constant's in the module
    ExportTensor tensor;                 // of tensors that are given, and of parameters
    ExportSize integer;                  // of integers
    c10::IValue fixed;                   // what was passed at export
};
struct ExportOutput {
    enum class Of { user, buffer, parameter, input } of = Of::user;
    std::string name;                    // of the buffer, parameter or input that takes its value
};

struct ExportProgram {
    std::shared_ptr<const ExportGraph> graph;
    std::vector<ExportInput> inputs;     // as graph.inputs
    std::vector<ExportOutput> outputs;   // as graph.outputs
    std::map<std::string, std::pair<std::optional<std::int64_t>, std::optional<std::int64_t>>> ranges;  // of sizes, by text
    std::string torch_version;
    std::string in_spec, out_spec;       // how arguments and results nest, in the text form of torch.utils._pytree
};

// Where the bytes of a parameter, buffer or constant are.
struct ExportPayload {
    std::string name, path;              // in the module; in the archive, below the folder of its kind
    bool parameter = false, pickled = false;
    std::optional<ExportTensor> tensor;
};

// Both throw std::exception where the text is no such thing, Error where it's beyond this heddle.
ExportProgram parse_export(std::string_view json);
std::vector<ExportPayload> parse_payloads(std::string_view json);

}  // namespace heddle
