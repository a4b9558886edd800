// SPDX-License-Identifier: Apache-2.0
#include "args.hpp"

#include <algorithm>
#include <charconv>

#include <CLI/CLI.hpp>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/core/text_match.hpp"

#include "output.hpp"

namespace cli {

void fail_usage(std::string option, std::string found, std::string expected, std::string fix) {
  fail({.kind = ErrorClass::usage,
        .field = std::move(option),
        .found = std::move(found),
        .expected = std::move(expected),
        .fix = std::move(fix)});
}

// CLI11 splits the command line and prints the help; values are read here, so that all errors about
// them are of one kind.
struct Options::Parser {
  struct Bound {
    CLI::Option* option;
    Take take;
  };
  CLI::App app;
  std::string command;
  std::vector<Bound> options = {};

  std::vector<std::string> names() const {
    std::vector<std::string> out = {"--help"};
    for (const Bound& b : options) {
      for (const std::string& name : b.option->get_lnames()) out.push_back("--" + name);
    }
    return out;
  }
  [[noreturn]] void refuse_unknown(std::string argument) const {
    const std::string see_help = "See ropewalk " + command + " --help";
    if (argument.substr(0, 1) != "-") {
      fail_usage("argument", escaped(argument), "options that start with --", see_help);
    }
    argument = argument.substr(0, argument.find('='));
    const std::string near = nearest(argument, names());
    fail_usage(escaped(argument), "an unknown option", "an option of ropewalk " + command,
               near.empty() ? see_help : "Did you mean " + near + "?");
  }
};

Options::Options(std::string command, const std::string& description, const std::string& examples)
    : parser_(new Parser{CLI::App(description, "ropewalk " + command), std::move(command)}) {
  parser_->app.allow_extras();
  parser_->app.footer("Examples:\n" + examples);
  parser_->app.set_help_flag("--help,-h", "Print this help");
  static std::string errors = "text";  // read by main before any command
  choice("--errors", {"text", "json"}, errors, "How errors are printed on stderr");
}
Options::~Options() = default;

void Options::add(const std::string& name, const std::string& placeholder, const std::string& help,
                  int max_arguments, Take take) {
  CLI::Option* option = max_arguments == 0
                            ? parser_->app.add_flag(name, help)
                            : parser_->app.add_option(
                                  name, [](const CLI::results_t&) { return true; }, help);
  if (max_arguments != 0) {
    // Free text may start with a bracket; CLI11 would take it for a list otherwise.
    option->expected(max_arguments)->type_name(placeholder)->allow_extra_args(max_arguments < 0);
  }
  option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  parser_->options.push_back({option, std::move(take)});
}

void Options::add_single(const std::string& name, const std::string& placeholder,
                         const std::string& help, std::function<void(const std::string&)> take) {
  add(name, placeholder, help, 1,
      [name, take = std::move(take)](const std::vector<std::string>& given) {
        for (const std::string& value : given) {
          if (value != given.front()) {
            fail_usage(name, escaped(given.front()) + " and " + escaped(value), "one value",
                       "Remove one of the two");
          }
        }
        take(given.front());
      });
}

void Options::flag(const std::string& name, bool& out, const std::string& help) {
  add(name, "", help, 0, [&out](const std::vector<std::string>&) { out = true; });
}

void Options::text(const std::string& name, const std::string& placeholder, std::string& out,
                   const std::string& help) {
  add_single(name, placeholder, help, [&out](const std::string& value) { out = value; });
}

void Options::text(const std::string& name, const std::string& placeholder,
                   std::optional<std::string>& out, const std::string& help) {
  add_single(name, placeholder, help, [&out](const std::string& value) { out = value; });
}

void Options::choice(const std::string& name, std::vector<std::string> choices, std::string& out,
                     const std::string& help) {
  std::string listed;
  for (const std::string& c : choices) listed += (listed.empty() ? "" : "|") + c;
  add_single(name, listed, help + (out.empty() ? "" : " [" + out + "]"),
             [=, &out](const std::string& value) {
               if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
                 const std::string near = nearest(value, choices);
                 fail_usage(name, escaped(value), "one of " + listed,
                            near.empty() ? "" : "Did you mean " + near + "?");
               }
               out = value;
             });
}

