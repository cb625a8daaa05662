// Records of the archive, by PyTorch's own reader, as text, tensors and pickled values.
#include "frontends/export/archive.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <caffe2/serialize/inline_container.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/export/pt2_archive_constants.h>
#include <torch/csrc/jit/serialization/import_read.h>
#include <torch/version.h>

#include <cstring>
#include <filesystem>
#include <variant>

namespace heddle {

namespace {
namespace spec = torch::_export::archive_spec;

// A record inside the archive as a file of its own. Reads beyond its end come back short.
class Record final : public caffe2::serialize::ReadAdapterInterface {
public:
    explicit Record(std::string bytes) : bytes_(std::move(bytes)) {}
    std::size_t size() const override { return bytes_.size(); }
    std::size_t read(std::uint64_t at, void* to, std::size_t n, const char*) const override {
        if (at >= bytes_.size()) return 0;
        n = std::min<std::size_t>(n, bytes_.size() - at);
        std::memcpy(to, bytes_.data() + at, n);
        return n;
    }

private:
    std::string bytes_;
};

std::string named(std::string_view format, const std::string& model) { return std::string(format).replace(format.find("{}"), 2, model); }
std::vector<std::int64_t> numbers(const std::vector<ExportSize>& sizes) {
    std::vector<std::int64_t> out;
    for (const auto& s : sizes) {
        if (!s.dim || !s.dim->is_const() || s.dim->value() < 0) throw Error(fmt::format("a weight has size {}", s.text));
        out.push_back(s.dim->value());
    }
    return out;
}
std::string identity(const ExportPayload& p) {
    std::string id = fmt::format("{} {} {} {}", p.path, p.parameter, static_cast<int>(p.tensor->dtype), p.tensor->offset.text);
    for (const auto* list : {&p.tensor->sizes, &p.tensor->strides})
        for (const auto& s : *list) id += " " + s.text;
    return id;
}
}  // namespace

std::string one_line(const std::exception& e) {
    auto* torch_error = dynamic_cast<const c10::Error*>(&e);
    std::string what = torch_error ? torch_error->what_without_backtrace() : e.what();
    return what.substr(0, what.find('\n'));
}

template <class F>
auto ExportArchive::guarded(const std::string& what, F f) {
    try {
        return f();
    } catch (const Error& e) {
        throw Error(fmt::format("{}: {}", path_, e.what()));
    } catch (const std::bad_variant_access&) {
        throw Error(fmt::format("{}: {}: has a part of a kind that PyTorch {} doesn't know", path_, what, TORCH_VERSION));
    } catch (const std::exception& e) {
        throw Error(fmt::format("{}: {}: {}", path_, what, one_line(e)));
    }
}

ExportArchive::ExportArchive(const std::string& path, const std::string& model) : path_(path), model_(model) {
    if (!std::filesystem::exists(path)) throw Error(fmt::format("{}: no such file", path));
    guarded("isn't a .pt2", [&] {
        if (!std::filesystem::is_regular_file(path)) throw Error("is no file");
        reader_ = std::make_unique<caffe2::serialize::PyTorchStreamReader>(path);
        if (!reader_->hasRecord(std::string(spec::ARCHIVE_FORMAT_PATH)))
            throw Error(reader_->hasRecord("serialized_exported_program.json") ? "is a .pt2 of PyTorch before 2.8; export it again"
                                                                               : "isn't a .pt2 but another archive");
        if (std::string v = text(std::string(spec::ARCHIVE_VERSION_PATH)); v != spec::ARCHIVE_VERSION_VALUE)
            throw Error(fmt::format("archive version {}; this heddle reads {}", v, spec::ARCHIVE_VERSION_VALUE));
        if (reader_->hasRecord("byteorder") && text("byteorder") != "little") throw Error("written by a big-endian machine");
        std::vector<std::string> models;
        const std::string_view format = spec::MODELS_FILENAME_FORMAT, folder = spec::MODELS_DIR, end = format.substr(format.find("{}") + 2);
        for (const std::string& r : reader_->getAllRecords())
            if (r.starts_with(folder) && r.ends_with(end)) models.push_back(r.substr(folder.size(), r.size() - folder.size() - end.size()));
        if (models.empty()) throw Error("holds no exported program (compiled packages aren't read); write it with torch.export.save");
        if (model_.empty() && models.size() == 1) model_ = models[0];
        if (std::find(models.begin(), models.end(), model_) == models.end())
            throw Error(fmt::format("holds {}: say which in LoadOptions::model", fmt::join(models, ", ")));
    });
}
ExportArchive::~ExportArchive() = default;
ExportArchive::ExportArchive(ExportArchive&&) noexcept = default;

std::string ExportArchive::text(const std::string& record) {
    auto [data, size] = reader_->getRecord(record);
    return {static_cast<const char*>(data.get()), size};
}
c10::IValue ExportArchive::unpickled(const std::string& record) {
    caffe2::serialize::PyTorchStreamReader inner(std::make_shared<Record>(text(record)));
    return torch::jit::readArchiveAndTensors("data", "", "", {}, {}, {}, inner);
}

ExportProgram ExportArchive::program() {
    std::string record = named(spec::MODELS_FILENAME_FORMAT, model_);
    return guarded(record, [&] { return parse_export(text(record)); });
}

NamedTensors ExportArchive::tensors(const std::string& folder, const std::string& config, std::optional<at::Device> elsewhere) {
    c10::InferenceMode off(false);
    at::AutoDispatchBelowADInplaceOrView not_views;
    NamedTensors out;
    if (std::string pickled = folder + model_ + ".pt"; reader_->hasRecord(pickled)) {  // as PyTorch 2.8 writes it; C++ reads each with memory of its own
        for (const auto& entry : unpickled(pickled).toGenericDict()) {
            at::Tensor t = entry.value().toTensor().detach();
            out.emplace_back(entry.key().toStringRef(), elsewhere ? t.to(*elsewhere) : t);
        }
        return out;
    }
    std::map<std::string, at::Tensor> bytes, known;  // by record, by identity
    for (const ExportPayload& p : parse_payloads(text(config))) {
        if (p.pickled || !p.tensor) throw Error(fmt::format("{}: a tensor subclass or an object of a class of its own isn't supported", p.name));
        auto [storage, fresh] = bytes.try_emplace(p.path);
        const at::Device device = elsewhere.value_or(p.tensor->device);
        if (fresh) {
            const std::string record = folder + p.path;
            const std::size_t size = reader_->getRecordSize(record);
            at::Tensor t = at::empty({static_cast<std::int64_t>(size)}, at::kByte);
            if (reader_->getRecord(record, t.mutable_data_ptr(), size) != size) throw Error(fmt::format("{}: is cut short", record));
            storage->second = t.to(device);
        }
        auto [same, first] = known.try_emplace(identity(p));
        if (first) {
            const auto sizes = numbers(p.tensor->sizes), strides = numbers(p.tensor->strides), offset = numbers({p.tensor->offset});
            at::Tensor all = storage->second;
            const auto item = static_cast<std::int64_t>(c10::elementSize(p.tensor->dtype));
            if (all.numel() % item != 0) throw Error(fmt::format("{}: has {} bytes, no multiple of {}", p.name, all.numel(), item));
            same->second = at::as_strided(all.view(p.tensor->dtype), sizes, strides, offset[0]);
        }
        out.emplace_back(p.name, same->second);
    }
    return out;
}
NamedTensors ExportArchive::weights(std::optional<at::Device> elsewhere) {
    return guarded("weights", [&] { return tensors(std::string(spec::WEIGHTS_DIR), named(spec::WEIGHTS_CONFIG_FILENAME_FORMAT, model_), elsewhere); });
}
NamedTensors ExportArchive::constants(std::optional<at::Device> elsewhere) {
    return guarded("constants", [&] { return tensors(std::string(spec::CONSTANTS_DIR), named(spec::CONSTANTS_CONFIG_FILENAME_FORMAT, model_), elsewhere); });
}

c10::IValue ExportArchive::example() {
    std::string record = named(spec::SAMPLE_INPUTS_FILENAME_FORMAT, model_);
    return guarded(record, [&] {
        c10::InferenceMode off(false);
        return reader_->hasRecord(record) && reader_->getRecordSize(record) > 0 ? unpickled(record) : c10::IValue();
    });
}

}  // namespace heddle
