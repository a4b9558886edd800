// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/eval/summary.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "double_scorer.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

using Ids = std::vector<TokenId>;
constexpr TokenId bos = 1;

/// What a peer's loop ends with.
struct PeerResult {
  double ppl = 0;
  std::int64_t scored = 0;
};

Ids slice(const Ids& x, std::ptrdiff_t begin, std::ptrdiff_t end) {
  return {x.begin() + begin, x.begin() + end};
}
Ids operator+(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
std::ptrdiff_t size(const Ids& x) { return static_cast<std::ptrdiff_t>(x.size()); }
Ids join(const std::vector<Ids>& documents) {
  Ids out;
  for (const Ids& x : documents) out = out + x;
  return out;
}

/// transformers' loss: labels shifted by one, mean over those that are not masked (-1 here).
struct MeanLoss {
  double loss = 0;
  std::int64_t labels = 0;  ///< not masked, before the shift
  std::int64_t scored = 0;
};
MeanLoss mean_loss(DoubleScorer& model, const Ids& ids, Ids labels, std::ptrdiff_t target_length) {
  for (std::ptrdiff_t t = 0; t < size(labels) - target_length; ++t) {
    labels[static_cast<std::size_t>(t)] = not_scored;
  }
  Ids next = slice(labels, 1, size(labels));
  next.push_back(not_scored);
  const std::vector<double> nll = model.losses(ids, next);
  MeanLoss out;
  for (const TokenId label : labels) out.labels += label != not_scored;
  for (std::size_t t = 0; t < nll.size(); ++t) {
    if (next[t] == not_scored) continue;
    out.loss += nll[t];
    ++out.scored;
  }
  out.loss /= static_cast<double>(out.scored);
  return out;
}

// --- the peers' loops, one after the other -------------------------------------------------------

PeerResult peer_prefix(DoubleScorer& model, const std::vector<Ids>& documents, std::ptrdiff_t L) {
  const Ids x = join(documents);
  double sum = 0;
  std::int64_t count = 0;
  for (std::ptrdiff_t at = 0; at + L + 1 <= size(x); at += L + 1) {
    for (const double nll : model.losses(slice(x, at, at + L), slice(x, at + 1, at + L + 1))) {
      sum += nll;
      ++count;
    }
  }
  return {std::exp(sum / static_cast<double>(count)), count};
}

/// fairseq's TokenBlockDataset (break mode none, source = target shifted, EOS first) in batches of
/// one through LMContextWindowDataset; SequenceScorer sums from start_indices on.
PeerResult peer_press(DoubleScorer& model, const std::vector<Ids>& documents, std::ptrdiff_t L,
                      std::ptrdiff_t S) {
  const Ids x = join(documents);
  const std::ptrdiff_t context_window = L - S, tokens_per_sample = S;
  const std::ptrdiff_t max_sample_len = tokens_per_sample + context_window;
  double score_sum = 0;
  std::int64_t count = 0;
  Ids prev_tokens;
  for (std::ptrdiff_t s = 0; s < size(x); s += tokens_per_sample) {
    const std::ptrdiff_t e = std::min(s + tokens_per_sample, size(x));
    const Ids target = slice(x, s, e);
    const Ids source = s == 0 ? Ids{bos} + slice(x, 0, e - 1) : slice(x, s - 1, e - 1);
    const std::ptrdiff_t extra = size(prev_tokens) + size(source) - max_sample_len;
    if (extra > 0) prev_tokens = slice(prev_tokens, extra, size(prev_tokens));
    const Ids fed = prev_tokens + source;
    const auto nll = model.losses(fed, Ids(prev_tokens.size(), not_scored) + target);
    for (std::size_t t = prev_tokens.size(); t < nll.size(); ++t) {
      score_sum -= nll[t];
      ++count;
    }
    prev_tokens = slice(fed, std::max<std::ptrdiff_t>(0, size(fed) - context_window), size(fed));
  }
  const double loss_base_2 = -score_sum / static_cast<double>(count) / std::log(2.0);
  return {std::exp2(loss_base_2), count};
}

PeerResult peer_hf(DoubleScorer& model, const std::vector<Ids>& documents,
                   std::ptrdiff_t max_length, std::ptrdiff_t stride) {
  const Ids x = join(documents);
  double nll_sum = 0;
  std::int64_t n_tokens = 0, scored = 0;
  std::ptrdiff_t prev_end = 0;
  for (std::ptrdiff_t begin = 0; begin < size(x); begin += stride) {
    const std::ptrdiff_t end = std::min(begin + max_length, size(x));
    const Ids input = slice(x, begin, end);
    if (input.size() > 1) {  // the page's own loop gives NaN for a window of one token
      const MeanLoss m = mean_loss(model, input, input, end - prev_end);
      nll_sum += m.loss * static_cast<double>(m.labels - 1);
      n_tokens += m.labels - 1;
      scored += m.scored;
    }
    prev_end = end;
    if (end == size(x)) break;
  }
  return {std::exp(nll_sum / static_cast<double>(n_tokens)), scored};
}

PeerResult peer_yarn(DoubleScorer& model, const std::vector<Ids>& documents,
                     std::ptrdiff_t max_length, std::ptrdiff_t sliding_window, bool truncate,
                     bool add_start_token) {
  const std::ptrdiff_t max_tokenized_len = max_length - (add_start_token ? 1 : 0);
  std::vector<double> nlls;
  std::int64_t scored = 0;
  for (Ids x : documents) {
    if (truncate) {
      if (size(x) < max_length) continue;  // --dataset-min-tokens
      x = slice(x, 0, max_tokenized_len);
      sliding_window = max_tokenized_len;
    }
    std::ptrdiff_t prev_end = 0;
    for (std::ptrdiff_t begin = 0; begin < size(x); begin += sliding_window) {
      const std::ptrdiff_t end = std::min(begin + max_tokenized_len, size(x));
      const Ids input = (add_start_token ? Ids{bos} : Ids{}) + slice(x, begin, end);
      if (input.size() > 1) {
        const MeanLoss m = mean_loss(model, input, input, end - prev_end);
        nlls.push_back(m.loss);
        scored += m.scored;
      }
      prev_end = end;
      if (end == size(x)) break;
    }
  }
  const double sum = std::accumulate(nlls.begin(), nlls.end(), 0.0);
  return {std::exp(sum / static_cast<double>(nlls.size())), scored};
}

PeerResult peer_longlora(DoubleScorer& model, const std::vector<Ids>& documents,
                         std::ptrdiff_t seq_length, std::ptrdiff_t sliding_window,
                         std::size_t batch_size) {
  const Ids data = join(documents);
  std::vector<std::ptrdiff_t> all_ix;
  for (std::ptrdiff_t i = 0; i < size(data) - seq_length; i += sliding_window) all_ix.push_back(i);
  all_ix.pop_back();
  std::vector<double> batch_losses;
  std::int64_t scored = 0;
  for (std::size_t at = 0; at < all_ix.size(); at += batch_size) {
    double sum = 0;
    std::int64_t count = 0;
    for (std::size_t i = at; i < std::min(at + batch_size, all_ix.size()); ++i) {
      const Ids input = slice(data, all_ix[i], all_ix[i] + seq_length);
      const MeanLoss m = mean_loss(model, input, input, seq_length);
      sum += m.loss * static_cast<double>(m.scored);
      count += m.scored;
    }
    batch_losses.push_back(sum / static_cast<double>(count));
    scored += count;
  }
  const double loss = std::accumulate(batch_losses.begin(), batch_losses.end(), 0.0) /
                      static_cast<double>(batch_losses.size());
  return {std::pow(2.71828, loss), scored};
}

PeerResult peer_llamacpp(DoubleScorer& model, const std::vector<Ids>& documents, int n_ctx,
                         bool add_bos) {
  const Ids tokens = (add_bos ? Ids{bos} : Ids{}) + join(documents);
  REQUIRE(static_cast<int>(tokens.size()) >= 2 * n_ctx);
  const int n_chunk = static_cast<int>(tokens.size()) / n_ctx, first = n_ctx / 2;
  double nll = 0;
  int count = 0;
  for (int i = 0; i < n_chunk; ++i) {
    Ids fed = slice(tokens, i * n_ctx, (i + 1) * n_ctx);
    Ids next = slice(fed, 1, n_ctx) + Ids{not_scored};
    if (add_bos) fed[0] = bos;
    const auto losses = model.losses(fed, next);
    for (int j = first; j < n_ctx - 1; ++j) nll += losses[static_cast<std::size_t>(j)];
    count += n_ctx - first - 1;
  }
  return {std::exp(nll / count), count};
}

PeerResult peer_llamacpp_stride(DoubleScorer& model, const std::vector<Ids>& documents, int n_ctx,
                                int ppl_stride) {
  n_ctx += ppl_stride / 2;
  const Ids tokens = Ids{bos} + join(documents);
  REQUIRE(static_cast<int>(tokens.size()) >= 2 * n_ctx);
  const int n_chunk = (static_cast<int>(tokens.size()) - n_ctx + ppl_stride - 1) / ppl_stride;
  double nll = 0;
  int count = 0;
  for (int i = 0; i < n_chunk; ++i) {
    const int start = i * ppl_stride;
    // BOS is written into the array after the batch was decoded, and taken out again: no effect.
    const Ids fed = slice(tokens, start, start + n_ctx);
    const auto losses = model.losses(fed, slice(fed, 1, n_ctx) + Ids{not_scored});
    for (int j = n_ctx - ppl_stride - 1; j < n_ctx - 1; ++j) {
      nll += losses[static_cast<std::size_t>(j)];
      ++count;
    }
  }
  return {std::exp(nll / count), count};
}

struct Rolling {
  PeerResult token;
  double word_ppl = 0, bits_per_byte = 0;
};
/// get_rolling_token_windows (context_len 1), make_disjoint_window, and the scoring of context +
/// continuation, whose last token is not fed.
Rolling peer_lmeval(DoubleScorer& model, const std::vector<Ids>& documents,
                    std::ptrdiff_t max_seq_len, std::int64_t words, std::int64_t bytes) {
  double total = 0;
  std::int64_t count = 0;
  const auto score = [&](const Ids& a, const Ids& b) {
    const Ids context = slice(a, 0, size(a) - (size(b) - 1));
    const Ids whole = context + b;
    const Ids fed = slice(whole, 0, size(whole) - 1);
    const auto nll = model.losses(fed, slice(whole, 1, size(whole)));
    for (std::size_t t = context.size() - 1; t < nll.size(); ++t) total += nll[t];
    count += size(b);
  };
  for (const Ids& tokens : documents) {
    const std::ptrdiff_t first = std::min(max_seq_len, size(tokens));
    score(Ids{bos} + slice(tokens, 0, first - 1), slice(tokens, 0, first));
    for (std::ptrdiff_t predicted = first; predicted < size(tokens);) {
      const std::ptrdiff_t window_pred_len = std::min(size(tokens) - predicted, max_seq_len);
      const std::ptrdiff_t window_end = predicted + window_pred_len;
      score(slice(tokens, window_end - max_seq_len - 1, window_end - 1),
            slice(tokens, window_end - window_pred_len, window_end));
      predicted += window_pred_len;
    }
  }
  return {{std::exp(total / static_cast<double>(count)), count},
          std::exp(total / static_cast<double>(words)),
          total / static_cast<double>(bytes) / std::log(2.0)};
}

PeerResult peer_mean_of_ppl(DoubleScorer& model, const std::vector<Ids>& documents,
                            std::ptrdiff_t max_length) {
  double sum = 0;
  std::int64_t scored = 0;
  for (const Ids& x : documents) {
    const Ids input = Ids{bos} + slice(x, 0, std::min(max_length - 1, size(x)));
    const MeanLoss m = mean_loss(model, input, input, size(input));
    sum += std::exp(m.loss);
    scored += m.scored;
  }
  return {sum / static_cast<double>(documents.size()), scored};
}

// --- ours ----------------------------------------------------------------------------------------

struct Corpus {
  std::vector<Ids> documents;
  Ids ids;
  std::vector<std::int64_t> cuts = {0};
  std::vector<std::uint32_t> bytes;
  std::vector<std::int64_t> words;

  explicit Corpus(const std::vector<index_t>& sizes) {
    std::uint32_t stream = 50;
    for (const index_t n : sizes) documents.push_back(random_tokens(n, 23, stream++));
    ids = join(documents);
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      cuts.push_back(cuts.back() + sizes[d]);
      words.push_back(sizes[d] / 3 + 1);
    }
    for (std::size_t i = 0; i < ids.size(); ++i) {
      bytes.push_back(static_cast<std::uint32_t>(i % 5));
    }
  }
  EvalText text(bool with_bos = true) const {
    return {.ids = ids,
            .cu_seqlens = cuts,
            .bytes = bytes,
            .words = words,
            .prefix_id = with_bos ? std::optional<TokenId>(bos) : std::nullopt};
  }
};

