// SPDX-License-Identifier: Apache-2.0
#include "train_plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/core/text_match.hpp"
#include "ropewalk/io/json.hpp"

namespace cli {

namespace {

constexpr double default_peak = 1e-3;

Decay parse_decay(const std::string& name) {
  return name == "constant" ? Decay::constant : name == "wsd" ? Decay::stable : Decay::cosine;
}

const char* decay_name(Decay decay) {
  return decay == Decay::constant ? "constant" : decay == Decay::stable ? "wsd" : "cosine";
}

std::string source_names() {
  std::string names;
  for (const TrainSource& s : train_sources) {
    names += (names.empty() ? "" : ", ") + std::string(s.name);
  }
  return names;
}

MixturePart read_part(const JsonView& v);

/// Members of a stage's object, each of which must be known.
void refuse_unknown_keys(const JsonView& stage, const std::vector<std::string_view>& known) {
  for (const std::string& key : stage.as_object().keys) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest(key, known);
    fail({.kind = ErrorClass::config,
          .file = stage.file(),
          .where = stage.pointer(),
          .field = key,
          .found = "a member that is not known",
          .expected = fmt::format("{}", fmt::join(known, ", ")),
          .fix = near.empty() ? "" : "Did you mean " + near + "?"});
  }
}

void read_stage(const JsonView& v, TrainStage& stage) {
  refuse_unknown_keys(
      v, {"rope",           "length",          "batch_tokens",    "tokens",      "lr",
          "lr_end",         "warmup",          "decay",           "decay_share", "mixture",
          "mask_documents", "reset_positions", "epochs",          "window_from", "window_share",
          "positions",      "position_range",  "position_chunks", "optimizer",   "weight_decay",
          "beta1",          "beta2",           "max_grad_norm"});
  const auto size = [&](const char* key, auto& out) {
    const auto found = v.find(key);
    if (!found) return;
    const std::string* text = found->value().if_string();
    std::optional<std::int64_t> number;
    if (text == nullptr) {
      number = found->as_integer();
    } else {
      number = parse_size(*text);
    }
    if (!number || *number < 1) found->refuse("a count of at least 1, such as 8192 or \"8K\"");
    out = *number;
  };
  const auto real = [&](const char* key, double& out) {
    if (const auto found = v.find(key)) out = found->as_number();
  };
  const auto flag = [&](const char* key, bool& out) {
    if (const auto found = v.find(key)) out = found->as_bool();
  };
  const auto choice = [&](const char* key, const std::vector<std::string>& choices) {
    const auto found = v.find(key);
    if (!found) return std::string();
    const std::string text = found->as_string();
    if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
      found->refuse(fmt::format("{}", fmt::join(choices, " or ")).c_str());
    }
    return text;
  };
  if (const auto rope = v.find("rope")) stage.rope = rope->as_string();
  size("length", stage.length);
  size("batch_tokens", stage.batch_tokens);
  size("tokens", stage.tokens);
  size("epochs", stage.epochs);
  if (stage.epochs > 0 && v.find("tokens")) v.at("tokens").refuse("either tokens or epochs");
  size("window_from", stage.windows.from);
  size("position_range", stage.position_range);
  size("position_chunks", stage.position_chunks);
  const double peak = stage.schedule.peak;
  real("lr", stage.schedule.peak);
  stage.schedule.end *= stage.schedule.peak / peak;
  real("lr_end", stage.schedule.end);
  real("warmup", stage.schedule.warmup);
  real("decay_share", stage.schedule.decay_share);
  real("window_share", stage.windows.share);
  real("weight_decay", stage.optimizer.weight_decay);
  real("beta1", stage.optimizer.beta1);
  real("beta2", stage.optimizer.beta2);
  real("max_grad_norm", stage.optimizer.max_grad_norm);
  flag("mask_documents", stage.mask_documents);
  flag("reset_positions", stage.reset_positions);
  const std::string decay = choice("decay", {"constant", "cosine", "wsd"});
  if (!decay.empty()) stage.schedule.decay = parse_decay(decay);
  const std::string positions = choice("positions", {"plain", "pose", "randpos"});
  if (!positions.empty()) stage.positions = positions;
  const std::string optimizer = choice("optimizer", {"keep", "fresh"});
  if (!optimizer.empty()) stage.fresh_optimizer = optimizer == "fresh";
  if (const auto mixture = v.find("mixture")) {
    stage.mixture.clear();
    for (const JsonView& part : mixture->elements()) stage.mixture.push_back(read_part(part));
    if (stage.mixture.empty()) mixture->refuse("at least one part");
  }
}

