// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The double oracle of a gradient whose products take operands rounded to bf16.

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "ropewalk/oracle/llama_gradient.hpp"

#include "support/kernel_exp2.hpp"
#include "train/training_problem.hpp"

namespace ropewalk {

/// Every place where training rounds operands. Each may be left out, so that a test knows it would
/// see it missing.
enum class Rounded {
  matrices,
  head,
  attention_input,
  queries,  ///< rotated, in base-2 units
  keys,     ///< rotated
  values,
  weights,  ///< of the forward pass
  attended,
  feed_forward_input,
  fed,
  head_input,            ///< in base-2 units, as logits are made of it
  head_input_once_more,  ///< in its own units, for the gradient of the head
  d_logits,
  d_hidden,
  d_gate,
  d_up,
  d_middle,
  d_attended,
  backward_weights,
  d_scores,
  d_queries,
  d_keys,
  d_values,
  nothing  ///< the last
};

/// oracle::loss_gradient() with those roundings; one plan, documents side by side.
class RoundedOracle {
  using Matrix = oracle::Matrix;

 public:
  RoundedOracle(const Llama<float>& model, const FrequencyPlan& plan, const TrainingBatch& batch,
                std::span<const double> loss_weights, Rounded left_out = Rounded::nothing)
      : c_(model.config),
        weights_(oracle::make_double_weights(model.config, model.weights)),
        plan_(plan),
        batch_(batch),
        loss_weights_(loss_weights),
        left_out_(left_out),
        table_(oracle::rotary_table(batch.positions, plan.inv_freq, plan.attention_factor)) {
    table_.first_channel = plan.first_channel;
  }

  oracle::LossGradient gradient() {
    oracle::LossGradient result;
    oracle::DoubleWeights& d = result.gradient;
    d.layers.resize(weights_.layers.size());
    Matrix x(static_cast<index_t>(batch_.tokens.size()), c_.hidden_size);
    for (index_t t = 0; t < x.rows(); ++t) x.row(t) = weights_.embed_tokens.row(token(t));
    std::vector<Activations> all;
    for (const oracle::DoubleLayer& layer : weights_.layers) {
      all.push_back(forward(layer, x));
      x = all.back().output;
    }
    const Matrix d_head = head_gradient(x, result.loss, d.norm);
    Matrix d_x = d_last_;
    for (std::size_t l = all.size(); l-- > 0;) {
      d_x = backward(weights_.layers[l], all[l], d_x, d.layers[l]);
    }
    d.embed_tokens = Matrix::Zero(c_.vocab_size, c_.hidden_size);
    for (index_t t = 0; t < x.rows(); ++t) d.embed_tokens.row(token(t)) += d_x.row(t);
    if (c_.tie_word_embeddings) {
      d.embed_tokens += d_head;
    } else {
      d.lm_head = d_head;
    }
    return result;
  }

 private:
  struct Activations {
    Matrix x, a, projected, attended, middle, b, gate, up, fed, output;
  };
  index_t token(index_t t) const { return batch_.tokens[static_cast<std::size_t>(t)]; }
  Matrix rounded(const Matrix& m, Rounded place) const {
    if (place == left_out_) return m;
    return m.unaryExpr([](double v) {
      return static_cast<double>(to_float(rounded_to<bf16>(static_cast<float>(v))));
    });
  }
  Matrix operand(const Matrix& w) const { return rounded(w, Rounded::matrices); }

