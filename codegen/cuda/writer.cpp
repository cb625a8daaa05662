// Nests to text; see writer.h.
#include "codegen/cuda/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <cctype>
#include <utility>

#include "codegen/cuda/index.h"

namespace heddle::cuda {

using loop::Val, loop::Value, loop::What;

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

bool reserved(const std::string& s) {
    static constexpr std::string_view kWords =
        " alignas alignof and asm auto bitand bitor bool break case catch char class compl concept const constexpr continue "
        "decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline "
        "int long mutable namespace new noexcept not nullptr operator or private protected public register requires return "
        "short signed sizeof static static_assert struct switch template this throw true try typedef typeid typename union "
        "unsigned using virtual void volatile while xor block blocks lane live point points part i64 index_t HD heddle "
        "threadIdx blockIdx blockDim gridDim warpSize signbit isnan isinf fmod copysign add_to from_f16 to_f16 from_bf16 "
        "to_bf16 add_to_f16 add_to_bf16 atomicAdd atomicCAS await count_off done take_turn turn e Vec EACH BLOCKS load store Run run run_of runs first last group at add_together floordiv_real all_sum all_prod all_amax all_amin NULL "
        "Powers power_of raise Sums room_for add_whole shifted at_least_1 endless sum_of_endless two_to total sums lanes_of before_own sum_before product_before state_before Near near_words clear_near add_near ";
    bool row = s.ends_with('_') && (op_named(s) || op_named(s.substr(0, s.size() - 1)));
    return row || is_vocabulary(s) || kWords.find(" " + s + " ") != std::string_view::npos;
}

std::string sum_of_products(const Dim& d) {
    std::string s;
    for (const Dim::Term& t : d.terms()) {
        std::string product = t.names.empty() || (t.coef != 1 && t.coef != -1) ? fmt::format("{}", t.coef < 0 ? -t.coef : t.coef) : "";
        for (const std::string& name : t.names) product += (product.empty() ? "" : " * ") + name;
        s += (s.empty() ? (t.coef < 0 ? "-" : "") : t.coef < 0 ? " - " : " + ") + product;
    }
    return s.empty() ? "0" : s;
}

enum class Scope : std::uint8_t { uniform, point, body };

// Writes the body of one nest.
class Writer {
public:
    Writer(const Request& r, Names names, Uses& uses)
        : n_(r.nest), threads_(r.threads), group_(n_.schedule.lanes_inner ? n_.schedule.group : 1), way_(r.way), uses_(uses), names_(std::move(names)), buffers_(r.buffers), adders_(r.adders),
          sizes_(r.sizes), grid_(r.grid), index_(index_types(n_)), text_(n_.values.size()), several_(n_.values.size()), users_(n_.values.size()), run_(loop::run(n_)) {
        const loop::Nest& n = n_;
        for (int i = 0; i < static_cast<int>(n.values.size()); ++i)
            for (Val o : value(i).in)
                if (o >= 0) ++users_[at(o)], user_.emplace(o, i);
        for (const loop::Phase& p : n.phases) named_.insert(p.guard);
        for (Val v : n.uniform) scope_[v] = 0;
        int scope = 1;
        for (Val v : n.prologue) scope_[v] = scope;
        for (const loop::Phase& p : n.phases) {
            ++scope;
            for (Val v : p.body) scope_[v] = scope;
            ++scope;
            for (Val v : p.after) scope_[v] = scope;
        }
    }

    std::string write() {
        inner_ = names_.fresh("j");
        const bool near = begin_near();
        along_ = run_ == 1 && !near && runs_along();
        if (run_ == 1 && !near) place();  // a thread with no point reads nothing that a point's may write over
        for (Val v : n_.uniform) statement(v, Scope::uniform);
        if (near && group_ == 1) {
            stride();
        } else if (run_ > 1) {
            walk();
        } else {
            point();
        }
        if (near) end_near();
        return std::move(out_);
    }
    const std::vector<Dim>& limits() const { return index_.limits; }

private:
    const Value& value(Val v) const { return n_.values[at(v)]; }
    template <class... A>
    void line(fmt::format_string<A...> f, A&&... a) {
        out_ += std::string(at(indent_), ' ') + fmt::format(f, std::forward<A>(a)...) + "\n";
    }

