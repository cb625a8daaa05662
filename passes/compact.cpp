// One walk: masks to places; what is looked up or written at all coordinates of a mask is looked up or written at its places.
#include "passes/compact.h"

#include <algorithm>

namespace heddle {

namespace {
constexpr int kWidth = 256;                            // of a row that a long axis is cut into
constexpr std::int64_t kShortest = 16, kLongest = 4096;  // a mask's last axis that is a row as it is
constexpr std::int64_t kFew = 1024;                    // rows that are counted up at one level

// The mask of which this is whether it holds anywhere; -1: it's something else.
Id any_of(const Graph& g, Id id) {
    const Node& n = g[id];
    if (n.type.rank() > 0 || n.type.dtype != DType::b1) return -1;
    if (n.is(Op::amax)) return n.in[0];
    if (!n.is(Op::gt) || !g[n.in[1]].is(Op::constant) || g[n.in[1]].number("value") != 0) return -1;
    const Node& count = g[n.in[0]];
    if (!count.is(Op::sum) || !is_int(count.type.dtype)) return -1;
    const Node& ones = g[count.in[0]];
    return ones.is(Op::cast) && g.type(ones.in[0]).dtype == DType::b1 ? ones.in[0] : -1;
}

class Compaction {
public:
    explicit Compaction(const Graph& g) : g_(g), at_(g.nodes.size()), column_(g.nodes.size()) {}
    Graph run() {
        for (Id id = 0; id < g_.size(); ++id)
            if (is_compacted(id)) masks_.push_back(g_[id].in[0]);
        if (masks_.empty()) return g_;
        out_.name = g_.name;
        for (Id i : g_.inputs) at_[at(i)] = out_.input(g_.type(i), g_[i].text("name"));
        for (Id id = 0; id < g_.size(); ++id) {
            if (g_[id].is(Op::input)) continue;
            out_.here = g_[id].loc;
            at_[at(id)] = one(id).id;
        }
        out_.here.clear();
        for (Id i : g_.outputs) out_.outputs.push_back(at_[at(i)]);
        return live(out_);
    }

private:
    struct Counts {
        V mask, starts, count;  // [R, C], [R], []
    };
    struct Column {
        Id call = -1;
        int axis = 0;
    };
    static std::size_t at(Id id) { return static_cast<std::size_t>(id); }
    V now(Id id) { return out_.value(at_[at(id)]); }
    const Shape& mask_of(Id call) const { return g_.type(g_[call].in[0]).shape; }
    bool is_compacted(Id id) const {
        const Node& n = g_[id];
        return n.is(Op::call) && n.text("name") == "aten.nonzero.default" && n.type.shape[0].is_symbol() && g_.type(n.in[0]).rank() > 0;
    }

    V one(Id id) {
        Node n = g_[id];
        if (is_compacted(id)) return coordinates(id);
        column_[at(id)] = column(n);
        if (V v = flat(n)) return v;
        for (Id& i : n.in) i = at_[at(i)];
        if (n.is(Op::call) && n.text("name") == "heddle.guard")
            if (const Id mask = any_of(g_, g_[id].in[0]); std::find(masks_.begin(), masks_.end(), mask) != masks_.end()) {
                V count = counts(mask).count;
                n.in = {gt(count, zeros_like(count)).id};
            }
        return out_.value(out_.add(std::move(n)));
    }

    // ---- places
    const Counts& counts(Id mask) {
        auto [it, fresh] = counts_.try_emplace(mask);
        if (fresh) it->second = counted(now(mask));
        return it->second;
    }
    Counts counted(V m) {
        if (m.type().dtype != DType::b1) m = ne(m, zeros_like(m));
        const Shape s = m.type().shape;
        const Dim n = numel(s), last = s.back();
        const bool rows = s.size() > 1 && last.is_const() && last.value() >= kShortest && last.value() <= kLongest;
        V m2 = rows ? reshape(m, {numel(Shape(s.begin(), s.end() - 1)), last})
               : n.is_const() && n.value() > 0 && n.value() <= kWidth ? reshape(m, {1, n}) : blocks(reshape(m, {n}), kWidth);
        V each = sum(cast(m2, DType::i32), {1});
        auto before = [](V x, int axis) { return scan(like(x, 1), x, axis, 1, false, 0); };
        const Dim r = each.type().shape[0];
        if (r.is_const() && r.value() <= kFew) return {m2, cast(before(each, 0), DType::i64), sum(cast(each, DType::i64), {0})};
        V parts = blocks(each, kWidth), sums = cast(sum(parts, {1}), DType::i64);
        const Shape whole = parts.type().shape;
        V starts = cast(before(parts, 1), DType::i64) + expand(before(sums, 0), {1}, whole);
        return {m2, slice(reshape(starts, {numel(whole)}), 0, 0, r), sum(sums, {0})};
    }
    V places(Id call) {
        auto [it, fresh] = places_.try_emplace(call);
        if (fresh) {
            const Counts& c = counts(g_[call].in[0]);
            const Dim n = numel(mask_of(call));
            Attrs attrs;
            if (const Attr* why = g_[call].find("kept")) attrs.emplace_back("kept", *why);
            const DType t = n.is_const() && n.value() < (std::int64_t{1} << 31) ? DType::i32 : DType::i64;
            it->second = apply(Op::compact, {c.mask, c.starts, c.count}, std::move(attrs), {t, {g_.type(call).shape[0]}});
        }
        return it->second;
    }
    V coordinates(Id call) {
        const Shape s = mask_of(call);
        V rest = cast(places(call), DType::i64);
        const Shape column{rest.type().shape[0], 1};
        std::vector<V> columns(s.size());
        for (std::size_t k = s.size(); k-- > 1;) {
            V by = size(out_, rest.type(), s[k]);
            columns[k] = reshape(mod(rest, by), column);
            rest = floordiv(rest, by);
        }
        columns[0] = reshape(rest, column);
        return concat(columns, 1);
    }

