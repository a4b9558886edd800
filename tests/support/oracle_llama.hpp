// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The double-precision Llama under a causal mask, instantiated once (oracle_llama.cpp): Eigen's
/// products are most of what its tests take to compile. Comes with their precompiled header.

#include "ropewalk/oracle/llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI::oracle {

extern template DoubleLlama make_llama(const LlamaConfig&, const LlamaWeights<float>&);
extern template Matrix hidden_states(const DoubleLlama&, Plans, std::span<const TokenId>,
                                     std::span<const std::int64_t>, const Causal&);

}  // namespace ropewalk::inline ROPEWALK_ABI::oracle