    void point() {
        for (Val v : n_.prologue) statement(v, Scope::point);
        if (!n_.phases.empty()) stored_by_the_group();
        for (const loop::Phase& p : n_.phases) phase(p);
    }
    // Buffers of which a thread reads what it stored before: each pass over the nest stores that. Anything else is stored once, as what is
    // written over is to be read in both.
    std::set<int> read_back() const {
        std::set<int> stored, read, back;
        auto look = [&](const std::vector<Val>& list) {
            for (Val v : list)
                if (const Value& x = value(v); x.what == What::store && !read.contains(x.index)) stored.insert(x.index);
                else if (x.what == What::load) (stored.contains(x.index) ? back : read).insert(x.index);
        };
        look(n_.prologue);
        for (const loop::Phase& p : n_.phases) look(p.body), look(p.after);
        return back;
    }

    // ---- sums in shared memory
    bool begin_near() {
        std::int64_t words = 0;
        for (const loop::Buffer& b : n_.buffers) {
            if (!loop::near(n_, b)) continue;
            const std::string& name = near_[b.id] = names_.fresh(b.name + "_near");
            line("const Near<{0}> {1} = {{({0}*)(near_words{2})}};", type(b.dtype), name, words == 0 ? "" : fmt::format(" + {}", words));
            words += (b.elements.value() * bytes(b.dtype) + 7) / 8;
        }
        if (near_.empty()) return false;
        uses_.near = true;
        line("clear_near<{}>(near_words, {});", words, threads_);
        return true;
    }
    void end_near() {
        line("__syncthreads();");
        for (const loop::Buffer& b : n_.buffers)
            if (auto it = near_.find(b.id); it != near_.end()) line("add_near<{}>({}, {}, {});", b.elements.value(), buffers_.at(b.id), it->second, threads_);
    }
    // Each thread of the block at several points, of which the block has a row.
    void stride() {
        const std::string points = expr(numel(n_.outer), sizes_);
        uses_.runs = true;
        line("const index_t run = run_of({}, 1, {}, {});", expr(numel(n_.outer), grid_), n_.schedule.run, n_.schedule.full);
        line("for (index_t at = 0; at < run; ++at) {{");
        indent_ += 2;
        line("const index_t point = (block * run + at) * {} + (int)threadIdx.x;", threads_);
        line("if (point >= {}) break;", points);
        axes();
        point();
        indent_ -= 2;
        line("}}");
    }

    bool shares_address(const Value& v) const { return v.what == What::accumulate && !value(v.in[0]).varies_outer; }
    bool runs_along() const {
        return group_ > 1 || std::any_of(n_.values.begin(), n_.values.end(), [&](const Value& v) { return shares_address(v); });
    }

    // Which point this thread is at.
    void place() {
        std::string here = fmt::format("block * {} + (int)threadIdx.x", threads_);
        if (group_ > 1) {
            line("const int lane = threadIdx.x % {};", group_);
            here = fmt::format("({}) / {}", here, group_);
        }
        std::string points = expr(numel(n_.outer), sizes_);
        // A grid cut by what the points don't exceed has blocks with none at all, and perhaps there is no point 0.
        if (along_ && !n_.counted.empty())
            line("if (block * {} >= {}{}) return;", threads_, factor(numel(n_.outer), sizes_), group_ > 1 ? fmt::format(" * {}", group_) : "");
        if (along_) {
            line("const bool live = {} < {};", here, points);
            line("const index_t point = live ? {} : 0;", here);
        } else {
            line("const index_t point = {};", here);
            line("if (point >= {}) return;", points);
        }
        axes();
    }
    void axes() {
        axes_.assign(n_.outer.size(), "");
        Dim after = 1;  // points per step of the axis
        for (std::size_t axis = n_.outer.size(); axis-- > 0; after = after * n_.outer[axis]) {
            auto here_too = [&](const Value& v) { return v.what == What::outer && at(v.index) == axis; };
            if (std::none_of(n_.values.begin(), n_.values.end(), here_too)) continue;
            axes_[axis] = names_.fresh(fmt::format("i{}", axis));
            std::string by = after == 1 ? "" : " / " + factor(after, sizes_);
            std::string within = axis == 0 ? "" : " % " + factor(n_.outer[axis], sizes_);
            line("const index_t {} = point{}{};", axes_[axis], by, within);
        }
    }

