# SPDX-License-Identifier: Apache-2.0
# Name and compiler flags of each instruction set; one object library per row.
#
# Kernels (*.isa.cpp) are compiled once per row with EC_ISA set to the row's name, which selects
# csrc/simd/<name>.h and the namespace. Adding a set: a row here, a simd header, a probe in
# core/dispatch.cpp.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(EC_ISAS baseline avx2 avx512 avx512dot)
  set(EC_ISA_FLAGS_baseline "")
  set(EC_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(EC_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
                          -mprefer-vector-width=512)
  set(EC_ISA_FLAGS_avx512dot ${EC_ISA_FLAGS_avx512} -mavx512bf16 -mavx512vnni)
  # Of this set, the kernels that have a file of their own (*.amx.cpp); the others are those of avx512dot.
  set(EC_TILE_ISA avx512amx)
  set(EC_ISA_FLAGS_avx512amx ${EC_ISA_FLAGS_avx512dot} -mamx-tile -mamx-bf16 -mamx-int8)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(EC_ISAS neon neondot)
  set(EC_ISA_FLAGS_neon "")
  set(EC_ISA_FLAGS_neondot -march=armv8.2-a+dotprod+fp16+bf16)
else()
  message(FATAL_ERROR "embedcore has no kernels for the processor '${CMAKE_SYSTEM_PROCESSOR}'")
endif()

# No hidden contraction, no exceptions, no run-time types, no link-time optimisation across sets: a
# template merged by the linker with a portable copy would run on machines without the instructions.
set(EC_KERNEL_FLAGS -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-exceptions
                    -fno-rtti -fno-lto -fno-stack-protector -Wall -Wextra)
# gcc 12 takes the undefined operands of its own intrinsics for mistakes.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND EC_KERNEL_FLAGS -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

# ec_add_isa_objects(<target> KERNELS <files>... TILED <files>...)
function(ec_add_isa_objects target)
  cmake_parse_arguments(given "" "" "KERNELS;TILED" ${ARGN})
  foreach(isa IN LISTS EC_ISAS EC_TILE_ISA)
    if(isa STREQUAL "${EC_TILE_ISA}")
      add_library(embedcore_${isa} OBJECT ${given_TILED})
    else()
      add_library(embedcore_${isa} OBJECT ${given_KERNELS})
    endif()
    target_compile_definitions(embedcore_${isa} PRIVATE EC_ISA=${isa} EC_ISA_HEADER="simd/${isa}.h")
    target_compile_options(embedcore_${isa} PRIVATE ${EC_KERNEL_FLAGS} ${EC_ISA_FLAGS_${isa}})
    target_include_directories(embedcore_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
    set_target_properties(embedcore_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON
                                                      INTERPROCEDURAL_OPTIMIZATION OFF)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:embedcore_${isa}>)
    string(TOUPPER ${isa} upper)
    target_compile_definitions(${target} PRIVATE EC_HAVE_${upper}=1)
  endforeach()
endfunction()