MixturePart read_part(const JsonView& v) {
  refuse_unknown_keys(v, {"source", "share", "loss", "text", "prompt_weight"});
  MixturePart p{.source = v.at("source").as_string()};
  const bool known = std::any_of(std::begin(train_sources), std::end(train_sources),
                                 [&](const TrainSource& s) { return s.name == p.source; });
  if (!known) {
    std::vector<std::string_view> names;
    for (const TrainSource& source : train_sources) names.push_back(source.name);
    const std::string near = nearest(p.source, names);
    v.at("source").refuse(
        (source_names() + (near.empty() ? "" : " (did you mean " + near + "?)")).c_str());
  }
  const TrainSource& source = train_source(p.source);
  if (const auto share = v.find("share")) p.share = share->as_number();
  if (!(p.share > 0)) v.at("share").refuse("a share above 0");
  p.loss = source.has_answers && p.source != "synthetic" ? "answers" : "all";
  if (const auto loss = v.find("loss")) {
    p.loss = loss->as_string();
    if (p.loss != "all" && (p.loss != "answers" || !source.has_answers)) {
      loss->refuse(source.has_answers ? "all or answers" : "all: this source has no answers");
    }
  }
  if (const auto text = v.find("text")) {
    if (!source.reads_text) text->refuse("no text: this source reads none");
    for (const JsonView& file : text->elements()) p.texts.push_back(file.as_string());
  }
  if (p.source == "instructions" && p.texts.empty()) {
    v.refuse("a list of files of JSON lines under \"text\", each line a prompt and a response");
  }
  if (const auto weight = v.find("prompt_weight")) {
    p.prompt_weight = weight->as_number();
    if (p.source != "instructions") weight->refuse("no prompt_weight but for instructions");
    if (!(p.prompt_weight >= 0 && p.prompt_weight <= 1)) weight->refuse("a weight of 0 to 1");
  }
  return p;
}

