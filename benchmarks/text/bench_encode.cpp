// SPDX-License-Identifier: Apache-2.0
/// \file
/// Tokenizers on English-like text made from a seed, and on a book where the reference data is
/// there; shapes tokenizer, text. The limit is reading the text: an aim nobody reaches.

#include <cstring>
#include <optional>

#include <sys/stat.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/text/any_tokenizer.hpp"

#include "harness.hpp"

namespace bench {
namespace {

/// A lexicon whose words are drawn with the frequencies of a natural language (Zipf's law).
class Language {
 public:
  explicit Language(std::uint64_t seed) : random_{.seed = seed} {
    constexpr std::string_view letters = "eeeeetttaaaooinnsshhrrdlcumwfgypbvk";
    for (std::uint64_t w = 0; w < 5000; ++w) {
      std::string word;
      const std::uint64_t bits = random_.bits(w);
      // Frequent words are short.
      const std::uint64_t length = 2 + bits % (w < 100 ? 3 : 8);
      for (std::uint64_t i = 0; i < length; ++i) {
        word += letters[(bits >> (8 + 6 * i)) % letters.size()];
      }
      words_.push_back(word);
    }
  }
  const std::vector<std::string>& words() const { return words_; }

  std::string text(std::size_t bytes) const {
    std::string out;
    out.reserve(bytes + 16);
    for (std::uint64_t i = 0; out.size() < bytes; ++i) {
      const double u = Random{.seed = random_.seed, .stream = 1}.uniform(i);
      const auto rank = static_cast<std::size_t>(std::exp2(u * std::log2(5000.0))) - 1;
      out += words_[rank < words_.size() ? rank : words_.size() - 1];
      out += i % 13 == 12 ? ".\n" : i % 7 == 6 ? ", " : " ";
    }
    out.resize(bytes);
    return out;
  }

