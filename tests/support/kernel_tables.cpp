// SPDX-License-Identifier: Apache-2.0
#include "support/kernel_tables.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

template KernelTable<float> make_kernel_table<simd::portable>();
#if defined(__AVX2__) && defined(__FMA__)
template KernelTable<float> make_kernel_table<simd::avx2>();
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
template KernelTable<float> make_kernel_table<simd::avx512>();
#endif

}  // namespace ropewalk::inline ROPEWALK_ABI