/// Checks a stage; `file` is that of --stages, or empty. \throws Error(usage | config)
void check_stage(const TrainStage& stage, const std::string& file, std::size_t number) {
  const bool from_file = !file.empty();
  // Members of a stage are options of the same name.
  const auto refuse = [&](const std::string& member, const std::string& found,
                          const std::string& expected) {
    std::string option = "--" + member;
    std::replace(option.begin(), option.end(), '_', '-');
    fail({.kind = from_file ? ErrorClass::config : ErrorClass::usage,
          .file = file,
          .where = from_file ? fmt::format("stage {}", number) : "",
          .field = from_file ? member : option,
          .found = found,
          .expected = expected});
  };
  const auto in_range = [&](const char* member, double value, double least, double most,
                            const char* expected) {
    if (!(value >= least && value <= most)) refuse(member, number_text(value), expected);
  };
  const auto at_most = [&](const char* member, std::int64_t value, std::int64_t most,
                           const char* expected) {
    if (value > most) refuse(member, std::to_string(value), expected);
  };
  constexpr double any = std::numeric_limits<double>::max();
  const double least = std::numeric_limits<double>::min();
  at_most("length", stage.length, std::int64_t{1} << 20, "at most 1M");
  at_most("batch_tokens", stage.batch_tokens, std::int64_t{1} << 28, "at most 256M");
  at_most("position_range", stage.position_range, std::int64_t{1} << 24, "at most 16M");
  if (stage.batch_tokens < stage.length) {
    refuse("batch_tokens", std::to_string(stage.batch_tokens),
           fmt::format("at least the length, {}", stage.length));
  }
  if (stage.positions == "plain" && stage.position_range != 0) {
    refuse("position_range", std::to_string(stage.position_range), "positions pose or randpos");
  }
  if (stage.positions != "plain" && stage.position_range < stage.length) {
    refuse("position_range",
           stage.position_range == 0 ? "nothing" : std::to_string(stage.position_range),
           fmt::format("at least the length, {}, for positions {}", stage.length, stage.positions));
  }
  if (stage.windows.from > stage.length) {
    refuse("window_from", std::to_string(stage.windows.from),
           fmt::format("at most the length, {}", stage.length));
  }
  in_range("window_share", stage.windows.share, least, 1,
           "a share of the steps above 0, at most 1");
  in_range("lr", stage.schedule.peak, least, any, "a number above 0");
  in_range("lr_end", stage.schedule.end, 0, stage.schedule.peak, "0 to lr");
  in_range("warmup", stage.schedule.warmup, 0, 1, "a share of the steps of 0 to 1");
  in_range("decay_share", stage.schedule.decay_share, 0, 1, "a share of the steps of 0 to 1");
  in_range("weight_decay", stage.optimizer.weight_decay, 0, any, "at least 0");
  in_range("beta1", stage.optimizer.beta1, 0, 1 - 0x1p-53, "0 to below 1");
  in_range("beta2", stage.optimizer.beta2, 0, 1 - 0x1p-53, "0 to below 1");
  in_range("max_grad_norm", stage.optimizer.max_grad_norm, 0, any,
           "a norm above 0, or 0 for no clipping");
  // The library's own rules, of which those above speak in the words of options.
  stage.windows.check(stage.length);
  stage.schedule.check();
  stage.optimizer.check();
}

/// Says which options have no effect since every stage has a value of its own.
void remark_overridden(const TrainOptions& o, const JsonView& stages) {
  struct Place {
    const char* option;
    bool given;
    std::vector<const char*> members;  // all that it is a default of
  };
  for (const Place& place : {Place{"--rope", !o.rope.empty(), {"rope"}},
                             Place{"--length", o.length.has_value(), {"length", "batch_tokens"}},
                             Place{"--batch-tokens", o.batch_tokens.has_value(), {"batch_tokens"}},
                             Place{"--tokens", o.tokens.has_value(), {"tokens"}},
                             Place{"--lr", !std::isnan(o.learning_rate), {"lr", "lr_end"}},
                             Place{"--lr-end", !std::isnan(o.learning_rate_end), {"lr_end"}},
                             Place{"--warmup", !std::isnan(o.warmup), {"warmup"}},
                             Place{"--decay", !o.decay.empty(), {"decay"}}}) {
    const std::vector<JsonView> all = stages.elements();
    const bool overridden = std::all_of(all.begin(), all.end(), [&](const JsonView& stage) {
      return std::all_of(place.members.begin(), place.members.end(),
                         [&](const char* member) { return stage.find(member).has_value(); });
    });
    if (place.given && overridden) {
      remark(o.quiet, fmt::format("note: {} has no effect: every stage of {} has its own {}",
                                  place.option, o.stages, fmt::join(place.members, " and ")));
    }
  }
}

}  // namespace

