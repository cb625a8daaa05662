// A training run on disk: named tensors and a few words about the run.
// Law: replaced whole, so a crash leaves the last one.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace heddle::models {

struct Checkpoint {
    std::map<std::string, std::string> run;     // model, scale, seed, …: what must agree to go on
    std::map<std::string, at::Tensor> tensors;  // on the CPU
};

void save_checkpoint(const std::string& path, const Checkpoint& checkpoint);

// Throws Error when the file is missing or isn't a checkpoint.
Checkpoint load_checkpoint(const std::string& path);

// Throws Error when the checkpoint was made by a run that differs in one of `run`'s words.
void check_same_run(const std::string& path, const Checkpoint& checkpoint,
                    const std::map<std::string, std::string>& run);

}  // namespace heddle::models
