// Programs exported by the PyTorch at hand, and what Python computes with them. Law: nothing here is checked in; it's made once per PyTorch.
#pragma once
#include <ATen/ATen.h>

#include <filesystem>

namespace heddle::testing {

// Where make_exports.py has written, with this build's tests; made anew when that script or PyTorch changes.
std::filesystem::path exports();
at::IValue unpickled(const std::filesystem::path&);  // what torch.save wrote

}  // namespace heddle::testing
