#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch's linear and scaled_dot_product_attention at the shapes of ropewalk-bench, named as there.

Usage: torch_ops.py [NAME...]     (names, one a line, from stdin if none is given)
  linalg/gemm/ROWSxOUTPUTSxINPUTS/f32|bf16[/threads:N]
  attention/forward/dD/nN/f32|bf16[/threads:N]     causal, one head a thread; the masked half is
                                                   not credited
  attention/backward/dD/nN/f32|bf16[/threads:N]    the gradient alone, of what forward left
  attention/decode/dD/nN/f32|bf16                  one query of 8 heads against N keys: gbps
  model/head_nll/CC/VV/f32|bf16[/threads:N]        96 rows a thread: linear and cross_entropy
"""

import re
import sys

import torch
import torch.nn.functional as functional

from serve import median_seconds, serve

BUDGET = 0.5  # seconds that a measurement takes
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def gemm(dtype, threads, rows, outputs, inputs):
    x = torch.randn(rows, inputs, dtype=dtype)
    w = torch.randn(outputs, inputs, dtype=dtype)
    return (lambda: functional.linear(x, w)), 2 * rows * outputs * inputs, "gflops"


def forward(dtype, threads, head_dim, tokens):
    q, k, v = (torch.randn(1, threads, tokens, head_dim, dtype=dtype) for _ in range(3))
    flops = threads * 2 * head_dim * tokens * (tokens + 1)
    run = lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return run, flops, "gflops"


def backward(dtype, threads, head_dim, tokens):
    with torch.inference_mode(False), torch.enable_grad():
        q, k, v = (
            torch.randn(1, threads, tokens, head_dim, dtype=dtype, requires_grad=True)
            for _ in range(3)
        )
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        d_out = torch.randn_like(out)

    def run():
        with torch.inference_mode(False), torch.enable_grad():
            return torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True)

    return run, threads * 5 * head_dim * tokens * (tokens + 1), "gflops"


def decode(dtype, threads, head_dim, tokens):
    q = torch.randn(1, 8, 1, head_dim, dtype=dtype)
    k, v = (torch.randn(1, 8, tokens, head_dim, dtype=dtype) for _ in range(2))
    size = (k.numel() + v.numel()) * k.element_size()
    return (lambda: functional.scaled_dot_product_attention(q, k, v)), size, "gbps"


def head_nll(dtype, threads, channels, vocab):
    rows = 96 * threads
    hidden = torch.randn(rows, channels, dtype=dtype)
    matrix = torch.randn(vocab, channels, dtype=dtype) / channels**0.5
    targets = torch.randint(0, vocab, (rows,))

    def run():
        logits = functional.linear(hidden, matrix).float()
        return functional.cross_entropy(logits, targets, reduction="none"), logits.argmax(dim=1)

    return run, 2 * rows * channels * vocab, "gflops"


OPERATIONS = [
    (r"linalg/gemm/(\d+)x(\d+)x(\d+)", gemm),
    (r"attention/forward/d(\d+)/n(\d+)", forward),
    (r"attention/backward/d(\d+)/n(\d+)", backward),
    (r"attention/decode/d(\d+)/n(\d+)", decode),
    (r"model/head_nll/C(\d+)/V(\d+)", head_nll),
]
prepared = {}  # the last operation: some hold half a gigabyte


def measure(name):
    if name not in prepared:
        prepared.clear()
        for pattern, make in OPERATIONS:
            found = re.fullmatch(pattern + r"/(f32|bf16)(?:/threads:(\d+))?", name)
            if found:
                *sizes, dtype, threads = found.groups()
                threads = int(threads or 1)
                torch.manual_seed(1)
                prepared[name] = threads, *make(DTYPES[dtype], threads, *map(int, sizes))
                break
        else:
            raise ValueError("not a name that this script knows")
    threads, run, amount, counter = prepared[name]
    torch.set_num_threads(threads)
    with torch.inference_mode():
        return {counter: amount / median_seconds(run, threads, BUDGET) * 1e-9}


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
    else:
        serve(measure, sys.argv[1:])
