// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <optional>

#include <doctest/doctest.h>

#include "ropewalk/io/npy.hpp"

#include "cli/rows.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

namespace {

std::string without_isa(const std::string& row) {
  const std::size_t at = row.find("\"isa\":");
  return row.substr(0, at) + row.substr(row.find(',', at));
}

}  // namespace

TEST_CASE("cli/sweep: the published table of BabyLlama and its single losses come out") {
  const auto model = shared_data("babyllama-105/model5000.bin");
  if (!model) {
    MESSAGE("skipped: no babyllama-105");
    return;
  }
  const std::vector<std::pair<std::string, std::string>> variants = {
      // as the expected tables name it, as a spec
      {"default", "default"},
      {"linear:factor=2", "linear:factor=2"},
      {"linear:factor=4", "linear:factor=4"},
      {"ntk:factor=2", "ntk:factor=2"},
      {"ntk:factor=4", "ntk:factor=4"},
      {"theta=50000", "theta=50000"},
      {"theta=500000", "theta=500000"},
      {"yarn:factor=4", "yarn:factor=4"},
      {"llama3:factor=4,low=1,high=4", "llama3:factor=4,low_freq_factor=1,high_freq_factor=4"},
      {"dynamic:factor=2", "dynamic:factor=2"},
      {"dynamic:factor=4", "dynamic:factor=4"}};
  const TempDir folder;
  std::vector<std::string> arguments = {"sweep",
                                        "--model",
                                        *model,
                                        "--tokens",
                                        *shared_data("babyllama-105/"
                                                     "windows_6x1025.u16"),
                                        "--window-tokens",
                                        "1025",
                                        "--lengths",
                                        "64,128,256,512,1K",
                                        "--format",
                                        "jsonl",
                                        "--nll-out",
                                        "nll.npy",
                                        "--rope"};
  for (const auto& variant : variants) arguments.push_back(variant.second);
  const Outcome run = run_program(folder, arguments);
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  const std::vector<JsonDocument> rows = rows_of(run.out);
  REQUIRE(rows.size() == 55);

  const JsonDocument expected =
      read_json(FileSource(*shared_data("babyllama-105/expected_tables.json")));
  std::size_t row = 0;
  for (const auto& variant : variants) {
    const std::string& spec = variant.second;
    const JsonView table = expected.view().at("variants").at(variant.first).at("nll");
    for (const char* length : {"64", "128", "256", "512", "1024"}) {
      const JsonView r = rows[row++].view();
      INFO(spec, " at ", length);
      CHECK(r.at("rope_arg").as_string() == spec);
      CHECK(std::to_string(r.at("length").as_integer()) == length);
      // float32 against float64, means over 384 to 6144 tokens: measured below 2e-6.
      CHECK(std::fabs(r.at("nll").as_number() - table.at(length).as_number()) < 5e-5);
      CHECK(r.at("windows").as_integer() == 6);
      CHECK(r.at("tokens").as_integer() == 6 * r.at("length").as_integer());
      CHECK(r.at("mode").as_string() == (spec.starts_with("dynamic")
                                             ? "prefill(" + std::string(length) + ")"
                                             : std::string("static")));
    }
  }
  std::vector<double> losses(9 * 6 * 1024);
  const FileSource golden(*shared_data("babyllama-105/expected_nll.f64"));
  REQUIRE(golden.size() == 8 * losses.size());
  golden.read(0, std::as_writable_bytes(std::span(losses)));
  for (std::size_t v = 0; v < 9; ++v) {
    const NpyMatrix ours = read_npy(FileSource(folder / ("nll-" + std::to_string(v) + ".npy")));
    REQUIRE(ours.rows == 6);
    REQUIRE(ours.columns == 1024);
    double worst = 0;
    for (std::size_t i = 0; i < ours.values.size(); ++i) {
      worst = std::max(worst, std::fabs(ours.values[i] - losses[v * 6 * 1024 + i]));
    }
    INFO(variants[v].second);
    CHECK(worst < 2e-3);
  }
}

