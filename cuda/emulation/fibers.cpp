// SPDX-License-Identifier: Apache-2.0
// Checked jumps refuse to change stacks.
#undef _FORTIFY_SOURCE
#include "emulation/fibers.h"

#include <cstdint>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EC_SANITIZED 1
#endif

namespace ec::emulation {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;

}  // namespace

Fiber::~Fiber() {
#if defined(EC_SANITIZED)
  // What is left of a body that never ended.
  if (stack_ != nullptr) __asan_unpoison_memory_region(stack_.get(), kStackBytes);
#endif
}

void Fiber::start(const std::function<void()>* body) {
  if (stack_ == nullptr) stack_.reset(new unsigned char[kStackBytes]);
#if defined(EC_SANITIZED)
  __asan_unpoison_memory_region(stack_.get(), kStackBytes);
#endif
  body_ = body;
  finished_ = entered_ = false;
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack_.get();
  own_.uc_stack.ss_size = kStackBytes;
  own_.uc_link = nullptr;
  const auto self = reinterpret_cast<uintptr_t>(this);  // makecontext passes integers
  makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::enter), 2, static_cast<unsigned>(self >> 32),
              static_cast<unsigned>(self & 0xffffffffu));
#if defined(EC_SANITIZED)
  // The sanitizer would forget, at each change, all that it knows of a stack whose size it finds here.
  own_.uc_stack.ss_size = 0;
#endif
  own_shadow_ = nullptr;
}

// Jumps do not ask the kernel for the signal mask, which is most of what a change of contexts takes; but
// the address sanitizer takes them for a way out of all functions.
void Fiber::resume() {
#if defined(EC_SANITIZED)
  void* shadow = nullptr;
  __sanitizer_start_switch_fiber(&shadow, stack_.get(), kStackBytes);
  swapcontext(&scheduler_, &own_);
  __sanitizer_finish_switch_fiber(shadow, nullptr, nullptr);
#else
  if (_setjmp(scheduler_jump_) != 0) return;
  if (entered_) _longjmp(own_jump_, 1);
  entered_ = true;
  setcontext(&own_);
#endif
}

void Fiber::pause() { leave_for_scheduler(false); }

void Fiber::leave_for_scheduler(bool for_good) {
#if defined(EC_SANITIZED)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &own_shadow_, scheduler_stack_,
                                 scheduler_stack_bytes_);
  swapcontext(&own_, &scheduler_);
  __sanitizer_finish_switch_fiber(own_shadow_, &scheduler_stack_, &scheduler_stack_bytes_);
#else
  if (for_good) _longjmp(scheduler_jump_, 1);
  if (_setjmp(own_jump_) == 0) _longjmp(scheduler_jump_, 1);
#endif
}

void Fiber::enter(unsigned high, unsigned low) {
  auto* self = reinterpret_cast<Fiber*>((static_cast<uintptr_t>(high) << 32) | low);
#if defined(EC_SANITIZED)
  __sanitizer_finish_switch_fiber(nullptr, &self->scheduler_stack_, &self->scheduler_stack_bytes_);
#endif
  (*self->body_)();
  self->finished_ = true;
  self->leave_for_scheduler(true);
}

}  // namespace ec::emulation