void add_train_options(Options& options, TrainOptions& out) {
  options.choice("--preset", {"nano", "micro", "mini"}, out.preset,
                 "Start from random weights of this shape");
  options.text("--init", "PATH", out.init, "Start from a checkpoint instead, or from `embedded`");
  options.choice("--optimizer", {"keep", "fresh"}, out.optimizer,
                 "Running means that --init was trained with, where it has them");
  options.text("--rope", "SPEC", out.rope, "Frequencies to train with [those of the model]");
  options.text("--stages", "FILE", out.stages,
               "JSON list of stages, run in order: docs/formats.md");
  options.texts("--text", "FILE", out.texts, "Texts, UTF-8 [the synthetic language]");
  options.text("--tokenizer", "FILE", out.tokenizer, "Of the texts [that of --init, else bytes]");
  options.text("--document-separator", "STRING", out.document_separator,
               "Cut texts into documents here and strip each");
  options.choice("--bos", {"auto", "yes", "no"}, out.bos, "BOS before each document");
  options.size("--length", 2, out.length, "Tokens of a sequence [trained length of the model]");
  options.size("--batch-tokens", 2, out.batch_tokens, "Tokens of a step [8192]");
  options.size("--tokens", 1, out.tokens,
               "Tokens to train on, rounded up to whole steps [nano 6M, others 32M; --init 600K]");
  options.real("--lr", out.learning_rate, "Peak learning rate [1e-3, with --init 2e-4]");
  options.real("--lr-end", out.learning_rate_end, "Learning rate at the end [a tenth of --lr]");
  options.real("--warmup", out.warmup, "Share of the steps with a rising rate [0.05]");
  options.choice("--decay", {"constant", "cosine", "wsd"}, out.decay,
                 "After it [cosine, with --init constant]");
  options.sizes("--validate-lengths", out.validation_lengths,
                "Losses at these lengths meanwhile, of text that is not trained on");
  options.texts("--validate-text", "FILE", out.validation_texts,
                "That text [the synthetic language's validation documents]");
  options.size("--validate-every", 1, out.validate_every, "Steps between validations [100]");
  options.size("--validate-windows", 1, out.validation_windows, "Windows to validate on [8]");
  options.size("--checkpoint-every", 1, out.checkpoint_every, "Steps between checkpoints [100]");
  options.size("--log-every", 1, out.log_every, "Steps between rows [10]");
  options.size("--tokens-at-once", 1, out.tokens_at_once,
               "Tokens of a step that are in memory together; results do not depend on it [as many "
               "as take 128 MiB, at least 1024; with --recompute 1024]");
  options.flag("--recompute", out.recompute, "Compute activations twice rather than keep them");
  options.choice("--dtype", {"f32", "bf16"}, out.dtype,
                 "What operands of products are rounded to; weights stay float");
  options.size("--threads", 1, out.threads, "Threads; results do not depend on them [all]");
  options.choice("--isa", isa_choices(), out.isa, "Instruction set; results do not depend on it");
  options.natural("--seed", out.seed, "Seed of weights, order and synthetic documents [0]");
  options.text("--out", "DIR", out.out, "Folder of the run: a checkpoint that others open");
  options.choice("--format", {"table", "csv", "jsonl"}, out.format, "Form of the rows");
  options.flag("--quiet", out.quiet, "No progress, remarks and hints on stderr");
}

TrainPreset train_preset(const std::string& name) {
  const auto shape = [](index_t hidden, index_t layers, index_t heads, index_t head_dim,
                        index_t intermediate, std::int64_t length) {
    return LlamaConfig{.hidden_size = hidden,
                       .intermediate_size = intermediate,
                       .num_hidden_layers = layers,
                       .num_attention_heads = heads,
                       .num_key_value_heads = heads,
                       .head_dim = head_dim,
                       .vocab_size = 256,
                       .max_position_embeddings = length};
  };
  if (name == "nano") return {shape(128, 4, 4, 32, 344, 256), 6'000'000};
  if (name == "micro") return {shape(256, 6, 4, 64, 688, 512), 32'000'000};
  if (name == "mini") return {shape(384, 6, 6, 64, 1024, 512), 32'000'000};
  fail_usage("--preset", escaped(name), "nano, micro or mini");
}

