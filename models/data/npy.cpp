// NumPy's format (its manual, numpy.lib.format): a dictionary as Python writes it, then the bytes. Read here, on a zip
// library and a JSON parser, as the reader that distributions have (xtensor's) wants the keys in one order and reads
// past the end of an empty header.
#include "models/data/npy.h"

#include <ATen/ATen.h>
#include <unzip.h>
#include <zip.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "models/error.h"
#include "models/files.h"

namespace heddle::models {
namespace {

using nlohmann::json;

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;
constexpr std::pair<const char*, at::ScalarType> kTypes[] = {{"|b1", at::kBool},  {"|u1", at::kByte},
                                                             {"<i4", at::kInt},   {"<i8", at::kLong},
                                                             {"<f4", at::kFloat}, {"<f8", at::kDouble}};

// A dictionary of strings, booleans and tuples of integers, as Python prints it, is JSON but for its quotes, brackets,
// capitals and last commas.
json parse_dictionary(const std::string& python) {
    std::string text;
    for (char c : python) {
        if (c == ')' || c == ']' || c == '}')
            while (!text.empty() && (text.back() == ' ' || text.back() == ',')) text.pop_back();
        text += c == '\'' ? '"' : c == '(' ? '[' : c == ')' ? ']' : c == 'T' ? 't' : c == 'F' ? 'f' : c;
    }
    return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

at::Tensor decode(const std::string& file, const std::string& where) {
    const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(file[i])); };
    const Error damaged("damaged .npy header", where, "restore the file");
    if (file.size() < 12 || file.compare(0, kMagicSize, kMagic) != 0)
        throw Error("not a .npy array", where, "save it with numpy.save");
    const size_t start = byte(6) == 1 ? 10 : 12;
    const size_t length = byte(8) | byte(9) << 8 | (start == 12 ? byte(10) << 16 | byte(11) << 24 : 0);
    if (length > file.size() - start) throw damaged;
    const json header = parse_dictionary(file.substr(start, length));
    if (!header.is_object() || !header.contains("descr") || !header.contains("fortran_order") ||
        !header["fortran_order"].is_boolean() || !header.contains("shape") || !header["shape"].is_array())
        throw damaged;

    const auto type =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return header["descr"] == t.first; });
    if (type == std::end(kTypes))
        throw Error("array of type " + header["descr"].dump(), where,
                    "save it as bool, uint8, int32, int64, float32 or float64");
    const size_t held = file.size() - start - length;
    size_t bytes = c10::elementSize(type->second);
    std::vector<int64_t> shape;
    for (const json& size : header["shape"]) {
        if (!size.is_number_unsigned() || size.get<int64_t>() < 0 ||
            __builtin_mul_overflow(bytes, size.get<size_t>(), &bytes))
            throw damaged;
        shape.push_back(size.get<int64_t>());
    }
    if (bytes != held)
        throw Error("array of " + std::to_string(bytes) + " bytes holds " + std::to_string(held), where,
                    "restore the file");

    const bool columns_first = header["fortran_order"].get<bool>();
    if (columns_first) std::reverse(shape.begin(), shape.end());
    auto out = at::empty(shape, type->second);
    if (held != 0) std::memcpy(out.data_ptr(), file.data() + start + length, held);
    for (int64_t i = 0; columns_first && i < out.dim() / 2; ++i) out = out.transpose(i, out.dim() - 1 - i);
    return out.contiguous();
}

std::string encode(const at::Tensor& array) {
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const auto& t) { return t.second == array.scalar_type(); });
    TORCH_CHECK(type != std::end(kTypes), "no .npy type for ", array.scalar_type());
    std::string shape;
    for (const int64_t size : array.sizes()) shape += std::to_string(size) + ", ";
    if (array.dim() > 1) shape.resize(shape.size() - 2);
    if (array.dim() == 1) shape.pop_back();
    std::string header =
        std::string("{'descr': '") + type->first + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');  // the bytes start at a multiple of 64
    header += '\n';
    const auto bytes = array.contiguous();
    return std::string(kMagic, kMagicSize) + std::string("\x01\x00", 2) + static_cast<char>(header.size() & 0xff) +
           static_cast<char>(header.size() >> 8) + header +
           std::string(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes());
}

void must_exist(const std::string& path) {
    if (!std::filesystem::is_regular_file(path)) throw Error("file not found", path, "restore the file");
}

}  // namespace

at::Tensor read_npy(const std::string& path) {
    must_exist(path);
    std::ifstream file(path, std::ios::binary);
    return decode({std::istreambuf_iterator<char>(file), {}}, path);
}

void write_npy(const std::string& path, const at::Tensor& array) { replace_file(path, encode(array)); }

std::map<std::string, at::Tensor> read_npz(const std::string& path) {
    must_exist(path);
    const std::unique_ptr<void, int (*)(void*)> zip(unzOpen64(path.c_str()), unzClose);
    const Error damaged("damaged .npz file", path, "restore the file");
    if (!zip) throw damaged;
    std::map<std::string, at::Tensor> out;
    int status = unzGoToFirstFile(zip.get());
    for (; status == UNZ_OK; status = unzGoToNextFile(zip.get())) {
        char name[256] = {}, chunk[1 << 16];  // a longer name is cut, and then not ended
        if (unzGetCurrentFileInfo64(zip.get(), nullptr, name, sizeof name - 1, nullptr, 0, nullptr, 0) != UNZ_OK ||
            unzOpenCurrentFile(zip.get()) != UNZ_OK)
            throw damaged;
        std::string file;
        int got = 0;
        while ((got = unzReadCurrentFile(zip.get(), chunk, sizeof chunk)) > 0)
            file.append(chunk, static_cast<size_t>(got));
        if (got < 0 || unzCloseCurrentFile(zip.get()) != UNZ_OK) throw damaged;  // closing compares the checksum
        const std::string key = std::filesystem::path(name).stem().string();
        out[key] = decode(file, path + " " + key);
    }
    if (status != UNZ_END_OF_LIST_OF_FILE) throw damaged;
    return out;
}

void write_npz(const std::string& path, const std::map<std::string, at::Tensor>& arrays) {
    replace_file(path, [&](const std::string& temporary) {
        const Error failed("cannot write file", path, "check that the directory exists and has space");
        const zipFile zip = zipOpen64(temporary.c_str(), APPEND_STATUS_CREATE);
        if (!zip) throw failed;
        zip_fileinfo info{};
        info.dosDate = 1 << 21 | 1 << 16;  // 1 January 1980, where the format's calendar starts
        bool good = true;
        for (const auto& [key, array] : arrays) {
            const std::string bytes = encode(array), name = key + ".npy";
            good = good &&
                   zipOpenNewFileInZip64(zip, name.c_str(), &info, nullptr, 0, nullptr, 0, nullptr, /*method=*/0, 0,
                                         0) == ZIP_OK &&
                   zipWriteInFileInZip(zip, bytes.data(), static_cast<unsigned>(bytes.size())) == ZIP_OK &&
                   zipCloseFileInZip(zip) == ZIP_OK;
        }
        if (zipClose(zip, nullptr) != ZIP_OK || !good) throw failed;
    });
}

}  // namespace heddle::models
