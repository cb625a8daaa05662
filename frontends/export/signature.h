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
    // Inputs as the capture sees them. A size that is only known as a multiple, "8*s0", is two, s0 and 8, so that s0 is seen.
    std::vector<at::Tensor> split(std::vector<at::Tensor> inputs) const;
    std::vector<at::Tensor> joined(std::vector<at::Tensor> inputs) const;
    // Names of the sizes that vary, of split inputs.
    const std::vector<Varying>& varying() const { return varying_; }
    bool all_named() const { return all_named_; }  // else some vary for which there is no name: "s0+1" with no s0 by itself
    static std::string type(const ExportInput&);  // "f32[s0, 4]"

private:
    struct Size {
        std::int64_t constant = -1;               // >= 0
        int symbol = -1;                          // >= 0: factor * symbol
        std::int64_t factor = 1;
        std::optional<Dim> dim;                   // another expression, if heddle has a word for it
        std::string text;
    };
    struct Input {
        std::string name;
        at::ScalarType dtype;
        std::vector<Size> sizes;
        bool integer, compares;                   // a value, not sizes; with an expression in other sizes
    };
    struct Symbol {
        std::string name;
        std::int64_t least = 0, most = INT64_MAX;
        bool plain = false;                       // a size or a value by itself
    };
    struct Split {
        std::size_t input;
        std::int64_t dim, factor;
    };
    Size size(const ExportSize&);
    void bind(const Input&, const at::Tensor&, std::vector<std::int64_t>& bound) const;
    static std::int64_t actual(const Input&, const at::Tensor&, std::size_t d);
    [[noreturn]] void wrong(const Input&, std::size_t d, std::int64_t got, const std::string& want) const;
    int symbol(const std::string& name);
    std::string who_;
    std::vector<Input> inputs_;
    std::vector<Symbol> symbols_;
    std::vector<Split> splits_;
    std::vector<Varying> varying_;
    bool all_named_ = true;
};

}  // namespace heddle
