// How a scene is written. Law: the directory appears whole, by one rename, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace heddle::models {

// `write` fills a temporary directory, which becomes `directory` with `made_from` in its scene.json. Returns false and
// does nothing when the directory already holds exactly that; throws Error when it holds something else, or what `write`
// throws.
bool write_scene_directory(const std::string& directory, const nlohmann::json& made_from,
                           const std::function<void(const std::filesystem::path& part)>& write);

// i as at least `digits` decimal digits.
std::string padded(int64_t i, size_t digits);

}  // namespace heddle::models
