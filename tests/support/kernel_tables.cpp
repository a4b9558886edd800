// SPDX-License-Identifier: Apache-2.0
#include "support/kernel_tables.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

template KernelTable<float> make_kernel_table<simd::portable>();
template KernelTable<bf16> make_kernel_table<simd::portable, bf16>();
#if defined(__AVX2__) && defined(__FMA__)
template KernelTable<float> make_kernel_table<simd::avx2>();
template KernelTable<bf16> make_kernel_table<simd::avx2, bf16>();
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
template KernelTable<float> make_kernel_table<simd::avx512>();
template KernelTable<bf16> make_kernel_table<simd::avx512, bf16>();
#endif
template KernelTable<bf16> make_kernel_table<simd::emulated_amx, bf16>();

template Llama<float> make_llama(LlamaConfig, LlamaWeights<float>);
template void forward(const Llama<float>&, std::span<const LayerPlan>, const TokenBatch&,
                      KvCache<float>*, const KernelTable<float>&, const Executor&, Workspace&,
                      std::span<HeadResult>, const LogitsRequest&);
template Llama<bf16> make_llama(LlamaConfig, LlamaWeights<bf16>);
template void forward(const Llama<bf16>&, std::span<const LayerPlan>, const TokenBatch&,
                      KvCache<bf16>*, const KernelTable<bf16>&, const Executor&, Workspace&,
                      std::span<HeadResult>, const LogitsRequest&);

}  // namespace ropewalk::inline ROPEWALK_ABI