ProtocolSummary ours(DoubleScorer& model, const EvalText& text, const Protocol& p) {
  const WindowPlan plan = lower(p, text);
  const PassPlan passes = plan_passes(std::span(&plan, 1), model.policy);
  const PassLosses losses = score_passes(passes, text.ids, model);
  return summarize(plan, text, read_losses(passes, losses, plan, 0));
}

void check_same(const ProtocolSummary& a, const PeerResult& b) {
  CHECK(a.ppl == doctest::Approx(b.ppl).epsilon(1e-9));  // both in double: rounding alone
  CHECK(a.tokens == b.scored);
}

}  // namespace

TEST_CASE("eval/protocol: the same text under all protocols, against the peers' own loops") {
  const Corpus corpus({61, 40, 7, 45, 33});
  const EvalText text = corpus.text(), no_bos = corpus.text(false);
  const auto& docs = corpus.documents;
  const std::int64_t words = std::accumulate(corpus.words.begin(), corpus.words.end(), 0ll);
  const std::int64_t bytes = std::accumulate(corpus.bytes.begin(), corpus.bytes.end(), 0ll);
  for (const char* spec : {"default", "dynamic:factor=2"}) {  // trained length 16
    CAPTURE(spec);
    DoubleScorer model{.policy = parse_rope(spec, {1e4, 16})};
    for (const index_t L : {8, 16, 21, 40}) {
      CAPTURE(L);
      check_same(ours(model, text, protocols::prefix(L)), peer_prefix(model, docs, L));
      check_same(ours(model, text, protocols::lmeval(L)),
                 peer_lmeval(model, docs, L, words, bytes).token);
      for (const bool add_bos : {true, false}) {
        check_same(ours(model, add_bos ? text : no_bos, protocols::llamacpp(L)),
                   peer_llamacpp(model, docs, static_cast<int>(L), add_bos));
        check_same(ours(model, add_bos ? text : no_bos, protocols::yarn_truncate(L)),
                   peer_yarn(model, docs, L, 0, true, add_bos));
      }
      check_same(ours(model, text, protocols::mean_of_ppl(L)), peer_mean_of_ppl(model, docs, L));
      for (const index_t S : {3, 8, 13, 16, 21}) {
        CAPTURE(S);
        if (S <= L) {
          check_same(ours(model, text, protocols::press(L, S)), peer_press(model, docs, L, S));
          check_same(ours(model, text, protocols::llamacpp_stride(L, S)),
                     peer_llamacpp_stride(model, docs, static_cast<int>(L), static_cast<int>(S)));
        }
        check_same(ours(model, text, protocols::hf(L, S)), peer_hf(model, docs, L, S));
        check_same(ours(model, text, protocols::yarn(L, S)),
                   peer_yarn(model, docs, L, S, false, true));
        check_same(ours(model, no_bos, protocols::yarn(L, S)),
                   peer_yarn(model, docs, L, S, false, false));
        for (const index_t batch : {1, 4, 32}) {
          check_same(ours(model, text, protocols::longlora(L, S, batch)),
                     peer_longlora(model, docs, L, S, static_cast<std::size_t>(batch)));
        }
      }
    }
  }
}

