// What the tests of data sets share: an error's text and a file's bytes.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "models/error.h"

namespace heddle::models {

// The text of the Error that `f` throws, with `directory` written as DIR.
inline std::string error_text(const std::filesystem::path& directory, const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        std::string text = e.what();
        for (size_t i; (i = text.find(directory.string())) != std::string::npos;)
            text.replace(i, directory.string().size(), "DIR");
        return text;
    }
    return "no error";
}

inline std::string bytes_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace heddle::models
