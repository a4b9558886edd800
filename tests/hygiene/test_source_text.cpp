// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace ropewalk::hygiene {
namespace {

struct File {
  std::string path;  ///< relative to the project
  std::string text;
};

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// Every text file of the project, build folders and git's own left out.
std::vector<File> project_files() {
  namespace fs = std::filesystem;
  const fs::path root = ROPEWALK_SOURCE_DIR;
  std::vector<File> files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator();
       ++it) {
    const std::string path = fs::relative(it->path(), root).generic_string();
    if (it->is_directory() && (path == "build" || path == "out" || path == ".git" ||
                               path == ".cache" || fs::exists(it->path() / "CMakeCache.txt"))) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file()) {
      std::ostringstream text;
      text << std::ifstream(it->path(), std::ios::binary).rdbuf();
      if (text.str().find('\0') == std::string::npos) files.push_back({path, text.str()});
    }
  }
  return files;
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
std::size_t end_of_non_code(std::string_view text, std::size_t at) {
  const auto after = [&](std::string_view closing, std::size_t from) {
    const std::size_t found = text.find(closing, from);
    return found == std::string_view::npos ? text.size() : found + closing.size();
  };
  if (text.substr(at, 2) == "//") return std::min(text.find('\n', at), text.size());
  if (text.substr(at, 2) == "/*") return after("*/", at + 2);
  if (text.substr(at, 3) == "R\"(") return after(")\"", at + 3);
  const char quote = text[at];
  const bool digit_separator = quote == '\'' && at > 0 && is_word(text[at - 1]);
  if ((quote != '"' && quote != '\'') || digit_separator) return at;
  std::size_t end = at + 1;
  while (end < text.size() && text[end] != quote) end += text[end] == '\\' ? 2U : 1U;
  return std::min(end + 1, text.size());
}

/// The code of a C++ text: comments and literals become blanks, lines stay where they are.
std::string code_of(std::string_view text) {
  std::string code;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = end_of_non_code(text, at);
    if (end == at) {
      code += text[at++];
      continue;
    }
    for (; at < end; ++at) code += text[at] == '\n' ? '\n' : ' ';
  }
  return code;
}

/// Whether `word` stands in `code` as a whole word.
bool uses(std::string_view code, std::string_view word) {
  for (std::size_t at = code.find(word); at != std::string_view::npos;
       at = code.find(word, at + 1)) {
    const bool starts = at == 0 || !is_word(code[at - 1]);
    const std::size_t end = at + word.size();
    if (starts && (end == code.size() || !is_word(code[end]))) return true;
  }
  return false;
}

/// The sentences against one header: no output, no process control, no macros of its own.
std::vector<std::string> header_faults(const std::string& path, std::string_view text) {
  std::vector<std::string> faults;
  const std::string code = code_of(text);
  for (const std::string_view word :
       {"stdout", "stderr", "cout", "cerr", "clog", "printf", "fprintf", "puts", "abort", "exit",
        "terminate", "getenv", "setlocale", "assert"}) {
    if (uses(code, word)) faults.push_back(path + ": uses " + std::string(word));
  }
  std::istringstream lines(code);
  for (std::string line; std::getline(lines, line);) {
    if (line.substr(0, 8) != "#define ") continue;
    const std::string name = line.substr(8, line.find_first_of(" (", 8) - 8);
    const bool ours =
        path == "include/ropewalk/core/config.hpp" && name.substr(0, 9) == "ROPEWALK_";
    const bool switches_a_package = name.substr(0, 4) == "XXH_" || name.substr(0, 5) == "PCRE2";
    if (!ours && !switches_a_package) faults.push_back(path + ": defines the macro " + name);
  }
  if (text.find("#pragma once") == std::string_view::npos) {
    faults.push_back(path + ": no #pragma once");
  }
  if (text.find("/// \\file") == std::string_view::npos) {
    faults.push_back(path + ": no \\file sentence");
  }
  if (code.find("using namespace") != std::string::npos) {
    faults.push_back(path + ": using namespace");
  }
  return faults;
}

std::string lines_of(const std::vector<std::string>& sentences) {
  std::string out;
  for (const std::string& sentence : sentences) out += "\n  " + sentence;
  return out;
}

