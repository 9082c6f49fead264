// SPDX-License-Identifier: Apache-2.0
// Conversion from and to the 16-bit formats under every instruction set, seen through attention: the only
// token of a sequence has the weight 1, so that out is its value and grad_key the gradient of out.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "embedcore.h"
#include "native/check.h"
#include "native/numbers.h"

namespace {

using numbers::Array;
using numbers::Format;

ec_attention_problem one_token(const Array& key) {
  ec_attention_problem problem;
  std::memset(&problem, 0, sizeof problem);
  const auto columns = static_cast<int64_t>(key.size());
  problem.sequences = problem.tokens = problem.heads = 1;
  problem.key_columns = problem.value_columns = columns;
  problem.key = {key.bytes.data(), {columns, columns, 1}, key.dtype};
  problem.fixed_temperature = 1.0;
  problem.threads = 1;
  return problem;
}

const Format& format_of(ec_dtype dtype) { return dtype == EC_FLOAT16 ? numbers::kHalf : numbers::kBfloat; }

uint16_t bits_at(const Array& array, size_t i) {
  uint16_t bits;
  std::memcpy(&bits, array.bytes.data() + 2 * i, sizeof bits);
  return bits;
}

// Sums start at +0, so that the sign of a zero is lost.
bool same(const Format& format, uint16_t got, uint16_t wanted) {
  const uint32_t a = got & 0x7fffu, b = wanted & 0x7fffu;
  return got == wanted || (a == 0 && b == 0) || (a > format.infinity && b > format.infinity);
}

bool subnormal(const Format& format, uint16_t bits) {
  return (bits & 0x7fffu) >> format.fraction == 0 && (bits & 0x7fffu) != 0;
}

void every_number_comes_back(ec_dtype dtype) {
  const Format& format = format_of(dtype);
  Array key(dtype, 65536), out(dtype, 65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto pattern = static_cast<uint16_t>(bits);
    std::memcpy(key.bytes.data() + 2 * bits, &pattern, sizeof pattern);
  }
  const ec_attention_problem problem = one_token(key);
  const ec_attention_result result = {out.data(), nullptr, nullptr, nullptr, nullptr};
  CHECK(ec_attention_forward(&problem, &result, nullptr) == EC_OK);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t got = bits_at(out, bits), wanted = bits_at(key, bits);
    if (same(format, got, wanted)) continue;
    // Products of bf16 numbers take subnormal ones for zeros.
    if (dtype == EC_BFLOAT16 && subnormal(format, wanted) && (got & 0x7fffu) == 0) continue;
    // A token may be multiplied once more, by 0, to fill a step.
    if ((wanted & 0x7fffu) == format.infinity && (got & 0x7fffu) > format.infinity) continue;
    std::fprintf(stderr, "%s dtype %d: %04x became %04x\n", ec_get_isa(), dtype, wanted, got);
    CHECK(same(format, got, wanted));
  }
}

// Each number of the format, the middle to the next one, and the floats beside them.
std::vector<float> around_every_number(const Format& format) {
  std::vector<float> values;
  const auto add = [&](double value) {
    const auto middle = static_cast<float>(value);
    for (const float sign : {1.0f, -1.0f}) {
      values.push_back(sign * middle);
      values.push_back(sign * std::nextafter(middle, 0.0f));
      values.push_back(sign * std::nextafter(middle, std::numeric_limits<float>::infinity()));
    }
  };
  for (uint32_t bits = 0; bits < format.infinity; ++bits) {
    const double value = numbers::value_of(format, static_cast<uint16_t>(bits));
    const double below = bits == 0 ? 0.0 : numbers::value_of(format, static_cast<uint16_t>(bits - 1));
    add(value);
    add(0.5 * (value + below));
    // Halfway from the largest number to what would follow it: infinity begins here.
    if (bits + 1 == format.infinity) add(value + 0.5 * (value - below));
  }
  const float edge[] = {std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN(),
                        -std::numeric_limits<float>::quiet_NaN(),
                        std::numeric_limits<float>::max(),
                        std::numeric_limits<float>::lowest(),
                        std::numeric_limits<float>::denorm_min(),
                        1e30f,
                        -1e30f,
                        1e-30f};
  values.insert(values.end(), std::begin(edge), std::end(edge));
  // NaN whose upper half is that of infinity.
  const uint32_t low_nan = 0x7f800001u;
  float value;
  std::memcpy(&value, &low_nan, sizeof value);
  values.push_back(value);
  return values;
}

