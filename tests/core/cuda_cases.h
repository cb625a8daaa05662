// One case per form that a CUDA kernel can take, with what plain loops give; shared by the tests that run it and that compile it.
#pragma once
#include <map>
#include <ostream>

#include "tests/core/nests.h"

namespace heddle::test {

struct Data {
    DType dtype;
    std::vector<double> start, end;  // end empty: only read
};
struct Case {
    std::string name;
    std::vector<loop::Nest> nests;
    Sizes sizes;
    std::map<Id, Data> data;
    double tolerance = 1e-5;
};
inline void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases();
Case every_row(DType);  // all MAP rows of the table on operands from their range, one nest per row

}  // namespace heddle::test
