// PyTorch as the runtime's host: its allocator, its intra-op threads, its library, its CUDA streams.
// Law: an Array made here owns a storage of PyTorch's; no copy is made on the way in or out unless strides demand it.
#pragma once
#include <ATen/core/Tensor.h>

#include "runtime/host.h"

namespace heddle {

at::ScalarType scalar_type(DType);
DType dtype_of(at::ScalarType);                    // throws Error for element types heddle has no word for
// Dense row-major: copies only if the tensor is not, or is a number (0-dim) on the CPU that is needed on a CUDA device. Any other
// device than `where` throws Error: "input 2: ...".
Array array_of(const at::Tensor&, at::Device where, const char* who, std::size_t index);
at::Tensor tensor_of(const Array&);                // a new tensor on the same storage, unknown to autograd

// Of one device. CUDA: PyTorch's allocator and its current stream, both asked for through the registry of device guards, so that
// nothing here links CUDA.
std::unique_ptr<Host> torch_host(at::Device);
// Where a call with these tensors runs: the CUDA device of any, else the CPU.
at::Device common_device(at::TensorList);

}  // namespace heddle
