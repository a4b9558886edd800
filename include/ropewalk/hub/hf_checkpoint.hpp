// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Loads a Hugging Face folder (config.json and safetensors) as a model.

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/hub/checkpoint_data.hpp"
#include "ropewalk/hub/fill_weights.hpp"
#include "ropewalk/hub/hf_config.hpp"
#include "ropewalk/hub/hf_tensors.hpp"
#include "ropewalk/text/find_tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// The shape of a parameter, by which for_each_parameter can name it before any memory is taken.
struct ParameterShape {
  index_t outputs = 0;
  index_t inputs = 0;  ///< 0 for a vector
};

struct LlamaLayerShapes {
  ParameterShape input_layernorm, q_proj, k_proj, v_proj, o_proj, post_attention_layernorm,
      gate_proj, up_proj, down_proj;
};

struct LlamaShapes {
  ParameterShape embed_tokens;
  std::vector<LlamaLayerShapes> layers;
  ParameterShape norm, lm_head;
};

inline LlamaShapes llama_shapes(const LlamaConfig& c) {
  const index_t C = c.hidden_size, F = c.intermediate_size;
  const LlamaLayerShapes layer{.input_layernorm = {C, 0},
                               .q_proj = {c.query_size(), C},
                               .k_proj = {c.key_value_size(), C},
                               .v_proj = {c.key_value_size(), C},
                               .o_proj = {C, c.query_size()},
                               .post_attention_layernorm = {C, 0},
                               .gate_proj = {F, C},
                               .up_proj = {F, C},
                               .down_proj = {C, F}};
  return {
      .embed_tokens = {c.vocab_size, C},
      .layers = std::vector<LlamaLayerShapes>(static_cast<std::size_t>(c.num_hidden_layers), layer),
      .norm = {C, 0},
      .lm_head = {c.vocab_size, C}};
}

/// Checks dtype and shape of a tensor that the model needs.
inline void check_hf_tensor(const std::string& file, const SafetensorsTensor& t,
                            ParameterShape shape) {
  std::vector<std::uint64_t> expected{static_cast<std::uint64_t>(shape.outputs)};
  if (shape.inputs != 0) expected.push_back(static_cast<std::uint64_t>(shape.inputs));
  if (t.shape != expected) {
    const bool transposed = t.shape.size() == 2 && expected.size() == 2 &&
                            t.shape[0] == expected[1] && t.shape[1] == expected[0];
    fail({.kind = ErrorClass::mismatch,
          .file = file,
          .field = "tensor " + escaped(t.name),
          .found = "the shape " + shape_text(t.shape),
          .expected = shape_text(expected) + " by config.json",
          .fix = transposed ? "Transpose the tensor: it is stored (inputs, outputs)" : ""});
  }
  const auto dtype = float_dtype(t);
  if (!dtype || *dtype == DType::f64) {
    fail({.kind = ErrorClass::unsupported,
          .file = file,
          .field = "tensor " + escaped(t.name),
          .found = "dtype " + std::string(t.dtype_name()),
          .expected = "F32, BF16 or F16",
          .fix = "Convert the weights to one of these"});
  }
}

/// `known`: sorted names of all parameters; what else is stored may be the missing one misspelt.
[[noreturn]] inline void fail_missing_tensor(const std::string& path, const HfTensors& tensors,
                                             const std::string& name,
                                             const std::vector<std::string>& known) {
  std::vector<std::string_view> others = tensors.names();
  std::erase_if(others, [&known](std::string_view other) {
    return std::binary_search(known.begin(), known.end(), other);
  });
  const std::string near = nearest(name, others);
  fail({.kind = ErrorClass::mismatch,
        .file = path,
        .field = "tensor " + escaped(name),
        .found = "no such tensor" +
                 (near.empty() ? std::string() : "; the nearest name is " + escaped(near)),
        .expected = "the tensor, as config.json says",
        .fix = name == "lm_head.weight"
                   ? "Set tie_word_embeddings to true if the output matrix is the embedding"
                   : ""});
}

/// A tensor that the model does not use must be known to be harmless.
inline void check_extra_tensor(const std::string& file, const std::string& name,
                               const LlamaConfig& config, std::vector<std::string>& notes) {
  if (name.ends_with(".rotary_emb.inv_freq") || name == "rotary_emb.inv_freq") {
    notes.push_back("tensor " + escaped(name) + " ignored: frequencies come from config.json");
    return;
  }
  constexpr std::string_view prefix = "model.layers.";
  std::string fix;
  if (name.starts_with(prefix)) {
    index_t layer = 0;
    const auto end = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
    if (end.ec == std::errc() && layer >= config.num_hidden_layers) {
      fix = "Correct num_hidden_layers = " + std::to_string(config.num_hidden_layers) +
            " in config.json";
    }
  }
  if (name.ends_with(".bias")) fix = "Use a Llama model without biases";
  fail({.kind = ErrorClass::mismatch,
        .file = file,
        .field = "tensor " + escaped(name),
        .found = "a tensor that the model of config.json does not have",
        .expected = "the parameters of a Llama only",
        .fix = std::move(fix)});
}