TEST_CASE("hygiene/source_text: sources carry their licence and no stray whitespace") {
  std::vector<std::string> faults;
  int sources = 0;
  for (const File& file : project_files()) {
    const bool cpp = ends_with(file.path, ".hpp") || ends_with(file.path, ".cpp");
    const bool cmake = ends_with(file.path, "CMakeLists.txt") || ends_with(file.path, ".cmake");
    if (!cpp && !cmake) continue;
    ++sources;
    const std::string first = cpp ? "// SPDX-License-Identifier: Apache-2.0\n"
                                  : "# SPDX-License-Identifier: Apache-2.0\n";
    if (file.text.substr(0, first.size()) != first) {
      faults.push_back(file.path + ": does not begin with " + first.substr(0, first.size() - 1));
    }
    if (file.text.find('\t') != std::string::npos) faults.push_back(file.path + ": a tab");
    if (file.text.find(" \n") != std::string::npos) {
      faults.push_back(file.path + ": a blank at a line's end");
    }
    if (!ends_with(file.text, "\n")) faults.push_back(file.path + ": no newline at the end");
  }
  CHECK(sources > 10);
  INFO(lines_of(faults));
  CHECK(faults.empty());
}

TEST_CASE("hygiene/source_text: headers neither print, exit nor define macros") {
  std::vector<std::string> faults;
  for (const File& file : project_files()) {
    if (file.path.substr(0, 8) != "include/" || !ends_with(file.path, ".hpp")) continue;
    const std::vector<std::string> found = header_faults(file.path, file.text);
    faults.insert(faults.end(), found.begin(), found.end());
  }
  INFO(lines_of(faults));
  CHECK(faults.empty());
}

TEST_CASE("hygiene/source_text: no file names a place on somebody's machine") {
  // In two pieces each, so that this file does not name them either.
  const std::vector<std::string> places = {
      std::string("/ho") + "me/",  std::string("/ro") + "ot/",     std::string("/wo") + "rk/",
      std::string("/Us") + "ers/", std::string("deb.deb") + "ian", std::string("py") + "pi.org",
      std::string("FIX") + "ME",   std::string("TO") + "DO",
  };
  std::vector<std::string> faults;
  for (const File& file : project_files()) {
    if (file.path == "LICENSE") continue;
    for (const std::string& place : places) {
      for (std::size_t at = file.text.find(place); at != std::string::npos;
           at = file.text.find(place, at + 1)) {
        // The end of a longer path is another word; only a path from the root is a place.
        if (at > 0 &&
            (is_word(file.text[at - 1]) || file.text[at - 1] == '.' || file.text[at - 1] == '}')) {
          continue;
        }
        faults.push_back(file.path + ": " + place);
        break;
      }
    }
  }
  INFO(lines_of(faults));
  CHECK(faults.empty());
}

TEST_CASE("hygiene/source_text: faults planted in a header are found") {
  const std::string good =
      "#pragma once\n/// \\file\n/// Never calls abort() or printf.\n"
      "inline const char* text() { return \"exit, assert\"; }\n"
      "inline int exit_code = 0; static_assert(true);\n";
  CHECK(lines_of(header_faults("include/ropewalk/rope/x.hpp", good)) == "");
  const std::vector<std::pair<std::string, std::string>> planted = {
      {"inline void f() { std::abort(); }\n", "uses abort"},
      {"inline void f() { std::printf(\"x\"); }\n", "uses printf"},
      {"inline void f(int i) { assert(i > 0); }\n", "uses assert"},
      {"inline const char* f() { return getenv(\"HOME\"); }\n", "uses getenv"},
      {"#define SQUARE(x) ((x) * (x))\n", "defines the macro SQUARE"},
      {"using namespace std;\n", "using namespace"},
  };
  for (const auto& pair : planted) {  // clang 14 captures no structured bindings
    const std::string& line = pair.first;
    const std::string& fault = pair.second;
    CAPTURE(line);
    const std::vector<std::string> found =
        header_faults("include/ropewalk/rope/x.hpp", good + line);
    REQUIRE(found.size() == 1);
    CHECK(found[0] == "include/ropewalk/rope/x.hpp: " + fault);
  }
}

}  // namespace
}  // namespace ropewalk::hygiene
