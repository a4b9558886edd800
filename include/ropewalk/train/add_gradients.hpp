// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The gradient of a batch's loss.

#include <algorithm>

#include "ropewalk/train/gradient_pass.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

struct GradientOptions {
  double scale = 1;        ///< multiplies the batch's loss weights
  bool recompute = false;  ///< keep only the layers' inputs, and compute the rest twice
};

/// Adds the gradient of sum_t scale * loss_weight_t * nll_t to `gradients`; results[t], where T is
/// float, as forward() gives them, bit for bit. Sums over tokens continue from call to call, so a
/// batch may be given in parts of whole segments: their number changes no bit, as the number of
/// workers does not. Call finish_gradients() after the last part.
///
/// T is what operands of products are rounded to (docs/design.md, Training); all else is float.
///
/// Activations are kept in fp32 for every T: about 4 L (2 C + 2 H D + 2 K D + 2 F) bytes a token
/// (token_bytes() in train/cost.hpp), with `recompute` 4 (L C + ...) for one more forward pass;
/// gradients have the same bits either way.
/// **Cost:** 3 times a forward pass, and the head's product once more.
/// **Source:** arXiv:2307.08691 (attention), arXiv:2411.09009 (head).
/// \throws Error(usage) for shapes or ids that do not fit; Error(resource)
template <class T>
void add_gradients(const TrainableLlama<T>& trainable, std::span<const LayerPlan> layers,
                   const TokenBatch& batch, const TrainingKernels<T>& kernels,
                   const Executor& executor, Workspace& workspace, LlamaGradients& gradients,
                   std::span<HeadResult> results, const GradientOptions& options = {}) {
  const LlamaConfig& c = trainable.model.config;
  detail::check_forward<float>(trainable.model, layers, batch, nullptr, results.size());
  const auto n = static_cast<index_t>(batch.tokens.size());
  require(batch.loss_weights.empty() || static_cast<index_t>(batch.loss_weights.size()) == n,
          "a loss weight per token, or none");
  for (const LayerPlan& p : layers) {
    for (const Segment& s : p.blocks->segments) require(s.past == 0, "segments without a past");
  }
  const auto is_scored = [&](TokenId target) { return target >= 0; };
  const auto scored =
      static_cast<index_t>(std::count_if(batch.targets.begin(), batch.targets.end(), is_scored));
  require(scored >= 1, "at least one target");
  workspace.reset();
  const detail::GradientBuffers<T> b = detail::take_gradient_buffers<T>(
      c, n, scored, static_cast<index_t>(layers[0].branches.size()), layers[0].blocks->key_slots,
      options.recompute, executor, workspace);
  index_t r = 0;
  for (index_t t = 0; t < n; ++t) {
    const auto at = static_cast<std::size_t>(t);
    if (!is_scored(batch.targets[at])) continue;
    const double weight =
        batch.loss_weights.empty() ? 1.0 : static_cast<double>(batch.loss_weights[at]);
    b.scored[r] = t;
    b.targets[r] = batch.targets[at];
    b.weights[r++] = static_cast<float>(options.scale * weight);
  }
  detail::GradientPass(trainable, layers, batch, kernels, executor, gradients, b, scored)
      .run(options.recompute, results);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
