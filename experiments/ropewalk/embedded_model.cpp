// SPDX-License-Identifier: Apache-2.0
#include "embedded_model.hpp"

#include "ropewalk/hub/fill_weights.hpp"
#include "ropewalk/hub/hf_config.hpp"
#include "ropewalk/io/json.hpp"
#include "ropewalk/io/safetensors.hpp"

// The files as they are, between two names each.
#define ROPEWALK_EMBED(name, file)                                                          \
  asm(".pushsection .rodata\n.balign 16\n.global ropewalk_" #name "_begin\nropewalk_" #name \
      "_begin:\n.incbin \"" file "\"\n.global ropewalk_" #name "_end\nropewalk_" #name      \
      "_end:\n.byte 0\n.popsection\n")
ROPEWALK_EMBED(nano_config, ROPEWALK_NANO_FOLDER "/config.json");
ROPEWALK_EMBED(nano_weights, ROPEWALK_NANO_FOLDER "/model.safetensors");
#undef ROPEWALK_EMBED

extern "C" const char ropewalk_nano_config_begin[], ropewalk_nano_config_end[];
extern "C" const char ropewalk_nano_weights_begin[], ropewalk_nano_weights_end[];

namespace cli {

template <class T>
CheckpointOf<T> load_embedded() {
  const std::string_view config(ropewalk_nano_config_begin, ropewalk_nano_config_end);
  const std::string_view weights(ropewalk_nano_weights_begin, ropewalk_nano_weights_end);
  CheckpointOf<T> out;
  out.path = embedded_name;
  const JsonDocument document = parse_json(config, "the embedded config.json");
  const HfConfig parsed = parse_hf_config(document.view());
  out.config = parsed.config;
  out.rope = parsed.rope;
  out.dtype = "f32";
  const MemorySource source(weights, "the embedded model.safetensors");
  const SafetensorsIndex index = read_safetensors_index(source);
  out.weights = make_llama_weights<T>(out.config);
  Hasher hash;
  for_each_parameter(out.config, out.weights, [&](const std::string& name, auto& to) {
    const SafetensorsTensor* tensor = index.find(name);
    require(tensor != nullptr, "every parameter among the embedded ones");
    fill_parameter(
        source.name(), name, to,
        [&](std::int64_t first, std::span<float> values) {
          read_floats(source, index, *tensor, static_cast<std::uint64_t>(first), values);
        },
        hash);
  });
  out.weights_hash = hash.digest();
  return out;
}

template CheckpointOf<float> load_embedded();
template CheckpointOf<bf16> load_embedded();

}  // namespace cli
