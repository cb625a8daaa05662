// A dispatched op and its boxed arguments as a call node. Law: attributes are the schema's arguments, by name, in order.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include <functional>
#include <optional>

#include "ir/graph.h"

namespace heddle {

Type type_of(const at::Tensor&);                 // constant sizes
std::string dotted(const c10::OperatorHandle&);  // "aten.add.Tensor", "aten.relu.default"
// Attr of one boxed value; tensors become operands of `n`. Throws Error where there is no word for it.
Attr attr_of(const c10::Argument&, const c10::IValue&, Node& n, const std::function<Id(const at::Tensor&)>&, const std::string& place);
Node describe(const c10::OperatorHandle&, const std::vector<c10::IValue>& args, const std::function<Id(const at::Tensor&)>&, const std::string& place);
// `v` with the operands it names in `from` moved to the end of `to`.
Attr move_operands(const Attr& v, const Node& from, Node& to);
// A device argument that names the device of the operand says nothing.
void drop_own_device(Node&, const std::vector<c10::IValue>& args, const at::Tensor& result);

struct Functional {
    std::string name;
    std::optional<c10::OperatorHandle> op;
    std::vector<std::string> arguments;
    std::size_t results = 0;  // those of the op that aren't what it writes, then what it writes
};
std::optional<Functional> functional_form(const c10::OperatorHandle&);  // of an op that writes
std::string view_of_inplace(const c10::OperatorHandle&);  // x.squeeze_() -> "aten.squeeze.default"; "" where there is none

}  // namespace heddle
