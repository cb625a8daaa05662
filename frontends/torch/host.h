// PyTorch as the runtime's host: its allocator, its intra-op threads, its library.
// Law: an Array made here owns an at::Tensor; no copy is made on the way in or out unless strides demand it.
#pragma once
#include <ATen/core/Tensor.h>

#include "runtime/host.h"

namespace heddle {

at::ScalarType scalar_type(DType);
DType dtype_of(at::ScalarType);                    // throws Error for element types heddle has no word for
Array array_of(const at::Tensor&);                 // dense row-major: copies only if the tensor is not
at::Tensor tensor_of(const Array&);                // the owner, or a view of the memory

std::unique_ptr<Host> torch_host();

// A guard's value was another than at capture: the plan doesn't hold for these inputs.
struct GuardFailed {};

}  // namespace heddle
