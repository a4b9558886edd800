// SPDX-License-Identifier: Apache-2.0
// What is in a checkpoint: a Hugging Face folder or a llama2.c file, checked from the first byte to
// the last before anything is believed.
//
//   04_load_llama PATH    tells about your model
//   04_load_llama         writes a small one of random weights, and tells about that
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <numbers>

#include <ropewalk/core/rng.hpp>
#include <ropewalk/hub/checkpoint.hpp>
#include <ropewalk/io/atomic_file.hpp>
#include <ropewalk/rope/frequency_plan.hpp>
#include <ropewalk/rope/rope_spec.hpp>
#include <unistd.h>

namespace rw = ropewalk;

// A llama2.c file: seven integers, then float32 tensors one after the other (io/llama2c.hpp).
void write_random_model(const std::string& path) {
  constexpr std::int32_t dim = 32, hidden = 64, layers = 2, heads = 4, kv_heads = 2, vocab = 100;
  constexpr std::int32_t length = 256, kv_dim = dim / heads * kv_heads;
  constexpr std::int32_t header[] = {dim, hidden, layers, heads, kv_heads, vocab, length};
  constexpr int a_layer = 2 * dim + 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * hidden;
  std::vector<float> values(vocab * dim + layers * a_layer + dim + length * dim / heads);
  const rw::Random random{.seed = 1};
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(random.normal(i));
  }
  rw::AtomicFile file(path);  // appears under its name when it is complete, or not at all
  file.write(std::as_bytes(std::span(header)));
  file.write(std::as_bytes(std::span(values)));
  file.commit();
}

void tell_about(const rw::Checkpoint& checkpoint) {
  const rw::LlamaConfig& c = checkpoint.config;
  rw::index_t parameters = 0;
  rw::for_each_parameter(c, checkpoint.weights, [&](const std::string&, const auto& p) {
    if constexpr (requires { p.outputs(); }) {
      parameters += p.outputs() * p.inputs();
    } else {
      parameters += p.size();
    }
  });
  std::printf("%td layers of %td channels, %td query and %td key heads of %td channels\n",
              c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.num_key_value_heads,
              c.head_dim);
  std::printf("%td parameters, stored as %s; %td tokens%s\n", parameters, checkpoint.dtype.c_str(),
              c.vocab_size, c.tie_word_embeddings ? ", embeddings shared with the output" : "");
  std::printf("trained at %lld tokens with %s, pairs %s\n",
              static_cast<long long>(c.max_position_embeddings),
              rw::to_text(checkpoint.rope).c_str(), rw::pair_layout_name(c.pair_layout).data());

  // Pairs that never made a full turn in training are what longer contexts take by surprise.
  const auto plan = rw::make_frequency_plan(
      checkpoint.rope, {.rotary_dim = c.head_dim, .seq_len = c.max_position_embeddings});
  const double turn = 2 * std::numbers::pi / static_cast<double>(c.max_position_embeddings);
  const auto slow = std::count_if(plan.inv_freq.begin(), plan.inv_freq.end(),
                                  [turn](double w) { return w < turn; });
  std::printf("%td of %td pairs make less than a turn in the trained length\n", slow,
              plan.num_pairs());
  for (const std::string& note : checkpoint.notes) std::printf("note: %s\n", note.c_str());
}

int main(int argc, char** argv) try {
  if (argc > 1) {
    tell_about(rw::load_checkpoint(argv[1]));
    return 0;
  }
  const auto folder = std::filesystem::temp_directory_path();
  const std::string path = folder / ("ropewalk-" + std::to_string(::getpid()) + ".bin");
  write_random_model(path);
  tell_about(rw::load_checkpoint(path));

  // A file that was cut short is refused, with the byte and the way out.
  std::filesystem::resize_file(path, 50000);
  try {
    rw::load_checkpoint(path);
  } catch (const rw::Error& error) {
    std::printf("cut short: %s, %s. %s\n", error.info().where.c_str(), error.info().found.c_str(),
                error.info().fix.c_str());
  }
  std::filesystem::remove(path);
} catch (const rw::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return rw::exit_code(error.kind());
}
