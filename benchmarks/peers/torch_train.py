#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training steps of transformers' Llama: sdpa attention, fused AdamW, clip 1.

Usage: torch_train.py [NAME...]     (names, one a line, from stdin if none is given)
  train/SHAPE/LENGTH/BATCH_TOKENS/f32|bf16[/compile][/threads:N]
      SHAPE nano, micro, small or index; BATCH_TOKENS a multiple of LENGTH; 1 thread.
      bf16: autocast, float weights and products in bf16. compile: through torch.compile.
GFLOP/s as ropewalk-bench counts them: 6 a parameter of the matrices and token, 14 D N (N + 1) / 2
of attention a head and layer.
"""

import re
import sys

import torch

from serve import median_seconds, serve
from transformers_score import SHAPES, make_model

BUDGET = 20.0  # seconds that a measurement takes, at least three steps
LEARNING_RATE, MAX_GRAD_NORM = 1e-3, 1.0
prepared = {}


def make_step(shape, length, batch_tokens, autocast, compiled):
    model = make_model(shape, torch.float32).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    run = torch.compile(model) if compiled else model
    ids = torch.randint(0, SHAPES[shape]["V"], (batch_tokens // length, length))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = run(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def measure(name):
    pattern = r"train/(\w+)/(\d+)/(\d+)/(f32|bf16)(/compile)?(?:/threads:(\d+))?"
    found = re.fullmatch(pattern, name)
    if not found or found[1] not in SHAPES:
        raise ValueError("not a name that this script knows")
    length, batch_tokens, threads = int(found[2]), int(found[3]), int(found[6] or 1)
    if length < 2 or batch_tokens < length or batch_tokens % length:
        raise ValueError("a length of at least 2, and a batch of some whole sequences")
    torch.set_num_threads(threads)
    if name not in prepared:
        prepared.clear()
        prepared[name] = make_step(
            found[1], length, batch_tokens, found[4] == "bf16", bool(found[5])
        )
    seconds = median_seconds(prepared[name], threads, BUDGET)
    s = SHAPES[found[1]]
    width = s["H"] * s["D"]
    matrices = s["L"] * s["C"] * (2 * width + 2 * s["K"] * s["D"] + 3 * s["F"]) + s["C"] * s["V"]
    attention = 7 * s["L"] * width * (length + 1)  # a token
    return {"gflops": batch_tokens * (6 * matrices + attention) / seconds * 1e-9}


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
    else:
        serve(measure, sys.argv[1:])
