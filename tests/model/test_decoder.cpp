// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/decoder.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/dynamic_ntk.hpp"

#include "model/small_llama.hpp"
#include "support/arches.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

constexpr index_t trained = 40;
const DynamicNtk dynamic{.factor = 2, .original_max_position_embeddings = trained};

using Logits = std::vector<double>;

struct Run {
  DecodeMode mode = DecodeMode::consistent_decode;
  index_t prompt = 20;
  index_t total = 80;
  index_t chunk = 512;
};

/// Logits after each of the sequences ids[0 .. prompt), ids[0 .. prompt + 1), ...
template <class Arch = simd::native>
std::vector<Logits> decode(const Llama<float>& model, const LengthFrequencies& frequencies,
                           const std::vector<TokenId>& ids, const Run& run,
                           const Executor& executor = {}) {
  Decoder<float> decoder(model, frequencies, make_kernel_table<Arch>(), executor,
                         {.capacity = run.total, .mode = run.mode, .chunk = run.chunk});
  std::vector<Logits> out;
  for (index_t n = run.prompt; n <= run.total; ++n) {
    Logits row(static_cast<std::size_t>(model.config.vocab_size));
    const TokenId best = decoder.next(std::span(ids).first(static_cast<std::size_t>(n)), row);
    CHECK(best == std::max_element(row.begin(), row.end()) - row.begin());
    out.push_back(row);
  }
  return out;
}

constexpr DecodeMode all_modes[] = {DecodeMode::consistent_decode, DecodeMode::recompute,
                                    DecodeMode::hf_cache, DecodeMode::fixed};

LlamaConfig with_layers(index_t layers) {
  LlamaConfig c = small_config;
  c.num_hidden_layers = layers;
  return c;
}

}  // namespace

TEST_CASE("model/decoder: static methods: all modes, cached or not, give the same bits") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(80, small_config.vocab_size, 5);
  const Yarn yarn{.factor = 4, .original_max_position_embeddings = 64};
  const LengthFrequencies frequencies(yarn, 12);
  const auto uncached = decode(model, frequencies, ids, {.mode = DecodeMode::recompute});
  for (const DecodeMode mode : all_modes) {
    CHECK(decode(model, frequencies, ids, {.mode = mode}) == uncached);
  }
  CHECK(decode(model, LengthFrequencies(make_frequency_plan(yarn, {.rotary_dim = 12})), ids, {}) ==
        uncached);
  ThreadPool pool(3);
  for_each_arch([&]<class Arch>() {
    CHECK(decode<Arch>(model, frequencies, ids, {}, pool.executor()) == uncached);
  });
}

TEST_CASE(
    "model/decoder: the softmax of the logits gives the losses, their largest the prediction") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(81, small_config.vocab_size, 6);
  const auto nll = losses(model, ids);
  const auto rows = decode(model, LengthFrequencies(plan_of(12)), ids, {.prompt = 1});
  for (std::size_t t = 0; t < 80; ++t) {
    double sum = 0;
    for (const double x : rows[t]) sum += std::exp(x);
    const double loss = std::log(sum) - rows[t][static_cast<std::size_t>(ids[t + 1])];
    CHECK(std::fabs(loss - nll[t]) < 1e-6);  // HeadResult's sum of exponentials is float
  }
}

TEST_CASE("model/decoder: chunks of a prompt change no bit") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(700, small_config.vocab_size, 7);
  for (const DecodeMode mode : all_modes) {
    const LengthFrequencies frequencies(dynamic, 12);
    const Run whole{.mode = mode, .prompt = 697, .total = 700, .chunk = 700};
    const auto at_once = decode(model, frequencies, ids, whole);
    for (const index_t chunk : {64, 97, 512}) {
      Run run = whole;
      run.chunk = chunk;
      CHECK(decode(model, frequencies, ids, run) == at_once);
    }
  }
}

TEST_CASE("model/decoder: below the trained length Dynamic NTK's modes and plain RoPE agree") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(trained, small_config.vocab_size, 8);
  // The capacity makes the frequencies vary, so keys are cached unrotated; the lengths do not.
  const auto plain = decode(model, LengthFrequencies(AdjustedBase{}, 12), ids, {.total = trained});
  for (const DecodeMode mode :
       {DecodeMode::consistent_decode, DecodeMode::recompute, DecodeMode::hf_cache}) {
    Decoder<float> decoder(model, LengthFrequencies(dynamic, 12), make_kernel_table<simd::native>(),
                           {}, {.capacity = 3 * trained, .mode = mode});
    CHECK(decoder.varies());
    for (index_t n = 20; n <= trained; ++n) {
      Logits row(91);
      decoder.next(std::span(ids).first(static_cast<std::size_t>(n)), row);
      CHECK(row == plain[static_cast<std::size_t>(n - 20)]);
    }
  }
}

TEST_CASE(
    "model/decoder: Dynamic NTK: consistent_decode is recompute in one layer; deeper hidden states "
    "stay those of their step") {
  const auto ids = random_tokens(80, small_config.vocab_size, 9);
  const LengthFrequencies frequencies(dynamic, 12);
  for (const index_t layers : {1, 2}) {
    const Llama<float> model = random_llama(with_layers(layers), 2);
    const auto fresh = decode(model, frequencies, ids, {.mode = DecodeMode::recompute});
    const auto consistent = decode(model, frequencies, ids, {});
    const auto as_written = decode(model, frequencies, ids, {.mode = DecodeMode::hf_cache});
    const auto same_until = static_cast<index_t>(trained - 20 + 1);  // lengths 20 .. 40
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      const bool beyond = static_cast<index_t>(i) >= same_until;
      CHECK((fresh[i] == consistent[i]) == (layers == 1 || !beyond));
      CHECK((fresh[i] == as_written[i]) == !beyond);
      CHECK((consistent[i] == as_written[i]) == !beyond);
    }
    // A prompt beyond the trained length: its own pass is the same in all modes.
    const Run long_prompt{.prompt = 60, .total = 60};
    for (const DecodeMode mode : all_modes) {
      Run run = long_prompt;
      run.mode = mode;
      CHECK(decode(model, frequencies, ids, run)[0] == fresh[40]);
    }
  }
}

