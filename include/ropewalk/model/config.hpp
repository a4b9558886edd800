// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// LlamaConfig: the shape of a Llama-family model, in Hugging Face's spelling.

#include <cstdint>
#include <string>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/rope/pair_layout.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Sizes in channels or counts. What positions do to the model (frequencies, masks) is not here:
/// it comes with each call.
struct LlamaConfig {
  index_t hidden_size = 0;                   ///< C
  index_t intermediate_size = 0;             ///< F
  index_t num_hidden_layers = 0;             ///< L
  index_t num_attention_heads = 0;           ///< H
  index_t num_key_value_heads = 0;           ///< K; divides H
  index_t head_dim = 0;                      ///< D; even; H * D need not equal C
  index_t vocab_size = 0;                    ///< V
  std::int64_t max_position_embeddings = 0;  ///< trained length in tokens
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = false;
  /// Rows of the output matrix are divided by their Euclidean norm (Baichuan2, Index-1.9B).
  bool norm_head = false;
  PairLayout pair_layout = PairLayout::half_split;

  friend bool operator==(const LlamaConfig&, const LlamaConfig&) = default;

  index_t query_size() const { return num_attention_heads * head_dim; }
  index_t key_value_size() const { return num_key_value_heads * head_dim; }

  /// Checks the limits of reliability (sizes positive, even head_dim, K divides H).
  /// \throws Error(config) or Error(limit) naming the field; `file` goes into the message.
  void check(const std::string& file = {}) const {
    const auto bounded = [&](const char* field, std::int64_t value, std::int64_t limit) {
      if (value < 1) {
        fail({.kind = ErrorClass::config,
              .file = file,
              .field = field,
              .found = std::to_string(value),
              .expected = "at least 1"});
      }
      if (value > limit) {
        fail({.kind = ErrorClass::limit,
              .file = file,
              .field = field,
              .found = std::to_string(value),
              .expected = "at most " + std::to_string(limit)});
      }
    };
    bounded("hidden_size", hidden_size, 1 << 20);
    bounded("intermediate_size", intermediate_size, 1 << 22);
    bounded("num_hidden_layers", num_hidden_layers, 4096);
    bounded("num_attention_heads", num_attention_heads, 1 << 16);
    bounded("num_key_value_heads", num_key_value_heads, 1 << 16);
    bounded("head_dim", head_dim, 4096);
    bounded("vocab_size", vocab_size, 1 << 22);
    bounded("max_position_embeddings", max_position_embeddings, 0xffffffffll);
    if (head_dim % 2 != 0) {
      fail({.kind = ErrorClass::config,
            .file = file,
            .field = "head_dim",
            .found = std::to_string(head_dim),
            .expected = "an even number: rotary embeddings rotate pairs of channels"});
    }
    if (num_attention_heads % num_key_value_heads != 0) {
      fail({.kind = ErrorClass::config,
            .file = file,
            .field = "num_key_value_heads",
            .found = std::to_string(num_key_value_heads),
            .expected =
                "a divisor of num_attention_heads = " + std::to_string(num_attention_heads)});
    }
    if (!(rms_norm_eps > 0 && rms_norm_eps < 1)) {
      fail({.kind = ErrorClass::config,
            .file = file,
            .field = "rms_norm_eps",
            .found = std::to_string(rms_norm_eps),
            .expected = "a number in (0, 1)"});
    }
  }
};

}  // namespace ropewalk::inline ROPEWALK_ABI
