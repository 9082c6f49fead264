// SPDX-License-Identifier: Apache-2.0
#include "core/dispatch.h"

#include <cstring>

#include "core/errors.h"
#include "native/check.h"

namespace {

void the_best_that_runs_is_current() {
  CHECK(ec::force_isa(nullptr, nullptr) == EC_OK);
  const int best = static_cast<int>(ec::current_isa());
  CHECK(ec::isa_runs(ec::current_isa()));
  for (int i = best + 1; i < ec::kIsaCount; ++i) CHECK(!ec::isa_runs(static_cast<ec::Isa>(i)));
}

void what_runs_is_compiled() {
  for (int i = 0; i < ec::kIsaCount; ++i) {
    const auto isa = static_cast<ec::Isa>(i);
    CHECK(!ec::isa_runs(isa) || ec::isa_compiled(isa));
  }
#if defined(__x86_64__)
  CHECK(ec::isa_runs(ec::Isa::kBaseline));
  CHECK(!ec::isa_compiled(ec::Isa::kNeon));
#else
  CHECK(ec::isa_runs(ec::Isa::kNeon));
  CHECK(!ec::isa_compiled(ec::Isa::kBaseline));
#endif
}

void each_running_set_can_be_forced() {
  for (int i = 0; i < ec::kIsaCount; ++i) {
    const auto isa = static_cast<ec::Isa>(i);
    ec_error error = {};
    const ec::Isa before = ec::current_isa();
    const ec_status status = ec::force_isa(ec::isa_name(isa), &error);
    CHECK((status == EC_OK) == ec::isa_runs(isa));
    CHECK(ec::current_isa() == (status == EC_OK ? isa : before));
  }
  CHECK(ec::force_isa("", nullptr) == EC_OK);
}

void an_unknown_name_is_an_error() {
  ec_error error = {};
  CHECK(ec::force_isa("mmx", &error) == EC_INVALID_VALUE);
  CHECK(std::strcmp(error.argument, "name") == 0);
  CHECK(std::strstr(error.message, "got 'mmx'") != nullptr);
  CHECK(std::strstr(error.message, ec::isa_name(ec::current_isa())) != nullptr);
  CHECK(ec::force_isa("mmx", nullptr) == EC_INVALID_VALUE);
}

void a_long_message_is_cut() {
  char text[1000];
  std::memset(text, 'a', sizeof(text));
  text[sizeof(text) - 1] = '\0';
  ec_error error = {};
  CHECK(ec::fail(&error, EC_INVALID_VALUE, text, 7, "%s", text) == EC_INVALID_VALUE);
  CHECK(error.row == 7);
  CHECK(std::strlen(error.argument) == sizeof(error.argument) - 1);
  CHECK(std::strlen(error.message) == sizeof(error.message) - 1);
}

}  // namespace

int main() {
  the_best_that_runs_is_current();
  what_runs_is_compiled();
  each_running_set_can_be_forced();
  an_unknown_name_is_an_error();
  a_long_message_is_cut();
  return check::report();
}
