// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The Llama in double, written as its formulas: what every model path is compared with.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/model/weights.hpp"
#include "ropewalk/oracle/attention.hpp"
#include "ropewalk/oracle/rotary.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI::oracle {

using Vector = Eigen::Matrix<double, Eigen::Dynamic, 1>;

/// Shapes are (outputs, inputs), as in LlamaLayer.
struct DoubleLayer {
  Vector input_layernorm;           // (C)
  Matrix q_proj;                    // (H * D, C)
  Matrix k_proj;                    // (K * D, C)
  Matrix v_proj;                    // (K * D, C)
  Matrix o_proj;                    // (C, H * D)
  Vector post_attention_layernorm;  // (C)
  Matrix gate_proj;                 // (F, C)
  Matrix up_proj;                   // (F, C)
  Matrix down_proj;                 // (C, F)
};

/// A Llama's weights in double, ready to use: `head` is the output matrix whether tied or not, its
/// rows already of norm 1 where config.norm_head asks for it.
struct DoubleLlama {
  LlamaConfig config;
  Matrix embed_tokens;  // (V, C)
  std::vector<DoubleLayer> layers;
  Vector norm;  // (C)
  Matrix head;  // (V, C)
};

/// The rope plan of each layer: one plan for all layers, or one plan a layer. A null plan leaves
/// that layer's queries and keys as they are.
using Plans = std::span<const FrequencyPlan* const>;

/// Exact. (outputs, inputs)
template <class T>
Matrix to_matrix(const PackedMatrix<T>& packed) {
  Matrix m(packed.outputs(), packed.inputs());
  Buffer<T> row(packed.inputs());
  for (index_t r = 0; r < m.rows(); ++r) {
    packed.get_row(r, row.span());
    for (index_t c = 0; c < m.cols(); ++c) m(r, c) = to_double(row[c]);
  }
  return m;
}

/// Exact. (size)
template <class T>
Vector to_vector(const Buffer<T>& buffer) {
  Vector v(buffer.size());
  for (index_t i = 0; i < v.size(); ++i) v(i) = to_double(buffer[i]);
  return v;
}

/// Each row over its Euclidean norm (Baichuan2's NormHead). \throws Error(numeric) on a zero row,
/// naming it, and on one that is not finite.
inline void normalize_rows(Matrix& m) {
  for (index_t r = 0; r < m.rows(); ++r) {
    const double norm = m.row(r).stableNorm();
    if (!(norm > 0 && std::isfinite(norm))) {
      fail({.kind = ErrorClass::numeric,
            .field = "lm_head.weight",
            .found = "row " + std::to_string(r) + " of norm " + std::to_string(norm),
            .expected = "rows of finite, non-zero norm, which norm_head divides by"});
    }
    m.row(r) /= norm;
  }
}

/// Converts weights of a checked config. \throws Error(numeric) as normalize_rows
template <class T>
DoubleLlama make_llama(const LlamaConfig& config, const LlamaWeights<T>& weights) {
  DoubleLlama m{.config = config,
                .embed_tokens = to_matrix(weights.embed_tokens),
                .layers = {},
                .norm = to_vector(weights.norm),
                .head = to_matrix(weights.head())};
  for (const LlamaLayer<T>& layer : weights.layers) {
    m.layers.push_back({.input_layernorm = to_vector(layer.input_layernorm),
                        .q_proj = to_matrix(layer.q_proj),
                        .k_proj = to_matrix(layer.k_proj),
                        .v_proj = to_matrix(layer.v_proj),
                        .o_proj = to_matrix(layer.o_proj),
                        .post_attention_layernorm = to_vector(layer.post_attention_layernorm),
                        .gate_proj = to_matrix(layer.gate_proj),
                        .up_proj = to_matrix(layer.up_proj),
                        .down_proj = to_matrix(layer.down_proj)});
  }
  if (config.norm_head) normalize_rows(m.head);
  return m;
}

/// y_t = x_t / sqrt(mean_c x_tc^2 + eps) * weight. x, y: (tokens, C). Source: arXiv:1910.07467
inline Matrix rms_norm(const Matrix& x, const Vector& weight, double eps) {
  const Vector scale =
      (x.rowwise().squaredNorm().array() / static_cast<double>(x.cols()) + eps).rsqrt().matrix();
  return scale.asDiagonal() * x * weight.asDiagonal();
}

