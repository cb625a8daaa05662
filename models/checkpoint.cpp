// The format is PyTorch's own: `torch.load(path, weights_only=False)` gives (run, tensors), two dictionaries.
#include "models/checkpoint.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "models/error.h"
#include "models/files.h"

namespace heddle::models {

void save_checkpoint(const std::string& path, const Checkpoint& checkpoint) {
    c10::Dict<std::string, std::string> run;
    for (const auto& [key, value] : checkpoint.run) run.insert(key, value);
    c10::Dict<std::string, at::Tensor> tensors;
    for (const auto& [key, value] : checkpoint.tensors) tensors.insert(key, value);
    const auto bytes = torch::jit::pickle_save(c10::ivalue::Tuple::create({c10::IValue(run), c10::IValue(tensors)}));
    replace_file(path, std::string(bytes.begin(), bytes.end()));
}

Checkpoint load_checkpoint(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file || !std::filesystem::is_regular_file(path)) throw Error("checkpoint not found", path, "check --resume");
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    Checkpoint out;
    try {
        const auto parts = torch::jit::pickle_load(bytes).toTupleRef().elements().vec();
        for (const auto& item : parts.at(0).toGenericDict())
            out.run[item.key().toStringRef()] = item.value().toStringRef();
        for (const auto& item : parts.at(1).toGenericDict())
            out.tensors[item.key().toStringRef()] = item.value().toTensor();
    } catch (const std::exception&) {
        throw Error("not a checkpoint, or a damaged one", path, "resume from another file or start anew");
    }
    return out;
}

void check_same_run(const std::string& path, const Checkpoint& checkpoint,
                    const std::map<std::string, std::string>& run) {
    for (const auto& [key, value] : run) {
        const auto found = checkpoint.run.find(key);
        const std::string theirs = found == checkpoint.run.end() ? "nothing" : found->second;
        if (theirs != value)
            throw Error("checkpoint of another run", path, "it has " + key + " " + theirs + ", this run has " + value);
    }
}

}  // namespace heddle::models
