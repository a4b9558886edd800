// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Options of a command: what may be given, how it is read, and the errors about it.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/core/error.hpp"

namespace cli {

using namespace ropewalk;

/// \throws Error(usage) about an option.
[[noreturn]] void fail_usage(std::string option, std::string found, std::string expected,
                             std::string fix = {});

/// What --isa may name: instruction sets, whether or not this executable holds them.
inline std::vector<std::string> isa_choices() {
  return {"auto", "portable", "avx2", "avx512", "avx512bf16", "amx", "neon"};
}

/// The options that one command takes, and its help. Options are declared first; parse() then sets
/// the variables they are bound to. A variable whose option is not given keeps its value.
class Options {
 public:
  /// `examples`: command lines, one a line, shown at the end of the help.
  Options(std::string command, const std::string& description, const std::string& examples);
  ~Options();

  void flag(const std::string& name, bool& out, const std::string& help);
  void text(const std::string& name, const std::string& placeholder, std::string& out,
            const std::string& help);
  void text(const std::string& name, const std::string& placeholder,
            std::optional<std::string>& out, const std::string& help);
  /// One of `choices`; an empty `out` means that the option has no default.
  void choice(const std::string& name, std::vector<std::string> choices, std::string& out,
              const std::string& help);
  /// A count of at least `least`, binary suffixes allowed: 512, 4K, 1M.
  void size(const std::string& name, std::int64_t least, std::optional<std::int64_t>& out,
            const std::string& help);
  void real(const std::string& name, double& out, const std::string& help);
  void natural(const std::string& name, std::uint64_t& out, const std::string& help);
  /// Several arguments after one name, or the name repeated; nothing is split.
  void texts(const std::string& name, const std::string& placeholder, std::vector<std::string>& out,
             const std::string& help);
  /// Sizes of at least 1, separated by commas or repeated; each at most once.
  void sizes(const std::string& name, std::vector<std::int64_t>& out, const std::string& help);
  /// An argument without a name.
  void positional(const std::string& name, std::string& out, const std::string& help);

  /// False when help was asked for, which then was printed.
  /// \throws Error(usage) that names the option; an unknown one with the nearest that exists.
  bool parse(std::span<const std::string> arguments);

 private:
  using Take = std::function<void(const std::vector<std::string>&)>;
  void add(const std::string& name, const std::string& placeholder, const std::string& help,
           int max_arguments, Take take);
  /// An option of one argument that may be repeated only with the same one.
  void add_single(const std::string& name, const std::string& placeholder, const std::string& help,
                  std::function<void(const std::string&)> take);

  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace cli
