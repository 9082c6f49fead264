// SPDX-License-Identifier: Apache-2.0
// The controls as another language sees them.
#include <cstring>

#include "embedcore.h"
#include "native/check.h"

namespace {

void versions_are_told() {
  CHECK(ec_abi_version() == EC_ABI_VERSION);
  CHECK(std::strchr(ec_version(), '.') != nullptr);
  CHECK(std::strlen(ec_build_info()) > 0);
}

void threads_are_set_and_restored() {
  const int before = ec_get_num_threads();
  CHECK(before >= 1);
  ec_set_num_threads(7);
  CHECK(ec_get_num_threads() == 7);
  CHECK(std::strcmp(ec_num_threads_source(), "set_num_threads") == 0);
  ec_set_num_threads(1 << 30);
  CHECK(ec_get_num_threads() == 1024);
  ec_set_num_threads(0);
  CHECK(ec_get_num_threads() == before);
  CHECK(std::strcmp(ec_num_threads_source(), "set_num_threads") != 0);
}

void instruction_sets_are_listed() {
  const char* names[16] = {};
  const int count = ec_list_isas(names, 16);
  CHECK(count >= 1 && count <= 16);
  CHECK(ec_list_isas(nullptr, 0) == count);
  const char* first[1] = {};
  CHECK(ec_list_isas(first, 1) == count);
  CHECK(std::strcmp(first[0], names[0]) == 0);
  for (int i = 0; i < count; ++i) {
    CHECK(ec_set_isa(names[i], nullptr) == EC_OK);
    CHECK(std::strcmp(ec_get_isa(), names[i]) == 0);
  }
  CHECK(ec_set_isa(nullptr, nullptr) == EC_OK);
  ec_error error = {};
  CHECK(ec_set_isa("none", &error) == EC_INVALID_VALUE);
  CHECK(error.message[0] != '\0');
}

}  // namespace

int main() {
  versions_are_told();
  threads_are_set_and_restored();
  instruction_sets_are_listed();
  return check::report();
}
