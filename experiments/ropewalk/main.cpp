// SPDX-License-Identifier: Apache-2.0
/// \file
/// The executable: finds the command, runs it, and turns errors into messages and exit codes.

#include <csignal>
#include <cstdio>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/text_match.hpp"
#include "ropewalk/io/json_write.hpp"

#include "args.hpp"
#include "build_facts.hpp"
#include "commands.hpp"
#include "kernels.hpp"
#include "output.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(Arguments);
};

constexpr Command commands[] = {
    {"sweep", "table of rope settings x context lengths -> perplexity", run_sweep},
    {"ppl", "perplexity under one rope setting", run_ppl},
    {"export", "rows of a results folder as csv, JSON lines or a table", run_export},
    {"train", "a Llama from random weights, or trained on from a checkpoint", run_train},
    {"generate", "continuation of a prompt, greedy or sampled", run_generate},
    {"tokenize", "token ids of a text, and back", run_tokenize},
    {"rope show", "frequencies of a rope setting", run_rope_show},
    {"rope compare", "where rope settings differ, and by how much", run_rope_compare},
    {"bench", "speed and memory of scoring with random weights", run_bench},
    {"selftest", "checks this build on this machine, in seconds", run_selftest},
};

// Names that are reserved: they will get the meaning of the documentation and no other.
constexpr std::string_view planned[] = {"experiment", "report",     "doctor",     "convert",
                                        "rope plan",  "rope audit", "rope bound", "rope tables"};

std::string listed_commands() {
  std::string names;
  for (const Command& c : commands) names += (names.empty() ? "" : ", ") + std::string(c.name);
  return names;
}

std::string help_text() {
  std::string text =
      "ropewalk: rotary position embeddings and context extension, measured on real "
      "checkpoints.\n\n"
      "Usage: ropewalk COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& c : commands) {
    text += "  " + std::string(c.name) + std::string(14 - c.name.size(), ' ') +
            std::string(c.summary) + "\n";
  }
  text +=
      "\nOptions:\n"
      "  --help      this text; ropewalk COMMAND --help tells a command's options\n"
      "  --version   version, git revision, compiler, instruction set\n"
      "  --errors=json   errors as JSON objects on stderr\n"
      "\nExamples:\n"
      "  ropewalk sweep --model model5000.bin --tokenizer tok105.vocab --text stories.txt \\\n"
      "      --rope default ntk:factor=4 yarn:factor=4 --lengths 128,256,512,1024\n"
      "  ropewalk generate --model stories260K.bin --tokenizer tok512.bin --prompt 'Once upon'\n"
      "  ropewalk rope show yarn:factor=4,rope_theta=1e4,original_max_position_embeddings=4K\n"
      "  ropewalk selftest\n";
  return text;
}

/// How bf16 operands are added up where that has an id of its own.
std::string bf16_numerics() {
  const std::string id = available_kernels().front().b16.numerics;
  return id == numerics_id ? "" : ", of bf16 " + id;
}

std::string version_report() {
  return "ropewalk " + version_text() + "\ngit revision: " + ropewalk_build::git_revision +
         "\ncompiler: " + ropewalk_build::compiler + "\nflags: " + ropewalk_build::flags +
         "\nisa: " + available_kernels().front().isa() + ", of " + compiled_isas() +
         "\nnumerics_id: " + numerics_id + bf16_numerics() + "\n";
}

/// The command that the first one or two words name, and the number of words.
std::pair<const Command*, std::size_t> find_command(Arguments words) {
  const std::string one = words[0];
  const std::string two = words.size() > 1 ? one + " " + words[1] : one;
  for (const Command& c : commands) {
    if (c.name == one) return {&c, 1};
    if (c.name == two) return {&c, 2};
  }
  for (const std::string_view name : planned) {
    if (name != one && name != two) continue;
    fail({.kind = ErrorClass::unsupported,
          .field = "command",
          .found = std::string(name) + ", which is not implemented yet",
          .expected = "one of: " + listed_commands()});
  }
  std::vector<std::string_view> known;
  for (const Command& c : commands) known.push_back(c.name);
  const std::string near = nearest(one == "rope" ? two : one, known);
  fail_usage("command", escaped(one == "rope" ? two : one), "one of: " + listed_commands(),
             near.empty() ? "See ropewalk --help" : "Did you mean " + near + "?");
}

int run(Arguments words) {
  check_machine();
  if (!words.empty() && words[0].starts_with("--errors")) {
    words = words.subspan(words[0] == "--errors" && words.size() > 1 ? 2 : 1);
  }
  if (words.empty()) {
    fail_usage("command", "nothing", "one of: " + listed_commands(), "See ropewalk --help");
  }
  int code = 0;
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    print(help_text());
  } else if (words[0] == "--version") {
    print(version_report());
  } else {
    const auto [command, length] = find_command(words);
    code = command->run(words.subspan(length));
  }
  flush_output();
  return code;
}

bool errors_as_json(Arguments words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--errors=json") return true;
    if (words[i] == "--errors" && i + 1 < words.size() && words[i + 1] == "json") return true;
  }
  return false;
}

int report(const ErrorInfo& e, const std::string& text, bool as_json) {
  if (as_json) {
    const Row row = {{"class", std::string(error_class_name(e.kind))},
                     {"file", e.file},
                     {"where", e.where},
                     {"field", e.field},
                     {"found", e.found},
                     {"expected", e.expected},
                     {"fix", e.fix}};
    std::fprintf(stderr, "%s\n", to_json(row).c_str());
  } else {
    std::fprintf(stderr, "ropewalk: error: %s\n", text.c_str());
  }
  return exit_code(e.kind);
}

int guarded_run(Arguments words) {
  const bool as_json = errors_as_json(words);
  try {
    return run(words);
  } catch (const Stopped& stopped) {
    return stopped.exit_code;
  } catch (const Error& error) {
    return report(error.info(), error.what(), as_json);
  } catch (const std::bad_alloc&) {
    const ErrorInfo info{.kind = ErrorClass::resource,
                         .field = "memory",
                         .found = "an allocation that the system refused",
                         .fix = "Give shorter lengths or fewer windows"};
    return report(info, to_text(info), as_json);
  } catch (const std::exception& error) {
    const ErrorInfo info{.kind = ErrorClass::internal,
                         .found = error.what(),
                         .fix =
                             "This is a bug: please report it with the command line and ropewalk "
                             "--version (" +
                             version_text() + " " + ropewalk_build::git_revision + ")"};
    return report(info, to_text(info), as_json);
  }
}

}  // namespace

}  // namespace cli

int main(int argc, char** argv) {
  // A closed pipe then shows as a failed write, which has an exit code of its own.
  std::signal(SIGPIPE, SIG_IGN);
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  return cli::guarded_run(words);
}