  /// Queries, keys and values as attention takes them.
  struct Operands {
    Matrix q, k, v;
  };
  HeadsView<double> heads(Matrix& x) const {
    return {x.data(), {x.rows(), x.cols() / c_.head_dim, c_.head_dim}};
  }
  double query_factor() const {
    return plan_.logit_scale * log2_e / std::sqrt(static_cast<double>(c_.head_dim));
  }
  Operands operands(const Matrix& projected) const {
    const index_t q_size = c_.query_size(), kv = c_.key_value_size();
    Matrix q = projected.leftCols(q_size), k = projected.middleCols(q_size, kv);
    rotate(heads(q), table_, c_.pair_layout);
    rotate(heads(k), table_, c_.pair_layout);
    return {rounded(query_factor() * q, Rounded::queries), rounded(k, Rounded::keys),
            rounded(projected.rightCols(kv), Rounded::values)};
  }
  /// For each head f(first channel in q, that in k and v, weights not yet divided by sums): (N, N).
  template <class F>
  void for_each_head(const Operands& in, const F& f) const {
    const index_t tokens = in.q.rows(), dim = c_.head_dim;
    const CausalDocuments mask{batch_.cu_seqlens};
    for (index_t h = 0; h < c_.num_attention_heads; ++h) {
      const index_t shared = h * c_.num_key_value_heads / c_.num_attention_heads * dim;
      Matrix w = in.q.middleCols(h * dim, dim) * in.k.middleCols(shared, dim).transpose();
      for (index_t i = 0; i < tokens; ++i) {
        double largest = -1e300;
        for (index_t j = 0; j < tokens; ++j) {
          if (mask.visible(i, j)) largest = std::max(largest, w(i, j));
        }
        for (index_t j = 0; j < tokens; ++j) {
          w(i, j) = mask.visible(i, j) ? kernel_exp2(w(i, j) - std::nearbyint(largest)) : 0;
        }
      }
      f(h * dim, shared, w);
    }
  }
  Matrix attend(const Operands& in) const {
    Matrix out(in.q.rows(), in.q.cols());
    for_each_head(in, [&](index_t own, index_t shared, const Matrix& w) {
      const Matrix weights = rounded(w, Rounded::weights);
      out.middleCols(own, c_.head_dim) = weights.rowwise().sum().cwiseInverse().asDiagonal() *
                                         weights * in.v.middleCols(shared, c_.head_dim);
    });
    return out;
  }
  /// The gradient of the projections. attended, d_attended: as operands
  Matrix attend_backward(const Operands& in, const Matrix& attended,
                         const Matrix& d_attended) const {
    const index_t dim = c_.head_dim, tokens = in.q.rows();
    Matrix d_q = Matrix::Zero(tokens, in.q.cols()), d_k = Matrix::Zero(tokens, in.k.cols()),
           d_v = d_k;
    for_each_head(in, [&](index_t own, index_t shared, const Matrix& w) {
      const Matrix sums = rounded(w, Rounded::weights).rowwise().sum();
      const Matrix p = w.cwiseQuotient(sums.replicate(1, tokens));
      const Matrix d_out = d_attended.middleCols(own, dim);
      const Matrix delta = d_out.cwiseProduct(attended.middleCols(own, dim)).rowwise().sum();
      const Matrix d_p = d_out * in.v.middleCols(shared, dim).transpose();
      const Matrix d_s =
          ln_2 * rounded(p.cwiseProduct(d_p - delta.replicate(1, tokens)), Rounded::d_scores);
      d_q.middleCols(own, dim) = query_factor() * d_s * in.k.middleCols(shared, dim);
      d_k.middleCols(shared, dim) += d_s.transpose() * in.q.middleCols(own, dim);
      d_v.middleCols(shared, dim) += rounded(p, Rounded::backward_weights).transpose() * d_out;
    });
    rotate_transposed(heads(d_q), table_, c_.pair_layout);
    rotate_transposed(heads(d_k), table_, c_.pair_layout);
    Matrix d(tokens, d_q.cols() + 2 * d_k.cols());
    d << d_q, d_k, d_v;
    return d;
  }

  Activations forward(const oracle::DoubleLayer& w, const Matrix& x) const {
    Activations f;
    f.x = x;
    f.a =
        rounded(oracle::rms_norm(x, w.input_layernorm, c_.rms_norm_eps), Rounded::attention_input);
    f.projected.resize(x.rows(), c_.query_size() + 2 * c_.key_value_size());
    f.projected << f.a * operand(w.q_proj).transpose(), f.a * operand(w.k_proj).transpose(),
        f.a * operand(w.v_proj).transpose();
    f.attended = rounded(attend(operands(f.projected)), Rounded::attended);
    f.middle = x + f.attended * operand(w.o_proj).transpose();
    f.b = rounded(oracle::rms_norm(f.middle, w.post_attention_layernorm, c_.rms_norm_eps),
                  Rounded::feed_forward_input);
    f.gate = f.b * operand(w.gate_proj).transpose();
    f.up = f.b * operand(w.up_proj).transpose();
    f.fed = rounded(oracle::silu(f.gate).cwiseProduct(f.up), Rounded::fed);
    f.output = f.middle + f.fed * operand(w.down_proj).transpose();
    return f;
  }

