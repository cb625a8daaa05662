// A .pt2 file: its programs, weights, constants and example inputs.
// Law: whatever the bytes are, what comes out is right in itself or an Error of one line that names the file.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "frontends/export/program.h"

namespace caffe2::serialize {
class PyTorchStreamReader;
}

namespace heddle {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

class ExportArchive {
public:
    // `model`: which of the programs in the file; may be empty if there is one.
    ExportArchive(const std::string& path, const std::string& model);
    ~ExportArchive();
    ExportArchive(ExportArchive&&) noexcept;
    ExportProgram program();
    // Those that share memory in the file share it here; what is all the same in memory is the same tensor. None requires grad.
    NamedTensors weights(std::optional<at::Device> elsewhere);
    NamedTensors constants(std::optional<at::Device> elsewhere);
    c10::IValue example();               // (arguments, keyword arguments); None if there is none

private:
    template <class F>
    auto guarded(const std::string& what, F f);
    std::string text(const std::string& record);
    c10::IValue unpickled(const std::string& record);
    NamedTensors tensors(const std::string& folder, const std::string& config, std::optional<at::Device>);
    std::string path_, model_;
    std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader_;
};

// The first line of what went wrong, without PyTorch's stack trace.
std::string one_line(const std::exception&);

}  // namespace heddle
