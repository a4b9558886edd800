// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A norm head's rows: those of the output matrix over their Euclidean norms, and the gradient.

#include <cmath>
#include <string>

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// Norms of the rows of a panel, in double, inputs ascending. norms: (panel_width)
template <class T>
void row_norms(const PackedMatrix<T>& w, index_t panel, double* norms) {
  constexpr index_t group = depth_group<T>;
  const index_t width = w.width_of_panel(panel);
  const T* p = w.panel(panel);
  std::fill(norms, norms + panel_width, 0.0);
  for (index_t k = 0; k < w.inputs(); ++k) {
    for (index_t n = 0; n < width; ++n) {
      const auto x =
          static_cast<double>(to_float(p[k / group * width * group + n * group + k % group]));
      norms[n] = std::fma(x, x, norms[n]);
    }
  }
  for (index_t n = 0; n < width; ++n) norms[n] = std::sqrt(norms[n]);
}

}  // namespace detail

/// out = w, each row divided by its Euclidean norm, for the rows of a panel (Baichuan2's NormHead).
/// \throws Error(numeric) for a row whose norm is 0 or NaN
template <class T>
void normalize_rows(const PackedMatrix<T>& w, PackedMatrix<T>& out, index_t panel) {
  constexpr index_t group = depth_group<T>;
  double norms[panel_width];
  detail::row_norms(w, panel, norms);
  const index_t width = w.width_of_panel(panel), first = panel * panel_width;
  for (index_t n = 0; n < width; ++n) {
    if (first + n >= w.outputs()) {
      norms[n] = 1;  // padding
    } else if (!(norms[n] > 0)) {
      fail({.kind = ErrorClass::numeric,
            .field = "lm_head.weight",
            .found = "row " + std::to_string(first + n) + " of norm " + std::to_string(norms[n]),
            .expected = "a positive norm: norm_head divides each row by it"});
    }
  }
  const T* from = w.panel(panel);
  T* to = out.panel(panel);
  for (index_t k = 0; k < w.inputs(); ++k) {
    for (index_t n = 0; n < width; ++n) {
      const index_t at = k / group * width * group + n * group + k % group;
      to[at] = simd::rounded_to<T>(
          static_cast<float>(static_cast<double>(to_float(from[at])) / norms[n]));
    }
  }
}

/// Turns the gradient with respect to n = w / |w| into that with respect to w, row by row, for the
/// rows of a panel: dw = (dn - n <n, dn>) / |w|.
inline void normalize_rows_gradient(const PackedMatrix<float>& w, const PackedMatrix<float>& n,
                                    PackedMatrix<float>& gradient, index_t panel) {
  double norms[panel_width], along[panel_width] = {};
  detail::row_norms(w, panel, norms);
  const index_t width = w.width_of_panel(panel);
  const float* unit = n.panel(panel);
  float* d = gradient.panel(panel);
  for (index_t k = 0; k < w.inputs(); ++k) {
    for (index_t r = 0; r < width; ++r) {
      const index_t at = k * width + r;
      along[r] = std::fma(static_cast<double>(unit[at]), static_cast<double>(d[at]), along[r]);
    }
  }
  const index_t rows = std::min(width, w.outputs() - panel * panel_width);
  for (index_t k = 0; k < w.inputs(); ++k) {
    for (index_t r = 0; r < rows; ++r) {
      const index_t at = k * width + r;
      d[at] = static_cast<float>(
          std::fma(-static_cast<double>(unit[at]), along[r], static_cast<double>(d[at])) /
          norms[r]);
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
