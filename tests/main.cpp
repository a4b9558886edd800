// SPDX-License-Identifier: Apache-2.0
/// \file
/// The one main of all test executables. Beyond doctest's own it
///  - writes the list of its test cases for ctest (--ctest-script=FILE), whatever characters their
///    names have; a test suite becomes a label,
///  - fails when a filter matches no test case,
///  - exits with the code that ctest reports as skipped when every test case that ran said
///    MESSAGE("skipped: ...").

#include <fstream>
#include <iostream>
#include <string>
#include <string_view>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

namespace {

constexpr int exit_skipped = 77;

// doctest makes and owns the listener, so what it counts and needs lives outside of it.
int cases_run = 0;
int cases_skipped = 0;
std::string ctest_script;  // path, or empty
std::string program;       // how ctest starts this executable

/// `text` as one argument of a CMake command.
std::string bracketed(std::string_view text) { return " [==[" + std::string(text) + "]==]"; }

/// A filter that matches the name: doctest splits filters at commas.
std::string filter_of(std::string_view name) {
  std::string filter;
  for (const char c : name) {
    if (c == ',' || c == '\\') filter += '\\';
    filter += c;
  }
  return filter;
}

void write_ctest_script(const doctest::QueryData& query) {
  std::ofstream out(ctest_script);
  for (unsigned i = 0; i < query.num_data; ++i) {
    const doctest::TestCaseData& test = *query.data[i];
    const std::string_view suite = test.m_test_suite;
    out << "add_test(" << bracketed(test.m_name) << bracketed(program)
        << bracketed("--test-case=" + filter_of(test.m_name)) << ")\n"
        << "set_tests_properties(" << bracketed(test.m_name) << " PROPERTIES SKIP_RETURN_CODE "
        << exit_skipped << " TIMEOUT 300";
    if (!suite.empty()) out << " LABELS" << bracketed(suite);
    out << ")\n";
  }
}

struct Listener : doctest::IReporter {
  bool said_skipped = false;

  explicit Listener(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData& query) override {
    if (!ctest_script.empty()) write_ctest_script(query);
  }
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_start(const doctest::TestCaseData&) override { said_skipped = false; }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {
    ++cases_run;
    cases_skipped += said_skipped ? 1 : 0;
  }
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData& message) override {
    const std::string_view text = message.m_string.c_str();
    said_skipped = said_skipped || text.substr(0, 8) == "skipped:";
  }
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("counts_and_lists", 1, Listener);

}  // namespace

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  constexpr std::string_view option = "--ctest-script=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, option.size()) != option) continue;
    ctest_script = argument.substr(option.size());
    program = argv[0];
    const char* list[] = {argv[0], "--list-test-cases"};
    context.applyCommandLine(2, list);
    std::cout.setstate(std::ios::failbit);  // the list goes to the file alone
  }
  const int result = context.run();
  if (context.shouldExit()) return result;  // --help, --list-test-cases
  if (result == 0 && cases_run == 0) {
    std::cerr << "no test case matches the filter\n";
    return 1;
  }
  if (result == 0 && cases_run == cases_skipped) return exit_skipped;
  return result;
}
