// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/hub.hpp"

#include "hub/tiny_config.hpp"
#include "io/make_safetensors.hpp"
#include "support/error_of.hpp"
#include "support/shared_data.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

/// A value that tells tensor and element apart.
float value_at(const std::string& name, std::int64_t i) {
  const std::uint64_t h = Hasher().text(name).value(i).digest();
  return static_cast<float>(static_cast<double>(h >> 40) * 0x1p-24 - 0.5);
}

std::vector<float> values_of(const std::string& name, std::int64_t count) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(value_at(name, i));
  return out;
}

LlamaConfig tiny(bool tied = false) {
  return {.hidden_size = 8,
          .intermediate_size = 12,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 2,
          .vocab_size = 5,
          .max_position_embeddings = 64,
          .tie_word_embeddings = tied};
}

/// The tensors of the tiny model, F32.
std::vector<TensorBytes> tiny_tensors(bool tied = false) {
  std::vector<TensorBytes> out;
  const LlamaConfig config = tiny(tied);
  auto shapes = detail::llama_shapes(config);
  for_each_parameter(config, shapes, [&](const std::string& name, const auto& s) {
    std::vector<std::int64_t> shape{s.outputs};
    if (s.inputs != 0) shape.push_back(s.inputs);
    const auto values = values_of(name, s.outputs * (s.inputs != 0 ? s.inputs : 1));
    out.push_back({name, "F32", shape, bytes_of(std::span<const float>(values))});
  });
  return out;
}

TensorBytes& find(std::vector<TensorBytes>& tensors, const std::string& name) {
  for (TensorBytes& t : tensors) {
    if (t.name == name) return t;
  }
  throw std::runtime_error("no tensor " + name);
}

/// llama2.c's order, written down by hand from its export.py (legacy_export).
std::string tiny_llama2c(bool tied, std::int32_t seq_len = 64) {
  const std::int32_t header[7] = {8, 12, 2, 4, 2, tied ? 5 : -5, seq_len};
  std::string out = bytes_of(std::span<const std::int32_t>(header));
  const auto put = [&out](const std::string& name, std::int64_t count) {
    const auto values = values_of(name, count);
    out += bytes_of(std::span<const float>(values));
  };
  const auto layers = [&put](const std::string& name, std::int64_t count) {
    for (int l = 0; l < 2; ++l) put("model.layers." + std::to_string(l) + "." + name, count);
  };
  put("model.embed_tokens.weight", 5 * 8);
  layers("input_layernorm.weight", 8);
  layers("self_attn.q_proj.weight", 8 * 8);
  layers("self_attn.k_proj.weight", 4 * 8);
  layers("self_attn.v_proj.weight", 4 * 8);
  layers("self_attn.o_proj.weight", 8 * 8);
  layers("post_attention_layernorm.weight", 8);
  layers("mlp.gate_proj.weight", 12 * 8);
  layers("mlp.down_proj.weight", 8 * 12);
  layers("mlp.up_proj.weight", 12 * 8);
  put("model.norm.weight", 8);
  out += std::string(static_cast<std::size_t>(seq_len) * 2 * 4, '\7');  // RoPE tables
  if (!tied) put("lm_head.weight", 5 * 8);
  return out;
}

/// Every element of every parameter is value_at(name, index).
void check_values(const Checkpoint& c) {
  index_t elements = 0;
  for_each_parameter(c.config, c.weights, [&]<class P>(const std::string& name, const P& p) {
    CAPTURE(name);
    bool equal = true;
    if constexpr (std::is_same_v<P, Buffer<float>>) {
      for (index_t i = 0; i < p.size(); ++i) equal = equal && p[i] == value_at(name, i);
      elements += p.size();
    } else {
      for (index_t r = 0; r < p.outputs(); ++r) {
        for (index_t k = 0; k < p.inputs(); ++k) {
          equal = equal && p(r, k) == value_at(name, r * p.inputs() + k);
        }
      }
      elements += p.outputs() * p.inputs();
    }
    CHECK(equal);
  });
  const index_t layer = 8 + 64 + 32 + 32 + 64 + 8 + 3 * 96;
  CHECK(elements == 40 + 2 * layer + 8 + (c.config.tie_word_embeddings ? 0 : 40));
}