    // A group at one point after the other, every thread with the same elements of each.
    void walk() {
        const loop::Phase& p = n_.phases.at(0);
        const std::string points = expr(numel(n_.outer), sizes_), count = expr(p.extent, sizes_);
        uses_.runs = true;
        taken_ = loop::taken(n_, p);
        line("const int lane = threadIdx.x % {};", group_);
        line("const index_t group = (block * {} + (int)threadIdx.x) / {};", threads_, group_);
        line("const index_t run = run_of({}, {}, {}, {});", expr(numel(n_.outer), grid_), group_, run_, n_.schedule.full);
        line("const index_t first = group * run, last = first + run < {0} ? first + run : {0};", points);
        line("for (index_t at = 0; at < {}; at += {}) {{", count, group_ * taken_);
        indent_ += 2;
        line("const index_t {} = at + lane{};", inner_, taken_ > 1 ? fmt::format(" * {}", taken_) : "");
        std::vector<char> early(n_.values.size());  // what the addresses of sums of all points take
        for (Val v : p.body)
            if (const Value& x = value(v); loop::merges(n_, x, taken_) && added(x)) {
                const bool all = shares_address(x);
                sums_[v] = names_.fresh(fmt::format("{}{}", all ? "sum" : "run", v));
                line("{}<{}, {}> {}{};", all ? "Vec" : "Run", type(buffer(x).dtype), taken_, sums_[v], all ? " = {}" : "");
                if (all) need(x.in[0], early);
            }
        for (Val v : p.body)
            if (early[at(v)]) statement(v, Scope::body);
        line("for (index_t point = {} < {} ? first : last; point < last; ++point) {{", inner_, count);
        indent_ += 2;
        axes();
        for (Val v : n_.prologue) statement(v, Scope::point);
        guard_ = p.guard;
        if (guard_ >= 0) line("if ({}) {{", bare(guard_)), indent_ += 2;
        for (Val v : p.body)
            if (!early[at(v)]) statement(v, Scope::body);
        if (guard_ >= 0) indent_ -= 2, line("}}");
        guard_ = -1;
        indent_ -= 2;
        line("}}");
        for (const auto& [v, sum] : sums_) {
            const Value& x = value(v);
            const std::string& to = where_to(x);
            if (shares_address(x)) line("add_together<{}, {}>({} + {}, {}, {} < {});", group_, threads_, to, operand(x.in[0]), sum, inner_, count);
            else line("{}.end({});", sum, to);
        }
        indent_ -= 2;
        line("}}");
    }

