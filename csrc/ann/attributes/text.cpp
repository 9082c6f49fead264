// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/text.h"

#include <algorithm>
#include <cstring>

#include "ann/attributes/errors.h"

namespace ec::ann {

namespace {

constexpr size_t kMostShown = 60;      // bytes of a name in a message
constexpr size_t kMostCompared = 200;  // bytes of a name whose edit distance is worth its square
constexpr uint64_t kMixer = 0x9e3779b97f4a7c15;

// Bytes of the character that starts here, 0 when it is none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](size_t i) { return i < text.size() && (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return follows(1) ? 2 : 0;
  if (first < 0xf0) {
    if (!follows(1) || !follows(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;   // overlong
    if (first == 0xed && byte(1) >= 0xa0) return 0;  // surrogate
    return 3;
  }
  if (first > 0xf4 || !follows(1) || !follows(2) || !follows(3)) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) >= 0x90) return 0;
  return 4;
}

uint64_t mix(uint64_t value) {
  value ^= value >> 32;
  value *= kMixer;
  value ^= value >> 29;
  return value;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  std::vector<size_t> before;  // the row before the last: two letters that changed places are one change
  std::vector<size_t> last;
  for (size_t i = 1; i <= a.size(); ++i) {
    before = last;
    last = row;
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

}  // namespace

KindError::~KindError() = default;

void fail_value(const std::string& message) { throw std::invalid_argument(message); }
void fail_kind(const std::string& message) { throw KindError(message); }

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string quoted(std::string_view text) {
  std::string out = "'";
  const bool cut = text.size() > kMostShown;
  while (!text.empty() && out.size() <= kMostShown) {
    const size_t bytes = character_bytes(text);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    if (bytes == 0 || first < 0x20 || first == 0x7f) {
      const char* digits = "0123456789abcdef";
      out += "\\x";
      out += digits[first >> 4];
      out += digits[first & 15];
      text.remove_prefix(1);
    } else {
      out += text.substr(0, bytes);
      text.remove_prefix(bytes);
    }
  }
  if (cut || !text.empty()) out += "...";
  return out + "'";
}

int64_t nearest_name(std::string_view text, const std::vector<std::string_view>& names) {
  int64_t nearest = -1;
  size_t least = 0;
  if (text.size() > kMostCompared) return -1;
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i].size() > kMostCompared) continue;
    const size_t distance = edit_distance(text, names[i]);
    if (2 * distance > std::max(text.size(), names[i].size())) continue;
    if (nearest >= 0 && distance >= least) continue;
    nearest = static_cast<int64_t>(i);
    least = distance;
  }
  return nearest;
}

uint64_t hash_number(uint64_t number) { return mix(mix(number + kMixer)); }

uint64_t hash_bytes(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  uint64_t hash = static_cast<uint64_t>(size) * kMixer;
  for (; size >= 8; size -= 8, bytes += 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    hash = mix(hash ^ word) + kMixer;
  }
  if (size > 0) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, size);
    hash = mix(hash ^ word) + kMixer;
  }
  return mix(hash);
}

}  // namespace ec::ann