/// Every element of every matrix is value_at(name, index) rounded once, vectors are as stored.
void check_rounded_values(const CheckpointOf<bf16>& c) {
  for_each_parameter(c.config, c.weights, [&]<class P>(const std::string& name, const P& p) {
    CAPTURE(name);
    bool equal = true;
    if constexpr (std::is_same_v<P, Buffer<float>>) {
      for (index_t i = 0; i < p.size(); ++i) equal = equal && p[i] == value_at(name, i);
    } else {
      for (index_t r = 0; r < p.outputs(); ++r) {
        for (index_t k = 0; k < p.inputs(); ++k) {
          equal = equal && p(r, k) == to_bf16(value_at(name, r * p.inputs() + k));
        }
      }
    }
    CHECK(equal);
  });
}

/// Bits of every parameter, padding included.
bool same_weights(const Checkpoint& a, const Checkpoint& b) {
  std::vector<std::string> bytes[2];
  int side = 0;
  for (const Checkpoint* c : {&a, &b}) {
    for_each_parameter(c->config, c->weights, [&]<class P>(const std::string&, const P& p) {
      if constexpr (std::is_same_v<P, Buffer<float>>) {
        bytes[side].push_back(bytes_of(p.span()));
      } else {
        bytes[side].push_back(
            bytes_of(std::span(p.panel(0), static_cast<std::size_t>(p.storage_size()))));
      }
    });
    ++side;
  }
  return bytes[0] == bytes[1] && !bytes[0].empty();
}

/// A folder with config.json and model.safetensors.
void write_folder(const TempDir& dir, const std::vector<TensorBytes>& tensors,
                  const Changes& changes = {}) {
  dir.write("config.json", tiny_config(changes));
  dir.write("model.safetensors", make_safetensors(tensors, R"({"format":"pt"})"));
}

bool noted(const Checkpoint& c, std::string_view text) {
  for (const std::string& note : c.notes) {
    if (note.find(text) != std::string::npos) return true;
  }
  return false;
}

const Changes tie{{"tie_word_embeddings", "true"}};

}  // namespace

TEST_CASE("hub/checkpoint: matrices are rounded to bf16 once, from both formats") {
  for (const bool tied : {false, true}) {
    const TempDir dir;
    write_folder(dir, tiny_tensors(tied), tied ? tie : Changes{});
    const CheckpointOf<bf16> folder = load_checkpoint<bf16>(dir.path());
    check_rounded_values(folder);
    CHECK(folder.weights_hash == load_checkpoint(dir.path()).weights_hash);
    CHECK(folder.dtype == "f32");  // of the file
    check_rounded_values(load_checkpoint<bf16>(dir.write("m.bin", tiny_llama2c(tied))));
  }
}

TEST_CASE("hub/checkpoint: llama2.c tensors land under their names, tied or not") {
  const TempDir dir;
  for (const bool tied : {true, false}) {
    const std::string path = dir.write("m.bin", tiny_llama2c(tied));
    const Checkpoint c = load_checkpoint(path);
    check_values(c);
    LlamaConfig expected = tiny(tied);
    expected.pair_layout = PairLayout::interleaved;
    CHECK(c.config == expected);
    CHECK(to_text(c.rope) == "default:rope_theta=10000");
    CHECK(c.path == path);
    CHECK(c.dtype == "f32");
    CHECK(c.weights.lm_head.empty() == tied);
    CHECK(c.tokenizer_path.empty());
  }
}

TEST_CASE("hub/checkpoint: a Hugging Face folder lands under its names") {
  const TempDir dir;
  write_folder(dir, tiny_tensors());
  const Checkpoint c = load_checkpoint(dir.path());
  check_values(c);
  CHECK(c.config == tiny());
  CHECK(c.notes.empty());
  CHECK(c.tokenizer_path.empty());
  dir.write("tokenizer.json", "{}");
  CHECK(load_checkpoint(dir.path()).tokenizer_path == dir / "tokenizer.json");
}

