// Counts the ops that PyTorch runs while it lives: dispatched ops that dispatch no other, without views. Law: one at a time.
#pragma once

#include <cstdint>
#include <memory>

namespace heddle {

class OpCounter {
 public:
  OpCounter();
  ~OpCounter();
  int64_t count() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace heddle