TEST_CASE("eval/protocol: words and bytes of lm-evaluation-harness, of the original text") {
  const Corpus corpus({61, 40, 7, 45});
  const std::int64_t words = std::accumulate(corpus.words.begin(), corpus.words.end(), 0ll);
  const std::int64_t bytes = std::accumulate(corpus.bytes.begin(), corpus.bytes.end(), 0ll);
  DoubleScorer model{.policy = parse_rope("default", {1e4, 16})};
  const ProtocolSummary s = ours(model, corpus.text(), protocols::lmeval(16));
  const Rolling peer = peer_lmeval(model, corpus.documents, 16, words, bytes);
  CHECK(s.word_ppl == doctest::Approx(peer.word_ppl).epsilon(1e-9));
  CHECK(s.bits_per_byte == doctest::Approx(peer.bits_per_byte).epsilon(1e-9));
  CHECK(s.bytes == bytes);
}

TEST_CASE("eval/protocol: a token left alone scores nothing, and a stride may leave gaps") {
  const Corpus corpus({33});
  DoubleScorer model{.policy = parse_rope("default", {1e4, 16})};
  // 33 = 2 x 16 + 1: the third window of stride 16 is one token, which nothing predicts.
  const ProtocolSummary s = ours(model, corpus.text(), protocols::hf(16, 16));
  CHECK(s.windows == 2);
  check_same(s, peer_hf(model, corpus.documents, 16, 16));
  // yarn at T <= stride: BOS takes a place, so a token between windows is never predicted.
  const ProtocolSummary gaps = ours(model, corpus.text(), protocols::yarn(8, 8));
  check_same(gaps, peer_yarn(model, corpus.documents, 8, 8, false, true));
  CHECK(gaps.tokens == 7 + 7 + 7 + 7 + 1);
}

