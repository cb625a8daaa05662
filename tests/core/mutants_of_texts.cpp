// Mutants of passes/rules.def, of passes/calls.def and of the CUDA text: helpers, barriers, bounds.
#include <fmt/format.h>

#include <regex>

#include "ir/mutant.h"
#include "passes/simplify.h"
#include "tests/core/mutants.h"

namespace heddle::mutant {

namespace {

// One entry reads otherwise.
std::function<void()> reads(const std::string& table, const std::string& name, const std::string& instead) {
    return [=] {
        reader = [=](std::string_view t, std::string_view n, std::string text) { return t == table && n == name ? instead : text; };
    };
}

// Every kernel that has the text loses it; the rest stays.
struct Edit {
    const char *name, *from, *to, *first;
};
constexpr char kRows[] = "Forms/Planes.*", kForms[] = "Forms/EveryCase.*", kPlans[] = "Floats/CudaPlan.StagesOverAllRows/f32:Floats/CudaPlan.SumsThatEndInOneNumber/f32";
constexpr char kSums[] = "OrderedSums.*:SharedSums.*:Forms/SumsOf.*/rows:Forms/SumsOf.*/numbers";
constexpr Edit kEdits[] = {
    // bounds
    {"a point more than there are", R"(if \(point >= )", "if (point > ", kForms},
    {"a live point more than there are", R"((const bool live = [^\n]*) < )", "$1 <= ", kForms},
    {"a step more in a loop", R"(\(index_t j = 0; j < )", "(index_t j = 0; j <= ", kForms},
    {"a step less in a loop from the end", R"(j >= 0; --j)", "j > 0; --j", kForms},
    {"a loop from the end begins behind it", R"((index_t j = [^;?\n]*) - 1; j >= 0)", "$1; j >= 0", kForms},
    {"a group's loop runs for dead points", R"(live \? lane : )", "true ? lane : ", kForms},
    {"a group's loop has a step more", R"((\? lane : [^;\n]*; j) < )", "$1 <= ", kForms},
    {"a group's loop from the end begins behind it", R"( - 1 - lane : -1)", " - lane : -1", kForms},
    {"a group's loop takes every element", R"(j \+= \d+\))", "j += 1)", kForms},
    {"every lane of a group stores its result", R"(if \(live && lane == 0\) )", "if (live) ", kForms},
    {"dead points store a group's result", R"(if \(live && lane == 0\) )", "if (lane == 0) ", kForms},
    {"every thread adds the block's total", R"(if \(threadIdx.x( % 32)? == 0\) add_to)", "add_to", kForms},
    {"dead points are in the total", R"((all_sum<\d+>\()live \? )", "$1true ? ", kForms},
    {"a lookup outside is read", R"(= \(?[^;=?\n]* >= 0\)? \? )", "= true ? ", kForms},
    {"a nest has the blocks of the next", R"(if \(block < (blocks_\d+)\))", "if (block <= $1)", kForms},
    {"a nest's blocks are not taken off", R"(block -= blocks_\d+;)", ";", kForms},
    {"a nest's last block is cut off", R"( \+ \d+\) / (\d+);)", ") / $1;", kForms},
    // barriers and fences
    {"no barrier before part is written", R"(__syncthreads\(\);  // part may)", "// part may", kForms},
    {"no barrier before part is read", R"((part\[warp\] = v;\n    )__syncthreads\(\);)", "$1", kForms},
    {"no barrier between phases of a block", R"(\n *__syncthreads\(\);\n(?!    v = part|  if \(threadIdx.x != 0\) return|\}))", "\n", kForms},
    {"no barrier between phases of a warp", R"(__syncwarp\(\);)", "", kForms},
    {"no barrier before a block counts", R"(__syncthreads\(\);\n  if \(threadIdx.x != 0\) return;)", "if (threadIdx.x != 0) return;", kPlans},
    {"no fence before a block counts", R"(__threadfence\(\);\n  atomicAdd)", "atomicAdd", kPlans},
    {"no fence behind the wait", R"(__nanosleep\(64\);\n    __threadfence\(\);)", "__nanosleep(64);", kPlans},
    {"no barrier behind the wait", R"(\n  \}\n  __syncthreads\(\);\n\})", "\n  }\n}", kPlans},
    {"the wait is for a block less", R"(done < blocks\))", "done + 1 < blocks)", kPlans},
    {"the wait is for a block more", R"(done < blocks\))", "done < blocks + 1)", kPlans},
    {"a block counts twice", R"(atomicAdd\(done, 1u\))", "atomicAdd(done, 2u)", kPlans},
    {"a block counts without being asked to wait", R"(, count_off\(done\))", "", kPlans},
    {"all turns are the first nest's", R"(return rest / now;)", "return 0;", "CudaText.NestsThatReadTheSameTakeTurns"},
    {"rounds of turns are all the first", R"(block = first \+ rest % now;)", "block = rest % now;", "CudaText.NestsThatReadTheSameTakeTurns"},
    {"a stage does not wait", R"(\n  await\(done, [^\n]*)", "\n", kPlans},
    // reductions of groups
    {"the last step of a butterfly is missing", R"(d > 0; d /= 2)", "d > 1; d /= 2", kForms},
    {"the first step of a butterfly is missing", R"(\(G < 32 \? G : 32\) / 2)", "(G < 32 ? G : 32) / 4", kForms},
    {"the first warp counts twice", R"(for \(int w = 1; w < G / 32)", "for (int w = 0; w < G / 32", kForms},
    {"the last warp is left out", R"(w < G / 32; \+\+w)", "w + 1 < G / 32; ++w", kForms},
    {"all groups take the first group's warps", R"(first = warp / \(G / 32\) \* \(G / 32\))", "first = 0", kForms},
    {"every lane writes its warp's part", R"(if \(threadIdx.x % 32 == 0\) part)", "part", kForms},
    // neighbours taken together, runs of points
    {"a lane takes its neighbour's elements", R"(lane \* [24]\b)", "lane", kRows},
    {"a sum goes on to another address", R"(\n      end\(p\);)", "", kRows},
    {"a sum keeps what went to another address", R"(to = at, sum = v;)", "to = at, sum[0] = sum[0] + v[0];", kRows},
    {"a sum stays with its first value", R"(EACH\(N\) sum\[e\] = sum\[e\] \+ v\[e\];)", ";", kRows},
    {"the end of a run is lost", R"(\n *run\d+\.end\(\w+\);)", "\n", kRows},
    {"a run has a point less", R"(point < last; \+\+point)", "point + 1 < last; ++point", kRows},
    {"a run goes on in the next", R"(first \+ run < (\w+) \? first \+ run : \w+;)", "first + run < $1 ? first + run + 1 : $1;", kRows},
    {"groups of a warp don't add up", R"(\(int d = 16; d >= G; d /= 2\))", "(int d = 16; d > G; d /= 2)", kRows},
    {"each warp of a block adds the total", R"(if \(mine && threadIdx\.x < G\) add_to)", "if (mine && threadIdx.x % 32 < G) add_to", kRows},
    {"the last warp's part of a total is lost", R"(w < THREADS / 32 && threadIdx)", "w + 1 < THREADS / 32 && threadIdx", kRows},
    {"no barrier before a warp's part of a total is read", R"((\[threadIdx\.x % 32\] = sum;\n    )__syncthreads\(\);)", "$1", kRows},
    {"a vector's last element is another", R"(\"f\"\(v\.part\[3\]\))", "\"f\"(v.part[2])", kRows},
    {"a pair's last element is another", R"(\"f\"\(v\.part\[1\]\) : )", "\"f\"(v.part[0]) : ", kRows},
    {"runs are counted too few", R"(\(points \+ run - 1\) / run)", "points / run", kRows},
    {"each element is the first", R"(\[e\];\n)", "[0];\n", kRows},
    // ordered sums, and those in shared memory
    {"a term is half as large", R"(p\.room - 24)", "p.room - 25", kSums},
    {"no exponent is found", R"(\(power > \*\(volatile unsigned\*\)p\))", "(false)", kSums},
    {"a term has no sign", R"(v < 0 \? -n : n)", "n", kSums},
    {"the least numbers have an exponent less", R"(power < 1 \? 1 : \(int\)power)", "(int)power", kSums},
    {"the low word of a double is lost", R"(add_whole\(p\.sum \+ 1[^\n]*)", ";", kSums},
    {"NaN is negative infinity", R"(v != v \? 0x100000001LL : )", "", kSums},
    {"an infinity wins over the other", R"(n >> 32 == 0 \? infinity)", "true ? infinity", kSums},
    {"terms are rounded where others are larger than all", R"(\bmost == 255\))", "most == 254)", kSums},
    {"the room is too large", R"(__clzll\(additions\) - 2)", "__clzll(additions) + 2", kSums},
    {"shared memory isn't cleared", R"(words\[k\] = 0;)", ";", kSums},
    {"no barrier behind the clearing", R"((words\[k\] = 0;\n  )__syncthreads\(\);)", "$1", kSums},
    {"no barrier before a block's part is added", R"(__syncthreads\(\);\n(  add_near))", "$1", kSums},
    {"a block's part is lost", R"(\n  add_near<[^\n]*)", "\n", kSums},
    {"a block has a row of points less", R"(at < run; \+\+at)", "at + 1 < run; ++at", kSums},
    {"blocks have common rows", R"(\(block \* run \+ at\))", "(block + at)", kSums},
    // loops that a condition of the point guards
    {"a loop runs where its guard doesn't hold", R"(\n( *)if \((m_\d+|v\d+)\) (for|if) \()", "\n$1if (!$2) $3 (", "Forms/Guards.ChangeNoValue/*:DenseMasks.Equal*"},
    {"a row is added where its guard doesn't hold", R"(\n( *)if \((m_\d+|v\d+)\) \{\n)", "\n$1{\n", "Forms/Guards.ChangeNoValue/rows_added"},
    // recurrences and folds
    {"a carry is not carried", R"(\n *carry0 = v[^\n]*)", "\n", kForms},
    {"lanes of a group hand on less", R"(\(int d = 1; d < G; d \*= 2\))", "(int d = 1; 2 * d < G; d *= 2)", kForms},
    {"a lane takes what isn't before it", R"(if \(threadIdx\.x % G >= d\) )", "", kForms},
    {"the first lane of a group has no carry", R"(threadIdx\.x % G == 0 \? carry : up)", "up", kForms},
    {"a carry is the first lane's", R"(after, G - 1, G)", "after, 0, G", kForms},
    {"a product without end says all", R"(!\(all - all == 0\))", "false", kForms},
    {"groups hand on to each other", R"(0xffffffffu >> \(32 - G\) << )", "0xffffffffu >> (32 - G) << 0 * ", kForms},
    {"a lane without an iteration stores", R"(if \(here\) products)", "products", kForms},
    {"a lane without an iteration adds", R"(if \(here\) sum0)", "sum0", kForms},
    {"a lane without an iteration reads", R"( = here \? (a\[))", " = $1", kForms},
    {"a lane has an iteration too many", R"((const bool here = j) < )", "$1 <= ", kForms},
    {"a carry begins elsewhere", R"( carry(\d+) = 1\.0)", " carry$1 = 2.0", kForms},
    {"a sum begins elsewhere", R"( (sum\d+) = 0\.0f)", " $1 = 1.0f", kForms},
    {"a maximum begins at the least positive", R"( (amax\d+) = __uint_as_float\(0xff800000u[^)]*\))", " $1 = 0.0f", "Table/EachOpOnCpu.CudaAtSpecialValues/amax"},
    // helpers
    {"sign_ of zero is one", R"(return a > 0 \? T\(1\))", "return a >= 0 ? T(1)", "Table/EachOpOnCpu.Cuda*/sign:CudaRows.*"},
    {"sign_ of a negative number is one", R"(T\(-1\))", "T(1)", "Table/EachOpOnCpu.Cuda*/sign:CudaRows.*"},
    {"fabs of i64 is it", R"(HD i64 fabs\(i64 a\) \{ return a < 0 \? -a : a; \})", "HD i64 fabs(i64 a) { return a; }", "Table/EachOpOnCpu.Cuda*/abs"},
    {"fabs of int is it", R"(HD int fabs\(int a\) \{ return a < 0 \? -a : a; \})", "HD int fabs(int a) { return a; }", "Table/EachOpOnCpu.Cuda*/abs"},
    {"select takes the other", R"(return c \? a : b; \})", "return c ? b : a; }", "Table/EachOpOnCpu.Cuda*/select"},
    {"mod_ of integers keeps the sign of a", R"(T r = a % b; return r != 0 && \(r < 0\) != \(b < 0\) \? r \+ b : r;)", "return a % b;", "Table/EachOpOnCpu.Cuda*/mod:*/EveryCase.*neighbours"},
    {"mod_ of float keeps the sign of a", R"((::fmodf\(a, b\); return) r != 0 && \(r < 0\) != \(b < 0\) \? r \+ b : r;)", "$1 r;", "Table/EachOpOnCpu.Cuda*/mod"},
    {"mod_ of double keeps the sign of a", R"((::fmod\(a, b\); return) r != 0 && \(r < 0\) != \(b < 0\) \? r \+ b : r;)", "$1 r;", "Table/EachOpOnCpu.Cuda*/mod"},
    {"mod_ of float adds b to a zero", R"(::fmodf\(a, b\); return r != 0 && )", "::fmodf(a, b); return ", "Table/EachOpOnCpu.Cuda*/mod"},
    {"mod_ of integers adds b to a zero", R"(T r = a % b; return r != 0 && )", "T r = a % b; return ", "Table/EachOpOnCpu.Cuda*/mod"},
    {"floordiv_ of integers rounds to zero", R"(\? q - 1 : q;)", "? q : q;", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"floordiv_ of integers rounds exact quotients down", R"(return r != 0 && (\(r < 0\) != \(b < 0\) \? q - 1))", "return $1", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"floordiv_real rounds to zero", R"( q -= 1;)", " ;", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"floordiv_real by zero is not a / b", R"(  if \(b == 0\) return a / b;\n)", "", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"floordiv_real gives zero without its sign", R"(return ::copysign\(T\(0\), a / b\))", "return T(0)", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"floordiv_real does not round the quotient", R"(return q - whole > T\(0\.5\) \? whole \+ 1 : whole;)", "return q - 0.25f;", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"floordiv_real takes the floor of a rounded quotient", R"(q - whole > T\(0\.5\))", "false", "Table/EachOpOnCpu.Cuda*/floordiv"},
    {"bf16 is read a bit off", R"(\(unsigned\)h << 16)", "(unsigned)h << 15", "*/EveryCase.*bf16:Table/EachOpOnCpu.Cuda*/add"},
    {"bf16 rounds to zero", R"(u \+ 0x7fff \+ \(\(u >> 16\) & 1\))", "u", "CudaNarrow.*"},
    {"bf16 rounds ties up", R"(u \+ 0x7fff \+ \(\(u >> 16\) & 1\))", "u + 0x8000", "CudaNarrow.*"},
    {"bf16 of NaN is rounded", R"(\(u & 0x7fffffff\) > 0x7f800000)", "false", "CudaNarrow.*"},
    {"f16 is not added to what is there", R"(to_f16\(from_f16\(old\) \+ v\))", "to_f16(v)", "*/EveryCase.*f16"},
    {"bf16 is added once though another came first", R"((to_bf16\(from_bf16\(old\) \+ v\)\)\) != old\)) old = seen;)", "$1 break;", "*/EveryCase.*bf16"},
    {"a bool is added where it is false", R"(if \(v\) \*\(volatile bool\*\)p = true)", "*(volatile bool*)p = true", "*/EveryCase.*b1"},
    {"i64 is subtracted", R"(\(unsigned long long\)v\); \})", "(unsigned long long)-v); }", "*/EveryCase.*i64"},
};

}  // namespace

std::vector<Mutant> rules() {
    std::vector<Mutant> all;
    for (const Rule& r : heddle::rules()) {
        const std::string name(r.name), from(r.from), to(r.to), own = fmt::format("Rules/EachRule.*/{}:Golden*", r.name);
        auto add = [&](const std::string& f, const std::string& t) {
            all.push_back({"rule", fmt::format("{}: {} -> {} => {} -> {}", name, from, to, f, t), own, reads("rule", name, f + " -> " + t)});
        };
        const bool logical = from.find("and_") != std::string::npos || from.find("or_") != std::string::npos || from.find("not_") != std::string::npos;
        const std::string no = logical ? "not_" : "neg";
        const bool variable = to.size() == 1 && std::isalpha(static_cast<unsigned char>(to[0]));
        if (variable) add(from, fmt::format("{}({})", no, to));
        else if (to == "0") add(from, "1");
        else add(from, fmt::format("{}", to.find(", y)") != std::string::npos ? to.substr(0, to.find('(')) + "(y, y)" : to.substr(to.find('(') + 1, 1)));
        for (const auto& [a, b] : {std::pair{", 0)", ", 1)"}, {", 1)", ", 2)"}, {"(0, ", "(1, "}, {"-1)", "1)"}, {"mul(", "add("}, {"div(", "sub("}, {"sub(x", "add(x"}, {"add(x", "sub(x"}, {"max(", "min("}, {"abs(neg", "neg(neg"}})
            if (auto k = from.find(a); k != std::string::npos) {
                std::string off = from;
                add(off.replace(k, std::string(a).size(), b), to);
            }
        all.push_back({"rule", fmt::format("{}: for {} types", name, r.ints_only ? "all" : "integer"), own, reads("ints", name, r.ints_only ? "0" : "1")});
    }
    struct Row {
        std::string forward, arguments, of;
    };
    const Row kRows[] = {
#define BACKWARD(forward, name, text, of) {forward, text, of},
#define SELECTS(forward) {forward, "", ""},
#include "passes/calls.def"
#undef BACKWARD
#undef SELECTS
    };
    for (const Row& r : kRows) {
        const char* own = "Golden*Calls*";
        if (r.arguments.empty()) {
            all.push_back({"calls", r.forward + ": selects nothing", own, reads("selects", r.forward, "")});
            continue;
        }
        auto add = [&](const std::string& what, const std::string& arguments, const std::string& of) {
            all.push_back({"calls", fmt::format("{}: {}", r.forward, what), own, reads("backward", r.forward, arguments + " -> " + of)});
        };
        auto turned = [&](const std::string& what, const std::string& from, const std::string& to) {
            if (auto k = r.arguments.find(from); k != std::string::npos) add(what, std::string(r.arguments).replace(k, from.size(), to), r.of);
        };
        turned("another result's gradient", "=g0", "=g1");
        turned("another result", "=r1", "=r0");
        turned("sizes of another", "=sizes(self)", "=sizes(output_size)");
        turned("sizes of another", "=sizes(bias)", "=sizes(weight)");
        turned("a stride is a padding", "stride, padding", "padding, stride");
        turned("an argument is missing", ", align_corners", "");
        turned("an argument is missing", ", ceil_mode", "");
        turned("an argument is missing", ", is_causal", "");
        turned("an argument is missing", "grad_output=g0, self", "grad_output=g0");
        if (auto k = r.of.find(", "); k != std::string::npos) add("gradients change places", r.arguments, std::string(r.of.substr(k + 2)) + ", " + r.of.substr(0, k));
    }
    return all;
}

std::vector<Mutant> kernels() {
    std::vector<Mutant> all;
    for (const Edit& e : kEdits)
        all.push_back({"cuda", std::string("text: ") + e.name, e.first, [e] {
            touched = 0;
            reader = [from = std::regex(e.from), e](std::string_view t, std::string_view, std::string text) {
                const std::string wrong = t == "cuda" ? std::regex_replace(text, from, e.to) : text;
                touched += wrong != text;
                return wrong;
            };
        }});
    return all;
}

}  // namespace heddle::mutant
