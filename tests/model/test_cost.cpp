// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/cost.hpp"

#include "model/small_llama.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

constexpr LlamaConfig bench_config{.hidden_size = 256,
                                   .intermediate_size = 688,
                                   .num_hidden_layers = 6,
                                   .num_attention_heads = 4,
                                   .num_key_value_heads = 4,
                                   .head_dim = 64,
                                   .vocab_size = 4096,
                                   .max_position_embeddings = 2048};

/// Shapes that fill no vector, in which one part of the scratch after the other is the widest.
std::vector<LlamaConfig> shapes() {
  LlamaConfig tied = small_config, wide_heads = small_config, wide_ffn = small_config,
              wide_hidden = small_config;
  tied.tie_word_embeddings = true;
  wide_heads.head_dim = 212;
  wide_heads.norm_head = true;
  wide_ffn.intermediate_size = 801;
  wide_hidden.hidden_size = 1001;
  wide_hidden.num_key_value_heads = 4;
  return {small_config, tied, wide_heads, wide_ffn, wide_hidden};
}

/// A pass of one causal sequence, with nothing but the memory it took.
struct Pass {
  FrequencyPlan frequencies;
  BlockPlan blocks;
  RotaryRows rows;
  Workspace workspace = {};
  std::vector<HeadResult> results;

  Pass(const Llama<float>& model, index_t tokens, const Executor& executor, KvCache<float>* cache)
      : frequencies(plan_of(model.config.head_dim)),
        blocks(make_block_plan(Causal{}, tokens)),
        rows(make_rotary_rows(frequencies, batch_positions(Identity{}, tokens))),
        results(static_cast<std::size_t>(tokens)) {
    const RotationPair rotation{&rows, &rows};
    const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
    const auto ids = random_tokens(tokens + 1, model.config.vocab_size, 3);
    const std::size_t n = results.size();
    forward(model, std::span(&layer, 1),
            {.tokens = std::span(ids).first(n), .targets = std::span(ids).subspan(1)}, cache,
            make_kernel_table<simd::native>(), executor, workspace, results);
  }
};

template <class T>
index_t bytes_of(const std::vector<T>& v) {
  return static_cast<index_t>(v.size() * sizeof(T));
}

}  // namespace

TEST_CASE("model/cost: operations are those of the products and of causal attention, counted") {
  for (const LlamaConfig& c : shapes()) {
    for (const index_t n : {1, 2, 37}) {
      // One multiply-add after the other, by the definition of each product.
      std::int64_t products = 0, head = 0, attention = 0;
      for (index_t position = 0; position < n; ++position) {
        for (index_t layer = 0; layer < c.num_hidden_layers; ++layer) {
          products += 2 * c.num_attention_heads * c.head_dim * c.hidden_size;  // q_proj, o_proj
          products += 2 * c.num_key_value_heads * c.head_dim * c.hidden_size;  // k_proj, v_proj
          products += 3 * c.intermediate_size * c.hidden_size;                 // gate, up, down
          for (index_t key = 0; key <= position; ++key) {
            attention += c.num_attention_heads * (c.head_dim + c.head_dim);  // a score, a value
          }
        }
        head += c.vocab_size * c.hidden_size;
      }
      const ForwardFlops flops = forward_flops_by_part(c, n);
      // Integers below 2^53: doubles hold them exactly.
      CHECK(flops.products == static_cast<double>(2 * products));
      CHECK(flops.head == static_cast<double>(2 * head));
      CHECK(flops.attention == static_cast<double>(2 * attention));
      CHECK(forward_flops(c, n) == static_cast<double>(2 * (products + head + attention)));
    }
  }
  CHECK(forward_flops(bench_config, 0) == 0);
  // 2048 * 2 * (6 * (4 * 256^2 + 3 * 256 * 688) + 256 * 4096) + 6 * 4 * 4 * 64 * 2048 * 2049 / 2.
  CHECK(forward_flops(bench_config, 2048) == 36614176768.0);
}

