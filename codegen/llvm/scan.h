// Recurrences across the lanes of a vector. Law: equal to running them one by one, up to the order of products and sums.
#pragma once
#include "codegen/llvm/ir.h"

namespace heddle {

// c = a * c + b, lane after lane, from the last one when reverse; a null a is 1, a null b is 0.
struct LaneScan {
    Lv before;  // per lane: c as the lane finds it
    Lv after;   // c after all lanes
};
LaneScan scan_lanes(Ir&, Lv a, Lv b, Lv c, int width, bool reverse);

}  // namespace heddle