void Options::size(const std::string& name, std::int64_t least, std::optional<std::int64_t>& out,
                   const std::string& help) {
  add_single(name, "N", help, [=, &out](const std::string& value) {
    out = parse_size(value);
    if (!out || *out < least) {
      fail_usage(name, escaped(value), "a whole number of at least " + std::to_string(least));
    }
  });
}

void Options::real(const std::string& name, double& out, const std::string& help) {
  add_single(name, "X", help, [=, &out](const std::string& value) {
    const std::optional<double> x = parse_real(value);
    if (!x) fail_usage(name, escaped(value), "a number");
    out = *x;
  });
}

void Options::natural(const std::string& name, std::uint64_t& out, const std::string& help) {
  add_single(name, "N", help, [=, &out](const std::string& value) {
    const char* end = value.data() + value.size();
    const auto read = std::from_chars(value.data(), end, out);
    if (read.ec != std::errc() || read.ptr != end) {
      fail_usage(name, escaped(value), "a whole number from 0 to 2^64 - 1");
    }
  });
}

void Options::texts(const std::string& name, const std::string& placeholder,
                    std::vector<std::string>& out, const std::string& help) {
  add(name, placeholder + "...", help, -1,
      [&out](const std::vector<std::string>& given) { out = given; });
}

void Options::sizes(const std::string& name, std::vector<std::int64_t>& out,
                    const std::string& help) {
  const std::string shown = name.substr(0, name.find(','));  // without aliases
  add(name, "N,...", help, -1, [=, &out](const std::vector<std::string>& given) {
    out.clear();
    for (const std::string& list : given) {
      for (const std::string& item : CLI::detail::split(list, ',')) {
        const std::optional<std::int64_t> value = parse_size(item);
        if (!value || *value < 1) {
          fail_usage(shown, escaped(item), "whole numbers of at least 1, such as 512,4K");
        }
        if (std::find(out.begin(), out.end(), *value) != out.end()) {
          fail_usage(shown, escaped(item) + " twice", "each number once");
        }
        out.push_back(*value);
      }
    }
  });
}

void Options::positional(const std::string& name, std::string& out, const std::string& help) {
  add(name, name, help, 1, [&out](const std::vector<std::string>& given) { out = given.front(); });
}

bool Options::parse(std::span<const std::string> arguments) {
  std::vector<std::string> reversed;  // as CLI11 takes them
  for (const std::string& argument : arguments) {
    // CLI11 would take the next argument for the value of `--name=`.
    const bool empty_value =
        argument.starts_with("--") && argument.find('=') + 1 == argument.size();
    reversed.push_back(empty_value ? argument.substr(0, argument.size() - 1) : argument);
    if (empty_value) reversed.emplace_back();
  }
  std::reverse(reversed.begin(), reversed.end());
  try {
    parser_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    print(parser_->app.help());
    return false;
  } catch (const CLI::ParseError& error) {
    fail({.kind = ErrorClass::usage,
          .found = error.what(),
          .fix = "See ropewalk " + parser_->command + " --help"});
  }
  const std::vector<std::string> unknown = parser_->app.remaining();
  const auto named = std::find_if(unknown.begin(), unknown.end(),
                                  [](const std::string& a) { return a.substr(0, 1) == "-"; });
  if (!unknown.empty()) parser_->refuse_unknown(named != unknown.end() ? *named : unknown.front());
  for (const Parser::Bound& bound : parser_->options) {
    if (bound.option->count() > 0) bound.take(bound.option->results());
  }
  return true;
}

}  // namespace cli