TEST_CASE("hub/checkpoint: the hash is that of the values, not of the container") {
  const TempDir dir;
  write_folder(dir, tiny_tensors());
  const Checkpoint folder = load_checkpoint(dir.path());
  const Checkpoint bin = load_checkpoint(dir.write("m.bin", tiny_llama2c(false)));
  CHECK(folder.weights_hash == bin.weights_hash);
  CHECK(same_weights(folder, bin));
  auto changed = tiny_tensors();
  changed.back().data[3] = static_cast<char>(changed.back().data[3] ^ 1);
  write_folder(dir, changed);
  const Checkpoint other = load_checkpoint(dir.path());
  CHECK(other.weights_hash != folder.weights_hash);
  CHECK(!same_weights(other, folder));
}

TEST_CASE("hub/checkpoint: tied embeddings may be stored under either name, or both if equal") {
  const TempDir dir;
  write_folder(dir, tiny_tensors(true), tie);
  const Checkpoint plain = load_checkpoint(dir.path());
  CHECK(plain.weights.lm_head.empty());
  CHECK(!plain.weights.head().empty());

  auto head_only = tiny_tensors(true);
  find(head_only, "model.embed_tokens.weight").name = "lm_head.weight";
  write_folder(dir, head_only, tie);
  const Checkpoint moved = load_checkpoint(dir.path());
  CHECK(same_weights(plain, moved));
  CHECK(moved.weights_hash == plain.weights_hash);
  CHECK(noted(moved, "stored as lm_head.weight"));

  auto both = tiny_tensors(true);
  both.push_back(find(both, "model.embed_tokens.weight"));
  both.back().name = "lm_head.weight";
  write_folder(dir, both, tie);
  CHECK(same_weights(plain, load_checkpoint(dir.path())));

  both.back().data[5] = static_cast<char>(both.back().data[5] ^ 1);
  write_folder(dir, both, tie);
  const ErrorInfo e = error_of([&] { load_checkpoint(dir.path()); });
  CHECK(e.kind == ErrorClass::mismatch);
  CHECK(e.field == "tensor \"lm_head.weight\"");
}

TEST_CASE("hub/checkpoint: tied with norm_head stays tied and sets the flag") {
  const TempDir dir;
  write_folder(dir, tiny_tensors(true), {{"tie_word_embeddings", "true"}, {"norm_head", "true"}});
  const Checkpoint c = load_checkpoint(dir.path());
  CHECK(c.config.norm_head);
  CHECK(c.config.tie_word_embeddings);
  CHECK(c.weights.lm_head.empty());
}

