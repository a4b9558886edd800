// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Gradient of a Llama's loss in double, written as its formulas: what training is compared with.

#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "ropewalk/oracle/llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI::oracle {

/// LlamaWeights in double: the parameters as they are stored, or the gradient of a loss with
/// respect to them. for_each_parameter visits either.
struct DoubleWeights {
  Matrix embed_tokens;  // (V, C)
  std::vector<DoubleLayer> layers;
  Vector norm;     // (C)
  Matrix lm_head;  // (V, C), not normalised; empty when tied to embed_tokens
};

/// Exact. Converts weights of a checked config.
template <class T>
DoubleWeights make_double_weights(LlamaConfig config, const LlamaWeights<T>& weights) {
  config.norm_head = false;
  DoubleLlama m = oracle::make_llama(config, weights);
  return {.embed_tokens = std::move(m.embed_tokens),
          .layers = std::move(m.layers),
          .norm = std::move(m.norm),
          .lm_head = config.tie_word_embeddings ? Matrix() : std::move(m.head)};
}

/// \throws Error(numeric) as normalize_rows
inline DoubleLlama make_llama(const LlamaConfig& config, const DoubleWeights& weights) {
  DoubleLlama m{.config = config,
                .embed_tokens = weights.embed_tokens,
                .layers = weights.layers,
                .norm = weights.norm,
                .head = config.tie_word_embeddings ? weights.embed_tokens : weights.lm_head};
  if (config.norm_head) normalize_rows(m.head);
  return m;
}

/// N tokens, packed as the mask says, and what their losses count.
struct WeightedTokens {
  std::span<const TokenId> tokens;          ///< (N)
  std::span<const TokenId> targets;         ///< (N), -1 where not scored
  std::span<const double> loss_weights;     ///< (N)
  std::span<const std::int64_t> positions;  ///< (N)
};

/// sum_t loss_weights_t nll_t over the scored tokens t, nats. \throws Error(usage) as hidden_states
/// and score, and for weights that are not one a token
template <AttentionMask M>
double weighted_loss(const DoubleLlama& model, Plans plans, const WeightedTokens& batch,
                     const M& mask) {
  require(batch.loss_weights.size() == batch.tokens.size(), "one loss weight a token");
  const Matrix hidden = hidden_states(model, plans, batch.tokens, batch.positions, mask);
  const Scores scores = score(model, hidden, batch.targets);
  double loss = 0;
  for (std::size_t t = 0; t < scores.nll.size(); ++t) loss += batch.loss_weights[t] * scores.nll[t];
  return loss;
}

// Below d_x is the gradient of the loss with respect to x, of the shape of x. Each function returns
// the gradient of its input and writes those of its parameters.

/// Of y = rms_norm(x, weight, eps), with s_t = 1 / sqrt(mean_c x_tc^2 + eps):
///
///     d_x_t = s_t (weight d_y_t) - s_t^3 x_t <x_t, weight d_y_t> / C,
///     d_weight = sum_t s_t x_t d_y_t
///
/// \param x, d_y (tokens, C)  \param d_weight (C)
inline Matrix rms_norm_gradient(const Matrix& x, const Vector& weight, double eps,
                                const Matrix& d_y, Vector& d_weight) {
  const auto channels = static_cast<double>(x.cols());
  const Vector s = (x.rowwise().squaredNorm().array() / channels + eps).rsqrt().matrix();
  d_weight = (s.asDiagonal() * x.cwiseProduct(d_y)).colwise().sum().transpose();
  const Matrix weighted = d_y * weight.asDiagonal();
  const Vector along = x.cwiseProduct(weighted).rowwise().sum();  // <x_t, weight d_y_t>
  const Vector shrink = (s.array().cube() * along.array() / channels).matrix();
  return s.asDiagonal() * weighted - shrink.asDiagonal() * x;
}

