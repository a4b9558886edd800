// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The largest of several errors, in which a NaN is not lost.

namespace measure {

/// The larger of two errors; NaN if either is.
inline double worse(double a, double b) { return a >= b || a != a ? a : b; }

}  // namespace measure
