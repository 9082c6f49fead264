// SPDX-License-Identifier: Apache-2.0
// How a kernel file hands out its table, the only symbol with linkage that it defines, and how a driver
// finds it.
#pragma once

#define EC_JOIN_(a, b) a##b
#define EC_JOIN(a, b) EC_JOIN_(a, b)

// At the end of <family>.isa.cpp: defines ec_<family>_kernels_<isa>, which points at its kTable.
#define EC_EXPORT_TABLE(Type, family)                                         \
  extern "C" const ::ec::Type* const EC_JOIN(ec_##family##_kernels_, EC_ISA); \
  extern "C" const ::ec::Type* const EC_JOIN(ec_##family##_kernels_, EC_ISA) = &::ec::EC_ISA::kTable;

// In one driver: defines ec::<family>_kernels(Isa) over the instruction sets of this build. With tiles: of
// a family that has a <family>.amx.cpp; machines with AMX run the others' kernels for AVX-512.
#if defined(EC_HAVE_BASELINE)
#define EC_IMPORT_TABLES_(Type, family, tiled, permitted)                                   \
  extern "C" const ::ec::Type *const ec_##family##_kernels_baseline,                        \
      *const ec_##family##_kernels_avx2, *const ec_##family##_kernels_avx512,               \
                                             *const ec_##family##_kernels_avx512dot,        \
                                                 *const ec_##family##_kernels_##tiled;      \
  namespace ec {                                                                            \
  const Type* family##_kernels(Isa isa) {                                                   \
    switch (isa) {                                                                          \
      case Isa::kAvx2:                                                                      \
        return ec_##family##_kernels_avx2;                                                  \
      case Isa::kAvx512:                                                                    \
        return ec_##family##_kernels_avx512;                                                \
      case Isa::kAvx512Dot:                                                                 \
        return ec_##family##_kernels_avx512dot;                                             \
      case Isa::kAvx512Amx:                                                                 \
        return permitted ? ec_##family##_kernels_##tiled : ec_##family##_kernels_avx512dot; \
      default:                                                                              \
        return ec_##family##_kernels_baseline;                                              \
    }                                                                                       \
  }                                                                                         \
  }
// Of a family that has nothing but a <family>.amx.cpp: null on other machines.
#define EC_IMPORT_TILED_TABLE(Type, family)                                                         \
  extern "C" const ::ec::Type* const ec_##family##_kernels_avx512amx;                               \
  namespace ec {                                                                                    \
  const Type* family##_kernels(Isa isa) {                                                           \
    return isa == Isa::kAvx512Amx && tiles_permitted() ? ec_##family##_kernels_avx512amx : nullptr; \
  }                                                                                                 \
  }
#define EC_IMPORT_TABLES(Type, family) EC_IMPORT_TABLES_(Type, family, avx512dot, false)
#define EC_IMPORT_TABLES_WITH_TILES(Type, family) \
  EC_IMPORT_TABLES_(Type, family, avx512amx, tiles_permitted())
#else
#define EC_IMPORT_TABLES(Type, family)                                                                 \
  extern "C" const ::ec::Type *const ec_##family##_kernels_neon, *const ec_##family##_kernels_neondot; \
  namespace ec {                                                                                       \
  const Type* family##_kernels(Isa isa) {                                                              \
    return isa == Isa::kNeonDot ? ec_##family##_kernels_neondot : ec_##family##_kernels_neon;          \
  }                                                                                                    \
  }
#define EC_IMPORT_TABLES_WITH_TILES(Type, family) EC_IMPORT_TABLES(Type, family)
#define EC_IMPORT_TILED_TABLE(Type, family)             \
  namespace ec {                                        \
  const Type* family##_kernels(Isa) { return nullptr; } \
  }
#endif