TEST_CASE("eval/protocol: the four averages by hand") {
  const Corpus corpus({9, 5});
  Protocol p{.window = 4,
             .stride = 4,
             .prefix = PrefixToken::every,
             .text = TextUnit::document};  // windows of 3 + 3 + 1 and 3 + 1 text tokens, 1 in gaps
  WindowPlan plan = lower(p, corpus.text());
  REQUIRE(plan.windows.size() == 5);
  ScoredLosses losses{.offset = {0, 3, 6, 7, 10, 11},
                      .nll = {1, 2, 3, 2, 2, 2, 5, 1, 1, 1, 3},
                      .top1 = std::vector<std::uint8_t>(11)};
  const auto nll_with = [&](Aggregation a) {
    plan.protocol.aggregation = a;
    return summarize(plan, corpus.text(), losses);
  };
  CHECK(nll_with(Aggregation::token).nll == doctest::Approx(23.0 / 11).epsilon(1e-15));
  CHECK(nll_with(Aggregation::window_mean).nll == doctest::Approx(13.0 / 5).epsilon(1e-15));
  const double first = 17.0 / 7, second = 6.0 / 4;
  CHECK(nll_with(Aggregation::document_mean).nll ==
        doctest::Approx((first + second) / 2).epsilon(1e-15));
  CHECK(nll_with(Aggregation::mean_ppl).ppl ==
        doctest::Approx((std::exp(first) + std::exp(second)) / 2).epsilon(1e-14));
  CHECK(nll_with(Aggregation::mean_ppl).token_nll == nll_with(Aggregation::token).nll);
}

