// SPDX-License-Identifier: Apache-2.0
#include "train_state.hpp"

#include <charconv>

#include <fmt/format.h>

#include "ropewalk/io/safetensors.hpp"
#include "ropewalk/io/safetensors_write.hpp"

#include "manifest.hpp"

namespace cli {

namespace {

constexpr const char* parts[] = {"weights", "first", "second"};

/// Elements of a parameter as they are stored: the packed order is as good as any, and padding too.
template <class Parameter>
auto elements_of(Parameter& p) {
  if constexpr (requires { p.storage(); }) {
    return p.storage();
  } else {
    return p.span();
  }
}

std::string list_text(const std::vector<std::int64_t>& numbers) {
  return fmt::format("{}", fmt::join(numbers, " "));
}

std::vector<std::int64_t> numbers_of(const std::string& text) {
  std::vector<std::int64_t> out;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    std::int64_t number = 0;
    const auto read = std::from_chars(at, end, number);
    if (read.ec != std::errc()) return {};
    out.push_back(number);
    at = read.ptr;
    if (at < end) ++at;
  }
  return out;
}

using Metadata = SafetensorsWriter::Metadata;

/// Of the metadata and of every number, in file order.
std::string state_hash(const LlamaConfig& config, const Metadata& metadata,
                       std::span<const LlamaWeights<float>* const> all) {
  Hasher hash;
  for (const auto& [key, value] : metadata) hash.text(key).text(value);
  for (const LlamaWeights<float>* part : all) {
    for_each_parameter(config, *part, [&](const std::string&, const auto& p) {
      hash.bytes(std::as_bytes(elements_of(p)));
    });
  }
  return hash_text(hash.digest());
}

}  // namespace

void save_train_state(const std::string& path, const std::string& config_hash,
                      const LlamaConfig& config, const TrainPosition& position,
                      const LlamaWeights<float>& weights, const AdamWState& optimizer) {
  const LlamaWeights<float>* const all[] = {&weights, &optimizer.first, &optimizer.second};
  std::vector<FloatTensorEntry> entries;
  for (std::size_t i = 0; i < 3; ++i) {
    for_each_parameter(config, *all[i], [&](const std::string& name, const auto& p) {
      entries.push_back(
          {std::string(parts[i]) + "." + name, {static_cast<std::int64_t>(elements_of(p).size())}});
    });
  }
  const TrainPosition& at = position;
  Metadata metadata = {{"format", "ropewalk training state 3"},
                       {"config_hash", config_hash},
                       {"position", list_text({at.stage, at.stage_step, at.step, at.tokens,
                                               optimizer.steps, at.row_steps})},
                       {"row_loss", json_number(at.row_loss)},
                       {"gradient_norm", json_number(at.gradient_norm)},
                       {"dealt", list_text(at.dealt)}};
  metadata.emplace_back("hash", state_hash(config, metadata, all));
  SafetensorsWriter writer(path, entries, metadata);
  for (const LlamaWeights<float>* part : all) {
    for_each_parameter(config, *part,
                       [&](const std::string&, const auto& p) { writer.write(elements_of(p)); });
  }
  writer.commit();
}

std::optional<TrainState> load_train_state(const std::string& path, const std::string& config_hash,
                                           const LlamaConfig& config) {
  if (!file_exists(path)) return std::nullopt;
  TrainState state;
  as_state([&] {
    const FileSource source(path);
    const SafetensorsIndex index = read_safetensors_index(source);
    const auto metadata = [&](const char* key) {
      for (const auto& [name, value] : index.metadata) {
        if (name == key) return value;
      }
      return std::string();
    };
    const auto refuse = [&](const std::string& found, const std::string& expected) {
      fail({.kind = ErrorClass::state,
            .file = path,
            .found = found,
            .expected = expected,
            .fix = "Remove it to begin anew, or give another --out"});
    };
    if (metadata("format") != "ropewalk training state 3") {
      refuse("another format", "a training state of this version");
    }
    if (!config_hash.empty() && metadata("config_hash") != config_hash) {
      refuse("the state of run " + metadata("config_hash"), "that of run " + config_hash);
    }
    const std::vector<std::int64_t> position = numbers_of(metadata("position"));
    const auto real = [&](const char* key) {
      const std::string text = metadata(key);
      double value = 0;
      const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
      if (read.ec != std::errc()) refuse(std::string("no ") + key, "a number");
      return value;
    };
    if (position.size() != 6) refuse("a position that is none", "six numbers");
    state.weights = make_llama_weights<float>(config);
    state.optimizer = make_adamw_state(config);
    state.position = {position[0],
                      position[1],
                      position[2],
                      position[3],
                      numbers_of(metadata("dealt")),
                      real("row_loss"),
                      position[5],
                      real("gradient_norm")};
    state.optimizer.steps = position[4];
    LlamaWeights<float>* const all[] = {&state.weights, &state.optimizer.first,
                                        &state.optimizer.second};
    for (std::size_t i = 0; i < 3; ++i) {
      for_each_parameter(config, *all[i], [&](const std::string& name, auto& p) {
        const std::string full = std::string(parts[i]) + "." + name;
        const SafetensorsTensor* tensor = index.find(full);
        const auto elements = elements_of(p);
        if (tensor == nullptr || tensor->elements != elements.size()) {
          refuse(tensor == nullptr ? "no " + full
                                   : full + " of " + std::to_string(tensor->elements) + " elements",
                 "the parameters of this model");
        }
        read_floats(source, index, *tensor, 0, elements);
      });
    }
    Metadata hashed = index.metadata;
    std::erase_if(hashed, [](const auto& entry) { return entry.first == "hash"; });
    const LlamaWeights<float>* const read_parts[] = {&state.weights, &state.optimizer.first,
                                                     &state.optimizer.second};
    const std::string hash = state_hash(config, hashed, read_parts);
    if (metadata("hash") != hash) refuse("contents of hash " + hash, metadata("hash"));
  });
  return state;
}

}  // namespace cli
