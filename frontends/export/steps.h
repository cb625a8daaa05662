// What one node of an exported graph does when it runs.
// Law: a step keeps nothing from one run to the next.
#pragma once
#include <functional>

#include "frontends/export/program.h"

namespace heddle {

using ExportValues = std::vector<c10::IValue>;                       // by number
using ExportStep = std::function<std::vector<c10::IValue>(const ExportValues&)>;  // its results, lists of tensors flattened

// All throw Error naming the op where there is no such. `elsewhere` replaces every device that the node names.
ExportStep dispatched(const ExportNode&, std::optional<at::Device> elsewhere);      // "torch.ops.aten.mul.Tensor"
ExportStep arithmetic(const ExportNode&);                                           // "_operator.add", "torch.sym_max", on sizes
ExportStep higher_order(const ExportNode&, std::optional<at::Device> elsewhere);    // "torch.ops.higher_order.cond"

// The value of an argument that's no list and no graph.
const c10::IValue& value_of(const ExportArg&, const ExportValues&);
// A number as a tensor of no dimensions: int64, float64, bool.
at::Tensor as_tensor(const c10::IValue& number);

}  // namespace heddle
