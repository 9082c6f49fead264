# SPDX-License-Identifier: Apache-2.0
# libembedcore_cuda, and _cuda over it: where nvcc is, unless EMBEDCORE_CUDA is OFF.
#
# The runtime is linked statically and looks for the driver at its first call, so that the same wheel serves
# machines without a GPU.

set(EMBEDCORE_CUDA AUTO CACHE STRING "Build the kernels for GPUs: AUTO (where nvcc is), ON or OFF")

# Machine code for each generation, which later ones of the same major version run, and at last a form that
# drivers translate for those to come.
set(EC_CUDA_TARGETS 80-real 90-real 100-real 120 CACHE STRING "CMAKE_CUDA_ARCHITECTURES of the kernels")

set(EC_HAVE_CUDA FALSE)
if(EMBEDCORE_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${EC_CUDA_TARGETS})
    enable_language(CUDA)
    set(EC_HAVE_CUDA TRUE)
  elseif(NOT EMBEDCORE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "EMBEDCORE_CUDA is ${EMBEDCORE_CUDA}, but no nvcc was found")
  endif()
endif()
if(NOT EC_HAVE_CUDA)
  return()
endif()

file(GLOB EC_CUDA_SOURCES CONFIGURE_DEPENDS cuda/common/*.cu cuda/depth/*.cu)
set(EC_CUDA_SHARED_SOURCES csrc/core/errors.cpp csrc/depth/shapes.cpp)

add_library(embedcore_cuda SHARED ${EC_CUDA_SOURCES} ${EC_CUDA_SHARED_SOURCES})
target_include_directories(embedcore_cuda PRIVATE cuda csrc csrc/capi)
set_target_properties(embedcore_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
                                                CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
                                                CUDA_ARCHITECTURES "${EC_CUDA_TARGETS}")
string(REPLACE ";" " " targets "${EC_CUDA_TARGETS}")
target_compile_definitions(embedcore_cuda PRIVATE EC_CUDA_TARGETS="${targets}")
target_compile_options(
  embedcore_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O2 -Wall -Wextra>
                         $<$<COMPILE_LANGUAGE:CUDA>:-O3 -fmad=false -compress-mode=size>)
target_link_options(embedcore_cuda PRIVATE
                    -Wl,--version-script=${PROJECT_SOURCE_DIR}/cuda/cmake/exported.map)

# What uses Hopper's own instructions is compiled for no other target; which it runs on is asked at run time.
if(EC_CUDA_TARGETS MATCHES "90")
  file(GLOB EC_HOPPER_SOURCES CONFIGURE_DEPENDS cuda/*/hopper/*.cu)
  add_library(embedcore_hopper OBJECT ${EC_HOPPER_SOURCES})
  target_include_directories(embedcore_hopper PRIVATE cuda csrc csrc/capi)
  set_target_properties(
    embedcore_hopper PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
                                CUDA_VISIBILITY_PRESET hidden CUDA_ARCHITECTURES 90a-real
                                POSITION_INDEPENDENT_CODE ON)
  target_compile_options(embedcore_hopper PRIVATE -O3 -fmad=false -compress-mode=size)
  target_sources(embedcore_cuda PRIVATE $<TARGET_OBJECTS:embedcore_hopper>)
  target_compile_definitions(embedcore_cuda PRIVATE EC_HAVE_HOPPER=1)
endif()

install(TARGETS embedcore_cuda EXPORT embedcoreTargets LIBRARY DESTINATION embedcore/lib)
install(FILES cuda/capi/embedcore_cuda.h DESTINATION embedcore/include)

if(EMBEDCORE_PYTHON)
  file(GLOB EC_CUDA_BINDING_SOURCES CONFIGURE_DEPENDS cuda/*/*_bind.cpp cuda/python/*.cpp)
  pybind11_add_module(_cuda MODULE NO_EXTRAS ${EC_CUDA_BINDING_SOURCES} csrc/python/raise.cpp)
  target_include_directories(_cuda PRIVATE cuda csrc csrc/capi)
  target_compile_definitions(_cuda PRIVATE EC_MODULE_NAME=_cuda)
  target_compile_options(_cuda PRIVATE -O2 -Wall -Wextra)
  target_link_libraries(_cuda PRIVATE embedcore_cuda)
  set_target_properties(_cuda PROPERTIES INSTALL_RPATH "$ORIGIN/lib" CXX_VISIBILITY_PRESET hidden)
  install(TARGETS _cuda LIBRARY DESTINATION embedcore)
endif()
