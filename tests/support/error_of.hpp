// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What error a call ends with.

#include <string>

#include "ropewalk/core/error.hpp"

namespace ropewalk {

/// The Error that `call` throws, or one of class internal saying "no error".
template <class Call>
ErrorInfo error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.info();
  }
  return {.kind = ErrorClass::internal, .found = "no error"};
}

/// "format", ... or "accepted".
template <class Call>
std::string outcome_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(error_class_name(error.kind()));
  }
  return "accepted";
}

}  // namespace ropewalk
