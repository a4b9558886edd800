// SPDX-License-Identifier: Apache-2.0
// Attention in your own Eigen matrices, without a copy: rotate and attend in blocks of one fused
// projection, with fewer key heads than query heads, and compare with the textbook formula.
#include <cmath>
#include <cstdio>

#include <ropewalk/adapt/eigen.hpp>
#include <ropewalk/attention/attention.hpp>
#include <ropewalk/attention/masks.hpp>
#include <ropewalk/core/rng.hpp>
#include <ropewalk/rope/position_map.hpp>
#include <ropewalk/rope/rotate.hpp>
#include <ropewalk/rope/yarn.hpp>

namespace rw = ropewalk;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  constexpr rw::index_t tokens = 600, heads = 8, key_heads = 2, head_dim = 64;

  // (tokens, channels): queries, keys and values side by side, as one projection gives them.
  Rows qkv(tokens, (heads + 2 * key_heads) * head_dim);
  const rw::Random random{.seed = 1};
  for (rw::index_t i = 0; i < qkv.size(); ++i) {
    qkv.data()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  }
  auto q = qkv.leftCols(heads * head_dim);
  auto k = qkv.middleCols(heads * head_dim, key_heads * head_dim);
  auto v = qkv.rightCols(key_heads * head_dim);

  const rw::Yarn yarn{.factor = 4, .original_max_position_embeddings = 4096};
  const auto plan = rw::make_frequency_plan(yarn, {.rotary_dim = head_dim});
  const auto rows = rw::make_rotary_rows(plan, rw::batch_positions(rw::Identity{}, tokens));
  rw::rotate(rw::heads_view(q, heads), rows, rw::PairLayout::half_split);
  rw::rotate(rw::heads_view(k, key_heads), rows, rw::PairLayout::half_split);

  Rows out(tokens, heads * head_dim), lse(heads, tokens);
  rw::attention(rw::heads_view(q, heads), rw::heads_view(k, key_heads),
                rw::heads_view(v, key_heads), rw::SlidingWindow(256), rw::heads_view(out, heads),
                rw::view(lse));

  // The textbook: softmax(q k^T / sqrt(d)) v in double, one head at a time.
  double error = 0;
  for (rw::index_t h = 0; h < heads; ++h) {
    const rw::index_t shared = h / (heads / key_heads);  // the key head of this group of four
    const Eigen::MatrixXd qh = q.middleCols(h * head_dim, head_dim).cast<double>();
    const Eigen::MatrixXd kh = k.middleCols(shared * head_dim, head_dim).cast<double>();
    const Eigen::MatrixXd vh = v.middleCols(shared * head_dim, head_dim).cast<double>();
    Eigen::MatrixXd p = (qh * kh.transpose() / std::sqrt(double{head_dim})).array().exp();
    for (rw::index_t i = 0; i < tokens; ++i) {
      for (rw::index_t j = 0; j < tokens; ++j) p(i, j) *= j <= i && i - j < 256 ? 1 : 0;
    }
    const Eigen::MatrixXd expected = p.rowwise().sum().asDiagonal().inverse() * (p * vh);
    const Eigen::MatrixXd found = out.middleCols(h * head_dim, head_dim).cast<double>();
    error = std::max(error, (found - expected).cwiseAbs().maxCoeff());
  }
  const Eigen::RowVector3d sample = out.row(599).tail(3).cast<double>();
  std::printf("token 599, head 7, last channels: %.4f %.4f %.4f\n", sample[0], sample[1],
              sample[2]);
  std::printf("log of its softmax's denominator: %.4f\n", static_cast<double>(lse(7, 599)));
  std::printf("equals the textbook formula to 1e-5: %s\n", error < 1e-5 ? "yes" : "no");
}
