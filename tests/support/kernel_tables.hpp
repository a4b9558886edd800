// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The kernel tables of every instruction set and the forward pass, instantiated once for all tests
/// that ask for them (kernel_tables.cpp). Comes with those tests' precompiled header; no test
/// includes it.

#include "ropewalk/model/llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

extern template KernelTable<float> make_kernel_table<simd::portable>();
extern template KernelTable<bf16> make_kernel_table<simd::portable, bf16>();
#if defined(__AVX2__) && defined(__FMA__)
extern template KernelTable<float> make_kernel_table<simd::avx2>();
extern template KernelTable<bf16> make_kernel_table<simd::avx2, bf16>();
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
extern template KernelTable<float> make_kernel_table<simd::avx512>();
extern template KernelTable<bf16> make_kernel_table<simd::avx512, bf16>();
#endif
extern template KernelTable<bf16> make_kernel_table<simd::emulated_amx, bf16>();

extern template Llama<float> make_llama(LlamaConfig, LlamaWeights<float>);
extern template void forward(const Llama<float>&, std::span<const LayerPlan>, const TokenBatch&,
                             KvCache<float>*, const KernelTable<float>&, const Executor&,
                             Workspace&, std::span<HeadResult>, const LogitsRequest&);
extern template Llama<bf16> make_llama(LlamaConfig, LlamaWeights<bf16>);
extern template void forward(const Llama<bf16>&, std::span<const LayerPlan>, const TokenBatch&,
                             KvCache<bf16>*, const KernelTable<bf16>&, const Executor&, Workspace&,
                             std::span<HeadResult>, const LogitsRequest&);

}  // namespace ropewalk::inline ROPEWALK_ABI
