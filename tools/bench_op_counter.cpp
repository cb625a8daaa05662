// Op counting by PyTorch's own profiling callbacks.
#include "tools/bench_op_counter.h"

#include <ATen/record_function.h>

#include <atomic>
#include <string_view>
#include <unordered_set>

namespace heddle {
namespace {

const std::unordered_set<std::string_view> kViews = {
    "aten::view", "aten::reshape", "aten::expand", "aten::permute", "aten::transpose", "aten::t", "aten::slice", "aten::select",
    "aten::unsqueeze", "aten::squeeze", "aten::detach", "aten::alias", "aten::as_strided", "aten::narrow", "aten::_reshape_alias",
    "aten::_unsafe_view", "aten::expand_as", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::resolve_conj",
    "aten::resolve_neg", "aten::result_type", "aten::is_nonzero", "detach", "aten::numpy_T", "aten::unbind", "aten::split"};

std::atomic<int64_t> ops{0};
struct Frame : at::ObserverContext {
  bool leaf = true;
  Frame* parent = nullptr;
  bool counted = false;
};
thread_local Frame* top = nullptr;

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction& f) {
  auto frame = std::make_unique<Frame>();
  frame->parent = top;
  const std::string_view name = f.name();
  frame->counted = !kViews.count(name);
  if (top && frame->counted) top->leaf = false;
  top = frame.get();
  return frame;
}
void leave(const at::RecordFunction&, at::ObserverContext* context) {
  auto* frame = static_cast<Frame*>(context);
  if (frame->leaf && frame->counted) ++ops;
  top = frame->parent;
}

}  // namespace

struct OpCounter::State {
  at::CallbackHandle handle;
};
OpCounter::OpCounter() : state_(std::make_unique<State>()) {
  ops = 0;
  state_->handle = at::addGlobalCallback(at::RecordFunctionCallback(enter, leave).scopes({at::RecordScope::FUNCTION}));
}
OpCounter::~OpCounter() { at::removeCallback(state_->handle); }
int64_t OpCounter::count() const { return ops; }

}  // namespace heddle