/// silu(x) = x / (1 + exp(-x)), elementwise.
inline Matrix silu(const Matrix& x) {
  return x.unaryExpr([](double v) { return v / (1 + std::exp(-v)); });
}

/// The log-n factor of each query, ln n / ln L for the n = position + 1 keys it sees, at least 1 if
/// clipped; 1 where the plan has none. **Source:** kexue.fm 8823; QwenLM/Qwen, logn_tensor.
inline Vector query_scale(const FrequencyPlan* plan, std::span<const std::int64_t> positions) {
  Vector scale = Vector::Ones(static_cast<index_t>(positions.size()));
  if (plan == nullptr || plan->logn.length == 0) return scale;
  for (index_t t = 0; t < scale.size(); ++t) {
    const auto n = static_cast<double>(positions[static_cast<std::size_t>(t)] + 1);
    scale(t) = std::log(n) / std::log(static_cast<double>(plan->logn.length));
    if (plan->logn.clip) scale(t) = std::max(scale(t), 1.0);
  }
  return scale;
}

/// Attention of one layer on normalised inputs a: rotate q and k, scale q, attend, project.
/// \param a (N, C)  \param table  null: no rotation  \param q_scale (N)  -> (N, C)
template <AttentionMask M>
Matrix self_attention(const LlamaConfig& c, const DoubleLayer& layer, const Matrix& a,
                      const RotaryTable* table, const Vector& q_scale, double logit_scale,
                      const M& mask) {
  const index_t tokens = a.rows();
  Matrix q = a * layer.q_proj.transpose();  // (N, H * D)
  Matrix k = a * layer.k_proj.transpose();  // (N, K * D)
  Matrix v = a * layer.v_proj.transpose();  // (N, K * D)
  const HeadsView<double> q_heads(q.data(), {tokens, c.num_attention_heads, c.head_dim});
  const HeadsView<double> k_heads(k.data(), {tokens, c.num_key_value_heads, c.head_dim});
  const HeadsView<double> v_heads(v.data(), {tokens, c.num_key_value_heads, c.head_dim});
  if (table != nullptr) {
    rotate(q_heads, *table, c.pair_layout);
    rotate(k_heads, *table, c.pair_layout);
  }
  for (index_t t = 0; t < tokens; ++t) q.row(t) *= q_scale(t);
  const double softmax_scale = logit_scale / std::sqrt(static_cast<double>(c.head_dim));
  AttentionResult o = attention(q_heads, k_heads, v_heads, mask, softmax_scale);
  return Eigen::Map<const Matrix>(o.out.data(), tokens, c.query_size()) * layer.o_proj.transpose();
}

/// What the head reads: the last layer's output, normalised. \param tokens (N) ids
/// \param positions (N)  \param mask over the N tokens -> (N, C)
/// \throws Error(usage) for an id outside the vocabulary, sizes or a mask that do not fit
/// **Cost:** O(N^2). **Source:** arXiv:2302.13971, section 2.2; transformers' modeling_llama.py.
template <AttentionMask M>
Matrix hidden_states(const DoubleLlama& model, Plans plans, std::span<const TokenId> tokens,
                     std::span<const std::int64_t> positions, const M& mask) {
  const LlamaConfig& c = model.config;
  const auto num_tokens = static_cast<index_t>(tokens.size());
  require(positions.size() == tokens.size(), "one position a token");
  require(plans.size() == 1 || plans.size() == model.layers.size(), "one plan, or one a layer");
  check_mask(mask, num_tokens);

  Matrix x(num_tokens, c.hidden_size);
  for (index_t t = 0; t < num_tokens; ++t) {
    const TokenId id = tokens[static_cast<std::size_t>(t)];
    require(id >= 0 && id < c.vocab_size, "token ids in [0, vocab_size)");
    x.row(t) = model.embed_tokens.row(id);
  }
  const FrequencyPlan* tabled = nullptr;
  RotaryTable table;
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const DoubleLayer& layer = model.layers[l];
    const FrequencyPlan* plan = plans.size() == 1 ? plans[0] : plans[l];
    if (plan != nullptr && plan != tabled) {
      table = rotary_table(positions, plan->inv_freq, plan->attention_factor);
      table.first_channel = plan->first_channel;
      tabled = plan;
    }
    const Matrix a = rms_norm(x, layer.input_layernorm, c.rms_norm_eps);
    x +=
        self_attention(c, layer, a, plan == nullptr ? nullptr : &table,
                       query_scale(plan, positions), plan == nullptr ? 1 : plan->logit_scale, mask);
    const Matrix b = rms_norm(x, layer.post_attention_layernorm, c.rms_norm_eps);
    const Matrix gate = silu(b * layer.gate_proj.transpose());  // (N, F)
    const Matrix up = b * layer.up_proj.transpose();            // (N, F)
    x += gate.cwiseProduct(up) * layer.down_proj.transpose();   // SwiGLU, arXiv:2002.05202
  }
  return rms_norm(x, model.norm, c.rms_norm_eps);
}