 private:
  Random random_;
  std::vector<std::string> words_;
};

constexpr std::uint64_t language_seed = 4;

/// Pieces as byte-pair training would find them: letters, then prefixes of the words, the frequent
/// words first; every piece is the union of two before it or a prefix and a letter.
std::vector<std::string> make_pieces(const std::string& space, std::size_t count) {
  std::vector<std::string> pieces;
  std::unordered_map<std::string, bool> known;
  const auto add_piece = [&](const std::string& piece) {
    if (pieces.size() < count && known.try_emplace(piece, true).second) pieces.push_back(piece);
  };
  add_piece(space);
  for (char c = 'a'; c <= 'z'; ++c) add_piece(std::string(1, c));
  for (const char c : {'.', ',', '\n'}) add_piece(std::string(1, c));
  const Language language(language_seed);
  for (const std::string& word : language.words()) {
    for (std::size_t n = 2; n <= word.size(); ++n) add_piece(word.substr(0, n));
    add_piece(space + word);
  }
  return pieces;
}

AnyTokenizer make_llama2c() {
  std::string file;
  const auto put = [&file](auto value) {
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto piece = [&](const std::string& text, float score) {
    put(score);
    put(static_cast<std::int32_t>(text.size()));
    file += text;
  };
  put(std::int32_t{32});
  for (const char* control : {"<unk>", "<s>", "</s>"}) piece(control, 0);
  for (unsigned byte = 0; byte < 256; ++byte) piece(ropewalk::detail::byte_piece(byte), 0);
  float score = 0;
  for (const std::string& text : make_pieces(" ", 4096 - 259)) piece(text, score -= 1);
  return Llama2cTokenizer(MemorySource(file));
}

AnyTokenizer make_vocab() {
  std::string file = "<unk>\t0\n<s>\t0\n</s>\t0\n";
  int score = 0;
  for (const std::string& text : make_pieces("\xe2\x96\x81", 4096 - 3)) {
    if (text != "\n") file += text + "\t" + std::to_string(--score) + "\n";
  }
  return VocabTokenizer(MemorySource(file));
}

/// Byte-level BPE as GPT-2's: words by its pattern, the bytes spelled as printable characters.
AnyTokenizer make_byte_level() {
  std::string spelled[256];
  for (unsigned byte = 0, next = 256; byte < 256; ++byte) {
    const bool printable =
        (byte > 32 && byte < 127) || (byte > 160 && byte != 173);  // stands for itself
    const unsigned code = printable ? byte : next++;
    if (code < 128) {
      if (code == '"' || code == '\\') spelled[byte] = '\\';
      spelled[byte] += static_cast<char>(code);
    } else {
      spelled[byte] = {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
    }
  }
  const auto spell = [&spelled](std::string_view text) {
    std::string out;
    for (const char c : text) out += spelled[static_cast<unsigned char>(c)];
    return out;
  };
  std::string vocab, merges;
  int ids = 0;
  const auto put = [&](const std::string& piece) {
    vocab += (ids == 0 ? "\"" : ",\"") + piece + "\":" + std::to_string(ids);
    ++ids;
  };
  for (const std::string& byte : spelled) put(byte);
  for (const std::string& piece : make_pieces(" ", 4096 - 256)) {
    if (piece.size() < 2) continue;
    // A word after a space is the space and the word, another piece is a prefix and a letter.
    const std::size_t left = piece.front() == ' ' ? 1 : piece.size() - 1;
    put(spell(piece));
    merges += (merges.empty() ? "\"" : ",\"") + spell(piece.substr(0, left)) + " " +
              spell(piece.substr(left)) + "\"";
  }
  const std::string byte_level =
      R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  const std::string json = R"({"version":"1.0","pre_tokenizer":)" + byte_level + R"(,"decoder":)" +
                           byte_level + R"(,"model":{"type":"BPE","vocab":{)" + vocab +
                           R"(},"merges":[)" + merges + "]}}";
  return read_tokenizer_json(MemorySource(json));
}

struct Encode {
  AnyTokenizer tokenizer;
  std::string text;
  bool exact = true;  ///< whether decoding must give the text back (white space may be normalised)
  TokenStream out = {};

  void run() {
    out.ids.clear();
    out.bytes.clear();
    tokenizer.encode(text, out);
  }
  std::string fault() {
    run();
    std::uint64_t bytes = 0;
    for (const std::uint32_t b : out.bytes) bytes += b;
    if (bytes != text.size()) return "wrong result: tokens do not cover the text";
    if (out.size() > text.size() + 1) return "wrong result: more tokens than bytes";
    const std::string back = tokenizer.decode(out.ids);
    if (exact && back != text) return "wrong result: decoding does not give the text back";
    return {};
  }
  Work work() const {
    const double bytes = static_cast<double>(text.size());
    return {.bytes = bytes, .traffic = Traffic::read, .working_set = bytes};
  }
};

bool add_made(const std::string& tokenizer, AnyTokenizer (*make)(), bool exact) {
  for (const auto& [name, bytes] :
       {std::pair<const char*, std::size_t>{"16KiB", 1 << 14}, {"1MiB", 1 << 20}}) {
    add("text/encode/" + tokenizer + "/" + name + "/u8", [make, exact, bytes = bytes] {
      return Encode{make(), Language(language_seed).text(bytes), exact};
    });
  }
  return true;
}

bool exists(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0;
}

/// Real tokenizers on the first two million bytes of a novel.
void add_book(const std::string& name, const std::string& file, bool exact) {
  const bool needs_pattern = file.ends_with("vocab.json");
  const std::string folder = ROPEWALK_SHARED_DATA;
  const std::string path = folder + "/" + file, book = folder + "/books-en/middlemarch.txt";
  if (!exists(path) || !exists(book)) return;
  add("text/encode/" + name + "/book/u8", [=] {
    std::string text = read_text(FileSource(book), std::uint64_t{1} << 30);
    if (text.size() > 2000000) text.resize(2000000);
    const TokenizerOptions options{.pattern = needs_pattern ? name : ""};
    return Encode{open_tokenizer(path, options), text, exact};
  });
}

bool add_all() {
  add_made(
      "bytes", [] { return AnyTokenizer(ByteTokenizer()); }, true);
  add_made("llama2c_4096", &make_llama2c, true);
  add_made("vocab_4096", &make_vocab, false);
  add_made("byte_level_4096", &make_byte_level, true);
  add_book("tok512", "stories260K/tok512.bin", true);
  add_book("tok105", "babyllama-105/tok105.vocab", false);
  add_book("gpt2", "tokenizer-gpt2/vocab.json", true);
  add_book("gpt_neox", "tokenizer-gpt-neox-20b/tokenizer.json", false);
  add_book("qwen2", "tokenizer-qwen2/vocab.json", false);
  add_book("mistral_json", "tokenizer-mistral/tokenizer.json", false);
  add_book("mistral_model", "tokenizer-mistral/tokenizer.model", false);
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
