// SPDX-License-Identifier: Apache-2.0
/// \file
/// Measures what it costs to include each header and compares with its budget.
///
/// Costs are processor seconds of the compiler (user and system), the best of three, so that other
/// work on the machine disturbs little. Budgets are stated for the reference machine, on which the
/// baseline, a unit that includes six standard headers, costs 0.35 s. On a slower machine every
/// budget grows by (baseline here) / 0.35; on a faster one it stays. How much dearer the same unit
/// is than the baseline differs between processors all the same: rope.hpp kept its budget, 1.43
/// baselines, on those of Intel that ran this and costs 1.7 to 1.8 on a Milan (512 KiB of L2
/// cache), whose neighbours use its caches. So a slower machine's budgets grow by `spread` as well,
/// without a jump where it is hardly slower.
///
/// usage: compile_budget INCLUDE_DIR SCRATCH_DIR COMPILER [FLAGS...]

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace fs = std::filesystem;

constexpr double baseline_on_reference = 0.35;  // seconds
constexpr double spread = 1.4;

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
}

/// Processor seconds of one run of a command.
double run(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  rusage before{};
  getrusage(RUSAGE_CHILDREN, &before);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw std::runtime_error("the compiler failed on " + command.back());
  }
  rusage after{};
  getrusage(RUSAGE_CHILDREN, &after);
  return seconds(after.ru_utime) - seconds(before.ru_utime) + seconds(after.ru_stime) -
         seconds(before.ru_stime);
}

/// Budget of a header in seconds on the reference machine; 0 if it has none.
double budget_of(const std::string& header) {
  const auto begins = [&](const char* text) { return header.rfind(text, 0) == 0; };
  if (header == "ropewalk.hpp") return 3.0;
  if (begins("rope/rotate")) return 1.5;
  if (begins("rope/") || header == "rope.hpp" || begins("attention/mask") ||
      begins("attention/concepts") || begins("attention/block_plan")) {
    return 0.5;
  }
  return 0;
}

/// Includes six standard headers: what a header of ours costs at the least.
constexpr const char* baseline_unit =
    "#include <array>\n#include <cmath>\n#include <concepts>\n#include <span>\n"
    "#include <string>\n#include <vector>\n";

struct Cost {
  double seconds = std::numeric_limits<double>::infinity();
  double baseline = std::numeric_limits<double>::infinity();
};

/// Costs of a unit and of the baseline, taken in turns so that both meet the same disturbances.
Cost cost_of(const std::vector<std::string>& compile, const fs::path& scratch,
             const std::string& text) {
  const fs::path unit = scratch / "compile_budget_unit.cpp";
  std::vector<std::string> command = compile;
  command.insert(command.end(), {"-c", "-o", "/dev/null", unit.string()});
  Cost cost;
  for (int i = 0; i < 3; ++i) {
    std::ofstream(unit) << baseline_unit;
    cost.baseline = std::min(cost.baseline, run(command));
    std::ofstream(unit) << text;
    cost.seconds = std::min(cost.seconds, run(command));
  }
  std::error_code ignored;
  fs::remove(unit, ignored);
  return cost;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: compile_budget INCLUDE_DIR SCRATCH_DIR COMPILER [FLAGS...]\n", stderr);
    return 2;
  }
  const fs::path include_dir = argv[1];
  const fs::path scratch = argv[2];
  std::vector<std::string> compile(argv + 3, argv + argc);
  compile.push_back("-I" + include_dir.string());

  std::vector<std::string> headers;
  for (const auto& entry : fs::recursive_directory_iterator(include_dir / "ropewalk")) {
    const fs::path relative = fs::relative(entry.path(), include_dir / "ropewalk");
    if (budget_of(relative.generic_string()) > 0) headers.push_back(relative.generic_string());
  }
  std::sort(headers.begin(), headers.end());
  int over = 0;
  for (const std::string& header : headers) {
    const Cost cost = cost_of(compile, scratch, "#include \"ropewalk/" + header + "\"\n");
    const double slower = cost.baseline / baseline_on_reference;
    const double scale = slower <= 1 ? 1.0 : std::min(slower * spread, slower * slower * slower);
    const double limit = scale * budget_of(header);
    const bool fits = cost.seconds <= limit;
    std::printf("%-34s %5.2f s of %.2f s (baseline %.2f s)%s\n", header.c_str(), cost.seconds,
                limit, cost.baseline, fits ? "" : "  OVER BUDGET");
    over += fits ? 0 : 1;
  }
  if (headers.empty()) {
    std::puts("no header with a budget was found");
    return 1;
  }
  return over == 0 ? 0 : 1;
}
