// The error that a user of the models can cause. Its text is one line: "what: where: what to do".
#pragma once

#include <stdexcept>
#include <string>

namespace heddle::models {

struct Error : std::runtime_error {
    Error(const std::string& what, const std::string& where, const std::string& remedy)
        : std::runtime_error(what + ": " + where + ": " + remedy) {}
};

}  // namespace heddle::models
