// The temporary directory lies beside its target, since only then a rename is one step.
#include "models/data/scene_directory.h"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/error.h"
#include "models/files.h"

namespace heddle::models {

namespace fs = std::filesystem;
using nlohmann::json;

bool write_scene_directory(const std::string& directory, const json& made_from,
                           const std::function<void(const fs::path& part)>& write) {
    constexpr const char* kMark = "scene.json";
    fs::path target = fs::path(directory).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();
    if (fs::exists(target)) {
        std::ifstream file(target / kMark);
        if (file && json::parse(file, nullptr, /*allow_exceptions=*/false) == made_from) return false;
        throw Error("directory holds something else", directory, "remove it or choose another --out");
    }
    if (target.has_parent_path()) make_directories(target.parent_path().string());
    const fs::path part = target.string() + ".part-" + std::to_string(::getpid());
    std::error_code failed, ignored;
    try {
        write(part);
        replace_file((part / kMark).string(), made_from.dump(2) + "\n");
        fs::rename(part, target, failed);
        if (failed) throw Error("cannot write directory", directory, failed.message());
    } catch (...) {
        fs::remove_all(part, ignored);
        throw;
    }
    return true;
}

std::string padded(int64_t i, size_t digits) {
    std::string number = std::to_string(i);
    return number.insert(0, number.size() < digits ? digits - number.size() : 0, '0');
}

}  // namespace heddle::models
