# SPDX-License-Identifier: Apache-2.0
# An overlay port that builds from the tree it lies in:
#   vcpkg install ropewalk --overlay-ports=<tree>/tests/packaging/vcpkg
# vcpkg does not see that the tree changed: remove the installed package before installing anew.

cmake_path(SET SOURCE_PATH NORMALIZE "${CMAKE_CURRENT_LIST_DIR}/../../../..")
set(VCPKG_BUILD_TYPE release)  # headers only

set(components core rope)
if("kernels" IN_LIST FEATURES)
  list(APPEND components ropewalk)
endif()
if("files" IN_LIST FEATURES)
  list(APPEND components io)
endif()
if("text" IN_LIST FEATURES)
  list(APPEND components text)
endif()
if("hub" IN_LIST FEATURES)
  list(APPEND components hub)
endif()
if("eigen" IN_LIST FEATURES)
  list(APPEND components adapt)
endif()

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    "-DROPEWALK_COMPONENTS=${components}"
    -DROPEWALK_BUILD_TESTS=OFF
    -DROPEWALK_BUILD_BENCHMARKS=OFF
    -DROPEWALK_BUILD_EXAMPLES=OFF
    -DROPEWALK_BUILD_EXPERIMENTS=OFF
    -DROPEWALK_ARCH=)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME ropewalk CONFIG_PATH share/cmake/ropewalk)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/doc" "${CURRENT_PACKAGES_DIR}/share/cmake")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