TEST_CASE("eval/protocol: the hash tells every knob apart and ignores the name") {
  std::set<std::uint64_t> hashes;
  for (const std::string_view name : protocol_names) {
    hashes.insert(protocol_hash(make_protocol(name, 64)));
  }
  CHECK(hashes.size() == std::size(protocol_names));
  const Protocol base = protocols::hf(64, 32);
  std::vector<Protocol> changed(18, base);
  changed[0].window = 65;
  changed[1].stride = 31;
  changed[2].scored = 5;
  changed[3].aggregation = Aggregation::document_mean;
  changed[4].prefix = PrefixToken::first;
  changed[5].text = TextUnit::document;
  changed[6].tail = TextTail::drop;
  changed[7].weight = WindowWeight::predictions;
  changed[8].predicts_beyond = true;
  changed[9].growing = true;
  changed[10].needs_prefix = true;
  changed[11].needs_full_window = false;
  changed[12].spare = 1;
  changed[13].skipped_windows = 1;
  changed[14].max_windows = 1;
  changed[15].min_text_tokens = 1;
  changed[16].windows_per_mean = 2;
  changed[17].exponential_base = 2.71828;
  hashes = {protocol_hash(base)};
  for (const Protocol& p : changed) hashes.insert(protocol_hash(p));
  CHECK(hashes.size() == 19);
  Protocol renamed = base;
  renamed.name = "mine";
  CHECK(protocol_hash(renamed) == protocol_hash(base));
  CHECK(canonical_text(base) ==
        "hf:window=64,stride=32,scored=fresh,aggregation=token,prefix=none,text=joined,"
        "tail=partial,weight=labels_less_one,predicts_beyond=false,growing=false,"
        "needs_prefix=false,needs_full_window=true,spare=0,skipped_windows=0,max_windows=0,"
        "min_text_tokens=0,windows_per_mean=1,exponential_base=e");
  CHECK(hash_text(protocol_hash(base)) ==
        "4305e09126b346fe");  // results carry it: it must not change
}