  /// The head's gradient; d_last_ becomes that of its input x.
  Matrix head_gradient(const Matrix& x, double& loss, oracle::Vector& d_norm) {
    const Matrix& stored = c_.tie_word_embeddings ? weights_.embed_tokens : weights_.lm_head;
    Matrix rows = stored;
    if (c_.norm_head) oracle::normalize_rows(rows);
    const oracle::DoubleLlama model{.config = c_,
                                    .embed_tokens = {},
                                    .layers = {},
                                    .norm = {},
                                    .head = rounded(rows, Rounded::head)};
    const Matrix hidden = oracle::rms_norm(x, weights_.norm, c_.rms_norm_eps);
    const Matrix input = rounded(hidden * log2_e, Rounded::head_input) / log2_e;
    const oracle::Scores scores = oracle::score(model, input, batch_.targets);
    for (std::size_t t = 0; t < scores.nll.size(); ++t) loss += loss_weights_[t] * scores.nll[t];
    const Matrix d_logits = rounded(
        oracle::logits_gradient(oracle::logits(model, input), {.tokens = batch_.tokens,
                                                               .targets = batch_.targets,
                                                               .loss_weights = loss_weights_,
                                                               .positions = batch_.positions}),
        Rounded::d_logits);
    d_last_ =
        oracle::rms_norm_gradient(x, weights_.norm, c_.rms_norm_eps, d_logits * model.head, d_norm);
    const Matrix d = d_logits.transpose() * rounded(hidden, Rounded::head_input_once_more);
    return c_.norm_head ? oracle::normalize_rows_gradient(stored, d) : d;
  }

  Matrix backward(const oracle::DoubleLayer& w, const Activations& f, const Matrix& d_x,
                  oracle::DoubleLayer& d) const {
    const Matrix d_output = rounded(d_x, Rounded::d_hidden);
    const Matrix d_fed = d_output * operand(w.down_proj);
    const Matrix d_up = rounded(d_fed.cwiseProduct(oracle::silu(f.gate)), Rounded::d_up);
    const Matrix d_gate = rounded(
        d_fed.cwiseProduct(f.up).cwiseProduct(oracle::silu_derivative(f.gate)), Rounded::d_gate);
    d.down_proj = d_output.transpose() * f.fed;
    d.gate_proj = d_gate.transpose() * f.b;
    d.up_proj = d_up.transpose() * f.b;
    const Matrix d_b = d_gate * operand(w.gate_proj) + d_up * operand(w.up_proj);
    const Matrix d_middle =
        d_x + oracle::rms_norm_gradient(f.middle, w.post_attention_layernorm, c_.rms_norm_eps, d_b,
                                        d.post_attention_layernorm);
    const Matrix d_o = rounded(d_middle, Rounded::d_middle);
    d.o_proj = d_o.transpose() * f.attended;
    const Matrix d_projected = attend_backward(
        operands(f.projected), f.attended, rounded(d_o * operand(w.o_proj), Rounded::d_attended));
    const index_t q = c_.query_size(), kv = c_.key_value_size();
    const Matrix d_q = rounded(d_projected.leftCols(q), Rounded::d_queries);
    const Matrix d_k = rounded(d_projected.middleCols(q, kv), Rounded::d_keys);
    const Matrix d_v = rounded(d_projected.rightCols(kv), Rounded::d_values);
    d.q_proj = d_q.transpose() * f.a;
    d.k_proj = d_k.transpose() * f.a;
    d.v_proj = d_v.transpose() * f.a;
    const Matrix d_a = d_q * operand(w.q_proj) + d_k * operand(w.k_proj) + d_v * operand(w.v_proj);
    return d_middle + oracle::rms_norm_gradient(f.x, w.input_layernorm, c_.rms_norm_eps, d_a,
                                                d.input_layernorm);
  }

  LlamaConfig c_;
  oracle::DoubleWeights weights_;
  const FrequencyPlan& plan_;
  const TrainingBatch& batch_;
  std::span<const double> loss_weights_;
  Rounded left_out_;
  oracle::RotaryTable table_;
  Matrix d_last_;
};

}  // namespace ropewalk
