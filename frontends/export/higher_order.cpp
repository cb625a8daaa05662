// Ops that run graphs: regions with another mode, branches, loops.
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "frontends/export/interpret.h"

namespace heddle {

namespace {
using Results = std::vector<c10::IValue>;

struct Autocast {  // what torch.autocast does around a region
    Autocast(at::DeviceType device, std::optional<at::ScalarType> dtype, bool enabled, bool cache)
        : device_(device),
          enabled_(at::autocast::is_autocast_enabled(device)),
          cache_(at::autocast::is_autocast_cache_enabled()),
          dtype_(at::autocast::get_autocast_dtype(device)) {
        at::autocast::set_autocast_enabled(device, enabled);
        if (dtype) at::autocast::set_autocast_dtype(device, *dtype);
        at::autocast::increment_nesting();
        at::autocast::set_autocast_cache_enabled(cache && cache_);
    }
    ~Autocast() {
        if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
        at::autocast::set_autocast_enabled(device_, enabled_);
        at::autocast::set_autocast_dtype(device_, dtype_);
        at::autocast::set_autocast_cache_enabled(cache_);
    }
    at::DeviceType device_;
    bool enabled_, cache_;
    at::ScalarType dtype_;
};

class Arguments {  // of the node, by position
public:
    Arguments(const ExportNode& n, std::optional<at::Device> elsewhere) : n_(n), elsewhere_(elsewhere) {}
    std::shared_ptr<const Interpreter> graph(std::size_t k) const {
        if (at(k).kind != ExportArg::Kind::graph) throw Error(fmt::format("{}: argument {} is no graph", n_.target, k));
        return std::make_shared<const Interpreter>(at(k).graph, elsewhere_);
    }
    const ExportArg& at(std::size_t k) const {
        if (k >= n_.args.size()) throw Error(fmt::format("{}: got {} arguments", n_.target, n_.args.size()));
        return n_.args[k];
    }
    const c10::IValue& constant(std::size_t k) const {
        if (at(k).kind != ExportArg::Kind::constant) throw Error(fmt::format("{}: argument {} is no constant", n_.target, k));
        return at(k).constant;
    }
    // Those from k on, or those of the list that is argument k.
    std::vector<ExportArg> from(std::size_t k) const { return {n_.args.begin() + static_cast<std::ptrdiff_t>(std::min(k, n_.args.size())), n_.args.end()}; }
    std::vector<ExportArg> list(std::size_t k) const {
        if (at(k).kind != ExportArg::Kind::list) throw Error(fmt::format("{}: argument {} is no list", n_.target, k));
        return at(k).list;
    }

private:
    const ExportNode& n_;
    std::optional<at::Device> elsewhere_;
};
std::vector<c10::IValue> values(const std::vector<ExportArg>& args, const ExportValues& v) {
    std::vector<c10::IValue> out;
    for (const ExportArg& a : args) out.push_back(value_of(a, v));
    return out;
}
bool truth(const c10::IValue& v) { return v.isTensor() ? v.toTensor().item<bool>() : v.toBool(); }

ExportStep plain(const Arguments& a) {
    return [body = a.graph(0), args = a.from(1)](const ExportValues& v) { return (*body)(values(args, v)); };
}
ExportStep set_grad(const Arguments& a) {
    return [on = a.constant(0).toBool(), body = a.graph(1), args = a.from(2)](const ExportValues& v) {
        at::AutoGradMode mode(on);
        return (*body)(values(args, v));
    };
}
ExportStep autocast(const Arguments& a) {
    const at::DeviceType device = at::Device(a.constant(0).toStringRef()).type();
    std::optional<at::ScalarType> dtype;
    if (!a.constant(1).isNone()) dtype = static_cast<at::ScalarType>(a.constant(1).toInt());
    const bool enabled = a.constant(2).toBool(), cache = a.constant(3).isNone() || a.constant(3).toBool();
    return [=, body = a.graph(4), args = a.from(5)](const ExportValues& v) {
        Autocast mode(device, dtype, enabled, cache);
        return (*body)(values(args, v));
    };
}
ExportStep cond(const Arguments& a) {
    return [which = a.at(0), yes = a.graph(1), no = a.graph(2), args = a.list(3)](const ExportValues& v) {
        return (truth(value_of(which, v)) ? *yes : *no)(values(args, v));
    };
}
ExportStep invoke(const Arguments& a) {
    return [body = a.graph(0), args = a.from(2)](const ExportValues& v) { return (*body)(values(args, v)); };
}
ExportStep while_loop(const Arguments& a) {
    return [more = a.graph(0), body = a.graph(1), carried = a.list(2), fixed = a.list(3)](const ExportValues& v) {
        Results state = values(carried, v);
        const Results rest = values(fixed, v);
        auto all = [&] {
            Results x = state;
            x.insert(x.end(), rest.begin(), rest.end());
            return x;
        };
        while (truth((*more)(all()).at(0))) state = (*body)(all());
        return state;
    };
}
constexpr struct {
    std::string_view name;
    ExportStep (*make)(const Arguments&);
} kHigherOrder[] = {
    {"wrap_with_set_grad_enabled", set_grad},
    {"wrap_with_autocast", autocast},
    {"cond", cond},
    {"while_loop", while_loop},
    {"invoke_subgraph", invoke},
    {"wrap", plain},
    {"tag_activation_checkpoint", plain},
};
}  // namespace

ExportStep higher_order(const ExportNode& n, std::optional<at::Device> elsewhere) {
    const std::string name = n.target.substr(n.target.rfind('.') + 1);
    for (const auto& row : kHigherOrder)
        if (row.name == name) return row.make(Arguments(n, elsewhere));
    throw Error(fmt::format("{}: isn't supported", n.target));
}

}  // namespace heddle
