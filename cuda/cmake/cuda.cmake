# SPDX-License-Identifier: Apache-2.0
# libembedcore_cuda, and _cuda over it: where nvcc is, unless EMBEDCORE_CUDA is OFF.
#
# The runtime is linked statically and looks for the driver at its first call, so that the same wheel serves
# machines without a GPU.

set(EMBEDCORE_CUDA AUTO CACHE STRING
    "Build the kernels for GPUs: AUTO (where nvcc is), ON, PIP (by the nvcc of Python packages) or OFF")

# Machine code for each generation, which later ones of the same major version run, and a form that drivers
# translate for all others. Commas serve too: environment variables of scikit-build-core end at a semicolon.
set(EC_CUDA_TARGETS 80-real 90 100-real 120-real CACHE STRING "CMAKE_CUDA_ARCHITECTURES of the kernels")
string(REPLACE "," ";" EC_CUDA_TARGETS "${EC_CUDA_TARGETS}")
# Devices of 9.0 and later would translate the code of older ones, in which nothing waits for the kernel
# before (common/behind.cuh).
if("${EC_CUDA_TARGETS}" MATCHES "(^|;)[5-8][0-9](-virtual)?(;|$)")
  message(FATAL_ERROR "EC_CUDA_TARGETS must be 90 or newer, or end in -real; got ${EC_CUDA_TARGETS}")
endif()

# What pip installs lies in one folder, whose libraries nvcc looks for under another name.
if(EMBEDCORE_CUDA STREQUAL "PIP")
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "import nvidia.cu13; print(nvidia.cu13.__path__[0])"
                  OUTPUT_VARIABLE EC_CUDA_FOLDER OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(CMAKE_CUDA_COMPILER "${EC_CUDA_FOLDER}/bin/nvcc")
  string(APPEND CMAKE_CUDA_FLAGS " -L${EC_CUDA_FOLDER}/lib")
  set(ENV{LIBRARY_PATH} "${EC_CUDA_FOLDER}/lib:$ENV{LIBRARY_PATH}")
  link_directories("${EC_CUDA_FOLDER}/lib")
endif()

set(EC_HAVE_CUDA FALSE)
if(EMBEDCORE_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${EC_CUDA_TARGETS})
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
      set(EC_HAVE_CUDA TRUE)
    elseif(EMBEDCORE_CUDA STREQUAL "AUTO")
      message(STATUS "no kernels for GPUs: nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 13")
    else()
      message(FATAL_ERROR "the kernels for GPUs need nvcc 13; found ${CMAKE_CUDA_COMPILER_VERSION}")
    endif()
  elseif(NOT EMBEDCORE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "EMBEDCORE_CUDA is ${EMBEDCORE_CUDA}, but no nvcc was found")
  endif()
endif()
if(NOT EC_HAVE_CUDA)
  return()
endif()

file(GLOB EC_CUDA_SOURCES CONFIGURE_DEPENDS cuda/common/*.cu cuda/common/*.cpp cuda/ann/*.cu cuda/depth/*.cu
     cuda/attention/*.cu)
set(EC_CUDA_SHARED_SOURCES csrc/core/errors.cpp csrc/depth/shapes.cpp csrc/attention/check.cpp)

add_library(embedcore_cuda SHARED ${EC_CUDA_SOURCES} ${EC_CUDA_SHARED_SOURCES})
target_include_directories(
  embedcore_cuda
  PRIVATE cuda csrc csrc/capi
  PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cuda/capi> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/capi>
         $<INSTALL_INTERFACE:embedcore/include>)
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
file(GLOB EC_HOPPER_SOURCES CONFIGURE_DEPENDS cuda/*/hopper/*.cu)
add_library(embedcore_hopper OBJECT ${EC_HOPPER_SOURCES})
target_include_directories(embedcore_hopper PRIVATE cuda csrc csrc/capi)
set_target_properties(
  embedcore_hopper PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
                              CUDA_VISIBILITY_PRESET hidden CUDA_ARCHITECTURES 90a-real
                              POSITION_INDEPENDENT_CODE ON)
target_compile_options(embedcore_hopper PRIVATE -O3 -fmad=false -compress-mode=size)
target_sources(embedcore_cuda PRIVATE $<TARGET_OBJECTS:embedcore_hopper>)

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