TEST_CASE("cli/sweep: threads, instruction sets and passes change no bit") {
  const Inputs in;
  const std::vector<std::string> grid = {
      "--rope", "default", "dynamic:factor=2", "--lengths", "7,20,39", "--format", "jsonl"};
  std::vector<std::vector<std::string>> variants = {{"--threads", "1"}, {"--threads", "2"}};
  for (const char* isa : {"portable", "avx2", "avx512"}) variants.push_back({"--isa", isa});
  std::optional<std::string> rows, static_losses, dynamic_losses;
  int compared = 0;
  for (std::size_t i = 0; i < variants.size(); ++i) {
    std::vector<std::string> arguments = grid;
    arguments.insert(arguments.end(), variants[i].begin(), variants[i].end());
    arguments.insert(arguments.end(), {"--nll-out", "l.npy", "--out", "out" + std::to_string(i)});
    const Outcome run = in.run(arguments);
    INFO(variants[i][0], " ", variants[i][1], ": ", run.err);
    if (run.exit_code == 4) continue;  // not compiled in, or not for this machine
    REQUIRE(run.exit_code == 0);
    std::string text;
    for (const std::string& line : lines_of(run.out)) text += without_isa(line) + "\n";
    if (!rows) {
      rows = text;
      static_losses = file_content(in.folder / "l-0.npy");
      dynamic_losses = file_content(in.folder / "l-1.npy");
      continue;
    }
    CHECK(text == *rows);
    CHECK(file_content(in.folder / "l-0.npy") == *static_losses);
    CHECK(file_content(in.folder / "l-1.npy") == *dynamic_losses);
    ++compared;
  }
  CHECK(compared >= 2);  // threads, portable

  // A shorter length alone, in windows cut alike, gives the same row as the prefix of a longer one.
  const Outcome alone = in.run({"--rope", "default", "--lengths", "20", "--window-tokens", "40",
                                "--format", "csv", "--out", "alone"});
  const Outcome both = in.run({"--rope", "default", "--lengths", "39,20", "--window-tokens", "40",
                               "--format", "csv", "--out", "both"});
  CHECK(lines_of(alone.out).at(1) == lines_of(both.out).at(2));
}

TEST_CASE("cli/sweep: settings that share forward passes have the bits of their own runs") {
  const Inputs in;
  const std::vector<std::string> specs = {"default",
                                          "theta=5e5",
                                          "yarn:factor=4,logn_length=16",
                                          "dynamic:factor=2",
                                          "linear:factor=2,logit_scale=1.5",
                                          "linear:factor=2,partial_rotary_factor=0.5",
                                          "ntk:factor=8"};
  const auto rows = [&](const std::vector<std::string>& ropes, const std::string& out) {
    std::vector<std::string> arguments = {"--rope"};
    arguments.insert(arguments.end(), ropes.begin(), ropes.end());
    arguments.insert(arguments.end(),
                     {"--lengths", "7,20,39", "--protocol", "prefix,hf", "--format", "jsonl",
                      "--nll-out", out + ".npy", "--out", out});
    const Outcome run = in.run(arguments);
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    return rows_of(run.out);
  };
  const std::vector<JsonDocument> together = rows(specs, "together");
  REQUIRE(together.size() == 6 * specs.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    CAPTURE(specs[i]);
    const std::vector<JsonDocument> alone = rows({specs[i]}, "alone" + std::to_string(i));
    REQUIRE(alone.size() == 6);
    for (std::size_t r = 0; r < 6; ++r) {
      const JsonView a = alone[r].view(), b = together[6 * i + r].view();
      for (const char* key : {"nll", "nll_sum", "top1", "se", "last_quarter"}) {
        CHECK(a.at(key).as_number() == b.at(key).as_number());
      }
      CHECK(a.at("rope_hash").as_string() == b.at("rope_hash").as_string());
      CHECK(a.at("protocol").as_string() == b.at("protocol").as_string());
    }
    CHECK(file_content(in.folder / ("together-" + std::to_string(i) + ".npy")) ==
          file_content(in.folder / ("alone" + std::to_string(i) + ".npy")));
  }
}

