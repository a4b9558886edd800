// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/generate.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/dynamic_ntk.hpp"

#include "golden/hf_decoding.hpp"
#include "golden/tiny_llama_weights.hpp"
#include "model/small_llama.hpp"
#include "support/arches.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

using Ids = std::vector<TokenId>;

struct Answer {
  Ids ids;
  GenerateResult result;
};

template <class Arch = simd::native>
Answer answer(const Llama<float>& model, Ids prompt, const GenerateConfig& config,
              const GenerateHooks& hooks = {}, const Executor& executor = {},
              const LengthFrequencies& frequencies = LengthFrequencies(plan_of(12))) {
  Answer out{.ids = std::move(prompt), .result = {}};
  out.result =
      generate(model, frequencies, make_kernel_table<Arch>(), executor, out.ids, config, hooks);
  return out;
}

/// The token after `given` by a pass over all of it.
TokenId after(const Llama<float>& model, const Ids& given) {
  return answer(model, given, {.max_tokens = 1, .context = 1000}).ids.back();
}

}  // namespace

TEST_CASE("model/generate: cached and uncached decoding agree, greedy and sampled") {
  const Llama<float> model = random_llama(small_config, 3);
  const Ids prompt = random_tokens(9, small_config.vocab_size, 1);
  for (const double temperature : {0.0, 0.9}) {
    GenerateConfig config{.sampling = {.temperature = temperature,
                                       .top_k = 30,
                                       .top_p = 0.95,
                                       .repetition_penalty = 1.2,
                                       .seed = 5},
                          .max_tokens = 90,
                          .context = 500};
    const Answer cached = answer(model, prompt, config);
    CHECK(cached.result.generated == 90);
    CHECK(cached.ids.size() == 99);
    config.mode = DecodeMode::recompute;
    config.chunk = 7;
    CHECK(answer(model, prompt, config).ids == cached.ids);
    ThreadPool pool(3);
    for_each_arch([&]<class Arch>() {
      CHECK(answer<Arch>(model, prompt, config, {}, pool.executor()).ids == cached.ids);
    });
  }
}

TEST_CASE("model/generate: sampling at temperature 0 with logits is greedy; seeds differ") {
  const Llama<float> model = random_llama(small_config, 3);
  const Ids prompt = {5, 17};
  const auto run = [&](SamplingConfig sampling) {
    return answer(model, prompt, {.sampling = sampling, .max_tokens = 40, .context = 100}).ids;
  };
  const Ids greedy = run({});
  // So little that every choice is the largest logit, but through the sampler.
  CHECK(run({.temperature = 1e-12, .seed = 3}) == greedy);
  CHECK(run({.temperature = 1, .top_k = 1, .seed = 4}) == greedy);
  CHECK(run({.temperature = 1, .top_p = 1e-12, .seed = 4}) == greedy);
  CHECK(run({.temperature = 1, .seed = 1}) == run({.temperature = 1, .seed = 1}));
  CHECK(run({.temperature = 1, .seed = 1}) != run({.temperature = 1, .seed = 2}));
  // A huge penalty forbids what was seen (of positive logits): no id comes twice soon.
  const Ids varied = run({.repetition_penalty = 1e6});
  Ids start(varied.begin(), varied.begin() + 20);
  std::sort(start.begin(), start.end());
  CHECK(std::adjacent_find(start.begin(), start.end()) == start.end());
}

TEST_CASE("model/generate: what ends a text") {
  const Llama<float> model = random_llama(small_config, 3);
  const Ids prompt = {5, 17, 80};
  const GenerateConfig plain{.max_tokens = 30, .context = 100};
  const Answer all = answer(model, prompt, plain);
  CHECK(all.result.reason == StopReason::max_tokens);
  // The first token that was not seen before it: as EOS it ends the text and is part of it.
  std::size_t at = 10;
  while (std::find(all.ids.begin(), all.ids.begin() + static_cast<index_t>(at), all.ids[at]) !=
         all.ids.begin() + static_cast<index_t>(at)) {
    ++at;
  }
  GenerateConfig config = plain;
  config.eos_ids = {1000, all.ids[at]};
  const Answer ended = answer(model, prompt, config);
  CHECK(ended.result.reason == StopReason::eos);
  CHECK(ended.ids == Ids(all.ids.begin(), all.ids.begin() + static_cast<index_t>(at) + 1));
  // The context: prompt and continuation together.
  config = plain;
  config.context = 12;
  const Answer full = answer(model, prompt, config);
  CHECK(full.result.reason == StopReason::context);
  CHECK(full.ids == Ids(all.ids.begin(), all.ids.begin() + 12));
  // The caller.
  const Answer asked =
      answer(model, prompt, plain, {.on_token = [n = 0](TokenId) mutable { return ++n < 4; }});
  CHECK(asked.result.reason == StopReason::on_token);
  CHECK(asked.result.generated == 4);
  config = plain;
  config.max_tokens = 0;
  CHECK(answer(model, prompt, config).ids == prompt);
}