    void need(Val v, std::vector<char>& needed) const {
        if (v < 0 || std::exchange(needed[at(v)], 1)) return;
        for (Val i : value(v).in) need(i, needed);
    }
    // Folds whose terms have no element in common, each with what it takes of the body: one after the other they keep fewer values alive.
    // Else one part with all of it.
    std::vector<std::pair<std::vector<int>, std::vector<Val>>> parts(const loop::Phase& p) const {
        std::vector<std::pair<std::vector<int>, std::vector<Val>>> all;
        std::vector<char> read(n_.values.size());
        bool apart = taken_ > 1 && p.folds.size() > 1;
        for (Val v : p.body) {
            const Value& x = value(v);
            if (!apart || x.what == What::store || x.what == What::accumulate) apart = false;
            if (!apart || x.what != What::fold_step) continue;
            std::vector<char> needed(n_.values.size());
            need(v, needed);
            auto& [folds, body] = all.emplace_back();
            folds = {x.index};
            for (Val i : p.body)
                if (needed[at(i)]) {
                    body.push_back(i);
                    apart &= value(i).what != What::load || !std::exchange(read[at(i)], 1);
                }
        }
        if (!apart) all = {{p.folds, p.body}};
        return all;
    }
    void phase(const loop::Phase& p) {
        const bool scans = group_ > 1 && p.ordered;
        HEDDLE_CHECK(!scans || (group_ <= 32 && loop::walkable(n_, p)), "an ordered phase can't be shared by a group of threads");
        for (int f : p.folds) {
            const loop::Fold& fold = n_.folds[at(f)];
            folds_[f] = names_.fresh(fmt::format("{}{}", def(fold.op).name, f));
            line("{} {} = {};", type(fold.dtype), folds_[f], literal(fold.dtype, fold.init));
        }
        for (int c : p.carries) {
            const loop::Carry& carry = n_.carries[at(c)];
            carries_[c] = names_.fresh(fmt::format("carry{}", c));
            line("{} {} = {};", type(carry.dtype), carries_[c], literal(carry.dtype, carry.init));
        }
        std::string count = expr(p.extent, sizes_);
        std::string first = p.reverse ? count + " - 1" : "0", step = (p.reverse ? "--" : "++") + inner_;
        if (scans) return ordered_by_lanes(p, count);
        std::string once;  // where every thread has all its elements in one go: the first
        if (group_ > 1) {  // threads beyond the last point go round no loop
            taken_ = loop::taken(n_, p);
            const std::string mine = taken_ > 1 ? fmt::format("lane * {}", taken_) : "lane";
            if (!p.reverse && p.extent.is_const() && p.extent.value() <= group_ * taken_) once = mine;
            first = p.reverse ? fmt::format("live ? {} - 1 - lane : -1", count) : fmt::format("live ? {} : {}", mine, count);
            step = fmt::format("{} {} {}", inner_, p.reverse ? "-=" : "+=", group_ * taken_);
        }
        guard_ = guard_of(p);
        const std::string guarded = guard_ < 0 ? "" : fmt::format("if ({}) ", bare(guard_));
        for (const auto& [folds, body] : parts(p)) {
            if (!once.empty()) line("{3}if (const index_t {0} = {1}; live && {0} < {2}) {{", inner_, once, count, guarded);
            else line("{4}for (index_t {0} = {1}; {0} {2}; {3}) {{", inner_, first, p.reverse ? ">= 0" : "< " + count, step, guarded);
            indent_ += 2;
            for (Val v : body) statement(v, Scope::body);
            for (Val v : body)
                if (value(v).what == What::carry_step) line("{} = {};", carries_[value(v).index], bare(value(v).in[0]));
            indent_ -= 2;
            line("}}");
            over_the_group(folds);  // all threads of it, whatever the guard is for other points of a warp
        }
        guard_ = -1;
        end_phase(p);
    }
    // The condition under which a thread goes round the loop at all; not where threads that walk it by themselves meet in it.
    Val guard_of(const loop::Phase& p) const {
        const bool meet = group_ == 1 && std::any_of(p.body.begin(), p.body.end(), [&](Val v) { return shares_address(value(v)); });
        return meet ? -1 : p.guard;
    }
    // A group at as many iterations as it has threads, each at its own, in their order: a carry goes through them all, so that those without an
    // iteration go along, and neither read nor write.
    void ordered_by_lanes(const loop::Phase& p, const std::string& count) {
        const std::string at = names_.fresh("at");
        line("for (index_t {0} = live ? 0 : {1}; {0} < {1}; {0} += {2}) {{", at, count, group_);
        indent_ += 2;
        line("const index_t {} = {}{} + lane{};", inner_, p.reverse ? count + " - 1 - (" : "", at, p.reverse ? ")" : "");
        if (!(p.extent.is_const() && p.extent.value() % group_ == 0)) {
            here_ = names_.fresh("here");
            line("const bool {} = {} {};", here_, inner_, p.reverse ? ">= 0" : "< " + count);
        }
        ordered_ = &p;
        for (int c : p.carries) {
            const auto r = loop::recurrence(n_, p, c);
            named_.insert(r->a.begin(), r->a.end());
            for (const auto& term : r->b) named_.insert(term.begin(), term.end());
        }
        for (Val v : p.body) statement(v, Scope::body);
        ordered_ = nullptr;
        here_.clear();
        indent_ -= 2;
        line("}}");
        over_the_group(p.folds);
        end_phase(p);
    }
    // A carry as it is before this thread's iteration: what the iterations before it do to it is a product and a sum. Threads without an iteration come
    // after all that have one: what they hand on nobody reads.
    std::string carried(int carry) {
        const loop::Recurrence r = loop::recurrence(n_, *ordered_, carry).value();
        const DType t = n_.carries[at(carry)].dtype;
        auto product = [&](const std::vector<Val>& factors) {
            std::string s;
            for (Val f : factors) s += (s.empty() ? "" : " * ") + operand(f);
            return s;
        };
        std::string sum;
        for (const auto& term : r.b) sum += (sum.empty() ? "" : " + ") + (term.empty() ? literal(t, 1) : product(term));
        const std::string scan = r.b.empty() ? "product_before" : r.a.empty() ? "sum_before" : "state_before";
        uses_.scans.insert(scan);
        auto argument = [&](bool given, const std::string& s) { return given ? fmt::format("{}({}), ", type(t), s) : ""; };
        return fmt::format("{}<{}>({}{}{})", scan, group_, argument(!r.a.empty(), product(r.a)), argument(!r.b.empty(), sum), carries_.at(carry));
    }
    void over_the_group(const std::vector<int>& folds) {
        for (int f : folds) {
            if (group_ == 1) continue;
            uses_.group(n_.folds[at(f)].op, group_);
            line("{0} = all_{1}<{2}>({0});", folds_[f], def(n_.folds[at(f)].op).name, group_);
        }
    }
    void end_phase(const loop::Phase& p) {
        taken_ = 1;
        if (!p.after.empty()) stored_by_the_group();
        for (Val v : p.after) statement(v, Scope::point);
        if (&p != &n_.phases.back()) stored_by_the_group();
    }
    // What one thread of a group stored is there for the others from here on.
    void stored_by_the_group() {
        bool reads_back = std::any_of(n_.values.begin(), n_.values.end(), [&](const Value& v) {
            return v.what == What::load && n_.buffers[at(v.index)].written;
        });
        if (reads_back) meet();
    }
    void meet() {
        if (group_ > 1) line("{}();", group_ > 32 ? "__syncthreads" : "__syncwarp");
        read_.clear();
    }

