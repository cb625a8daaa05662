// What the inputs of a call must be, as the exporter noted it.
// Law: a call that passes has sizes for which the program was exported.
#pragma once
#include <ATen/core/Tensor.h>

#include "frontends/capture/capture.h"
#include "frontends/export/program.h"

namespace heddle {

class ExportSignature {
public:
    ExportSignature(const ExportProgram&, std::string who);
    // Throws Error: how many, which dtype, which size.
    void check(const std::vector<at::Tensor>& inputs) const;
    // Names of the sizes that vary. A size of several inputs is named in each.
    const std::vector<Varying>& varying() const { return varying_; }
    static std::string type(const ExportInput&);  // "f32[s0, 4]"

private:
    struct Size {
        std::int64_t constant = -1;               // >= 0
        int symbol = -1;                          // >= 0
        std::optional<Dim> dim;                   // another expression, if heddle has a word for it
        std::string text;
    };
    struct Input {
        std::string name;
        at::ScalarType dtype;
        std::vector<Size> sizes;
        bool integer;
    };
    struct Symbol {
        std::string name;
        std::int64_t least = 0, most = INT64_MAX;
    };
    int symbol(const std::string& name);
    std::string who_;
    std::vector<Input> inputs_;
    std::vector<Symbol> symbols_;
    std::vector<Varying> varying_;
};

}  // namespace heddle