TEST_CASE("hub/checkpoint: tensors that are missing, misshapen, unknown or of no float dtype") {
  struct Row {
    std::string id;
    std::function<void(std::vector<TensorBytes>&)> change;
    std::string outcome;
    std::string names;
    Changes config = {};
  };
  const auto removed = [](std::vector<TensorBytes>& tensors, const std::string& name) {
    std::erase_if(tensors, [&](const TensorBytes& t) { return t.name == name; });
  };
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const std::string gate = "model.layers.0.mlp.gate_proj.weight";
  const std::vector<Row> rows{
      {"unchanged", [](auto&) {}, "accepted", ""},
      {"A61", [&](auto& t) { removed(t, q); }, "mismatch", q},
      {"A61 nearest", [&](auto& t) { find(t, q).name = "model.layers.1.attn.q_proj.weight"; },
       "mismatch", "the nearest name is \"model.layers.1.attn.q_proj.weight\""},
      {"A62",
       [&](auto& t) {
         find(t, q).shape = {4, 16};
       },
       "mismatch", "[4, 16]"},
      {"A62 rank", [&](auto& t) { find(t, q).shape = {64}; }, "mismatch", "[8, 8]"},
      {"A62 transposed",
       [&](auto& t) {
         find(t, gate).shape = {8, 12};
       },
       "mismatch", "Transpose"},
      {"A63", [&](auto& t) { removed(t, "lm_head.weight"); }, "mismatch", "tie_word_embeddings"},
      {"tied and neither",
       [&](auto& t) {
         removed(t, "lm_head.weight");
         removed(t, "model.embed_tokens.weight");
       },
       "mismatch", "model.embed_tokens.weight", tie},
      {"A66",
       [](auto& t) {
         t.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "1234"});
       },
       "accepted", ""},
      {"C23 bias",
       [](auto& t) {
         t.push_back({"model.layers.0.self_attn.q_proj.bias", "F32", {1}, "1234"});
       },
       "mismatch", "biases"},
      {"unknown",
       [](auto& t) {
         t.push_back({"model.extra", "F32", {1}, "1234"});
       },
       "mismatch", "model.extra"},
      {"C33 35", [](auto&) {}, "mismatch", "model.layers.2.", {{"num_hidden_layers", "3"}}},
      {"C33 37", [](auto&) {}, "mismatch", "num_hidden_layers = 1", {{"num_hidden_layers", "1"}}},
      {"C09", [](auto&) {}, "mismatch", "embed_tokens", {{"vocab_size", "4"}}},
      {"huge config, small file",
       [](auto&) {},
       "mismatch",
       "[5, 1048576]",
       {{"hidden_size", "1048576"}, {"num_attention_heads", "65536"}}},
      {"A27 F8",
       [&](auto& t) {
         find(t, q).dtype = "F8_E4M3";
         find(t, q).data.resize(64);
       },
       "unsupported", "F8_E4M3"},
      {"A27 C64",
       [&](auto& t) {
         find(t, q).dtype = "C64";
         find(t, q).data.resize(512);
       },
       "unsupported", q},
      {"I32", [&](auto& t) { find(t, q).dtype = "I32"; }, "unsupported", "I32"},
      {"F64",
       [&](auto& t) {
         find(t, q).dtype = "F64";
         find(t, q).data.resize(512);
       },
       "unsupported", "F64"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.id);
    const TempDir dir;
    auto tensors = tiny_tensors();
    row.change(tensors);
    write_folder(dir, tensors, row.config);
    const ErrorInfo e = error_of([&] { load_checkpoint(dir.path()); });
    CAPTURE(to_text(e));
    const std::string outcome =
        e.found == "no error" ? "accepted" : std::string(error_class_name(e.kind));
    CHECK(outcome == row.outcome);
    if (outcome != "accepted") {
      CHECK(to_text(e).find(row.names) != std::string::npos);
      CHECK(e.file.find(dir.path()) == 0);
    }
  }
}

