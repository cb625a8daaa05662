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
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands([&](CLI::App* sub) { return sub->check_name(argv[1]); }).empty())
        return fail(std::string("unknown command: ") + argv[1] + ": see heddle --help");
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
