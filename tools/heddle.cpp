// The `heddle` command: its list of subcommands, and how every error becomes one line and a status of 1.
#include <c10/util/Exception.h>

#include <cstdio>
#include <string>

#include "tools/cli.h"

namespace {

int fail(std::string text) {
    if (const auto end = text.find('\n'); end != std::string::npos) text.resize(end);
    std::fprintf(stderr, "heddle: %s\n", text.c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("heddle: fuses PyTorch programs into few kernels");
    app.require_subcommand(1);
    for (const auto add : {heddle::add_train, heddle::add_data, heddle::add_bench, heddle::add_dump, heddle::add_replay, heddle::add_cache, heddle::add_doctor}) add(app);
    // CLI11 says of an unknown name no more than that one is required.
    CLI::App* command = &app;
    std::string path = "heddle";
    for (int i = 1; i < argc && argv[i][0] != '-' && command->get_require_subcommand_min() > 0; ++i) {
        const auto named = command->get_subcommands([&](CLI::App* sub) { return sub->check_name(argv[i]); });
        if (named.empty()) return fail(std::string("unknown command: ") + argv[i] + ": see " + path + " --help");
        command = named.front();
        path += std::string(" ") + argv[i];
    }
    try {
        app.parse(argc, argv);
        return 0;
    } catch (const CLI::ParseError& e) {
        return e.get_exit_code() == 0 ? app.exit(e) : fail(e.what() + std::string(": see heddle --help"));
    } catch (const c10::Error& e) {
        return fail(e.what_without_backtrace());
    } catch (const std::exception& e) {
        return fail(e.what());
    }
}
