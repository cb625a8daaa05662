// Arrays in NumPy's files: .npy holds one, .npz several by name.
// Law: contiguous tensors on the CPU; the same arrays give the same bytes; a file that this writes is whole or absent.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace heddle::models {

// bool, uint8, int32, int64, float32 or float64, of any shape. Throws Error when the file is missing, damaged or holds
// another type.
at::Tensor read_npy(const std::string& path);
void write_npy(const std::string& path, const at::Tensor& array);

// As np.savez and np.savez_compressed write them; written uncompressed.
std::map<std::string, at::Tensor> read_npz(const std::string& path);
void write_npz(const std::string& path, const std::map<std::string, at::Tensor>& arrays);

}  // namespace heddle::models
