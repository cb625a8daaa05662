// The state of one run. Law: every tensor an op sees is either known here or becomes an input.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include "frontends/capture/alias.h"
#include "frontends/capture/recorder.h"

namespace heddle {

std::string place();  // where an error is: the scope, or "capture"

class Recorder {
public:
    Recorder(HostRead, const std::vector<char>& integers, const Recording* first, int extra_rows, int more_rows);
    void argument(const at::Tensor&, int position);
    void call(const c10::OperatorHandle&, c10::DispatchKeySet, torch::jit::Stack&);
    void finish(const std::vector<at::Tensor>& outputs);
    void restore();  // what was written into inputs is taken back
    Recording& recording() { return rec_; }
    void decided(Choice d) { rec_.choices.push_back(std::move(d)), rec_.places.push_back(place()); }

private:
    Id emit(std::string name, Attrs, std::vector<Id> in, Type, std::vector<Type> more = {}, bool pure = true);
    Emit emitter();
    Id new_input(const at::Tensor&, const Type&, std::string name);
    Alias* adopt(const at::Tensor&, const std::string& name);
    Alias* alias_of(const at::Tensor&);
    Alias* number(const at::Tensor&);
    Id id_of(const at::Tensor&);
    Id keep_gradient(Id value, Id old, const Type&);
    void look_for_host_writes(const at::Tensor&, Base&);
    void result(const at::Tensor&, Id, bool blank);
    bool view(const std::string& name, const Node&, const at::Tensor& self, const std::vector<at::Tensor>& results);
    void view_in_place(const c10::OperatorHandle&, const std::string& view, torch::jit::Stack&, std::size_t from);
    void write(const c10::OperatorHandle&, Node, const std::vector<c10::IValue>& args, torch::jit::Stack&);
    // Ops with a treatment of their own (recorder_special.cpp).
    void host_read(const std::string& name, torch::jit::Stack&);
    void nonzero(const c10::OperatorHandle&, torch::jit::Stack&);
    void masked_select(torch::jit::Stack&);
    void masks_to_indices(torch::jit::Stack&, std::size_t from, bool writes);
    void batch_norm(torch::jit::Stack&);
    void not_seeded_here(const std::vector<c10::IValue>& args);  // throws Error if the generator's state isn't what the last draw left


    at::Tensor random_;                                    // state of the generator after the last draw, or at the start
    HostRead host_read_;
    const std::vector<char>& integers_;
    const Recording* first_;
    int extra_, more_;
    Recording rec_;
    Aliases aliases_;
    std::vector<char> grad_;                               // per node: requires grad
    std::vector<std::size_t> key_;                         // per node: equal for nodes that compute the same
    std::unordered_map<std::size_t, at::Tensor> nonzero_;  // by the mask's key: one count, one name
};

// Results that have no gradient though they are floats and an argument has one end it: `no_grad` on the call if that is all of them (rand_like),
// else `ended` names them (the statistics of a normalisation). PyTorch is asked, once for each op and kind of arguments, by running it under
// autograd; the random generators stay as they are.
void mark_ended(Node&, const c10::OperatorHandle&, const std::vector<c10::IValue>& args, const std::vector<at::Tensor>& results);
at::Tensor random_state(const std::vector<c10::IValue>& args);  // of the generator that an op with these arguments draws from

}  // namespace heddle