    // ---- what is at them
    // Of coordinates: which.
    Column column(const Node& n) const {
        if (n.in.size() != 1) return {};
        const Column before = column_[at(n.in[0])];
        if (before.call >= 0) return n.is(Op::reshape) || (n.is(Op::cast) && is_int(n.type.dtype)) ? before : Column{};
        if (!is_compacted(n.in[0])) return {};
        if (n.is(Op::slice) && n.integer("axis") == 1 && n.dim("start").is_const() && n.dim("end") == n.dim("start") + 1)
            return {n.in[0], static_cast<int>(n.dim("start").value())};
        return n.is(Op::reshape) && mask_of(n.in[0]).size() == 1 ? Column{n.in[0], 0} : Column{};
    }
    // The call whose coordinates, all of them in order, operands from `from` on are, where the mask has the leading axes `s`; -1: they aren't.
    Id whose(const Node& n, std::size_t from, std::size_t k, const Shape& s) const {
        const Id call = column_[at(n.in[from])].call;
        if (call < 0 || k < 2 || mask_of(call).size() != k || s.size() < k) return -1;
        if (!std::equal(mask_of(call).begin(), mask_of(call).end(), s.begin())) return -1;
        for (std::size_t i = 0; i < k; ++i)
            if (const Column c = column_[at(n.in[from + i])]; c.call != call || c.axis != static_cast<int>(i) || g_.type(n.in[from + i]).rank() != 1) return -1;
        return call;
    }
    static Shape flattened(const Shape& s, std::size_t k) {
        const auto middle = s.begin() + static_cast<std::ptrdiff_t>(k);
        Shape f{numel(Shape(s.begin(), middle))};
        f.insert(f.end(), middle, s.end());
        return f;
    }
    V flat(const Node& n) {
        if (n.is(Op::gather) || n.is(Op::scatter)) {
            const Shape& s = g_.type(n.in[0]).shape;
            const std::size_t k = n.in.size() - (n.is(Op::gather) ? 1 : 2);
            const Id call = whose(n, 1, k, s);
            if (call < 0) return {};
            V x = reshape(now(n.in[0]), flattened(s, k));
            return n.is(Op::gather) ? gather(x, {places(call)}) : reshape(scatter(x, {places(call)}, now(n.in.back())), s);
        }
        if (!n.is(Op::scatter_add)) return {};
        const auto k = static_cast<std::size_t>(n.integer("k"));
        std::vector<V> in;
        for (std::size_t q = 0; q < n.in.size(); q += k + 1) {
            const Id call = whose(n, q, k, n.type.shape);
            if (call < 0) return {};
            in.push_back(places(call)), in.push_back(now(n.in[q + k]));
        }
        Attrs attrs = n.attrs;
        for (auto& [name, v] : attrs)
            if (name == "k") v = Dim(1);
        return reshape(apply(Op::scatter_add, in, std::move(attrs), {n.type.dtype, flattened(n.type.shape, k)}), n.type.shape);
    }

    const Graph& g_;
    Graph out_;
    std::vector<Id> at_;           // values of g_ in out_
    std::vector<Column> column_;
    std::vector<Id> masks_;        // operands of the calls
    std::map<Id, Counts> counts_;  // by mask
    std::map<Id, V> places_;       // by call
};
}  // namespace

Graph compact_rows(const Graph& g) { return Compaction(g).run(); }

}  // namespace heddle