TEST_CASE("model/generate: keep_ends: a prompt keeps head and tail, cut on ids") {
  CHECK(keep_ends(Ids{1, 2, 3, 4, 5, 6}, 2, 3) == Ids{1, 2, 4, 5, 6});
  CHECK(keep_ends(Ids{1, 2}, 1, 1) == Ids{1, 2});
  CHECK_THROWS_AS(keep_ends(Ids{1, 2}, 2, 1), Error);
  for (const index_t context : {4, 5, 17, 64}) {
    for (const index_t max_tokens : {1, 3, 40, 1000}) {
      for (index_t length = 1; length < 150; ++length) {
        const ContextCut cut = prompt_cut(length, context, max_tokens);
        const index_t kept = cut.head + cut.tail;
        CHECK(kept <= context - std::min(max_tokens, context / 2));
        CHECK((kept == length || cut.head == cut.tail));
        CHECK((kept == length) == (length <= context - std::min(max_tokens, context / 2)));
        CHECK((kept == length || kept >= context - std::min(max_tokens, context / 2) - 1));
      }
    }
  }
  const Llama<float> model = random_llama(small_config, 3);
  const Ids prompt = random_tokens(200, small_config.vocab_size, 2);
  std::vector<ContextCut> cuts;
  const GenerateConfig config{.max_tokens = 20, .context = 64, .overflow = Overflow::keep_ends};
  const Answer got =
      answer(model, prompt, config, {.on_cut = [&](const ContextCut& c) { cuts.push_back(c); }});
  REQUIRE(cuts.size() == 1);
  CHECK(cuts[0].length == 200);
  CHECK(cuts[0].head == 22);
  CHECK(cuts[0].tail == 22);
  // The same as the shortened prompt, whose last half is the prompt's, id for id.
  Ids ends(prompt.begin(), prompt.begin() + 22);
  ends.insert(ends.end(), prompt.end() - 22, prompt.end());
  const Answer expected = answer(model, ends, {.max_tokens = 20, .context = 64});
  CHECK(std::equal(expected.ids.begin() + 44, expected.ids.end(), got.ids.begin() + 200,
                   got.ids.end()));
  CHECK(std::equal(prompt.begin(), prompt.end(), got.ids.begin()));  // what is returned is whole
}

TEST_CASE("model/generate: keep_ends: a sequence that grows beyond the context") {
  const Llama<float> model = random_llama(small_config, 3);
  const Ids prompt = {5, 17, 80};
  const GenerateConfig config{.max_tokens = 70, .context = 24, .overflow = Overflow::keep_ends};
  const Answer got = answer(model, prompt, config);
  CHECK(got.result.generated == 70);
  // By hand: a pass over all that is given, a quarter of each end kept when it is full.
  Ids given = prompt, all = prompt;
  index_t cuts = 0;
  while (all.size() < 73) {
    if (given.size() == 24) {
      Ids kept(given.begin(), given.begin() + 6);
      kept.insert(kept.end(), given.end() - 6, given.end());
      given = kept;
      ++cuts;
    }
    const TokenId next = after(model, given);
    given.push_back(next);
    all.push_back(next);
  }
  CHECK(got.ids == all);
  CHECK(got.result.cuts == cuts);
  CHECK(cuts > 3);
}

TEST_CASE("model/generate: a step's random number does not depend on what was cut or cached") {
  const Llama<float> model = random_llama(small_config, 3);
  const Ids prompt = {5, 17, 80};
  std::vector<TokenId> drawn;
  const GenerateConfig config{
      .sampling = {.temperature = 1, .seed = 8}, .max_tokens = 12, .context = 100};
  const Answer got = answer(model, prompt, config);
  // Step by step, each from the logits after the ids so far.
  Ids ids = prompt;
  TokenSampler sampler(config.sampling);
  for (std::uint64_t step = 0; step < 12; ++step) {
    Decoder<float> decoder(model, LengthFrequencies(plan_of(12)), make_kernel_table<simd::native>(),
                           {}, {.capacity = 20});
    std::vector<double> logits(91);
    decoder.next(ids, logits);
    ids.push_back(sampler.sample(logits, ids, step));
  }
  CHECK(ids == got.ids);
}

