#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tokenizer_ids.hpp: small tokenizers, each with other components, and the ids
that Hugging Face's tokenizers give with them.

    python3 make_tokenizer_ids.py > tokenizer_ids.hpp   # needs tokenizers (made with 0.23.3)
"""
import json
import random

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

CORPUS = ["The quick brown fox jumps over the lazy dog.", "the other theatre, there and then",
          "She sells sea shells by the sea shore; he'll tell 12345 tales in 2024.",
          "na\u00efve caf\u00e9 na\u00efve caf\u00e9 \u00fcber", "new\nlines\n\nand   spaces",
          "\u4e2d\u6587 \u4e2d\u6587\u5b57 \u4e2d"] * 3
GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def texts():
    out = ["", " ", "  ", "a", " the", "The quick brown fox", "the  other   theatre ",
           "\n", "a\n\n b\r\n c", "tabs\tand\x0bmore\x0c", "he'll HE'LL it's 'S '\u017f",
           "1234567 12 3.14 \u0664\u0665 \u00bd\u2163", "na\u00efve nai\u0308ve caf\u00e9 cafe\u0301",
           "\u1100\u1161\u11a8 \uac00\u11a8 \uac01", "e\u0316\u0301 e\u0301\u0316 \u0344 \u0f71\u0f72",
           "\ufb01 \u2460 \uff21\uff22 \u00b2 \u2126 \u212b", "\u0130stanbul STRASSE \u1e9e \u03a3\u03a3",
           "\u4e2d\u6587\u5b57 \u4e2d \u6587", "\u2581the \u2581 \u2581\u2581x", "\U0001f600\U0001f468\u200d\U0001f469",
           "a\u00a0b\u2003c\u3000d\u0085e\u180ef", "$+<=>^`|~ !?\u2014\u00bf\u00ab", "[CTL]", "the[CTL]the",
           " [CTL]  [CTL] x", "a <w> b a<w>b <w>", "x  <l>y <l>", "<r>  y<r>\n", "a    b     c",
           "FIX fix Fix caf\u00e9FIX", "\x00\x01", "AbCdEf camelCase HTTPServer", "a,b;c--d..e"]
    draw = random.Random(5)
    pools = ["the qu  ", "ab\u0301\u0316\u0308e ", "12a ,.", "\u4e2d\u6587 x\n", "<w>[CTL]l r",
             "\u2581 the", " \t\n\r\u00a0\u2028x"]
    for pool in pools:
        for _ in range(4):
            out.append("".join(draw.choice(pool) for _ in range(draw.randrange(2, 25))))
    return out


def added(t, spaces=True):
    """Added tokens of every kind. Runs of spaces must not become empty by normalisation: the
    library that is asked here stops at that."""
    t.add_special_tokens([AddedToken("[CTL]", special=True)])
    t.add_tokens([AddedToken("<w>", single_word=True, normalized=False),
                  AddedToken("<l>", lstrip=True, normalized=False),
                  AddedToken("<r>", rstrip=True, normalized=False),
                  AddedToken("FIX", normalized=True)])
    if spaces:
        t.add_tokens([AddedToken("    ", normalized=True)])
    return t


def byte_level(pre, merges=60, **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return added(t)


def characters(pre=None, normalizer=None, fallback=False, merges=90, **model):
    t = Tokenizer(models.BPE(unk_token="<unk>", **model))
    if pre is not None:
        t.pre_tokenizer = pre
    if normalizer is not None:
        t.normalizer = normalizer
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=merges, special_tokens=["<unk>"] + (BYTES if fallback else []),
        limit_alphabet=45, show_progress=False,
        max_token_length=8) if not fallback else trainers.BpeTrainer(
            vocab_size=merges + 256, special_tokens=["<unk>"] + BYTES, show_progress=False))
    state = json.loads(t.to_str())
    state["added_tokens"] = [a for a in state["added_tokens"] if a["content"] == "<unk>"]
    state["model"]["byte_fallback"] = fallback
    return added(Tokenizer.from_str(json.dumps(state)),
                 spaces=normalizer is None or fallback)


def tokenizers_by_name():
    P, N = pre_tokenizers, normalizers
    out = {}
    out["byte_level"] = byte_level(P.ByteLevel(add_prefix_space=False))
    t = byte_level(P.ByteLevel(add_prefix_space=True))
    t.normalizer = N.NFC()
    t.post_processor = processors.Sequence([
        processors.ByteLevel(), processors.TemplateProcessing(
            single="[CTL] $A", pair="[CTL] $A [CTL] $B",
            special_tokens=[("[CTL]", t.token_to_id("[CTL]"))])])
    out["byte_level_prefix_nfc_bos"] = t
    out["llama3_ignore_merges"] = byte_level(
        P.Sequence([P.Split(Regex(LLAMA3), "isolated"),
                    P.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True)
    t = byte_level(P.Sequence([P.Digits(individual_digits=True), P.Punctuation("contiguous"),
                               P.ByteLevel(add_prefix_space=False)]))
    t.normalizer = N.NFKD()
    out["digits_punctuation_nfkd"] = t
    t = byte_level(P.Sequence([P.Digits(individual_digits=False), P.Punctuation("merged_with_next"),
                               P.ByteLevel(add_prefix_space=False, use_regex=False)]))
    t.normalizer = N.Sequence([N.NFD(), N.Lowercase()])
    out["digit_runs_nfd_lowercase"] = t
    t = characters(P.Metaspace(), fallback=True)
    t.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    out["metaspace_fallback"] = t
    out["metaspace_first_nfkc_strip"] = characters(
        P.Metaspace(prepend_scheme="first", split=False),
        N.Sequence([N.NFKC(), N.Strip(left=False, right=True)]), fuse_unk=True)
    out["metaspace_never"] = characters(P.Metaspace(prepend_scheme="never"), fuse_unk=False)
    t = characters(None, N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581"),
                                     N.Replace(Regex(r"(?i:fox)|\d\d"), "#")]), fallback=True)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                   decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    out["prepend_replace_fallback"] = t
    out["no_pre_tokenizer_unknown"] = characters(None, fuse_unk=True)
    behaviors = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]
    for behavior in behaviors:
        out["split_string_" + behavior] = characters(P.Split(" ", behavior), fuse_unk=True)
        out["split_regex_" + behavior] = characters(
            P.Split(Regex(r"\s|[^\S\w]|[,.;]"), behavior, invert=behavior == "removed"),
            fuse_unk=True)
    out["split_lookahead_empty"] = characters(
        P.Sequence([P.Split(Regex(r"(?=\p{Lu})"), "isolated"),
                    P.Split(Regex(r"\w+|[^\w\s]+$"), "isolated")]))
    return out


def literal(text):
    """A C++ string literal of any bytes."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}"
                         for b in text.encode()) + '"'


