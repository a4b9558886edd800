# SPDX-License-Identifier: Apache-2.0
# Fails if OBJECTS, which include every header, define a strong symbol besides their own function
# (a non-inline definition in a header) or run code before main (a dynamic initialiser).

set(found "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only ${object}
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  if(NOT symbols MATCHES "two_units")
    message(FATAL_ERROR "${object}: its own function is not among its symbols")
  endif()
  string(REGEX MATCHALL "[^\n]* [TDBRC] [^\n]*|[^\n]*_GLOBAL__sub_I_[^\n]*" suspects "${symbols}")
  list(FILTER suspects EXCLUDE REGEX "two_units_(first|second)v?$|two_units_(first|second)Ev$")
  foreach(suspect IN LISTS suspects)
    string(APPEND found "\n  ${suspect}")
  endforeach()
endforeach()
if(found)
  message(FATAL_ERROR "headers leave strong symbols or initialisers:${found}")
endif()