TEST_CASE("model/cost: bytes of weights are those that are stored") {
  for (const LlamaConfig& c : shapes()) {
    const Llama<float> model = random_llama(c);
    index_t elements = 0, halves = 0, floats = 0;
    const auto count_matrix = [&](const PackedMatrix<float>& matrix) {
      if (matrix.empty()) return;
      elements += matrix.storage_size();  // bf16 pads an odd number of inputs
      halves += matrix.storage_size() / matrix.inputs() * round_up(matrix.inputs(), 2);
    };
    count_matrix(model.normalized_head);
    const auto count = [&](const std::string&, const auto& parameter) {
      if constexpr (requires { parameter.storage_size(); }) {
        count_matrix(parameter);
      } else {
        floats += parameter.size();  // of every type of matrix
      }
    };
    for_each_parameter(c, model.weights, count);
    CHECK(forward_memory(c, 1, 1, false).weights == 4 * (elements + floats));
    CHECK(forward_memory<bf16>(c, 1, 1, false).weights == 2 * halves + 4 * floats);
  }
}

TEST_CASE("model/cost: bytes of the workspace are those that a pass takes, exactly") {
  ThreadPool pool(3);
  for (const LlamaConfig& c : shapes()) {
    const Llama<float> model = random_llama(c);
    for (const index_t tokens : {1, 63, 64, 65, 150}) {
      for (const bool cached : {false, true}) {
        for (const Executor& executor : {Executor(), pool.executor()}) {
          KvCache<float> cache = make_kv_cache(c, tokens);
          const Pass pass(model, tokens, executor, cached ? &cache : nullptr);
          const ForwardMemory predicted = forward_memory(c, tokens, executor.workers(), cached);
          INFO(tokens, " tokens, ", executor.workers(), " workers, cached ", cached);
          CHECK(predicted.workspace == static_cast<index_t>(pass.workspace.peak_bytes()));
          CHECK(predicted.results == bytes_of(pass.results));
          CHECK(predicted.block_plan ==
                bytes_of(pass.blocks.row_keys) + bytes_of(pass.blocks.key_slot));
          index_t panels = 0;
          for (const Buffer<float>& b : cache.keys) panels += 4 * b.size();
          for (const Buffer<float>& b : cache.values) panels += 4 * b.size();
          CHECK(predicted.kv_cache == (cached ? panels : 0));
          CHECK(predicted.total() == predicted.weights + predicted.workspace + predicted.rotary +
                                         predicted.block_plan + predicted.kv_cache +
                                         predicted.results);
        }
      }
    }
  }
}

TEST_CASE("model/cost: bytes of the rotation cover the rows and what making them takes") {
  for (const index_t head_dim : {12, 64}) {
    for (const index_t tokens : {1, 100, 4096}) {
      LlamaConfig c = small_config;
      c.head_dim = head_dim;
      const auto positions = batch_positions(Identity{}, tokens);
      const RotaryRows rows = make_rotary_rows(plan_of(head_dim), positions);
      const detail::DistinctPositions distinct(positions);
      const index_t held =
          bytes_of(rows.cos) + bytes_of(rows.sin) + bytes_of(rows.row) + bytes_of(positions);
      const index_t predicted = forward_memory(c, tokens, 1, false).rotary;
      CHECK(predicted >= held + bytes_of(distinct.position) + bytes_of(distinct.number));
      CHECK(predicted <= held + 28 * tokens);  // 12 and the hash table's 8 to 16
    }
  }
}

TEST_CASE("model/cost: shapes whose bytes fit no 64 bits are refused, not wrapped") {
  LlamaConfig c = bench_config;
  c.hidden_size = index_t{1} << 40;
  c.intermediate_size = index_t{1} << 40;
  CHECK(outcome_of([&] { forward_memory(c, 1, 1, false); }) == "limit");
  CHECK(outcome_of([&] {
          forward_memory(bench_config, std::numeric_limits<index_t>::max() / 8, 1, false);
        }) == "limit");
  CHECK(outcome_of([&] { forward_memory(bench_config, 0, 1, false); }) == "usage");
  CHECK(outcome_of([&] { forward_memory(bench_config, 1, 0, false); }) == "usage");
  CHECK(outcome_of([&] { forward_flops(bench_config, -1); }) == "usage");
}