def main():
    inputs = texts()
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// Written by make_tokenizer_ids.py with tokenizers " + tokenizers.__version__ + ".")
    print("#pragma once\n\n#include <string_view>\n")
    print("// clang-format off\nnamespace golden {\n")
    print("using namespace std::string_view_literals;\n")
    print("inline constexpr std::string_view tokenizer_texts[] = {")
    for text in inputs:
        print("    " + literal(text) + "sv,")
    print("};\n")
    print("/// Ids of every text, a line each; special tokens in it as text and as ids.")
    print("struct TokenizerCase {\n  std::string_view name, json, ids_as_text, ids_as_ids, decoded;"
          "\n  int bos;\n};\n")
    print("inline constexpr TokenizerCase tokenizer_cases[] = {")
    for name, t in tokenizers_by_name().items():
        lines = []
        for as_text in (True, False):
            t.encode_special_tokens = as_text
            lines.append([t.encode(x, add_special_tokens=False).ids for x in inputs])
        bos = [i for i in t.encode("a").ids if i not in t.encode("a", add_special_tokens=False).ids]
        print(f'    {{"{name}",\n     R"json({json.dumps(json.loads(t.to_str()))})json",')
        for ids in lines:
            print('     "' + "\\n".join(" ".join(map(str, x)) for x in ids) + '\\n",')
        decoded = t.decode(lines[0][11])
        print(f"     {literal(decoded)}, {bos[0] if bos else -1}}},")
    print("};\n\n}  // namespace golden\n// clang-format on")


main()