/// Of y = self_attention(a). Per head, with P the softmax of the visible logits
/// s_ij = softmax_scale <q_i, k_j> and o = P v:
///
///     d_P = d_o v^T,   d_s_ij = P_ij (d_P_ij - <d_o_i, o_i>),
///     d_q = softmax_scale d_s k,   d_k = softmax_scale d_s^T q,   d_v = P^T d_o
///
/// where keys and values sum over the query heads of their group; then q and k are rotated back.
/// \param a, d_y (N, C)  \param gradient  its q_proj, k_proj, v_proj, o_proj are written
/// **Source:** arXiv:2205.14135, appendix B.2.
template <AttentionMask M>
Matrix self_attention_gradient(const LlamaConfig& c, const DoubleLayer& layer, const Matrix& a,
                               const RotaryTable* table, const Vector& q_scale, double logit_scale,
                               const M& mask, const Matrix& d_y, DoubleLayer& gradient) {
  const index_t tokens = a.rows(), dim = c.head_dim;
  const index_t group = c.num_attention_heads / c.num_key_value_heads;
  const auto heads = [&](Matrix& x) {
    return HeadsView<double>(x.data(), {tokens, x.cols() / dim, dim});
  };
  Matrix q = a * layer.q_proj.transpose();  // (N, H * D)
  Matrix k = a * layer.k_proj.transpose();  // (N, K * D)
  Matrix v = a * layer.v_proj.transpose();  // (N, K * D)
  if (table != nullptr) {
    rotate(heads(q), *table, c.pair_layout);
    rotate(heads(k), *table, c.pair_layout);
  }
  q = q_scale.asDiagonal() * q;
  const double softmax_scale = logit_scale / std::sqrt(static_cast<double>(dim));
  const AttentionResult o = attention(heads(q), heads(k), heads(v), mask, softmax_scale);
  const Eigen::Map<const Matrix> out(o.out.data(), tokens, c.query_size());  // (N, H * D)
  const Matrix d_out = d_y * layer.o_proj;

  Matrix d_q(q.rows(), q.cols());
  Matrix d_k = Matrix::Zero(k.rows(), k.cols()), d_v = Matrix::Zero(v.rows(), v.cols());
  for (index_t h = 0; h < c.num_attention_heads; ++h) {
    const index_t own = h * dim, shared = h / group * dim;  // first channels in q, and in k and v
    const Matrix q_h = q.middleCols(own, dim), out_h = out.middleCols(own, dim);
    const Matrix k_g = k.middleCols(shared, dim), v_g = v.middleCols(shared, dim);
    const Matrix d_out_h = d_out.middleCols(own, dim);
    Matrix p = softmax_scale * q_h * k_g.transpose();  // (N, N)
    for (index_t i = 0; i < tokens; ++i) {
      for (index_t j = 0; j < tokens; ++j) {
        p(i, j) = mask.visible(i, j) ? std::exp(p(i, j) - o.lse.view()(h, i)) : 0;
      }
    }
    const Vector delta = d_out_h.cwiseProduct(out_h).rowwise().sum();
    const Matrix d_p = d_out_h * v_g.transpose();
    const Matrix d_s = p.cwiseProduct(d_p - delta.replicate(1, tokens));
    d_q.middleCols(own, dim) = softmax_scale * d_s * k_g;
    d_k.middleCols(shared, dim) += softmax_scale * d_s.transpose() * q_h;
    d_v.middleCols(shared, dim) += p.transpose() * d_out_h;
  }
  d_q = q_scale.asDiagonal() * d_q;
  if (table != nullptr) {
    rotate_transposed(heads(d_q), *table, c.pair_layout);
    rotate_transposed(heads(d_k), *table, c.pair_layout);
  }
  gradient.q_proj = d_q.transpose() * a;
  gradient.k_proj = d_k.transpose() * a;
  gradient.v_proj = d_v.transpose() * a;
  gradient.o_proj = d_y.transpose() * out;
  return d_q * layer.q_proj + d_k * layer.k_proj + d_v * layer.v_proj;
}

/// silu'(x) = p (1 + x (1 - p)), p = 1 / (1 + exp(-x)), elementwise.
inline Matrix silu_derivative(const Matrix& x) {
  return x.unaryExpr([](double v) {
    const double p = 1 / (1 + std::exp(-v));
    return p * (1 + v * (1 - p));
  });
}

/// Of y = (silu(gate) up) down_proj^T, gate = b gate_proj^T, up = b up_proj^T.
/// \param b, d_y (N, C)  \param gradient  its gate_proj, up_proj, down_proj are written
inline Matrix mlp_gradient(const DoubleLayer& layer, const Matrix& b, const Matrix& d_y,
                           DoubleLayer& gradient) {
  const Matrix gate = b * layer.gate_proj.transpose();  // (N, F)
  const Matrix up = b * layer.up_proj.transpose();      // (N, F)
  const Matrix d_product = d_y * layer.down_proj;       // (N, F)
  const Matrix d_up = d_product.cwiseProduct(silu(gate));
  const Matrix d_gate = d_product.cwiseProduct(up).cwiseProduct(silu_derivative(gate));
  gradient.gate_proj = d_gate.transpose() * b;
  gradient.up_proj = d_up.transpose() * b;
  gradient.down_proj = d_y.transpose() * silu(gate).cwiseProduct(up);
  return d_gate * layer.gate_proj + d_up * layer.up_proj;
}

/// Of the matrix m whose rows were divided by their norms, y_r = m_r / |m_r|:
/// d_m_r = (d_y_r - <d_y_r, y_r> y_r) / |m_r|. \param m, d_y (V, C)
inline Matrix normalize_rows_gradient(const Matrix& m, const Matrix& d_y) {
  Matrix d_m(m.rows(), m.cols());
  for (index_t r = 0; r < m.rows(); ++r) {
    const double norm = m.row(r).stableNorm();
    const auto y = m.row(r) / norm;
    d_m.row(r) = (d_y.row(r) - d_y.row(r).dot(y) * y) / norm;
  }
  return d_m;
}

