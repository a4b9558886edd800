// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/evaluate.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/io/json.hpp"
#include "ropewalk/model/generate.hpp"
#include "ropewalk/rope/any_frequency.hpp"
#include "ropewalk/rope/rope_spec.hpp"
#include "ropewalk/text/token_file.hpp"

#include "support/arches.hpp"
#include "support/load_checkpoint.hpp"
#include "support/random.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

namespace {

struct Setup {
  Llama<float> model;
  KernelTable<float> kernels = make_kernel_table<simd::native>();
  ThreadPool pool{2};
  Workspace workspace = {};

  Runner<float> runner() { return {&model, &kernels, pool.executor(), &workspace}; }
};

LlamaConfig config() {
  return {.hidden_size = 32,
          .intermediate_size = 48,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .num_key_value_heads = 1,
          .head_dim = 16,
          .vocab_size = 64,
          .max_position_embeddings = 64};
}

template <class T>
std::vector<T> read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace

TEST_CASE("eval/perplexity: one pass gives every shorter length, bit for bit") {
  Setup s{random_llama(config(), 2)};
  const auto ids = random_tokens(257, 64, 1);
  const FrequencyPlan plan =
      make_frequency_plan(parse_rope("ntk:factor=4", {1e4, 64}), {.rotary_dim = 16});
  const std::span<const TokenId> tokens(ids), targets = tokens.subspan(1);
  std::vector<HeadResult> whole(256);
  score_sequence(s.runner(), plan, tokens.first(256), targets, {}, whole);
  for (const std::size_t length : {1u, 17u, 128u, 255u}) {
    std::vector<HeadResult> part(length);
    score_sequence(s.runner(), plan, tokens.first(length), targets.first(length), {}, part);
    for (std::size_t t = 0; t < length; ++t) {
      REQUIRE(part[t].nll == whole[t].nll);
      REQUIRE(part[t].argmax == whole[t].argmax);
    }
  }
}

TEST_CASE("eval/perplexity: packed documents restart positions and see themselves alone") {
  Setup s{random_llama(config(), 2)};
  const auto ids = random_tokens(301, 64, 2);
  const std::vector<std::int32_t> cuts = {0, 40, 300};
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 16});
  const std::span<const TokenId> tokens(ids);
  std::vector<HeadResult> packed(300), alone(260);
  score_sequence(s.runner(), plan, tokens.first(300), tokens.subspan(1), cuts, packed);
  score_sequence(s.runner(), plan, tokens.subspan(40, 260), tokens.subspan(41), {}, alone);
  for (std::size_t t = 0; t < 260; ++t) REQUIRE(packed[40 + t].nll == alone[t].nll);
}

TEST_CASE("eval/perplexity: BabyLlama's table of 11 methods x 5 lengths, against float64") {
  const auto model_path = shared_data("babyllama-105/model5000.bin");
  if (!model_path) {
    MESSAGE("skipped: shared data is absent");
    return;
  }
  Checkpoint checkpoint = load_test_checkpoint(*model_path);
  const LlamaConfig c = checkpoint.config;
  Setup s{make_llama(c, std::move(checkpoint.weights))};
  const TokenFile file =
      read_token_file(*shared_data("babyllama-105/windows_6x1025.u16"), c.vocab_size);
  const EvalText text{.ids = file.ids};
  REQUIRE(text.num_tokens() == 6 * 1025);
  constexpr index_t lengths[] = {64, 128, 256, 512, 1024};
  std::vector<WindowPlan> requests;
  for (const index_t length : lengths) {
    requests.push_back(lower(protocols::prefix(length, 1025), text));
  }
  const auto expected = read_all<double>(*shared_data("babyllama-105/expected_nll.f64"));
  const std::vector<std::string> names = {
      "default",          "linear:factor=2", "linear:factor=4",
      "ntk:factor=2",     "ntk:factor=4",    "theta=50000",
      "theta=500000",     "yarn:factor=4",   "llama3:factor=4,low_freq_factor=1,high_freq_factor=4",
      "dynamic:factor=2", "dynamic:factor=4"};
  const FileSource table_file(*shared_data("babyllama-105/expected_tables.json"));
  const JsonDocument tables = read_json(table_file);
  for (std::size_t v = 0; v < names.size(); ++v) {
    INFO(names[v]);
    const AnyFrequency policy = parse_rope(names[v], {1e4, c.max_position_embeddings});
    const std::string key = v == 8 ? "llama3:factor=4,low=1,high=4" : names[v];
    const PassPlan passes = plan_passes(std::span<const WindowPlan>(requests), policy);
    // Static: a pass a window. Dynamic: the lengths up to the trained 256 share.
    CHECK(passes.passes.size() == (v >= 9 ? 6 * 3 : 6));
    const PassLosses losses = score_passes(passes, file.ids, RunnerScorer(s.runner(), policy));
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const double want =
          tables.view().at("variants").at(key).at("nll").at(std::to_string(lengths[r])).as_number();
      const ScoredLosses read = read_losses(passes, losses, requests[r], static_cast<index_t>(r));
      CHECK(std::fabs(summarize(requests[r], text, read).nll - want) < 5e-5);
    }
    if (v >= 9) continue;
    double worst = 0;
    for (std::size_t i = 0; i < 6 * 1024; ++i) {
      worst = std::fmax(worst, std::fabs(losses.nll[i] - expected[v * 6 * 1024 + i]));
    }
    CHECK(worst < 2e-3);
  }
}

TEST_CASE(
    "eval/perplexity: stories260K decodes its 200 ids; TinyStories tells the pair layouts apart") {
  const auto path = shared_data("stories260K/stories260K.bin");
  if (!path) {
    MESSAGE("skipped: shared data is absent");
    return;
  }
  Checkpoint checkpoint = load_test_checkpoint(*path);
  const Llama<float> model = make_llama(checkpoint.config, std::move(checkpoint.weights));
  const FrequencyPlan plan =
      make_frequency_plan(checkpoint.rope, {.rotary_dim = checkpoint.config.head_dim});
  std::ifstream in(*shared_data("stories260K/expected_greedy_200_ids.txt"));
  std::vector<TokenId> want{std::istream_iterator<TokenId>(in), {}};
  REQUIRE(want.size() == 201);
  std::vector<TokenId> ids = {1};
  generate_greedy(model, plan, make_kernel_table<simd::native>(), {}, ids, 200,
                  [](TokenId) { return true; });
  CHECK(ids == want);

  // A story of its own scores well with the layout of its training, and badly with the other.
  Setup right{make_llama(checkpoint.config, load_test_checkpoint(*path).weights)};
  LlamaConfig other = checkpoint.config;
  other.pair_layout = PairLayout::half_split;
  Setup wrong{make_llama(other, load_test_checkpoint(*path).weights)};
  const auto nll_of = [&](Setup& setup) {
    const Protocol protocol = protocols::prefix(200);
    return evaluate(setup.runner(), checkpoint.rope, {.ids = ids}, std::span(&protocol, 1))[0].nll;
  };
  const double good = nll_of(right), bad = nll_of(wrong);
  CHECK(good < 0.5);  // greedy text: every token was the most probable one
  CHECK(bad > good + 2);
}
