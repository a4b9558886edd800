#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of scoring one window with transformers' Llama: random weights, sdpa attention.

Usage: transformers_score.py [NAME...]     (names, one a line, from stdin if none is given)
  score/SHAPE/LENGTH/f32|bf16[/threads:N]     SHAPE nano, micro, small or index; 2 threads
"""

import re
import sys

import torch
import torch.nn.functional as functional
from transformers import LlamaConfig, LlamaForCausalLM

from serve import median_seconds, serve

BUDGET = 2.0  # seconds that a measurement takes, at least three passes
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
SHAPES = {  # those of `ropewalk bench --shape`
    "nano": dict(C=128, L=4, F=344, V=256, H=4, K=4, D=32),
    "micro": dict(C=256, L=6, F=688, V=4096, H=4, K=4, D=64),
    "small": dict(C=512, L=8, F=1376, V=8192, H=8, K=8, D=64),
    "index": dict(C=2048, L=4, F=5888, V=65029, H=16, K=16, D=128),
}
ROWS = 1024  # of logits whose loss is taken at once, so that float copies stay small
prepared = {}


def make_model(shape, dtype):
    s = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=s["C"],
        num_hidden_layers=s["L"],
        intermediate_size=s["F"],
        vocab_size=s["V"],
        num_attention_heads=s["H"],
        num_key_value_heads=s["K"],
        head_dim=s["D"],
        max_position_embeddings=1 << 17,
        attn_implementation="sdpa",
        use_cache=False,
    )
    torch.manual_seed(1)
    return LlamaForCausalLM(config).to(dtype).eval()


def score(model, ids):
    logits = model(ids, use_cache=False).logits[0]
    total = 0.0
    for first in range(0, ids.shape[1] - 1, ROWS):
        end = min(first + ROWS, ids.shape[1] - 1)
        targets = ids[0, first + 1 : end + 1]
        loss = functional.cross_entropy(logits[first:end].float(), targets, reduction="sum")
        total += loss.item()
    return total


def measure(name):
    found = re.fullmatch(r"score/(\w+)/(\d+)/(f32|bf16)(?:/threads:(\d+))?", name)
    if not found or found[1] not in SHAPES:
        raise ValueError("not a name that this script knows")
    length, threads = int(found[2]), int(found[4] or 2)
    if name not in prepared:
        prepared.clear()
        ids = torch.randint(0, SHAPES[found[1]]["V"], (1, length))
        prepared[name] = make_model(found[1], DTYPES[found[3]]), ids
    model, ids = prepared[name]
    torch.set_num_threads(threads)
    with torch.inference_mode():
        seconds = median_seconds(lambda: score(model, ids), threads, BUDGET)
    return {"tok_s": length / seconds}


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
    else:
        serve(measure, sys.argv[1:])
