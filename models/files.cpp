// Atomic replacement of files by rename(2), which POSIX makes atomic within one directory.
#include "models/files.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <system_error>

#include "models/error.h"

namespace heddle::models {

void replace_file(const std::string& path, const std::function<void(const std::string&)>& write) {
    const std::string temporary = path + ".part-" + std::to_string(::getpid());
    std::error_code ignored;
    try {
        write(temporary);
    } catch (...) {
        std::filesystem::remove(temporary, ignored);
        throw;
    }
    std::error_code failed;
    std::filesystem::rename(temporary, path, failed);
    if (failed) {
        std::filesystem::remove(temporary, ignored);
        throw Error("cannot write file", path, failed.message());
    }
}

void replace_file(const std::string& path, const std::string& text) {
    replace_file(path, [&](const std::string& temporary) {
        std::ofstream out(temporary, std::ios::binary);
        out << text;
        out.close();
        if (!out) throw Error("cannot write file", path, "check that the directory exists and has space");
    });
}

void make_directories(const std::string& path) {
    std::error_code failed;
    std::filesystem::create_directories(path, failed);
    if (failed) throw Error("cannot make directory", path, failed.message());
}

}  // namespace heddle::models
