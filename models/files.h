// Whole files: a file that exists is complete. Law: written under a temporary name, then renamed.
#pragma once

#include <functional>
#include <string>

namespace heddle::models {

// Calls `write` with a temporary path beside `path`, then renames that to `path`. If `write` throws, nothing is left.
void replace_file(const std::string& path, const std::function<void(const std::string& temporary)>& write);

// The same for text.
void replace_file(const std::string& path, const std::string& text);

// Makes `path` and its parents. Throws Error.
void make_directories(const std::string& path);

}  // namespace heddle::models