TEST_CASE("hub/checkpoint: values that are not finite are found by their bits") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const float signalling = std::bit_cast<float>(0x7f800001u);
  const float largest = std::numeric_limits<float>::max();
  const float subnormal = 0x1p-149f;
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  struct Row {
    float value;
    std::string says;  // empty: accepted
  };
  for (const Row& row :
       {Row{nan, "NaN; 2 of 96"}, Row{signalling, "NaN; 2 of 96"}, Row{inf, "infinity; 2 of 96"},
        Row{-inf, "-infinity; 2 of 96"}, Row{largest, ""}, Row{subnormal, ""}, Row{-0.0f, ""}}) {
    CAPTURE(row.says);
    const TempDir dir;
    auto tensors = tiny_tensors();
    for (const std::size_t i : {17u, 95u}) {
      const std::string bytes = bytes_of(std::span<const float>(&row.value, 1));
      find(tensors, name).data.replace(4 * i, 4, bytes);
    }
    write_folder(dir, tensors);
    const ErrorInfo e = error_of([&] { load_checkpoint(dir.path()); });
    if (row.says.empty()) {
      CHECK(e.found == "no error");
      continue;
    }
    CHECK(e.kind == ErrorClass::numeric);
    CHECK(e.field == name);
    CHECK(e.where == "element 17");
    CHECK(e.found.find(row.says) == 0);
    CHECK(e.file == dir / "model.safetensors");
  }
  // A finite float beyond the largest bf16 is refused where it would become infinite.
  const float large = 3.4e38f;
  const TempDir half;
  std::string wide = tiny_llama2c(true);
  wide.replace(28 + 4 * 3, 4, bytes_of(std::span<const float>(&large, 1)));
  const std::string path = half.write("m.bin", wide);
  CHECK_NOTHROW(load_checkpoint(path));
  const ErrorInfo rounds = error_of([&] { load_checkpoint<bf16>(path); });
  CHECK(rounds.kind == ErrorClass::numeric);
  CHECK(rounds.where == "element 3");
  CHECK(rounds.expected.find("bf16") != std::string::npos);
  // The same in llama2.c's format, and the 16-bit patterns.
  std::string file = tiny_llama2c(true);
  file.replace(28 + 4 * 3, 4, bytes_of(std::span<const float>(&nan, 1)));
  const TempDir dir;
  const ErrorInfo bin = error_of([&] { load_checkpoint(dir.write("m.bin", file)); });
  CHECK(bin.kind == ErrorClass::numeric);
  CHECK(bin.field == "model.embed_tokens.weight");
  CHECK(bin.where == "element 3");
  struct Half {
    std::string dtype;
    std::uint16_t bits;
    bool finite;
  };
  for (const Half& row :
       {Half{"BF16", 0x7f81, false}, Half{"BF16", 0xff80, false}, Half{"BF16", 0x7f7f, true},
        Half{"F16", 0x7c01, false}, Half{"F16", 0xfc00, false}, Half{"F16", 0x7bff, true}}) {
    auto tensors = tiny_tensors();
    TensorBytes& t = find(tensors, name);
    t.dtype = row.dtype;
    t.data.assign(192, '\0');
    t.data.replace(2 * 7, 2, little_endian(row.bits, 2));
    write_folder(dir, tensors);
    CHECK(outcome_of([&] { load_checkpoint(dir.path()); }) ==
          (row.finite ? "accepted" : "numeric"));
  }
}

TEST_CASE("hub/checkpoint: every truncation of either format ends in a typed error") {
  const TempDir dir;
  const std::string bin = tiny_llama2c(true);
  for (std::size_t n = 0; n < bin.size(); n += n < 200 ? 1 : 97) {
    const std::string outcome =
        outcome_of([&] { load_llama2c(MemorySource(std::string_view(bin).substr(0, n))); });
    REQUIRE(outcome == "format");
  }
  const std::string file = make_safetensors(tiny_tensors());
  dir.write("config.json", tiny_config());
  for (std::size_t n = 0; n < file.size(); n += n < 20 ? 1 : 131) {
    dir.write("model.safetensors", file.substr(0, n));
    const ErrorInfo e = error_of([&] { load_checkpoint(dir.path()); });
    REQUIRE(e.kind == ErrorClass::format);
  }
}

TEST_CASE("hub/checkpoint: what is no checkpoint, by class") {
  const TempDir dir;
  const auto error = [](const std::string& path) {
    return error_of([&] { load_checkpoint(path); });
  };
  CHECK(error(dir / "absent").kind == ErrorClass::io);
  CHECK(error("/dev/null").kind == ErrorClass::io);
  CHECK(error(dir.path()).file == dir / "config.json");
  CHECK(error(dir.path()).kind == ErrorClass::io);
  CHECK(error(dir.write("m.gguf", std::string("GGUF\3\0\0\0", 8) + std::string(100, '\0'))).kind ==
        ErrorClass::unsupported);
  CHECK(error(dir.write("empty.bin", "")).kind == ErrorClass::format);
  CHECK(error(dir.write("one.safetensors", make_safetensors(tiny_tensors()))).fix.find("folder") !=
        std::string::npos);
  dir.write("config.json", tiny_config());
  CHECK(error(dir.path()).kind == ErrorClass::io);  // no weights
  dir.write("pytorch_model.bin", "PK");
  CHECK(error(dir.path()).kind == ErrorClass::unsupported);
  dir.write("config.json", "\xff\xfe{");
  CHECK(error(dir.path()).kind == ErrorClass::format);
  dir.write("config.json", std::string((1 << 20) + 1, ' '));
  CHECK(error(dir.path()).kind == ErrorClass::limit);
}