TEST_CASE("cli/sweep: table, csv and jsonl carry the same numbers") {
  const Inputs in;
  const std::vector<std::string> grid = {"--rope", "theta={1e4,5e4}", "--lengths", "8,16"};
  const auto run = [&](const std::string& format) {
    std::vector<std::string> arguments = grid;
    arguments.insert(arguments.end(), {"--format=" + format, "--out", format});
    return in.run(arguments);
  };
  const Outcome jsonl = run("jsonl"), csv = run("csv"), table = run("table");
  REQUIRE(jsonl.exit_code == 0);
  const std::vector<JsonDocument> rows = rows_of(jsonl.out);
  REQUIRE(rows.size() == 4);
  const std::vector<std::string> csv_lines = lines_of(csv.out);
  REQUIRE(csv_lines.size() == 5);
  CHECK(csv_lines[0] ==
        "rope,rope_arg,length,windows,tokens,nll,ppl,top1,se,bpb,protocol,mode,rope_hash,nll_sum,"
        "word_ppl,last_quarter,delta_nll,delta_se,se_method,protocol_hash,floor,exact,status");
  const std::vector<std::string> table_lines = lines_of(table.out);
  REQUIRE(table_lines.size() == 3);
  CHECK(table_lines[0].find("16") != std::string::npos);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const JsonView r = rows[i].view();
    char number[40];
    std::snprintf(number, sizeof number, "%.17g", r.at("nll").as_number());
    CHECK(csv_lines[i + 1].find("," + std::string(number) + ",") != std::string::npos);
    std::snprintf(number, sizeof number, "%.4f", r.at("ppl").as_number());
    CHECK(table_lines[1 + i / 2].find(number) != std::string::npos);
    CHECK(
        r.at("nll_sum").as_number() ==
        doctest::Approx(r.at("nll").as_number() * static_cast<double>(r.at("tokens").as_integer()))
            .epsilon(1e-14));
    CHECK(r.at("ppl").as_number() == doctest::Approx(std::exp(r.at("nll").as_number())));
    CHECK(r.at("bpb").is_null());  // ids, not text
    CHECK(r.at("rope").as_string() ==
          (i < 2 ? "default:rope_theta=10000" : "default:rope_theta=50000"));
    CHECK(r.at("rope_arg").as_string() == (i < 2 ? "theta=1e4" : "theta=5e4"));
    for (const char* key :
         {"schema", "version", "git_revision", "compiler", "isa", "numerics_id", "dtype",
          "config_hash", "weights_hash", "data_hash", "seed", "build", "protocol_text"}) {
      CHECK(r.value().find(key) != nullptr);
    }
  }
  CHECK(table.err.find("results: table/results.jsonl") != std::string::npos);
  CHECK(table.err.find("next:") != std::string::npos);
  const Outcome quiet = in.run({"--lengths", "8", "--quiet"});
  CHECK(quiet.err.empty());
}

TEST_CASE("cli/sweep: bits per byte count the bytes of the text") {
  const TempDir folder;
  // 256 ids, so that raw bytes are a tokenizer of the model: every target is one byte.
  std::string bytes = tiny_checkpoint();
  const std::int32_t vocab = 256;
  std::memcpy(bytes.data() + 20, &vocab, 4);
  const std::string embedding = bytes.substr(28, 40 * 16 * 4);
  for (int copy = 0; copy < 5; ++copy) bytes.insert(28, embedding);
  bytes.insert(28, embedding.substr(0, 16 * 16 * 4));
  folder.write("model.bin", bytes);
  folder.write("a.txt", "Some words that are long enough.");
  folder.write("b.txt", "And others.");
  const Outcome run =
      run_program(folder, {"ppl", "--model", "model.bin", "--tokenizer", "bytes", "--text", "a.txt",
                           "b.txt", "--length", "20", "--format", "jsonl"});
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  const JsonDocument row = parse_json(run.out.substr(0, run.out.size() - 1), "row");
  CHECK(row.view().at("windows").as_integer() == 2);  // 43 bytes
  CHECK(row.view().at("bpb").as_number() ==
        doctest::Approx(row.view().at("nll").as_number() / std::log(2.0)).epsilon(1e-12));
}

TEST_CASE("cli/sweep: the wrong pair layout is visibly wrong") {
  const auto model = shared_data("stories260K/stories260K.bin");
  const auto text = shared_data("tinystories-text/tinystories_sample.txt");
  if (!model || !text) {
    MESSAGE("skipped: no stories260K");
    return;
  }
  const TempDir folder;
  const auto ppl = [&](const std::string& layout) {
    const Outcome run = run_program(
        folder, {"ppl", "--model", *model, "--tokenizer", *shared_data("stories260K/tok512.bin"),
                 "--text", *text, "--document-separator", "<|endoftext|>", "--length", "256",
                 "--windows", "8", "--pair-layout", layout, "--format", "jsonl"});
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    return parse_json(lines_of(run.out).at(0), "row").view().at("ppl").as_number();
  };
  CHECK(ppl("auto") < 7);
  CHECK(ppl("interleaved") < 7);
  CHECK(ppl("half_split") > 50);
}