TEST_CASE("model/decoder: hf_cache: each key keeps the base of the step that made it") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(80, small_config.vocab_size, 10);
  const auto got = decode(model, LengthFrequencies(dynamic, 12), ids,
                          {.mode = DecodeMode::hf_cache, .prompt = 30});
  // One pass without a cache whose tokens have rows of several plans.
  RotaryRows rows;
  std::vector<std::int64_t> positions(80);
  std::iota(positions.begin(), positions.end(), 0);
  const auto append = [&](std::size_t first, std::size_t count) {
    const auto length = static_cast<std::int64_t>(first + count);
    append_rotary_rows(rows, make_frequency_plan(dynamic, {.rotary_dim = 12, .seq_len = length}),
                       std::span(positions).subspan(first, count));
  };
  append(0, 30);
  for (std::size_t t = 30; t < 80; ++t) append(t, 1);
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(Causal{}, 80);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  std::vector<index_t> wanted(51);
  std::iota(wanted.begin(), wanted.end(), 29);
  Tensor<double, 2> logits({51, 91});
  const std::vector<TokenId> targets(80, not_scored);
  std::vector<HeadResult> results(80);
  Workspace workspace;
  forward(model, std::span(&layer, 1), {.tokens = ids, .targets = targets}, nullptr,
          make_kernel_table<simd::native>(), {}, workspace, results,
          {.tokens = wanted, .logits = logits.view()});
  for (index_t i = 0; i < 51; ++i) {
    CHECK(std::equal(got[static_cast<std::size_t>(i)].begin(),
                     got[static_cast<std::size_t>(i)].end(), logits.data() + i * 91));
  }
}

TEST_CASE("model/decoder: `fixed` has the frequencies of the capacity") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(80, small_config.vocab_size, 11);
  const FrequencyPlan plan = make_frequency_plan(dynamic, {.rotary_dim = 12, .seq_len = 80});
  CHECK(decode(model, LengthFrequencies(dynamic, 12), ids, {.mode = DecodeMode::fixed}) ==
        decode(model, LengthFrequencies(plan), ids, {}));
}

TEST_CASE("model/decoder: memory besides the cache is bounded by the chunk") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(4096, small_config.vocab_size, 3);
  const auto bytes = [&](index_t tokens, index_t chunk) {
    Decoder<float> decoder(model, LengthFrequencies(plan_of(12)), make_kernel_table<simd::native>(),
                           {}, {.capacity = 4096, .chunk = chunk});
    decoder.next(std::span(ids).first(static_cast<std::size_t>(tokens)));
    return decoder.workspace_bytes();
  };
  CHECK(bytes(4096, 256) == bytes(256, 256));
  CHECK(bytes(4096, 4096) > 2 * bytes(4096, 256));
}

TEST_CASE("model/decoder: restarts, chunk by chunk stops, and what is refused") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(60, small_config.vocab_size, 13);
  const LengthFrequencies frequencies(dynamic, 12);
  Decoder<float> decoder(model, frequencies, make_kernel_table<simd::native>(), {},
                         {.capacity = 60, .chunk = 16});
  Logits first(91), second(91);
  decoder.next(std::span(ids).first(50), first);
  CHECK(decoder.length() == 50);
  CHECK(error_of([&] { decoder.next(std::span(ids).first(50)); }).kind == ErrorClass::usage);
  decoder.restart();
  decoder.next(std::span(ids).first(45), second);
  decoder.next(std::span(ids).first(60), second);
  decoder.restart();
  struct Enough {};
  CHECK_THROWS_AS(decoder.next(std::span(ids).first(50), second,
                               [](index_t done) {
                                 if (done == 32) throw Enough{};
                               }),
                  Enough);
  CHECK(decoder.length() == 32);
  decoder.restart();
  decoder.next(std::span(ids).first(50), second);
  CHECK(first == second);
  CHECK(error_of([&] { decoder.next(std::vector<TokenId>(61, 1)); }).kind == ErrorClass::usage);
  const auto make = [&](index_t capacity, index_t chunk) {
    return error_of([&] {
             Decoder<float>(model, frequencies, make_kernel_table<simd::native>(), {},
                            {.capacity = capacity, .chunk = chunk});
           })
        .kind;
  };
  CHECK(make(0, 1) == ErrorClass::usage);
  CHECK(make(1, 0) == ErrorClass::usage);
}

TEST_CASE("model/decoder: logits that are not finite are an error, not a token") {
  LlamaWeights<float> weights = make_llama_weights<float>(small_config);
  for_each_parameter(small_config, weights, [](const std::string&, auto& parameter) {
    if constexpr (requires { parameter.outputs(); }) {
      for (index_t n = 0; n < parameter.outputs(); ++n) {
        for (index_t k = 0; k < parameter.inputs(); ++k) parameter(n, k) = 1e30f;
      }
    } else {
      for (index_t i = 0; i < parameter.size(); ++i) parameter[i] = 1e30f;
    }
  });
  const Llama<float> model = make_llama(small_config, std::move(weights));
  Decoder<float> decoder(model, LengthFrequencies(plan_of(12)), make_kernel_table<simd::native>(),
                         {}, {.capacity = 4});
  const std::vector<TokenId> ids = {1, 2};
  CHECK(error_of([&] { decoder.next(ids); }).kind == ErrorClass::numeric);
}