TEST_CASE("hub/hf_tensors: shards give what one file gives") {
  const TempDir dir;
  write_folder(dir, tiny_tensors());
  const Checkpoint whole = load_checkpoint(dir.path());
  const auto tensors = tiny_tensors();
  std::filesystem::remove(dir / "model.safetensors");
  std::vector<TensorBytes> part[2];
  std::string map;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    part[i % 2].push_back(tensors[i]);  // alternating: every tensor changes the open shard
    map += (i == 0 ? "\"" : ",\"") + tensors[i].name + "\":\"s" + std::to_string(i % 2) + "\"";
  }
  const auto write_index = [&](const std::string& weight_map) {
    dir.write("model.safetensors.index.json",
              R"({"metadata":{"total_size":1},"weight_map":{)" + weight_map + "}}");
  };
  dir.write("s0", make_safetensors(part[0]));
  std::filesystem::create_directory(dir / "blobs");
  const std::string blob = dir.write("blobs/0123", make_safetensors(part[1]));
  std::filesystem::create_symlink(blob, dir / "s1");  // E04: as in the hub's cache
  write_index(map);
  CHECK(same_weights(whole, load_checkpoint(dir.path())));

  const auto error = [&] { return error_of([&] { load_checkpoint(dir.path()); }); };
  const std::string first = tensors[0].name;
  const auto first_in = [&](const std::string& shard) {
    std::string changed = map;
    changed.replace(changed.find("\"s0\""), 4, "\"" + shard + "\"");
    return changed;
  };
  for (const std::string bad : {"../s0", "/etc/passwd", "..", "", "blobs/0123", "C:\\\\s0"}) {
    write_index(first_in(bad));
    CAPTURE(bad);
    CHECK(error().kind == ErrorClass::path);
    CHECK(error().where == "/weight_map/" + first);
  }
  write_index(first_in("s1"));  // E07
  CHECK(error().kind == ErrorClass::mismatch);
  CHECK(error().field == "tensor \"" + first + "\"");
  write_index(first_in("s9"));  // E09
  CHECK(error().kind == ErrorClass::io);
  CHECK(error().found.find("1 of 3") != std::string::npos);
  write_index(map + ",\"" + first + "\":\"s1\"");  // E06
  CHECK(error().kind == ErrorClass::format);
  write_index("");  // E11
  CHECK(error().kind == ErrorClass::format);
  write_index("\"a\":1");
  CHECK(error().kind == ErrorClass::format);
  dir.write("model.safetensors.index.json", "{}");
  CHECK(error().kind == ErrorClass::format);
  write_index(map);
  part[1].push_back(tensors[0]);  // E08
  dir.write("blobs/0123", make_safetensors(part[1]));
  CHECK(error().kind == ErrorClass::mismatch);
  std::filesystem::remove(dir / "s1");
  std::filesystem::create_symlink("blobs", dir / "s1");  // E05
  CHECK(error().kind == ErrorClass::io);
  // E13: the single file is taken, and that is told.
  dir.write("model.safetensors", make_safetensors(tensors));
  const Checkpoint single = load_checkpoint(dir.path());
  CHECK(same_weights(whole, single));
  CHECK(noted(single, "index.json ignored"));
}

