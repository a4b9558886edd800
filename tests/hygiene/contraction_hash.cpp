// SPDX-License-Identifier: Apache-2.0
/// \file
/// Prints hashes of results on random data. It is compiled several times, with floating-point
/// contraction off and on and for several instruction sets: every build must print the same
/// lines, which is the promise of the canonical arithmetic (docs/design.md). Within one build the
/// portable and the native kernels must agree, too. Exits 77 where the processor lacks the
/// instructions that it was compiled for.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/hash.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/model/kernel_table.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/any_frequency.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/rope_spec.hpp"
#include "ropewalk/rope/rotary_rows.hpp"
#include "ropewalk/rope/rotate.hpp"

#include "../support/random.hpp"

namespace {

using namespace ropewalk;

bool processor_suffices() {
#if defined(__AVX512F__)
  if (!__builtin_cpu_supports("avx512f")) return false;
#endif
#if defined(__AVX2__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
#endif
  return true;
}

template <class T>
std::uint64_t hash_of(std::span<const T> values) {
  return content_hash(std::as_bytes(values));
}

void print_line(const std::string& what, std::uint64_t hash) {
  std::printf("%s %s\n", hash_text(hash).c_str(), what.c_str());
}

/// Prints one line per thing computed, once for the portable and the native kernels.
/// compute: called with an instruction set, returns a hash.
template <class Compute>
bool print_agreed(const std::string& what, const Compute& compute) {
  std::vector<std::pair<std::string, std::uint64_t>> hashes;
  const auto add = [&]<class Arch>(Arch) { hashes.emplace_back(Arch::name, compute(Arch{})); };
  add(simd::portable{});
  if constexpr (!std::is_same_v<simd::native, simd::portable>) add(simd::native{});
  bool agree = true;
  for (const auto& [name, hash] : hashes) {
    if (hash == hashes[0].second) continue;
    print_line(what + ": " + name + " differs from " + hashes[0].first, hash);
    agree = false;
  }
  print_line(what, hashes[0].second);
  return agree;
}

constexpr ModelRope trained{.rope_theta = 10000, .max_position_embeddings = 256};
constexpr const char* specs[] = {
    "default",      "theta=500000",  "linear:factor=4",
    "ntk:factor=4", "yarn:factor=4", "llama3:factor=8,low_freq_factor=1,high_freq_factor=4"};

FrequencyPlan plan_of(const char* spec, index_t rotary_dim) {
  return make_frequency_plan(parse_rope(spec, trained),
                             RotaryShape{.rotary_dim = rotary_dim, .seq_len = 1000});
}

bool rotary_rows() {
  const std::vector<std::int64_t> positions = {0, 1, 2, 77, 255, 1023, 16777215, -3};
  for (const char* spec : specs) {
    for (const auto precision :
         {AnglePrecision::exact, AnglePrecision::hf_float32, AnglePrecision::ggml_float32}) {
      const RotaryRows rows = make_rotary_rows(plan_of(spec, 64), positions, precision);
      Hasher hash;
      hash.bytes(std::as_bytes(std::span(rows.cos))).bytes(std::as_bytes(std::span(rows.sin)));
      print_line(std::string("rows of ") + spec + ", precision " +
                     std::to_string(static_cast<int>(precision)),
                 hash.digest());
    }
  }
  return true;
}

bool rotations() {
  constexpr index_t tokens = 9, heads = 3, head_dim = 70;  // 35 pairs: full vectors and a tail
  const std::vector<std::int64_t> positions = batch_positions(Identity{.first = 1000}, tokens);
  const RotaryRows rows = make_rotary_rows(plan_of("yarn:factor=4", head_dim), positions);
  bool agree = true;
  for (const auto layout : {PairLayout::half_split, PairLayout::interleaved}) {
    for (const auto direction : {Rotation::forward, Rotation::transpose}) {
      agree &= print_agreed(
          "rotation, layout " + std::to_string(static_cast<int>(layout)) + ", direction " +
              std::to_string(static_cast<int>(direction)),
          [&]<class Arch>(Arch) {
            std::vector<float> x = normal_floats(tokens * heads * head_dim, 2);
            rotate<Arch>({x.data(), {tokens, heads, head_dim}}, rows, layout, direction);
            return hash_of(std::span<const float>(x));
          });
    }
  }
  return agree;
}

/// A model whose sizes are no multiples of any block, with grouped heads and a separate head.
Llama<float> random_model() {
  const LlamaConfig config{.hidden_size = 75,
                           .intermediate_size = 131,
                           .num_hidden_layers = 2,
                           .num_attention_heads = 6,
                           .num_key_value_heads = 2,
                           .head_dim = 22,
                           .vocab_size = 601,
                           .max_position_embeddings = 256};
  return random_llama(config);
}

bool losses() {
  const Llama<float> model = random_model();
  constexpr index_t length = 700;  // more than one key block
  std::vector<TokenId> tokens;
  const Random random{.seed = 21, .stream = 0, .step = 0};
  for (std::uint64_t t = 0; t <= length; ++t) {
    tokens.push_back(static_cast<TokenId>(random.bits(t) % 601));
  }
  const std::span all(tokens);
  const std::vector<std::int32_t> documents = {0, 130, 131, 700};
  bool agree = true;
  for (const bool packed : {false, true}) {
    agree &= print_agreed(
        packed ? "losses of packed documents" : "losses of one sequence", [&]<class Arch>(Arch) {
          const KernelTable<float> kernels = make_kernel_table<Arch>();
          Workspace workspace;
          const Runner<float> run{.model = &model, .kernels = &kernels, .workspace = &workspace};
          std::vector<HeadResult> results(length);
          score_sequence<float>(run, plan_of("yarn:factor=4", model.config.head_dim),
                                all.first(length), all.subspan(1),
                                packed ? std::span(documents) : std::span<const std::int32_t>(),
                                results);
          Hasher hash;
          for (const HeadResult& r : results) hash.value(r.nll).value(r.argmax);
          return hash.digest();
        });
  }
  return agree;
}

}  // namespace

int main() {
  if (!processor_suffices()) return 77;
  print_line("normal numbers", hash_of(std::span<const float>(normal_floats(4096, 1))));
  const bool agree = rotary_rows() && rotations() && losses();
  return agree ? 0 : 1;
}
