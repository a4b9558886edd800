// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk tokenize`: token ids of a text, and back.

#include <cerrno>
#include <charconv>

#include "ropewalk/text/any_tokenizer.hpp"

#include "args.hpp"
#include "commands.hpp"
#include "loaded_model.hpp"
#include "output.hpp"

namespace cli {

namespace {

constexpr const char* examples =
    "  ropewalk tokenize --tokenizer tokenizer.json --text story.txt\n"
    "  printf 'Once upon a time' | ropewalk tokenize --tokenizer hf-folder --bos\n"
    "  printf '1 403 407' | ropewalk tokenize --tokenizer tok512.bin --decode\n"
    "  ropewalk tokenize --tokenizer gpt2/vocab.json --tokenizer-pattern gpt2 --text story.txt\n";

constexpr std::uint64_t max_text = std::uint64_t{1} << 32;

/// All of stdin, byte for byte.
std::string read_stdin() {
  std::string out;
  std::string buffer(1 << 16, '\0');
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail({.kind = ErrorClass::io, .file = "stdin", .found = os_error_text(errno)});
    if (n == 0) return out;
    out.append(buffer, 0, static_cast<std::size_t>(n));
    if (out.size() > max_text) {
      fail({.kind = ErrorClass::limit,
            .file = "stdin",
            .found = "more bytes",
            .expected = "at most " + std::to_string(max_text)});
    }
  }
}

/// Ids between white space. \throws Error(usage) with the place of what is none.
std::vector<TokenId> parse_ids(std::string_view text, const std::string& name) {
  constexpr std::string_view space = " \t\r\n";
  std::vector<TokenId> out;
  std::size_t at = text.find_first_not_of(space);
  while (at < text.size()) {
    const std::size_t end = std::min(text.find_first_of(space, at), text.size());
    TokenId id = 0;
    const auto read = std::from_chars(text.data() + at, text.data() + end, id);
    if (read.ec != std::errc() || read.ptr != text.data() + end || id < 0) {
      fail({.kind = ErrorClass::usage,
            .file = name,
            .where = "byte " + std::to_string(at),
            .found = escaped(text.substr(at, end - at)),
            .expected = "token ids with white space between"});
    }
    out.push_back(id);
    at = text.find_first_not_of(space, end);
  }
  return out;
}

void print_ids(std::span<const TokenId> ids) {
  std::string line;
  for (const TokenId id : ids) {
    if (!line.empty()) line += ' ';
    line += std::to_string(id);
  }
  print(line + "\n");
}

}  // namespace

int run_tokenize(Arguments arguments) {
  std::string file, text = "-", special = "text";
  TokenizerOptions settings;
  bool bos = false, decode = false;
  Options options("tokenize", "Token ids of a text in one line, and back.", examples);
  options.text("--tokenizer", "FILE", file,
               "tokenizer.json, sentencepiece .model, vocab.json with merges.txt beside it, a "
               "folder with one of these, .vocab, llama2.c tok*.bin, or `bytes`");
  options.text("--text", "FILE", text, "Text, or ids with --decode; - is stdin [-]");
  options.flag("--bos", bos, "Put BOS before the text");
  options.flag("--decode", decode, "Read ids and print their text, byte for byte");
  options.choice("--special-tokens", {"text", "ids"}, special,
                 "What <|endoftext|> and its like become where the text spells them");
  options.text("--tokenizer-pattern", "PATTERN", settings.pattern,
               "How a vocab.json cuts words: gpt2, qwen2, llama3 or a regular expression");
  if (!options.parse(arguments)) return 0;
  if (file.empty()) fail_usage("--tokenizer", "nothing", "a tokenizer");
  if (bos && decode) fail_usage("--bos", "--bos with --decode", "one of the two");
  settings.special_tokens = special == "ids" ? SpecialTokens::as_ids : SpecialTokens::as_text;

  const AnyTokenizer tokenizer = open_tokenizer_file(file, settings);
  const std::string input = text == "-" ? read_stdin() : read_text(FileSource(text), max_text);
  if (decode) {
    print(tokenizer.decode(parse_ids(input, text == "-" ? "stdin" : text)));
    return 0;
  }
  TokenStream stream;
  if (bos) {
    const std::optional<TokenId> id = tokenizer.bos_id();
    if (!id) {
      fail_usage("--bos", "a tokenizer without BOS", "one with, or no --bos");
    }
    stream.push(*id, 0);
  }
  tokenizer.encode(input, stream);
  print_ids(stream.ids);
  return 0;
}

}  // namespace cli
