// The hand-written device helpers (codegen/**/*.cuh) as text inside the library, so that a build runs without its sources.
// The build generates the definition: see tools/embed.py.
#pragma once

#include <string_view>
#include <vector>

namespace heddle {

// The text of a helper by its path below codegen/, e.g. embedded("cuda/fold.cuh"). Throws std::out_of_range, naming it, if there is none.
std::string_view embedded(std::string_view name);

// The paths of all helpers, sorted.
std::vector<std::string_view> embedded_names();

}  // namespace heddle
