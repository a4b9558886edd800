// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// config.json of a tiny Llama, with changes.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ropewalk {

/// Key and JSON text of its value; an empty text leaves the key out.
using Changes = std::vector<std::pair<std::string, std::string>>;

/// hidden 8, intermediate 12, 2 layers, 4 heads of 2, 2 key-value heads, vocabulary 5.
inline std::string tiny_config(const Changes& changes = {}) {
  Changes keys{{"architectures", R"(["LlamaForCausalLM"])"},
               {"hidden_act", R"("silu")"},
               {"hidden_size", "8"},
               {"intermediate_size", "12"},
               {"max_position_embeddings", "64"},
               {"model_type", R"("llama")"},
               {"num_attention_heads", "4"},
               {"num_hidden_layers", "2"},
               {"num_key_value_heads", "2"},
               {"rms_norm_eps", "1e-05"},
               {"rope_theta", "10000.0"},
               {"tie_word_embeddings", "false"},
               {"vocab_size", "5"}};
  for (const auto& change : changes) {
    bool found = false;
    for (auto& key : keys) {
      if (key.first == change.first) key.second = change.second, found = true;
    }
    if (!found) keys.push_back(change);
  }
  std::string out = "{";
  for (const auto& [key, value] : keys) {
    if (!value.empty()) out += (out.size() > 1 ? ",\n \"" : "\n \"") + key + "\": " + value;
  }
  return out + "\n}\n";
}

}  // namespace ropewalk
