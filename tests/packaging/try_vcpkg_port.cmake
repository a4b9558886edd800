# SPDX-License-Identifier: Apache-2.0
# Runs the portfile of PORT with the functions of vcpkg replaced by what they come to: configuring
# and installing the tree with the port's own options. The real vcpkg is not run.

cmake_minimum_required(VERSION 3.25)
file(READ ${PORT}/vcpkg.json manifest)
string(JSON port_version GET "${manifest}" version)
if(NOT port_version STREQUAL VERSION)
  message(FATAL_ERROR "vcpkg.json is of version ${port_version}, the library of ${VERSION}")
endif()

# The features in use: the default ones and those that they ask for.
string(JSON count LENGTH "${manifest}" default-features)
math(EXPR last "${count} - 1")
foreach(i RANGE ${last})
  string(JSON feature GET "${manifest}" default-features ${i})
  list(APPEND FEATURES ${feature})
endforeach()
set(todo ${FEATURES})
while(todo)
  list(POP_FRONT todo feature)
  string(JSON count LENGTH "${manifest}" features ${feature} dependencies)
  math(EXPR last "${count} - 1")
  foreach(i RANGE ${last})
    string(JSON type TYPE "${manifest}" features ${feature} dependencies ${i})
    if(type STREQUAL "OBJECT")
      string(JSON name GET "${manifest}" features ${feature} dependencies ${i} name)
      string(JSON more LENGTH "${manifest}" features ${feature} dependencies ${i} features)
      math(EXPR last_more "${more} - 1")
      foreach(j RANGE ${last_more})
        string(JSON other GET "${manifest}" features ${feature} dependencies ${i} features ${j})
        string(JSON known TYPE "${manifest}" features ${other})  # an error if it does not exist
        if(name STREQUAL "ropewalk" AND NOT other IN_LIST FEATURES)
          list(APPEND FEATURES ${other})
          list(APPEND todo ${other})
        endif()
      endforeach()
    endif()
  endforeach()
endwhile()
message("features: ${FEATURES}")

file(REMOVE_RECURSE ${BINARY})
set(CURRENT_PACKAGES_DIR ${BINARY}/packages)
set(share ${CURRENT_PACKAGES_DIR}/share)
function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "SOURCE_PATH" "OPTIONS")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${arg_SOURCE_PATH} -B ${BINARY}/build -G ${GENERATOR}
      -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR}
      -DCMAKE_BUILD_TYPE=Release ${arg_OPTIONS} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_cmake_install)
  execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY}/build --target install
    COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "PACKAGE_NAME;CONFIG_PATH" "")
  file(RENAME ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH} ${share}/${arg_PACKAGE_NAME})
endfunction()
function(vcpkg_fixup_pkgconfig)
endfunction()
function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "FILE_LIST")
  file(COPY_FILE ${arg_FILE_LIST} ${share}/${PORT}/copyright)
endfunction()

set(portfile ${PORT}/portfile.cmake)
set(PORT ropewalk)
include(${portfile})

set(expected include/ropewalk/rope/yarn.hpp include/ropewalk/hub/checkpoint.hpp
  include/ropewalk/adapt/eigen.hpp share/pkgconfig/ropewalk-hub.pc
  share/ropewalk/ropewalk-config.cmake share/ropewalk/ropewalk-hub.cmake share/ropewalk/copyright
  share/ropewalk/usage)
foreach(file IN LISTS expected)
  if(NOT EXISTS ${CURRENT_PACKAGES_DIR}/${file})
    message(FATAL_ERROR "the port did not install ${file}")
  endif()
endforeach()
# What vcpkg's own checks refuse: empty folders and folders that are not share/<port>.
file(GLOB rest RELATIVE ${share} ${share}/*)
if(NOT rest STREQUAL "pkgconfig;ropewalk" OR EXISTS ${CURRENT_PACKAGES_DIR}/bin)
  message(FATAL_ERROR "unexpected: share has ${rest}")
endif()
