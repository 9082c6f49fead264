// SPDX-License-Identifier: Apache-2.0
#include "ann/encode_all.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "core/parallel.h"

namespace ec::ann {

void encode_all(const IndexData& index, const unsigned char* rows, int64_t count, int threads,
                uint8_t* heads, uint8_t* tails, float* norms) {
  const Codec& codec = *index.codec;
  const CodeShape& shape = codec.shape();
  const AnnRawKernels& kernels = *ann_raw_kernels(current_isa());
  std::atomic<bool> out_of_memory{false};
  const int64_t blocks = (count + kCodecBlock - 1) / kCodecBlock;
  parallel_for(blocks, threads, nullptr, [&](int64_t block, int) {
    static thread_local CodecScratch scratch;
    const int64_t first = block * kCodecBlock;
    if (!codec.prepare(scratch)) {
      out_of_memory = true;
      return;
    }
    codec.encode_rows(kernels, index.vector_kernels(kernels), rows + first * index.row_bytes(),
                      index.row_bytes(), std::min(kCodecBlock, count - first), scratch,
                      heads + first * shape.head_bytes, tails + first * shape.tail_bytes,
                      norms == nullptr ? nullptr : norms + first);
  });
  if (out_of_memory) throw std::bad_alloc();
}

}  // namespace ec::ann