/// Tied, but both matrices are stored: they must hold the same bytes.
inline void check_tied_copies(HfTensors& tensors, const HfTensors::Tensor& embedding,
                              const HfTensors::Tensor& head) {
  constexpr std::size_t chunk = std::size_t{1} << 20;
  const std::uint64_t size = embedding.info->end - embedding.info->begin;
  bool equal =
      embedding.info->dtype == head.info->dtype && size == head.info->end - head.info->begin;
  std::vector<std::byte> a(chunk), b(chunk);
  for (std::uint64_t at = 0; equal && at < size; at += chunk) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, size - at));
    tensors.read_bytes(embedding, at, std::span(a).first(n));
    tensors.read_bytes(head, at, std::span(b).first(n));
    equal = std::memcmp(a.data(), b.data(), n) == 0;
  }
  if (equal) return;
  fail({.kind = ErrorClass::mismatch,
        .file = tensors.file_of(head),
        .field = "tensor \"lm_head.weight\"",
        .found = "other values than in model.embed_tokens.weight",
        .expected = "the same, because tie_word_embeddings is true",
        .fix = "Set tie_word_embeddings to false if the output matrix is separate"});
}

}  // namespace detail

/// Loads a folder. Every tensor is checked before memory for the weights is taken; the weights are
/// then filled strip by strip, matrices rounded to T. The pair layout is half_split. With tied
/// embeddings either model.embed_tokens.weight or lm_head.weight may be stored, or both if equal.
/// With norm_head the rows of lm_head are left as stored. \throws Error(mismatch) for missing,
/// unknown or misshapen tensors; as parse_hf_config, HfTensors and fill_parameter.
template <class T = float>
CheckpointOf<T> load_hf_folder(const std::string& folder) {
  CheckpointOf<T> out;
  out.path = folder;
  {
    const JsonDocument document = read_json(FileSource(join_path(folder, "config.json")));
    HfConfig parsed = parse_hf_config(document.view());
    out.config = parsed.config;
    out.rope = parsed.rope;
    out.notes = std::move(parsed.notes);
  }
  HfTensors tensors(folder, out.notes);
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  const bool tied = out.config.tie_word_embeddings;
  // Name in the file of a parameter: a tied embedding may be stored as the output matrix.
  const auto stored_name = [&](const std::string& name) {
    return tied && name == embedding && !tensors.find(name) && tensors.find(head) ? head : name;
  };
  std::size_t used = 0;
  DType dtype = DType::f32;
  detail::LlamaShapes shapes = detail::llama_shapes(out.config);
  std::vector<std::string> known{head};
  for_each_parameter(
      out.config, shapes,
      [&](const std::string& name, const detail::ParameterShape&) { known.push_back(name); });
  std::sort(known.begin(), known.end());
  for_each_parameter(out.config, shapes,
                     [&](const std::string& name, const detail::ParameterShape& shape) {
                       const auto t = tensors.find(stored_name(name));
                       if (!t) detail::fail_missing_tensor(folder, tensors, name, known);
                       detail::check_hf_tensor(tensors.file_of(*t), *t->info, shape);
                       if (shape.inputs != 0) dtype = *float_dtype(*t->info);
                       ++used;
                     });
  out.dtype = std::string(dtype_name(dtype));
  if (stored_name(embedding) == head) {
    out.notes.push_back("the embedding is stored as lm_head.weight");
  } else if (const auto t = tensors.find(head); tied && t) {
    detail::check_tied_copies(tensors, *tensors.find(embedding), *t);
    ++used;
  }
  std::vector<std::string_view> names = tensors.names();
  if (names.size() != used) {
    std::sort(names.begin(), names.end());
    for (const std::string_view name : names) {
      if (std::binary_search(known.begin(), known.end(), name)) continue;
      const std::string text(name);
      detail::check_extra_tensor(tensors.file_of(*tensors.find(text)), text, out.config, out.notes);
    }
  }

  out.weights = make_llama_weights<T>(out.config);
  Hasher hash;
  for_each_parameter(out.config, out.weights, [&](const std::string& name, auto& to) {
    const HfTensors::Tensor t = *tensors.find(stored_name(name));
    fill_parameter(
        tensors.file_of(t), name, to,
        [&](std::int64_t first, std::span<float> values) {
          tensors.read(t, static_cast<std::uint64_t>(first), values);
        },
        hash);
  });
  tensors.check_unchanged();
  out.weights_hash = hash.digest();
  out.tokenizer_path = find_tokenizer(folder);
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