TEST_CASE("hub/checkpoint: stories260K and BabyLlama load with the values of the file") {
  const auto stories = shared_data("stories260K/stories260K.bin");
  const auto baby = shared_data("babyllama-105/model5000.bin");
  if (!stories || !baby) {
    MESSAGE("skipped: no stories260K or babyllama-105");
    return;
  }
  const Checkpoint s = load_checkpoint(*stories);
  CHECK(s.config == LlamaConfig{.hidden_size = 64,
                                .intermediate_size = 172,
                                .num_hidden_layers = 5,
                                .num_attention_heads = 8,
                                .num_key_value_heads = 4,
                                .head_dim = 8,
                                .vocab_size = 512,
                                .max_position_embeddings = 512,
                                .rms_norm_eps = 1e-5,
                                .tie_word_embeddings = true,
                                .pair_layout = PairLayout::interleaved});
  const FileSource file(*stories);
  // Row 300 of the embedding, and the last layer's down projection counted from the end: after it
  // come five w3, the final norm and two tables of (512, 4).
  CHECK(s.weights.embed_tokens(300, 5) == read_value<float>(file, 28 + 4 * (300 * 64 + 5)));
  const std::uint64_t after_w2 = file.size() - 4 * (2 * 512 * 4 + 64 + 5 * 172 * 64);
  CHECK(s.weights.layers[4].down_proj(63, 171) == read_value<float>(file, after_w2 - 4));
  CHECK(s.weights.norm[63] == read_value<float>(file, file.size() - 4 * (2 * 512 * 4 + 1)));

  const Checkpoint b = load_checkpoint(*baby);
  CHECK(b.config.hidden_size == 128);
  CHECK(b.config.intermediate_size == 352);
  CHECK(b.config.head_dim == 16);
  CHECK(b.config.vocab_size == 105);
  CHECK(b.config.max_position_embeddings == 256);
  CHECK(b.config.tie_word_embeddings);
}

TEST_CASE("hub/checkpoint: TinyStories-656K and its BF16 and F16 copies load bit-identical") {
  const auto folder = shared_data("tinystories-656k-hf");
  if (!folder) {
    MESSAGE("skipped: no tinystories-656k-hf");
    return;
  }
  const Checkpoint f32 = load_checkpoint(*folder);
  CHECK(f32.config.hidden_size == 128);
  CHECK(f32.config.intermediate_size == 384);
  CHECK(f32.config.num_hidden_layers == 2);
  CHECK(f32.config.head_dim == 16);
  CHECK(f32.config.vocab_size == 2048);
  CHECK(f32.config.rms_norm_eps == 1e-6);
  CHECK(f32.config.tie_word_embeddings);
  CHECK(f32.config.pair_layout == PairLayout::half_split);
  CHECK(to_text(f32.rope) == "default:rope_theta=10000");
  CHECK(f32.dtype == "f32");
  CHECK(noted(f32, "stored as lm_head.weight"));
  CHECK(f32.tokenizer_path == *folder + "/tokenizer.json");

  const FileSource source(*folder + "/model.safetensors");
  const SafetensorsIndex index = read_safetensors_index(source);
  for (const std::string dtype : {"BF16", "F16"}) {
    std::vector<TensorBytes> tensors;
    for (const SafetensorsTensor& t : index.tensors) {
      std::vector<float> values(t.elements);
      read_floats(source, index, t, 0, values);
      std::vector<std::uint16_t> bits;
      for (const float v : values)
        bits.push_back(dtype == "F16" ? to_f16(v).bits : to_bf16(v).bits);
      std::vector<std::int64_t> shape(t.shape.begin(), t.shape.end());
      tensors.push_back({t.name, dtype, shape, bytes_of(std::span<const std::uint16_t>(bits))});
    }
    const TempDir dir;
    dir.write("model.safetensors", make_safetensors(tensors));
    dir.write("config.json", read_text(FileSource(*folder + "/config.json"), 1 << 20));
    const Checkpoint copy = load_checkpoint(dir.path());
    CHECK(copy.dtype == (dtype == "F16" ? "f16" : "bf16"));
    CHECK(copy.config == f32.config);
    CHECK(same_weights(copy, f32));
    CHECK(copy.weights_hash == f32.weights_hash);
  }
}
