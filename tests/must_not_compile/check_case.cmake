# SPDX-License-Identifier: Apache-2.0
# Compiles CASE with COMMAND twice. As it is, it must compile without a word. With -DMISUSE it must
# be refused: the first error points into CASE itself, and for every line
# `// EXPECT: <regular expression>` of CASE a line of what the compiler says matches it.

set(ENV{LC_ALL} C)  # plain quotation marks
execute_process(COMMAND ${COMMAND} ${CASE} RESULT_VARIABLE failed OUTPUT_VARIABLE said
  ERROR_VARIABLE said)
if(failed OR said)
  message(FATAL_ERROR "without the misuse it should compile in silence:\n${said}")
endif()

execute_process(COMMAND ${COMMAND} -DMISUSE ${CASE} RESULT_VARIABLE failed OUTPUT_VARIABLE said
  ERROR_VARIABLE said)
if(NOT failed)
  message(FATAL_ERROR "the misuse compiled")
endif()
string(REGEX MATCH "[^\n]*: (fatal )?error: [^\n]*" first_error "${said}")
get_filename_component(name ${CASE} NAME)
if(NOT first_error MATCHES "/${name}:[0-9]+:")
  message(FATAL_ERROR "the first error is not in ${name}: ${first_error}\n\n${said}")
endif()
file(STRINGS ${CASE} expectations REGEX "^// EXPECT: ")
if(NOT expectations)
  message(FATAL_ERROR "${name} has no line '// EXPECT: <regular expression>'")
endif()
string(REPLACE ";" "," lines "${said}")
string(REGEX REPLACE "[][]" "" lines "${lines}")  # CMake keeps lists with lone brackets together
string(REPLACE "\n" ";" lines "${lines}")
foreach(expectation IN LISTS expectations)
  string(REGEX REPLACE "^// EXPECT: " "" regex "${expectation}")
  set(matching ${lines})
  list(FILTER matching INCLUDE REGEX "${regex}")
  if(NOT matching)
    message(FATAL_ERROR "no line matches '${regex}' in:\n${said}")
  endif()
endforeach()
message("${first_error}")