    // ---- operands
    bool narrow(Val v) const { return index_.narrow[at(v)] != 0; }
    std::string type_of(Val v) const { return narrow(v) ? "index_t" : type(value(v).dtype); }
    // Of several elements taken together: a value differs in more than a known step.
    bool spread(Val v) const { return taken_ > 1 && value(v).varies_inner && !loop::step_of(n_, v); }
    std::string bare(Val v) const {
        if (!each_) return base(v);
        if (several_[at(v)]) return base(v) + "[e]";
        const auto step = value(v).varies_inner ? loop::step_of(n_, v) : 0;
        return step.value_or(0) == 0 ? base(v) : *step == 1 ? base(v) + " + e" : fmt::format("{} + {} * e", base(v), *step);
    }
    std::string base(Val v) const {
        const Value& x = value(v);
        switch (x.what) {
            case What::constant: return x.dtype == DType::i64 && narrow(v) ? literal(DType::i32, x.imm) : literal(x.dtype, x.imm);
            case What::size: return sizes_.at(n_.sizes[at(x.index)]);
            case What::outer: return axes_[at(x.index)];
            case What::inner: return inner_;
            case What::fold: return folds_.at(x.index);
            default:
                HEDDLE_CHECK(!text_[at(v)].empty(), "a value is used before it is defined");
                return text_[at(v)];
        }
    }
    std::string operand(Val v) const {
        std::string s = bare(v);
        return is_atom(s) ? s : "(" + s + ")";
    }
    // Operands of one map that are 64-bit integers agree in width.
    std::string operand(Val v, bool wide, Op user) const {
        const Value& x = value(v);
        bool product = x.what == What::map && x.op == Op::mul && (user == Op::add || user == Op::sub) && !(each_ && x.varies_inner);  // binds closer already
        if (x.dtype != DType::i64) return product ? bare(v) : operand(v);
        if (x.what == What::constant) return literal(wide ? DType::i64 : DType::i32, x.imm);
        if (narrow(v) == !wide) return product ? bare(v) : operand(v);
        return (wide ? "(i64)" : "(index_t)") + operand(v);
    }
    std::string map(Val v) {
        const Value& x = value(v);
        bool wide = x.dtype == DType::i64 ? !narrow(v) : std::any_of(x.in.begin(), x.in.end(), [&](Val o) {
            return value(o).dtype == DType::i64 && value(o).what != What::constant && !narrow(o);
        });
        if (x.op == Op::cast) return cast(v, x);
        uses_.rows.insert(x.op);
        std::string in[3];
        for (std::size_t k = 0; k < x.in.size(); ++k) in[k] = operand(x.in[k], wide, x.op);
        if ((x.op == Op::floordiv || x.op == Op::mod) && index_.positive[at(v)])
            return fmt::format("{} {} {}", in[0], x.op == Op::mod ? "%" : "/", in[1]);
        return apply(def(x.op), in[0], in[1], in[2]);
    }
    std::string cast(Val v, const Value& x) {
        std::string to = fmt::format("({}){}", type_of(v), operand(x.in[0]));
        if (x.dtype != DType::f16 && x.dtype != DType::bf16) return to;
        uses_.converted.insert(x.dtype);  // the one place where a narrow float rounds without being stored
        return from_stored(x.dtype, to_stored(x.dtype, to));
    }

