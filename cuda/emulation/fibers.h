// SPDX-License-Identifier: Apache-2.0
// Stacks that take turns on one thread of the operating system.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>

namespace ec::emulation {

// Runs a body until it calls pause(), and goes on from there when it is resumed. Of a body that is given
// up, nothing on the stack is destroyed.
class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // A body that has not ended is given up. The stack is kept from one body to the next.
  void start(const std::function<void()>* body);
  // Runs on, from the scheduler.
  void resume();
  // Back to the scheduler, from within the body.
  void pause();
  bool finished() const { return finished_; }

 private:
  static void enter(unsigned high, unsigned low);
  void leave_for_scheduler(bool for_good);

  const std::function<void()>* body_ = nullptr;
  std::unique_ptr<unsigned char[]> stack_;
  ucontext_t own_ = {}, scheduler_ = {};
  jmp_buf own_jump_, scheduler_jump_;
  bool finished_ = true, entered_ = false;
  // What the address sanitizer wants to know of the stacks.
  void* own_shadow_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
};

}  // namespace ec::emulation
