# SPDX-License-Identifier: Apache-2.0
# libembedcore: the drivers and the C ABI over the kernels of every instruction set.

find_package(Threads REQUIRED)

file(GLOB EC_KERNEL_SOURCES CONFIGURE_DEPENDS csrc/*/*.isa.cpp)
file(GLOB EC_TILED_KERNEL_SOURCES CONFIGURE_DEPENDS csrc/*/*.amx.cpp)
file(GLOB EC_DRIVER_SOURCES CONFIGURE_DEPENDS csrc/core/*.cpp csrc/product/*.cpp
     csrc/depth/*.cpp csrc/attention/*.cpp csrc/ann/*.cpp csrc/ann/*/*.cpp csrc/capi/*.cpp)
list(FILTER EC_DRIVER_SOURCES EXCLUDE REGEX "(\\.isa|\\.amx|_bind)\\.cpp$")

add_library(embedcore SHARED ${EC_DRIVER_SOURCES})
add_library(embedcore::embedcore ALIAS embedcore)
target_include_directories(
  embedcore PRIVATE csrc PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/capi>
                                $<INSTALL_INTERFACE:embedcore/include>)
target_compile_options(embedcore PRIVATE -O2 -ffp-contract=off -Wall -Wextra)
target_compile_definitions(embedcore PRIVATE EC_VERSION="${PROJECT_VERSION}")
target_link_libraries(embedcore PRIVATE Threads::Threads)
# Sleeping workers run its code: it is never unloaded.
target_link_options(embedcore PRIVATE -Wl,-z,nodelete
                    -Wl,--version-script=${PROJECT_SOURCE_DIR}/csrc/cmake/exported.map)
ec_add_isa_objects(embedcore KERNELS ${EC_KERNEL_SOURCES} TILED ${EC_TILED_KERNEL_SOURCES})

install(TARGETS embedcore EXPORT embedcoreTargets LIBRARY DESTINATION embedcore/lib)
install(FILES csrc/capi/embedcore.h DESTINATION embedcore/include)
install(
  EXPORT embedcoreTargets
  NAMESPACE embedcore::
  FILE embedcoreConfig.cmake
  DESTINATION embedcore/share/cmake/embedcore)
include(CMakePackageConfigHelpers)
write_basic_package_version_file(embedcoreConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/embedcoreConfigVersion.cmake
        DESTINATION embedcore/share/cmake/embedcore)