TEST_CASE("eval/protocol: presets by name take the options they have and refuse the others") {
  CHECK(make_protocol("hf", 1024) == protocols::hf(1024, 512));
  CHECK(make_protocol("hf", 256) == protocols::hf(256, 256));
  CHECK(make_protocol("yarn", 2048) == protocols::yarn(2048, 256));
  CHECK(make_protocol("longlora", 2048, {.batch = 1}) == protocols::longlora(2048, 256, 1));
  CHECK(make_protocol("longlora", 2048).windows_per_mean == 32);
  CHECK(make_protocol("llamacpp", 512).scored == 255);
  CHECK(make_protocol("llamacpp_stride", 512, {.stride = 256}).window == 640);
  CHECK(make_protocol("prefix", 128, {.window_tokens = 1025}).stride == 1025);
  for (const std::string_view name : protocol_names) CHECK(make_protocol(name, 64).name == name);

  const ErrorInfo unknown = error_of([] { make_protocol("llamacp", 64); });
  CHECK(unknown.kind == ErrorClass::usage);
  CHECK(unknown.fix == "Did you mean llamacpp?");
  const ErrorInfo option = error_of([] { make_protocol("llamacpp", 64, {.stride = 8}); });
  CHECK(option.field == "stride");
  CHECK(outcome_of([] { make_protocol("llamacpp", 2); }) == "usage");
  CHECK(outcome_of([] { make_protocol("llamacpp_stride", 8, {.stride = 16}); }) == "usage");
  CHECK(outcome_of([] { make_protocol("hf", 1); }) == "usage");
  CHECK(outcome_of([] { make_protocol("hf", 0); }) == "usage");
  CHECK(outcome_of([] { make_protocol("hf", index_t{1} << 50); }) == "usage");
  CHECK(outcome_of([] { make_protocol("hf", 64, {.stride = -1}); }) == "usage");
  CHECK(outcome_of([] { make_protocol("prefix", 64, {.window_tokens = 64}); }) == "usage");
  CHECK(outcome_of([] { make_protocol("press", 64, {.stride = 65}); }) == "usage");
  CHECK(outcome_of([] { check(Protocol{.window = 8, .stride = 0}); }) == "usage");
  CHECK(outcome_of([] { check(Protocol{.window = 8, .stride = 8, .exponential_base = 0.5}); }) ==
        "usage");
}
