// SPDX-License-Identifier: Apache-2.0
/// \file
/// The one main of all test executables. It makes two silent outcomes visible: a filter that
/// matches no test case fails, and a run whose every test case said "skipped: ..." exits with
/// the code that ctest reports as skipped.

#include <cstring>
#include <iostream>
#include <string_view>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

namespace {

constexpr int exit_skipped = 77;  // SKIP_RETURN_CODE in tests/CMakeLists.txt

// doctest makes and owns the listener, so its counts live outside of it.
int cases_run = 0;
int cases_skipped = 0;

struct SkipCounter : doctest::IReporter {
  bool said_skipped = false;

  explicit SkipCounter(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
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

REGISTER_LISTENER("skip_counter", 1, SkipCounter);

}  // namespace

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (context.shouldExit()) return result;  // --help, --list-test-cases
  if (result == 0 && cases_run == 0) {
    std::cerr << "no test case matches the filter\n";
    return 1;
  }
  if (result == 0 && cases_run == cases_skipped) return exit_skipped;
  return result;
}
