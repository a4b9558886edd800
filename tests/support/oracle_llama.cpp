// SPDX-License-Identifier: Apache-2.0
#include "support/oracle_llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI::oracle {

template DoubleLlama make_llama(const LlamaConfig&, const LlamaWeights<float>&);
template Matrix hidden_states(const DoubleLlama&, Plans, std::span<const TokenId>,
                              std::span<const std::int64_t>, const Causal&);

}  // namespace ropewalk::inline ROPEWALK_ABI::oracle
