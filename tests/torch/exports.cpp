// Runs the script that exports, in Python, the only place where a test needs it.
#include "tests/torch/exports.h"

#include <fmt/format.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/version.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

namespace heddle::testing {

namespace {
std::string bytes(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
}  // namespace

std::filesystem::path exports() {
    static const std::filesystem::path made = [] {
        const std::filesystem::path root = HEDDLE_ROOT, folder = std::filesystem::path(HEDDLE_BUILD) / "exports", stamp = folder / "made_by";
        const std::string script = (root / "tests/python/make_exports.py").string(), version = TORCH_VERSION + ("\n" + bytes(script));
        if (bytes(stamp) != version) {
            std::filesystem::remove_all(folder);
            const std::string log = folder.string() + ".log";
            const std::string command = fmt::format("'{}/.venv/bin/python' '{}' '{}' > '{}' 2>&1", root.string(), script, folder.string(), log);
            if (std::system(command.c_str()) != 0) throw std::runtime_error("make_exports.py failed: see " + log);
            std::ofstream(stamp, std::ios::binary) << version;
        }
        return folder;
    }();
    return made;
}
at::IValue unpickled(const std::filesystem::path& file) {
    const std::string data = bytes(file);
    return torch::jit::pickle_load({data.begin(), data.end()});
}

}  // namespace heddle::testing