std::vector<TrainStage> train_stages(const TrainOptions& options, std::int64_t default_tokens,
                                     std::int64_t trained_length) {
  const bool continues = !options.init.empty();
  TrainStage base;
  base.length = options.length.value_or(trained_length);
  base.batch_tokens = options.batch_tokens.value_or(std::max<index_t>(8192, base.length));
  base.tokens = options.tokens.value_or(default_tokens);
  if (!options.rope.empty()) base.rope = options.rope;
  const auto given = [](double value, double otherwise) {
    return std::isnan(value) ? otherwise : value;
  };
  base.schedule.peak = given(options.learning_rate, continues ? default_peak / 5 : default_peak);
  base.schedule.end = given(options.learning_rate_end, base.schedule.peak / 10);
  base.schedule.warmup = given(options.warmup, base.schedule.warmup);
  base.schedule.decay = !options.decay.empty() ? parse_decay(options.decay)
                        : continues            ? Decay::constant
                                               : Decay::cosine;
  base.mixture = {{.source = options.texts.empty() ? "synthetic" : "text", .loss = "all"}};
  base.fresh_optimizer = options.optimizer == "fresh";
  std::vector<TrainStage> stages = {base};
  if (!options.stages.empty()) {
    stages.clear();
    const JsonDocument document = read_json(FileSource(options.stages));
    for (const JsonView& v : document.view().elements()) {
      TrainStage stage = base;
      stage.fresh_optimizer = base.fresh_optimizer && stages.empty();
      read_stage(v, stage);
      stages.push_back(std::move(stage));
    }
    if (stages.empty()) document.view().refuse("at least one stage");
    remark_overridden(options, document.view());
  }
  for (std::size_t i = 0; i < stages.size(); ++i) {
    for (MixturePart& part : stages[i].mixture) {
      if (part.texts.empty() && train_source(part.source).reads_text) part.texts = options.texts;
    }
    check_stage(stages[i], options.stages, i);
  }
  return stages;
}

const TrainSource& train_source(std::string_view name) {
  return *std::find_if(std::begin(train_sources), std::end(train_sources),
                       [&](const TrainSource& s) { return s.name == name; });
}

std::string describe(const TrainStage& s) {
  std::string mixture;
  for (const MixturePart& p : s.mixture) {
    mixture += (mixture.empty() ? "" : "+") + p.source + "*" + number_text(p.share);
    if (p.loss != "all") mixture += ":" + p.loss;
    if (p.source == "instructions") mixture += ":prompt_weight=" + number_text(p.prompt_weight);
  }
  std::string extras;  // what a plain stage has not
  if (s.epochs > 0) extras += fmt::format(" epochs={}", s.epochs);
  if (s.windows.from > 0) {
    extras += fmt::format(" window_from={} window_share={}", s.windows.from,
                          number_text(s.windows.share));
  }
  if (s.positions != "plain") {
    extras += fmt::format(" positions={} position_range={} position_chunks={}", s.positions,
                          s.position_range, s.position_chunks);
  }
  return fmt::format(
      "rope={} length={} batch_tokens={} tokens={} lr={} lr_end={} warmup={} decay={} "
      "decay_share={} mixture={} mask_documents={} reset_positions={} optimizer={} "
      "weight_decay={} beta1={} beta2={} eps={} max_grad_norm={}{}",
      s.rope, s.length, s.batch_tokens, s.tokens, number_text(s.schedule.peak),
      number_text(s.schedule.end), number_text(s.schedule.warmup), decay_name(s.schedule.decay),
      number_text(s.schedule.decay_share), mixture, s.mask_documents, s.reset_positions,
      s.fresh_optimizer ? "fresh" : "keep", number_text(s.optimizer.weight_decay),
      number_text(s.optimizer.beta1), number_text(s.optimizer.beta2), number_text(s.optimizer.eps),
      number_text(s.optimizer.max_grad_norm), extras);
}

}  // namespace cli
