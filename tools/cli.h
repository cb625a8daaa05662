// The parts of the `heddle` command. Each file tools/cli_*.cpp adds one subcommand; tools/heddle.cpp lists them.
// Law: a subcommand throws to fail, with one line that says what, where and what to do.
#pragma once

#include <CLI/CLI.hpp>

#include "models/task.h"

namespace heddle {

void add_train(CLI::App& app);
void add_data(CLI::App& app);
void add_bench(CLI::App& app);
void add_dump(CLI::App& app);
void add_doctor(CLI::App& app);
void add_replay(CLI::App& app);
void add_cache(CLI::App& app);

// What `train --fused` makes of the loss function and the optimiser. The definition in tools/cli_train.cpp is weak and refuses; another
// object file of the program may define it for good.
models::MakeStep fused_step(const models::Task& task);

}  // namespace heddle
