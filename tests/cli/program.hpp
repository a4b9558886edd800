// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Runs the built executable, and makes small inputs for it.

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/temp_dir.hpp"

namespace ropewalk {

inline std::string file_content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

struct Outcome {
  int exit_code = -1;  ///< 128 + signal when killed
  std::string out = {};
  std::string err = {};
};

/// A started run of the executable with `folder` as its working directory.
class Program {
 public:
  Program(const TempDir& folder, const std::vector<std::string>& arguments) {
    pid_ = ::fork();
    if (pid_ == 0) become(folder, arguments, streams_ / "out", streams_ / "err");
  }
  /// Turns this process into a run of the executable.
  [[noreturn]] static void become(const TempDir& folder, const std::vector<std::string>& arguments,
                                  const std::string& out, const std::string& err) {
    std::vector<std::string> words = {ROPEWALK_EXECUTABLE};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    if (::chdir(folder.path().c_str()) != 0) ::_exit(126);
    redirect(out, STDOUT_FILENO);
    redirect(err, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  void signal(int number) const { ::kill(pid_, number); }
  Outcome wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            .out = file_content(streams_ / "out"),
            .err = file_content(streams_ / "err")};
  }

 private:
  static void redirect(const std::string& path, int fd) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0 || ::dup2(file, fd) < 0) ::_exit(126);
  }
  TempDir streams_;
  pid_t pid_ = -1;
};

inline Outcome run_program(const TempDir& folder, const std::vector<std::string>& arguments) {
  return Program(folder, arguments).wait();
}

/// A llama2.c checkpoint: 16 channels, 1 layer, 2 heads of 8 with 1 key/value head, 40 ids, trained
/// length 32. Weights are of `scale` and alternate without pattern.
inline std::string tiny_checkpoint(float scale = 0.3f) {
  constexpr std::int32_t dim = 16, hidden = 24, layers = 1, heads = 2, key_heads = 1, vocab = 40,
                         length = 32, head_dim = dim / heads;
  const std::int32_t header[] = {dim, hidden, layers, heads, key_heads, vocab, length};
  constexpr int parameters = vocab * dim + layers * (2 * dim + 2 * dim * dim) +
                             layers * 2 * dim * key_heads * head_dim + layers * 3 * dim * hidden +
                             dim + length * head_dim;
  std::string bytes(reinterpret_cast<const char*>(header), sizeof header);
  std::uint32_t state = 1;
  for (int i = 0; i < parameters; ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = scale * (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

/// Ids below 40 as a .u16 file holds them.
inline std::string tiny_tokens(int count) {
  std::string bytes;
  std::uint32_t state = 7;
  for (int i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    bytes += static_cast<char>((state >> 16) % 40);
    bytes += '\0';
  }
  return bytes;
}

}  // namespace ropewalk
