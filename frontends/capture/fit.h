// Integers of several runs as one expression in named sizes. Law: what fit returns has each run's value at that run's sizes, and no other
// quotient of small numbers has.
#pragma once
#include <optional>

#include "frontends/capture/capture.h"

namespace heddle {

class Fit {
public:
    explicit Fit(std::size_t runs) : runs_(runs) {}
    using Values = std::vector<std::int64_t>;          // one per run
    void name(const std::string&, const Values&);      // a new named size
    std::optional<Dim> operator()(const Values&);      // remembers what it found
    const std::vector<Captured::Quotient>& quotients() const { return quotients_; }

private:
    std::optional<Dim> quotient(const Values&);
    std::optional<Dim> search(const Values&) const;
    std::optional<Dim> line(const Dim& product, const Values& at, const Values& v, bool offset) const;  // a * product + b
    std::size_t runs_;
    std::vector<std::pair<std::string, Values>> names_;
    std::vector<std::pair<Values, Dim>> known_;
    std::vector<Captured::Quotient> quotients_;
};

}  // namespace heddle
