// SPDX-License-Identifier: Apache-2.0
// How the attribute store refuses: ValueError to Python is std::invalid_argument, TypeError is KindError.
#pragma once

#include <stdexcept>
#include <string>

#include "core/internal.h"

namespace ec::ann {

class EC_INTERNAL KindError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~KindError() override;
};

[[noreturn]] void fail_value(const std::string& message);
[[noreturn]] void fail_kind(const std::string& message);

}  // namespace ec::ann