TEST_CASE("cli/sweep: the same configuration resumes, another is refused and says why") {
  const Inputs in;
  const std::vector<std::string> first = {
      "--rope", "default", "ntk:factor=2", "--lengths", "8,16", "--format", "jsonl", "--out", "r"};
  const Outcome run = in.run(first);
  REQUIRE(run.exit_code == 0);
  const std::string results = file_content(in.folder / "r/results.jsonl");
  CHECK(lines_of(results).size() == 4);
  for (const std::string& line : lines_of(results)) CHECK(line.find("\"crc\":\"") > 0);

  const Outcome again = in.run(first);
  CHECK(again.exit_code == 0);
  CHECK(again.out == run.out);
  CHECK(file_content(in.folder / "r/results.jsonl") == results);

  // A torn last line: computed again, the rest kept.
  std::ofstream(in.folder / "r/results.jsonl", std::ios::binary)
      << results.substr(0, results.size() - 40);
  const Outcome repaired = in.run(first);
  INFO(repaired.err);
  CHECK(repaired.exit_code == 0);
  CHECK(repaired.out == run.out);
  CHECK(repaired.err.find("results.jsonl.torn-1") != std::string::npos);
  CHECK(file_content(in.folder / "r/results.jsonl") == results);

  const auto refused = [&](const std::vector<std::string>& more, const std::string& field) {
    std::vector<std::string> arguments = {"--out", "r", "--rope", "default"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome other = in.run(arguments);
    INFO(other.err);
    CHECK(other.exit_code == 6);
    CHECK(other.out.empty());
    CHECK(other.err.find(field) != std::string::npos);
    CHECK(file_content(in.folder / "r/results.jsonl") == results);
  };
  refused({"ntk:factor=3", "--lengths", "8,16"}, "rope (there [");
  refused({"ntk:factor=2", "--lengths", "8"}, "lengths (there [8,16], now [8])");
  refused({"ntk:factor=2", "--lengths", "8,16", "--windows", "3"}, "windows (there 23, now 3)");
  refused({"ntk:factor=2", "--lengths", "8,16", "--angles", "hf_float32"},
          "angles (there \"exact\", now \"hf_float32\")");
  refused({"ntk:factor=2", "--lengths", "8,16", "--seed", "5"}, "seed (there 0, now 5)");
  refused({"ntk:factor=2", "--lengths", "8,16", "--pair-layout", "half_split"},
          "pair_layout (there");
  in.folder.write("model.bin", tiny_checkpoint(0.2f));
  refused({"ntk:factor=2", "--lengths", "8,16"}, "weights_hash (there");
  in.folder.write("model.bin", tiny_checkpoint());
  in.folder.write("ids.u16", tiny_tokens(401).substr(2));
  refused({"ntk:factor=2", "--lengths", "8,16"}, "data_hash (there");
  in.folder.write("ids.u16", tiny_tokens(400));

  std::string damaged = results;
  damaged[10] ^= 1;
  std::ofstream(in.folder / "r/results.jsonl", std::ios::binary) << damaged;
  const Outcome corrupt = in.run(first);
  CHECK(corrupt.exit_code == 6);
  CHECK(corrupt.err.find("line 1") != std::string::npos);
  // Killed between the creation of its two files.
  std::filesystem::remove(in.folder / "r/manifest.json");
  in.folder.write("r/results.jsonl", "");
  CHECK(in.run(first).out == run.out);
  in.folder.write("r/manifest.json", "{\"configuration\":");
  const Outcome no_manifest = in.run(first);
  CHECK(no_manifest.exit_code == 6);
  CHECK(no_manifest.err.find("manifest.json") != std::string::npos);
}

TEST_CASE("cli/sweep: stopped or killed at any time, the same command ends with the same rows") {
  const Inputs in;
  const std::vector<std::string> grid = {
      "--rope",
      "theta={1e3,2e3,3e3,4e3,5e3,6e3,7e3,8e3,9e3,1e4,2e4,3e4,4e4,5e4,6e4,7e4,8e4,9e4}",
      "--lengths",
      "5,390",
      "--format",
      "jsonl"};
  const auto with_out = [&](const std::string& out) {
    std::vector<std::string> arguments = grid;
    arguments.insert(arguments.end(), {"--out", out});
    return in.sweep(arguments);
  };
  const Outcome whole = run_program(in.folder, with_out("whole"));
  REQUIRE(whole.exit_code == 0);
  struct Case {
    int signal;
    int exit_code;
  };
  for (const Case c : {Case{SIGINT, 130}, Case{SIGTERM, 143}, Case{SIGKILL, 128 + SIGKILL}}) {
    const std::string out = "signal" + std::to_string(c.signal);
    INFO(out);
    Program program(in.folder, with_out(out));
    const std::string results = in.folder / (out + "/results.jsonl");
    REQUIRE(wait_for_lines(results, 2));
    program.signal(c.signal);
    const Outcome stopped = program.wait();
    // On a busy machine the run may be over before the signal comes.
    CHECK((stopped.exit_code == c.exit_code || stopped.exit_code == 0));
    const Outcome resumed = run_program(in.folder, with_out(out));
    INFO(resumed.err);
    CHECK(resumed.exit_code == 0);
    CHECK(resumed.out == whole.out);
    CHECK(lines_of(file_content(results)).size() == 36);
  }
}

TEST_CASE("cli/sweep: a folder that another process writes to is refused") {
  const Inputs in;
  std::vector<std::string> grid = {"--rope"};
  for (int i = 1; i <= 60; ++i) grid.push_back("theta=" + std::to_string(1000 * i));
  grid.insert(grid.end(), {"--lengths", "390", "--out", "r"});
  Program holder(in.folder, in.sweep(grid));
  REQUIRE(wait_for_lines(in.folder / "r/results.jsonl", 1));
  holder.signal(SIGSTOP);  // in the middle: it cannot end while the second one tries
  REQUIRE(lines_of(file_content(in.folder / "r/results.jsonl")).size() < 60);
  const Outcome second = in.run(grid);
  holder.signal(SIGCONT);
  const Outcome first = holder.wait();
  CHECK(first.exit_code == 0);
  CHECK(second.exit_code == 6);
  CHECK(second.out.empty());
  CHECK(second.err.find("held by process") != std::string::npos);
}

TEST_CASE("cli/sweep: losses that are not finite are recorded, and the exit code says so") {
  const TempDir folder;
  std::string checkpoint = tiny_checkpoint();
  for (std::size_t i = 1440; i < 2592; ++i) {  // the feed-forward weights: their product overflows
    float weight = 0;
    std::memcpy(&weight, checkpoint.data() + 28 + 4 * i, 4);
    weight *= 1e30f;
    std::memcpy(checkpoint.data() + 28 + 4 * i, &weight, 4);
  }
  folder.write("model.bin", checkpoint);
  folder.write("ids.u16", tiny_tokens(100));
  const std::vector<std::string> inputs = {"--model", "model.bin", "--tokens",
                                           "ids.u16", "--lengths", "8"};
  std::vector<std::string> arguments = {"sweep", "--format", "jsonl", "--out", "r"};
  arguments.insert(arguments.end(), inputs.begin(), inputs.end());
  for (int round = 0; round < 2; ++round) {  // computed, then resumed
    const Outcome sweep = run_program(folder, arguments);
    INFO(sweep.err);
    CHECK(sweep.exit_code == 1);
    const JsonDocument row = parse_json(lines_of(sweep.out).at(0), "row");
    CHECK(row.view().at("status").as_string() == "nonfinite");
    CHECK(row.view().at("nll").is_null());
    CHECK(row.view().at("nonfinite_window").as_integer() == 0);
  }
  arguments = {"ppl"};
  arguments.insert(arguments.end(), inputs.begin(), inputs.end());
  const Outcome ppl = run_program(folder, arguments);
  CHECK(ppl.exit_code == 8);
  CHECK(ppl.out.empty());
}

TEST_CASE("cli/sweep: several protocols in one command give the rows of each alone") {
  const Inputs in(700);
  const std::vector<std::string> settings = {"--rope",       "default",   "dynamic:factor=2",
                                             "ntk:factor=4", "--lengths", "16,40",
                                             "--format",     "jsonl"};
  const auto run = [&](const std::string& protocols, const std::string& stride) {
    std::vector<std::string> arguments = settings;
    arguments.insert(arguments.end(), {"--protocol", protocols, "--out", "out-" + protocols});
    if (!stride.empty()) arguments.insert(arguments.end(), {"--stride", stride});
    const Outcome outcome = in.run(arguments);
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return rows_of(outcome.out);
  };
  const auto results = [](const JsonDocument& row) {
    std::string text;
    for (const char* key :
         {"rope", "length", "windows", "tokens", "nll", "ppl", "top1", "se", "last_quarter",
          "delta_nll", "delta_se", "protocol", "protocol_hash", "mode", "rope_hash", "status"}) {
      const JsonView v = row.view().at(key);
      char number[40] = "null";
      if (v.value().if_number() != nullptr) std::snprintf(number, 40, "%.17g", v.as_number());
      text += std::string(key) + "=" +
              (v.value().if_string() != nullptr ? v.as_string() : std::string(number)) + " ";
    }
    return text;
  };
  const std::vector<std::string> names = {"prefix", "hf", "llamacpp", "longlora"};
  const std::vector<JsonDocument> together = run("prefix,hf,llamacpp,longlora", "8");
  REQUIRE(together.size() == 3 * 4 * 2);
  for (std::size_t p = 0; p < names.size(); ++p) {
    const bool strided = names[p] == "hf" || names[p] == "longlora";
    const std::vector<JsonDocument> alone = run(names[p], strided ? "8" : "");
    REQUIRE(alone.size() == 6);
    for (std::size_t i = 0; i < 6; ++i) {
      const JsonDocument& row = together[i / 2 * 8 + 2 * p + i % 2];
      CHECK(results(row) == results(alone[i]));
      CHECK(row.view().at("protocol").as_string() == names[p]);
      CHECK(row.view().at("delta_nll").is_null() == (i < 2));
      CHECK(row.view().at("delta_se").is_null() == (i < 2));
      if (i < 2 || names[p] != "prefix") continue;
      // Pairing changes the error, not the difference.
      const double difference =
          row.view().at("nll").as_number() - together[i % 2].view().at("nll").as_number();
      CHECK(row.view().at("delta_nll").as_number() == doctest::Approx(difference).epsilon(1e-9));
    }
  }
  CHECK(in.run({"--lengths", "8", "--stride", "4"}).exit_code == 2);
  CHECK(in.run({"--lengths", "8", "--protocol", "hf", "--nll-out", "l.npy"}).exit_code == 2);
  CHECK(in.run({"--lengths", "8", "--protocol", "hf,hf"}).exit_code == 2);
  const Outcome press = in.run({"--lengths", "8", "--protocol", "press"});
  CHECK(press.exit_code == 2);  // ids without a tokenizer name no BOS
  CHECK(press.err.find("prefix_id") != std::string::npos);
}

TEST_CASE("cli/sweep: without a model it is the embedded one on its language, with the floor") {
  const TempDir folder;
  const Outcome sweep = run_program(folder, {"sweep", "--windows", "2", "--lengths", "64,256"});
  INFO(sweep.err);
  REQUIRE(sweep.exit_code == 0);
  const std::vector<std::string> lines = lines_of(sweep.out);
  REQUIRE(lines.size() == 13);  // eleven settings, a head and the floor
  CHECK(lines[1].starts_with("default "));
  CHECK(lines.back().starts_with("(floor) "));
  CHECK(sweep.err.find("next: ropewalk sweep --model") != std::string::npos);
  const Outcome rows =
      run_program(folder, {"sweep", "--windows", "2", "--lengths", "64,256", "--rope", "default",
                           "linear:factor=16", "--format", "jsonl", "--quiet"});
  REQUIRE(rows.exit_code == 0);
  double of_default = 0;
  for (const JsonDocument& row : rows_of(rows.out)) {
    const double nll = row.view().at("nll").as_number(), floor = row.view().at("floor").as_number();
    CHECK(floor > 2);
    CHECK(nll > floor);  // by more than chance: some 0.1 nats
    if (row.view().at("rope_arg").as_string() == "default") of_default = nll;
  }
  CHECK(of_default < 3.3);  // it has learnt: ln 256 is 5.5
}