    // Writes expressions of one element of several, while it lives.
    struct Each {
        bool& each;
        const bool before;
        Each(bool& e, bool now) : each(e), before(std::exchange(e, now)) {}
        ~Each() { each = before; }
    };
    // A value as a Vec of what its buffer holds.
    std::string several(Val v, DType as_stored) {
        const bool narrow_float = as_stored == DType::f16 || as_stored == DType::bf16;
        if (several_[at(v)] && !narrow_float) return base(v);
        const std::string name = names_.fresh(fmt::format("all{}", v));
        Each each(each_, true);
        line("Vec<{0}, {1}> {2}; EACH({1}) {2}[e] = {3};", stored(as_stored), taken_, name, to_stored(as_stored, bare(v)));
        return name;
    }

    // ---- statements
    std::string element(const Value& v) { return fmt::format("{}[{}]", buffers_.at(buffer(v).id), bare(v.in[0])); }
    const loop::Buffer& buffer(const Value& v) {
        const loop::Buffer& b = n_.buffers[at(v.index)];
        if (b.dtype == DType::f16 || b.dtype == DType::bf16) uses_.converted.insert(b.dtype);
        return b;
    }
    std::string comment(const Value& v) {
        if (v.loc.empty() || v.loc == loc_) return "";
        loc_ = v.loc;
        std::string s = "  // " + v.loc;
        std::replace_if(s.begin(), s.end(), [](char c) { return c == '\n' || c == '\\'; }, ' ');  // stays one line
        return s;
    }
    bool written_in_place(Val v) {
        const Value& x = value(v);
        if (users_[at(v)] != 1 || x.what != What::map || text_[at(v)].size() > 48 || named_.contains(v)) return false;
        if (x.op == Op::cast ? is_float(x.dtype) && !is_float(value(x.in[0]).dtype) : !in_place(def(x.op))) return false;
        Val user = user_.at(v);
        if (value(user).what == What::carry_step || value(user).what == What::accumulate || (taken_ > 1 && value(user).what == What::store)) return false;
        if (!x.loc.empty() && x.loc != value(user).loc) return false;  // a line of its own for its comment
        bool arithmetic_on_bool = x.dtype == DType::b1 && value(x.in[0]).dtype == DType::b1;       // 1 + 1 is true only once stored
        return scope_.contains(v) && scope_.at(v) == scope_.at(user) && !arithmetic_on_bool;
    }
    // What guards a side effect: empty, or the condition under which this thread is the one to do it.
    std::string owner(Scope scope) const {
        if (group_ > 1) return scope == Scope::body ? "" : "live && lane == 0";
        return along_ ? "live" : "";
    }
    std::string where(const Value& x) {
        if (x.in.size() > 2 && x.in[2] != guard_) return fmt::format("if ({}) ", here_.empty() ? bare(x.in[2]) : here_ + " && " + operand(x.in[2]));
        return here_.empty() ? "" : fmt::format("if ({}) ", here_);
    }
    void effect(Scope scope, const std::string& what, const std::string& note) {
        std::string guard = owner(scope);
        line("{}{};{}", guard.empty() ? "" : "if (" + guard + ") ", what, note);
    }