TEST_CASE("model/generate: bad requests name the parameter") {
  const Llama<float> model = random_llama(small_config, 3);
  const auto error = [&](const Ids& prompt, const GenerateConfig& config) {
    const ErrorInfo info = error_of([&] { answer(model, prompt, config); });
    CHECK(info.kind == ErrorClass::usage);
    return info;
  };
  CHECK(!error({}, {.context = 10}).expected.empty());
  CHECK(error({5, 91}, {.context = 10}).found == "91");
  CHECK(error({5, -1}, {.context = 10}).field == "prompt id");
  CHECK(error({5, 6}, {.context = 2}).field == "prompt");
  CHECK(error({5, 6}, {}).field == "prompt");  // the context has no default
  CHECK(error({5, 6}, {.context = 3, .overflow = Overflow::keep_ends}).field == "context");
  CHECK(error({5, 6}, {.sampling = {.top_p = 2}, .context = 9}).field == "top_p");
  CHECK(error({5, 6}, {.max_tokens = -1, .context = 9}).kind == ErrorClass::usage);
  CHECK(error({5, 6}, {.context = 9, .chunk = 0}).kind == ErrorClass::usage);
}

TEST_CASE("model/generate: transformers' decoding under Dynamic NTK, cached and fresh") {
  const LlamaConfig c = golden::tiny_llama_config(false);
  const Llama<float> model = make_llama(c, golden::tiny_llama_weights(c));
  const Ids ids = golden::tiny_llama_tokens();
  const LengthFrequencies frequencies(
      DynamicNtk{.factor = 2, .original_max_position_embeddings = 64}, 8);
  const auto worst = [&](DecodeMode mode, const auto& golden) {
    Decoder<float> decoder(model, frequencies, make_kernel_table<simd::native>(), {},
                           {.capacity = 128, .mode = mode});
    double difference = 0;
    for (std::size_t i = 0; i < golden.size(); ++i) {
      std::vector<double> logits(70);
      decoder.next(std::span(ids).first(30 + i), logits);
      double sum = 0;
      for (const double x : logits) sum += std::exp(x);
      const double nll = std::log(sum) - logits[static_cast<std::size_t>(ids[30 + i])];
      difference = std::fmax(difference, std::fabs(nll - golden[i]));
    }
    return difference;
  };
  // Angles and norms of transformers are float, as are ours of all the rest: as in
  // golden/tiny_llama.
  constexpr double bound = 5e-5;
  CHECK(worst(DecodeMode::hf_cache, golden::hf_dynamic_cached) < bound);
  CHECK(worst(DecodeMode::recompute, golden::hf_dynamic_fresh) < bound);
  // The modes are told apart by far more.
  CHECK(worst(DecodeMode::recompute, golden::hf_dynamic_cached) > 0.1);
  CHECK(worst(DecodeMode::consistent_decode, golden::hf_dynamic_cached) > 0.1);
}

TEST_CASE("model/generate: transformers' logits processors leave the same probabilities") {
  std::vector<double> logits(50);
  for (int i = 0; i < 50; ++i) {
    logits[static_cast<std::size_t>(i)] = ((i * 37 + 11) % 101 - 50) / 16.0 + i / 64.0;
  }
  const Ids seen = {3, 7, 7, 20, 41, 3};
  const auto check = [&](const SamplingConfig& config, const std::array<double, 50>& golden) {
    TokenSampler sampler(config);
    std::vector<double> p(50);
    for (const TokenProbability& t : sampler.probabilities(logits, seen)) {
      p[static_cast<std::size_t>(t.id)] = t.probability;
    }
    // In double on both sides.
    for (std::size_t i = 0; i < 50; ++i) CHECK(std::fabs(p[i] - golden[i]) < 1e-14);
    return std::count(golden.begin(), golden.end(), 0.0);
  };
  CHECK(check({.temperature = 0.8, .top_k = 20, .top_p = 0.9, .repetition_penalty = 1.5},
              golden::hf_warped_sharp) > 30);
  CHECK(check({.temperature = 3, .top_k = 45, .top_p = 0.97, .repetition_penalty = 0.7},
              golden::hf_warped_flat) > 5);
}
