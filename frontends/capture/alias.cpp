// Views and writes as values: a write goes into the base through the inverse of each view on the way.
#include "frontends/capture/alias.h"

#include <ATen/core/TensorBody.h>
#include <fmt/format.h>

#include "frontends/capture/describe.h"

namespace heddle {

namespace {
bool same_geometry(const Alias& a, const at::Tensor& b) {
    return a.offset == b.storage_offset() && a.strides == b.strides() && a.type == type_of(b);
}
std::vector<Dim> constants(const Shape& s) { return {s.begin(), s.end()}; }
// The parent's value after `v` was written through `n`, a view of it.
Id put_back(const Node& n, Id parent, const Type& whole, Id v, const Type& part, const Emit& emit) {
    const std::string& name = n.text("name");
    auto keep = [&](std::string scatter) {  // select and slice: the same arguments, with the source second
        Attrs a{{"self", Ref{0}}, {"src", Ref{1}}};
        for (const auto& [k, x] : n.attrs)
            if (k != "name" && k != "self" && k != "no_grad") a.emplace_back(k, x);
        return emit(std::move(scatter), std::move(a), {parent, v}, whole);
    };
    if (name == "aten.select.int") return keep("aten.select_scatter.default");
    if (name == "aten.slice.Tensor") return keep("aten.slice_scatter.default");
    if (name == "aten.diagonal.default") return keep("aten.diagonal_scatter.default");
    if (name == "aten.transpose.int")
        return emit(name, {{"self", Ref{0}}, {"dim0", n.dim("dim0")}, {"dim1", n.dim("dim1")}}, {v}, whole);
    if (name == "aten.t.default") return emit(name, {{"self", Ref{0}}}, {v}, whole);
    if (name == "aten.permute.default") {
        auto axes = n.ints("dims");
        for (int& a : axes) a = a < 0 ? a + static_cast<int>(axes.size()) : a;
        auto back = inverse(axes);
        return emit(name, {{"self", Ref{0}}, {"dims", std::vector<Dim>(back.begin(), back.end())}}, {v}, whole);
    }
    if (name == "aten.detach.default" || name == "aten.alias.default" || name == "aten.lift_fresh.default") return v;
    if (numel(whole.shape) == numel(part.shape) && whole.dtype == part.dtype && name != "aten.as_strided.default" && name != "aten.unfold.default")
        return emit("aten.reshape.default", {{"self", Ref{0}}, {"shape", constants(whole.shape)}}, {v}, whole);
    throw Error(fmt::format("capture: a write through {}: has no functional form; write into a copy and use its value", name));
}
}  // namespace

Alias* Aliases::find(const at::Tensor& t) {
    auto it = tensors_.find(t.unsafeGetTensorImpl());
    return it == tensors_.end() ? nullptr : it->second.get();
}
Alias* Aliases::same_place(const at::Tensor& t) {
    if (!t.has_storage()) return nullptr;
    auto it = memory_.find(t.storage().unsafeGetStorageImpl());
    if (it == memory_.end()) return nullptr;
    for (Alias* a : it->second.shown_by)
        if (same_geometry(*a, t)) return a;
    return nullptr;
}
bool Aliases::knows_memory(const at::Tensor& t) const {
    return t.has_storage() && t.numel() > 0 && memory_.count(t.storage().unsafeGetStorageImpl()) != 0;
}
Alias* Aliases::add(const at::Tensor& t, std::shared_ptr<Base> base, Alias* parent, Node view, Type type, Id value) {
    auto a = std::make_unique<Alias>(Alias{.tensor = c10::weak_intrusive_ptr<c10::TensorImpl>(t.getIntrusivePtr()), .offset = t.storage_offset(), .strides = t.strides().vec(),
                                           .base = std::move(base), .parent = parent, .view = std::move(view), .type = std::move(type), .value = value});
    a->version = a->base->version;
    if (!parent) bases_.push_back(a->base);
    Alias* raw = a.get();
    tensors_[t.unsafeGetTensorImpl()] = std::move(a);
    if (t.has_storage()) {
        auto* s = t.storage().unsafeGetStorageImpl();
        auto [it, fresh] = memory_.try_emplace(s, Memory{c10::weak_intrusive_ptr<c10::StorageImpl>(t.storage().getWeakStorageImpl()), {}});
        it->second.shown_by.push_back(raw);
    }
    return raw;
}
Id Aliases::value(Alias& a, const Emit& emit) {
    if (a.version == a.base->version) return a.value;
    a.value = a.parent ? emit(a.view.text("name"), Attrs(a.view.attrs.begin() + 1, a.view.attrs.end()), {value(*a.parent, emit)}, a.type) : a.base->value;
    a.version = a.base->version;
    return a.value;
}
void Aliases::write(Alias& a, Id v, const Emit& emit) {
    if (a.parent) {
        Id whole = put_back(a.view, value(*a.parent, emit), a.parent->type, v, a.type, emit);
        write(*a.parent, whole, emit);
    } else {
        a.base->value = v;
        ++a.base->version;
    }
    a.value = v;
    a.version = a.base->version;
}
std::shared_ptr<Base> Aliases::sharing_input(const Base& b) const {
    if (!b.handle.defined() || !b.handle.has_storage()) return nullptr;
    auto it = memory_.find(b.handle.storage().unsafeGetStorageImpl());
    if (it == memory_.end()) return nullptr;
    for (Alias* a : it->second.shown_by)
        if (a->base.get() != &b && a->base->input >= 0) return a->base;
    return nullptr;
}

}  // namespace heddle