    void statement(Val v, Scope scope) {
        const Value& x = value(v);
        const bool parts = scope == Scope::body && (x.what == What::map || x.what == What::load) && spread(v);
        Each each(each_, parts);
        switch (x.what) {
            case What::constant: case What::size: case What::outer: case What::inner: case What::fold: return;
            case What::carry_step: return;  // written at the end of the iteration
            case What::map:
                if (users_[at(v)] == 0) return;
                text_[at(v)] = map(v);
                break;
            case What::carry: text_[at(v)] = ordered_ ? carried(x.index) : carries_.at(x.index); break;
            case What::load: {
                if (parts && loop::beside(n_, v, taken_)) return neighbours(v, x);
                std::string e = element(x);
                if (narrow(v)) e = "(index_t)" + e;
                e = from_stored(buffer(x).dtype, e);
                if (along_ && buffer(x).written && scope != Scope::body) {
                    e = fmt::format("live ? {} : {}", e, literal(narrow(v) ? DType::i32 : x.dtype, 0));
                    read_.insert(x.index);
                }
                if (x.in.size() > 1 && x.in[1] >= 0)
                    e = fmt::format("{} ? {} : {}", operand(x.in[1]), e, literal(narrow(v) ? DType::i32 : x.dtype, 0));
                if (!here_.empty()) e = fmt::format("{} ? {} : {}", here_, e, literal(narrow(v) ? DType::i32 : x.dtype, 0));
                text_[at(v)] = e;
                break;
            }
            case What::store:
                if (way_ == Way::powers && !back_.contains(x.index)) return;
                if (scope == Scope::body && taken_ > 1) return stores(v, x);
                if (scope != Scope::body && read_.contains(x.index)) meet();  // the others have read what one of them writes over
                return effect(scope, fmt::format("{}{} = {}", where(x), element(x), to_stored(buffer(x).dtype, bare(x.in[1]))), comment(x));
            case What::accumulate: return accumulate(v, x, scope);
            case What::fold_step: {
                const std::string& f = folds_.at(x.index);
                uses_.rows.insert(x.op);
                Each one(each_, taken_ > 1);
                return line("{}{}{} = {};{}", here_.empty() ? "" : "if (" + here_ + ") ", every(), f, apply(def(x.op), f, operand(x.in[0])), comment(x));
            }
        }
        if (written_in_place(v)) return;
        std::string name = names_.fresh(fmt::format("{}{}", x.name.empty() ? "v" : x.name + "_", v));
        if (parts) line("Vec<{}, {}> {}; {}{}[e] = {};{}", type_of(v), taken_, name, every(), name, text_[at(v)], comment(x));
        else line("const {} {} = {};{}", type_of(v), name, text_[at(v)], comment(x));
        text_[at(v)] = name;
        several_[at(v)] = parts;
    }
    std::string every() {
        if (taken_ > 1) uses_.vectors = true;
        return taken_ > 1 ? fmt::format("EACH({}) ", taken_) : "";
    }
    // Loads and stores of several elements at once.
    void neighbours(Val v, const Value& x) {
        const DType t = buffer(x).dtype;
        const bool as_is = t != DType::f16 && t != DType::bf16 && !narrow(v);
        const std::string name = names_.fresh(fmt::format("{}{}", x.name.empty() ? "v" : x.name + "_", v)), raw = as_is ? name : names_.fresh(fmt::format("raw{}", v));
        Each together(each_, false);
        uses_.vectors = true;
        std::string all = fmt::format("load<{}>(&{})", taken_, element(x));
        if (x.in.size() > 1 && x.in[1] >= 0) all = fmt::format("{} ? {} : Vec<{}, {}>()", operand(x.in[1]), all, stored(t), taken_);
        line("const Vec<{}, {}> {} = {};{}", stored(t), taken_, raw, all, comment(x));
        if (!as_is) line("Vec<{0}, {1}> {2}; EACH({1}) {2}[e] = {3}{4};", type_of(v), taken_, name, narrow(v) ? "(index_t)" : "", from_stored(t, raw + "[e]"));
        text_[at(v)] = name;
        several_[at(v)] = 1;
    }
    void stores(Val v, const Value& x) {
        const DType t = buffer(x).dtype;
        uses_.vectors = true;
        if (x.in.size() <= 2 && loop::beside(n_, v, taken_)) {
            const std::string all = several(x.in[1], t);
            return line("store(&{}, {});{}", element(x), all, comment(x));
        }
        Each one(each_, true);
        line("{}{}{} = {};{}", every(), where(x), element(x), to_stored(t, bare(x.in[1])), comment(x));
    }

