// asm statements of CUDA texts as calls. Law: what isn't one instruction over numbered operands throws; nothing is left out.
#pragma once
#include <string>

namespace heddle::cuda_on_cpu {

// The text with `asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" :: "l"(p), "f"(x), "f"(y));` as `ptx::red_global_add_v2_f32((p), (x), (y));`:
// operands in the order in which the instruction names them. Lines stay where they were. Throws std::runtime_error.
std::string without_asm(const std::string& text, const std::string& kernel);

}  // namespace heddle::cuda_on_cpu
