// Which tensors share memory, and the value each holds. Law: after a write, every view of the written memory reads the new value.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <unordered_map>

#include "ir/graph.h"

namespace heddle {

// Memory that one or more tensors show.
struct Base {
    Id value = -1;
    int version = 0;
    int input = -1;            // position among the inputs, if it came from outside
    bool blank = false;        // made by empty and not written or read by an op yet
    bool rebased = false;      // written where autograd looks: what it held has a history from then on
    at::Tensor before;         // what an input held before its first write
    at::Tensor handle;         // the input itself
};
// A tensor: the whole of its base, or `view` of another tensor (operand 0 of the view is that tensor).
struct Alias {
    c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
    std::int64_t offset = 0;                // where in its memory it lies: kept, as a view may outlive it
    std::vector<std::int64_t> strides = {};
    std::shared_ptr<Base> base;
    Alias* parent = nullptr;
    Node view = {};            // attrs of the view op; other operands than 0 have none
    Type type = {};
    Id value = -1;
    int version = 0;
};

// Calls made while values are put back or read again go through this.
using Emit = std::function<Id(std::string name, Attrs, std::vector<Id> in, const Type&)>;

class Aliases {
public:
    Alias* find(const at::Tensor&);
    Alias* same_place(const at::Tensor&);  // one that showed the same elements of the same memory, or nullptr
    bool knows_memory(const at::Tensor&) const;
    Alias* add(const at::Tensor&, std::shared_ptr<Base>, Alias* parent, Node view, Type, Id value);
    Alias* becomes(const at::Tensor&, Node view, Type, Id value);  // what it is from now on: a view of what it was
    Id value(Alias&, const Emit&);               // reads the view again if its memory was written
    void write(Alias&, Id value, const Emit&);   // throws Error where a view can't be written through
    template <class F>
    void each_base(F f) {      // in order of appearance
        for (auto& b : bases_) f(*b);
    }
    std::shared_ptr<Base> sharing_input(const Base&) const;  // another input base in the same memory, or nullptr

private:
    struct Memory {
        c10::weak_intrusive_ptr<c10::StorageImpl> storage;
        std::vector<Alias*> shown_by;
    };
    std::vector<std::shared_ptr<Base>> bases_;
    std::unordered_map<c10::TensorImpl*, std::unique_ptr<Alias>> tensors_;
    std::vector<std::unique_ptr<Alias>> former_;  // what tensors were that are something else by now
    std::unordered_map<c10::StorageImpl*, Memory> memory_;
};

}  // namespace heddle