    // Is it this pass that adds here, and to what: memory, or who adds for it.
    bool added(const Value& x) const { return way_ != Way::powers || adders_.contains(n_.buffers[at(x.index)].id); }
    const std::string& where_to(const Value& x) {
        const Id id = buffer(x).id;
        const bool ordered = adders_.contains(id);
        if (ordered) uses_.ordered = true;
        else uses_.atomics.insert(buffer(x).dtype);
        const auto near = near_.find(id);
        return ordered ? adders_.at(id) : near != near_.end() ? near->second : buffers_.at(id);
    }
    void accumulate(Val v, const Value& x, Scope scope) {
        if (!added(x)) return;
        const DType t = buffer(x).dtype;
        const std::string& to = where_to(x);
        const bool in_memory = &to == &buffers_.at(buffer(x).id);
        if (auto run = sums_.find(v); run != sums_.end() && shares_address(x)) {
            uses_.vectors = true;
            Each one(each_, taken_ > 1);
            return line("{4}EACH({0}) {1}[e] = {1}[e] + {2};{3}", taken_, run->second, operand(x.in[1]), comment(x), where(x));
        } else if (run != sums_.end()) {
            const std::string address = narrow(x.in[0]) ? bare(x.in[0]) : "(index_t)" + operand(x.in[0]);
            if (taken_ > 1) {
                const std::string all = several(x.in[1], t);
                return line("{}{}.add({}, {}, {});{}", where(x), run->second, to, address, all, comment(x));
            }
            return line("{}{}.add({}, {}, Vec<{}, 1>{{{{{}}}}});{}", where(x), run->second, to, address, type(t), bare(x.in[1]), comment(x));
        }
        auto place = [&] { return in_memory ? "&" + element(x) : fmt::format("{} + {}", to, operand(x.in[0])); };
        if (scope == Scope::body && taken_ > 1 && loop::merges(n_, x, taken_)) {
            uses_.vectors = true;
            const std::string all = several(x.in[1], t);
            return line("{}add_to({}, {});{}", where(x), place(), all, comment(x));
        }
        Each one(each_, scope == Scope::body && taken_ > 1);
        const bool narrow_float = in_memory && (t == DType::f16 || t == DType::bf16);
        std::string add = narrow_float ? fmt::format("add_to_{}", name(t)) : "add_to", sum = bare(x.in[1]);
        if (!shares_address(x) || (group_ > 1 && scope == Scope::body))
            return effect(scope, fmt::format("{}{}{}({}, {})", scope == Scope::body ? every() : "", where(x), add, place(), sum), comment(x));
        // All threads hit one address: they meet first, those of the block, or inside a loop those of the warp.
        int meet = scope == Scope::body ? 32 : threads_;
        uses_.group(Op::sum, meet);
        std::string total = names_.fresh(fmt::format("total{}", v)), c_type = type(value(x.in[1]).dtype);
        std::string mine = owner(scope) + (x.in.size() > 2 ? " && " + operand(x.in[2]) : "");
        line("const {0} {1} = all_sum<{2}>({3} ? {4} : {0}(0));{5}", c_type, total, meet, mine, operand(x.in[1]), comment(x));
        line("if (threadIdx.x{} == 0) {}({}, {});", meet == threads_ ? "" : " % 32", add, place(), total);
    }

    const loop::Nest& n_;
    int threads_, group_, indent_ = 2;
    const Way way_;
    Uses& uses_;
    Names names_;
    const std::map<Id, std::string>&buffers_, &adders_;
    const SizeNames &sizes_, &grid_;
    Index index_;
    std::vector<std::string> text_, axes_;
    std::vector<char> several_;       // per value: text_ is a Vec
    std::vector<int> users_;          // how many operands name a value
    std::map<Val, Val> user_;         // the first of them
    std::map<Val, int> scope_;
    std::map<int, std::string> folds_, carries_;
    std::map<Val, std::string> sums_; // of accumulations that are merged
    std::map<Id, std::string> near_;  // per buffer: its part in shared memory
    const std::set<int> back_ = read_back();
    int run_, taken_ = 1;             // points that a group walks; elements that a thread takes at once
    bool each_ = false;               // an expression is of one of them: e
    Val guard_ = -1;                  // of the loop that is being written
    std::string inner_, out_, loc_;
    bool along_ = false;
    const loop::Phase* ordered_ = nullptr;  // the phase in which carries go from lane to lane, and
    std::string here_;                // whether this thread has an iteration of it; empty: it has
    std::set<Val> named_;             // not written in place
    std::set<int> read_;              // buffers that are written too, read by the threads of a group since they last met
};

}  // namespace

std::string Names::fresh(std::string_view wish) {
    std::string s;
    for (char c : wish) s += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    if (s.empty() || std::isdigit(static_cast<unsigned char>(s[0]))) s = "_" + s;
    while (reserved(s) || !taken_.insert(s).second) s += "_";
    return s;
}

std::string expr(const Dim& d, const SizeNames& names) {
    std::map<std::string, Dim> to;
    for (const auto& [from, name] : names) to.emplace(from, Dim::symbol(name));
    return sum_of_products(d.substitute(to));
}
std::string factor(const Dim& d, const SizeNames& names) {
    std::string s = expr(d, names);
    return is_atom(s) ? s : "(" + s + ")";
}

Body body(const Request& r, Names names, Uses& uses) {
    Writer w(r, std::move(names), uses);
    std::string text = w.write();
    return {std::move(text), w.limits()};
}

}  // namespace heddle::cuda