/// logits of token t: head h_t. \param hidden (N, C) from hidden_states -> (N, V)
inline Matrix logits(const DoubleLlama& model, const Matrix& hidden) {
  return hidden * model.head.transpose();
}

/// Column of the largest entry of row r, the lowest of equals.
inline TokenId argmax(const Matrix& z, index_t r) {
  index_t best = 0;
  for (index_t v = 1; v < z.cols(); ++v) {
    if (z(r, v) > z(r, best)) best = v;
  }
  return static_cast<TokenId>(best);
}

/// What the head says of each token's target.
struct Scores {
  std::vector<double> nll;      ///< (N) log sum_v exp(z_v) - z_target, nats; 0 where not scored
  std::vector<TokenId> argmax;  ///< (N) the largest logit, the lowest id of equals
};

/// \param targets (N), -1 where not scored \throws Error(usage) for other ids not in the vocabulary
inline Scores score(const DoubleLlama& model, const Matrix& hidden,
                    std::span<const TokenId> targets) {
  const index_t tokens = hidden.rows();
  require(static_cast<index_t>(targets.size()) == tokens, "one target a token");
  Scores scores;
  constexpr index_t block = 256;  // bounds the memory of the logits
  for (index_t begin = 0; begin < tokens; begin += block) {
    const Matrix z = logits(model, hidden.middleRows(begin, std::min(block, tokens - begin)));
    for (index_t t = 0; t < z.rows(); ++t) {
      const TokenId best = argmax(z, t);
      const double largest = z(t, best);
      const TokenId target = targets[static_cast<std::size_t>(begin + t)];
      require(target >= -1 && target < model.config.vocab_size, "targets in [-1, vocab_size)");
      double nll = 0;
      if (target >= 0) {
        double sum = 0;
        for (index_t v = 0; v < z.cols(); ++v) sum += std::exp(z(t, v) - largest);
        nll = largest + std::log(sum) - z(t, target);
      }
      scores.nll.push_back(nll);
      scores.argmax.push_back(best);
    }
  }
  return scores;
}

/// 0, 1, .. within each document. \param cu_seqlens (documents + 1) offsets
inline std::vector<std::int64_t> restarting_positions(std::span<const std::int32_t> cu_seqlens) {
  std::vector<std::int64_t> positions;
  for (std::size_t d = 1; d < cu_seqlens.size(); ++d) {
    for (std::int64_t p = 0; p < cu_seqlens[d] - cu_seqlens[d - 1]; ++p) positions.push_back(p);
  }
  return positions;
}

/// nll of packed documents under causal attention within each. \param cu_seqlens (documents + 1)
inline Scores score_documents(const DoubleLlama& model, Plans plans,
                              std::span<const TokenId> tokens, std::span<const TokenId> targets,
                              std::span<const std::int64_t> positions,
                              std::span<const std::int32_t> cu_seqlens) {
  return score(model, hidden_states(model, plans, tokens, positions, CausalDocuments{cu_seqlens}),
               targets);
}

/// The prompt followed by `count` ids, each the argmax after the whole sequence so far, which is
/// computed anew for each. \param prompt (at least one id)
inline std::vector<TokenId> generate_greedy(const DoubleLlama& model, Plans plans,
                                            std::span<const TokenId> prompt, index_t count) {
  require(!prompt.empty(), "a prompt of at least one id");
  std::vector<TokenId> ids(prompt.begin(), prompt.end());
  std::vector<std::int64_t> positions;
  for (index_t step = 0; step < count; ++step) {
    while (positions.size() < ids.size()) {
      positions.push_back(static_cast<std::int64_t>(positions.size()));
    }
    const Matrix hidden = hidden_states(model, plans, ids, positions, Causal{});
    ids.push_back(argmax(logits(model, hidden.bottomRows(1)), 0));
  }
  return ids;
}

}  // namespace ropewalk::inline ROPEWALK_ABI::oracle