void every_float_goes_to_the_nearest(ec_dtype dtype) {
  const Format& format = format_of(dtype);
  const std::vector<float> values = around_every_number(format);
  const auto count = static_cast<int64_t>(values.size());
  const Array key(dtype, count);
  Array out(dtype, count), gradient_of_key(dtype, count);
  const ec_attention_problem problem = one_token(key);
  float lse = -1.0f;
  const ec_attention_result result = {out.data(), &lse, nullptr, nullptr, nullptr};
  CHECK(ec_attention_forward(&problem, &result, nullptr) == EC_OK);
  CHECK(lse == 0.0f);
  const ec_array grad_out = {values.data(), {count, count, 1}, EC_FLOAT32};
  ec_attention_gradient gradient;
  std::memset(&gradient, 0, sizeof gradient);
  gradient.grad_out = &grad_out;
  gradient.out = out.data();
  gradient.out_dtype = dtype;
  gradient.lse = &lse;
  gradient.grad_key = gradient_of_key.data();
  CHECK(ec_attention_backward(&problem, &gradient, nullptr) == EC_OK);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t got = bits_at(gradient_of_key, i);
    const uint16_t wanted = numbers::nearest(format, static_cast<double>(values[i]));
    if (same(format, got, wanted)) continue;
    std::fprintf(stderr, "%s dtype %d: %a became %04x, not %04x\n", ec_get_isa(), dtype,
                 static_cast<double>(values[i]), got, wanted);
    CHECK(same(format, got, wanted));
  }
}

// The reference itself.
void the_reference_knows_its_formats() {
  using numbers::kBfloat;
  using numbers::kHalf;
  CHECK(numbers::nearest(kHalf, 1.0) == 0x3c00 && numbers::nearest(kBfloat, 1.0) == 0x3f80);
  CHECK(numbers::nearest(kHalf, -2.0) == 0xc000 && numbers::nearest(kBfloat, -2.0) == 0xc000);
  CHECK(numbers::nearest(kHalf, 65504.0) == 0x7bff && numbers::nearest(kHalf, 65519.9) == 0x7bff);
  CHECK(numbers::nearest(kHalf, 65520.0) == 0x7c00);
  CHECK(numbers::nearest(kHalf, 0x1p-24) == 1 && numbers::nearest(kHalf, 0x1p-25) == 0);
  CHECK(numbers::nearest(kHalf, 0x1.8p-24) == 2 && numbers::nearest(kHalf, 0x1p-14) == 0x400);
  CHECK(numbers::nearest(kBfloat, 1.0 + 0x1p-8) == 0x3f80);
  CHECK(numbers::nearest(kBfloat, 1.0 + 0x1.8p-7) == 0x3f82);
  for (uint32_t bits = 0; bits < 65536; ++bits)
    for (const Format& format : {kHalf, kBfloat}) {
      const auto pattern = static_cast<uint16_t>(bits);
      if ((bits & 0x7fffu) > format.infinity) continue;
      CHECK(numbers::nearest(format, numbers::value_of(format, pattern)) == pattern);
    }
}

}  // namespace

int main() {
  the_reference_knows_its_formats();
  const char* names[16] = {};
  const int count = ec_list_isas(names, 16);
  for (int i = 0; i < count; ++i) {
    CHECK(ec_set_isa(names[i], nullptr) == EC_OK);
    for (const ec_dtype dtype : {EC_FLOAT16, EC_BFLOAT16}) {
      every_number_comes_back(dtype);
      every_float_goes_to_the_nearest(dtype);
    }
  }
  return check::report();
}
