# SPDX-License-Identifier: Apache-2.0
# _core: the thin pybind11 binding over libembedcore.

set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 3 CONFIG REQUIRED)

file(GLOB EC_BINDING_SOURCES CONFIGURE_DEPENDS csrc/*/*_bind.cpp csrc/python/*.cpp)
pybind11_add_module(_core MODULE NO_EXTRAS ${EC_BINDING_SOURCES})
target_include_directories(_core PRIVATE csrc)
target_compile_options(_core PRIVATE -O2 -Wall -Wextra)
target_link_libraries(_core PRIVATE embedcore)
set_target_properties(_core PROPERTIES INSTALL_RPATH "$ORIGIN/lib" CXX_VISIBILITY_PRESET hidden)

install(TARGETS _core LIBRARY DESTINATION embedcore)