/// Of weighted_loss, with respect to the logits z:
/// d_z_t = loss_weights_t (softmax(z_t) - one_hot(target_t)), 0 where not scored.
/// \param z (N, V) -> (N, V)
inline Matrix logits_gradient(const Matrix& z, const WeightedTokens& batch) {
  Matrix d_z = Matrix::Zero(z.rows(), z.cols());
  for (index_t t = 0; t < z.rows(); ++t) {
    const auto i = static_cast<std::size_t>(t);
    if (batch.targets[i] < 0) continue;
    const auto e = (z.row(t).array() - z.row(t).maxCoeff()).exp();
    d_z.row(t) = (batch.loss_weights[i] * e / e.sum()).matrix();
    d_z(t, batch.targets[i]) -= batch.loss_weights[i];
  }
  return d_z;
}

struct LossGradient {
  double loss = 0;  ///< weighted_loss, nats
  DoubleWeights gradient;
};

/// weighted_loss of a Llama with these weights, and its gradient with respect to each of them.
/// \throws Error as make_llama and weighted_loss
/// **Cost:** O(N^2) time, (N, V) logits and every layer's inputs in memory.
template <AttentionMask M>
LossGradient loss_gradient(const LlamaConfig& config, const DoubleWeights& weights, Plans plans,
                           const WeightedTokens& batch, const M& mask) {
  const DoubleLlama model = oracle::make_llama(config, weights);
  LossGradient result{.loss = weighted_loss(model, plans, batch, mask), .gradient = {}};
  DoubleWeights& gradient = result.gradient;
  gradient.layers.resize(model.layers.size());
  const double eps = config.rms_norm_eps;

  // What each layer does with positions, and its inputs. Forward, as hidden_states.
  struct LayerInputs {
    const FrequencyPlan* plan;
    RotaryTable table;
    Vector q_scale;
    Matrix x;      // (N, C) of attention
    Matrix x_mlp;  // (N, C)
    const RotaryTable* rotation() const { return plan == nullptr ? nullptr : &table; }
    double logit_scale() const { return plan == nullptr ? 1 : plan->logit_scale; }
  };
  std::vector<LayerInputs> inputs;
  Matrix x(static_cast<index_t>(batch.tokens.size()), config.hidden_size);
  for (index_t t = 0; t < x.rows(); ++t) {
    x.row(t) = model.embed_tokens.row(batch.tokens[static_cast<std::size_t>(t)]);
  }
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const DoubleLayer& layer = model.layers[l];
    const FrequencyPlan* plan = plans.size() == 1 ? plans[0] : plans[l];
    LayerInputs& in =
        inputs.emplace_back(LayerInputs{plan, {}, query_scale(plan, batch.positions), x, {}});
    if (plan != nullptr) {
      in.table = rotary_table(batch.positions, plan->inv_freq, plan->attention_factor);
      in.table.first_channel = plan->first_channel;
    }
    const Matrix a = rms_norm(x, layer.input_layernorm, eps);
    x += self_attention(config, layer, a, in.rotation(), in.q_scale, in.logit_scale(), mask);
    in.x_mlp = x;
    const Matrix b = rms_norm(x, layer.post_attention_layernorm, eps);
    x += silu(b * layer.gate_proj.transpose()).cwiseProduct(b * layer.up_proj.transpose()) *
         layer.down_proj.transpose();
  }

  // Backward: d_x is the gradient of the residual stream, to which each block adds its own.
  const Matrix hidden = rms_norm(x, model.norm, eps);
  const Matrix d_z = logits_gradient(logits(model, hidden), batch);
  Matrix d_head = d_z.transpose() * hidden;
  Matrix d_x = rms_norm_gradient(x, model.norm, eps, d_z * model.head, gradient.norm);
  for (std::size_t l = model.layers.size(); l-- > 0;) {
    const DoubleLayer& layer = model.layers[l];
    const LayerInputs& in = inputs[l];
    DoubleLayer& d_layer = gradient.layers[l];
    const Matrix b = rms_norm(in.x_mlp, layer.post_attention_layernorm, eps);
    const Matrix d_b = mlp_gradient(layer, b, d_x, d_layer);
    d_x += rms_norm_gradient(in.x_mlp, layer.post_attention_layernorm, eps, d_b,
                             d_layer.post_attention_layernorm);
    const Matrix a = rms_norm(in.x, layer.input_layernorm, eps);
    const Matrix d_a = self_attention_gradient(config, layer, a, in.rotation(), in.q_scale,
                                               in.logit_scale(), mask, d_x, d_layer);
    d_x += rms_norm_gradient(in.x, layer.input_layernorm, eps, d_a, d_layer.input_layernorm);
  }
  gradient.embed_tokens = Matrix::Zero(config.vocab_size, config.hidden_size);
  for (index_t t = 0; t < x.rows(); ++t) {
    gradient.embed_tokens.row(batch.tokens[static_cast<std::size_t>(t)]) += d_x.row(t);
  }
  const bool tied = config.tie_word_embeddings;
  if (config.norm_head) {
    d_head = normalize_rows_gradient(tied ? weights.embed_tokens : weights.lm_head, d_head);
  }
  if (tied) {
    gradient.embed_tokens += d_head;
  } else {
    gradient.lm_head = std::move(d_head);
  }
  return result;
}

}  // namespace ropewalk::inline ROPEWALK_ABI::oracle
