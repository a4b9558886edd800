# SPDX-License-Identifier: Apache-2.0
# Builds SOURCE/*.cpp with COMPILER and what pkg-config says of MODULES, and runs the program; what
# is to be linked must match LIBS. Without a SOURCE the flags alone are looked at.

set(ENV{PKG_CONFIG_PATH} ${PC_PATH})
foreach(what cflags libs)
  execute_process(COMMAND ${PKG_CONFIG} --${what} ${MODULES} OUTPUT_VARIABLE ${what}
    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  message("${what} of ${MODULES}: ${${what}}")
endforeach()
string(STRIP "${libs}" stripped)
if(NOT stripped MATCHES "${LIBS}")
  message(FATAL_ERROR "pkg-config --libs ${MODULES} gives '${libs}', expected '${LIBS}'")
endif()
if(NOT SOURCE)
  return()
endif()
separate_arguments(cflags UNIX_COMMAND "${cflags}")
separate_arguments(libs UNIX_COMMAND "${libs}")
file(GLOB sources ${SOURCE}/*.cpp)
file(REMOVE_RECURSE ${BINARY})
file(MAKE_DIRECTORY ${BINARY})
execute_process(COMMAND ${COMPILER} -std=c++20 ${cflags} ${sources} -o ${BINARY}/consumer ${libs}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BINARY}/consumer COMMAND_ERROR_IS_FATAL ANY)
