#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Time of the table of YaRN's evaluation: perplexity at 2K, 4K, ... 128K of one document.

ropewalk computes the table with one pass at the longest length (protocol yarn_truncate), timed as
the whole command. The peer, transformers on torch where it is installed, makes a pass per length;
a sample of lengths is timed and the rest taken from its cost curve, seconds = a n + b n^2 fitted to
relative error. Samples of both alternate, so that a slow moment of the machine hits both. With
--measured below --longest the same curve is fitted to ropewalk's own passes, too.

  benchmarks/yarn_table.py --ropewalk build/release/ropewalk
  benchmarks/yarn_table.py --ropewalk build/release/ropewalk --measured 32K --sample 2K,4K,8K
"""

import argparse
import array
import json
import os
import random
import statistics
import struct
import subprocess
import tempfile
import time

SHAPES = {
    "nano": dict(C=128, L=4, F=344, V=256, H=4, K=4, D=32),
    "micro": dict(C=256, L=6, F=688, V=4096, H=4, K=4, D=64),
}


def size(text):
    return int(text[:-1]) * 1024 if text[-1] in "kK" else int(text)


def sizes(text):
    return [size(t) for t in text.split(",")]


def write_checkpoint(path, s):
    """A llama2.c file of random weights with an output matrix of its own."""
    rng = random.Random(1)
    # A cycle of numbers that is no multiple of any dimension: fast, and good enough for a timing.
    cycle = array.array("f", [rng.gauss(0, 1) for _ in range(99991)])

    def matrix(file, count, deviation):
        scaled = array.array("f", [x * deviation for x in cycle])
        start = rng.randrange(len(scaled))
        rotated = scaled[start:] + scaled[:start]
        data = rotated * (count // len(rotated) + 1)
        data[:count].tofile(file)

    c, layers, ffn, vocab, heads, key_heads = (s[k] for k in "CLFVHK")
    d = c // heads
    with open(path, "wb") as f:
        # A negative vocabulary size: the output matrix is not the embedding.
        f.write(struct.pack("<7i", c, ffn, layers, heads, key_heads, -vocab, 2048))
        matrix(f, vocab * c, 1.0)
        array.array("f", [1.0] * (layers * c)).tofile(f)
        for rows in (heads * d, key_heads * d, key_heads * d):
            matrix(f, layers * rows * c, c**-0.5)
        matrix(f, layers * heads * d * c, c**-0.5)
        array.array("f", [1.0] * (layers * c)).tofile(f)
        matrix(f, layers * ffn * c, c**-0.5)
        matrix(f, layers * ffn * c, ffn**-0.5)
        matrix(f, layers * ffn * c, c**-0.5)
        array.array("f", [1.0] * c).tofile(f)
        array.array("f", [0.0] * (2048 * d)).tofile(f)  # llama2.c's tables of cos and sin
        matrix(f, vocab * c, c**-0.5)


class Ropewalk:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.shape = SHAPES[options.shape]
        write_checkpoint(os.path.join(folder, "model.bin"), self.shape)
        rng = random.Random(2)
        ids = array.array("H", [rng.randrange(self.shape["V"]) for _ in range(options.measured)])
        with open(os.path.join(folder, "ids.u16"), "wb") as f:
            ids.tofile(f)

    def table(self, lengths):
        """Wall and processor seconds of the whole command, loading included."""
        command = [
            os.path.abspath(self.options.ropewalk), "ppl", "--model", "model.bin", "--tokens",
            "ids.u16", "--rope", "yarn:factor=64", "--protocol", "yarn_truncate", "--lengths",
            ",".join(str(n) for n in lengths), "--threads", str(self.options.threads), "--format",
            "csv", "--quiet"
        ]
        before = os.times()
        start = time.perf_counter()
        out = subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.PIPE)
        wall = time.perf_counter() - start
        after = os.times()
        rows = out.stdout.decode().strip().split("\n")[1:]
        assert len(rows) == len(lengths), "a row for each length"
        cpu = after.children_user + after.children_system - before.children_user
        return wall, cpu - before.children_system


class Torch:
    def __init__(self, options):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        self.torch = torch
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        s = SHAPES[options.shape]
        self.vocab = s["V"]
        self.model = LlamaForCausalLM(
            LlamaConfig(vocab_size=s["V"], hidden_size=s["C"], intermediate_size=s["F"],
                        num_hidden_layers=s["L"], num_attention_heads=s["H"],
                        num_key_value_heads=s["K"], head_dim=s["D"],
                        max_position_embeddings=1 << 17, attn_implementation="sdpa",
                        use_cache=False)).eval()

    def one_pass(self, length):
        torch = self.torch
        ids = torch.randint(0, self.vocab, (1, length))
        before, start = time.process_time(), time.perf_counter()
        with torch.inference_mode():
            logits = self.model(ids, use_cache=False).logits[0]
            total = 0.0
            for i in range(0, length - 1, 1024):  # in chunks: a gain for torch
                e = min(i + 1024, length - 1)
                total += torch.nn.functional.cross_entropy(
                    logits[i:e], ids[0, i + 1:e + 1], reduction="sum").item()
        return time.perf_counter() - start, time.process_time() - before


def cost_curve(samples):
    """a, b of seconds = a n + b n^2, least squares of relative errors. samples: {n: seconds}"""
    xx = xy = yy = xt = yt = 0.0
    for n, t in samples.items():
        x, y = n / t, n * n / t
        xx, xy, yy, xt, yt = xx + x * x, xy + x * y, yy + y * y, xt + x, yt + y
    det = xx * yy - xy * xy
    a, b = (xt * yy - yt * xy) / det, (yt * xx - xt * xy) / det
    if a < 0:
        a, b = 0.0, yt / yy
    if b < 0:
        a, b = xt / xx, 0.0
    return a, b


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ropewalk", default="build/release/ropewalk", help="the executable")
    parser.add_argument("--shape", choices=SHAPES, default="micro")
    parser.add_argument("--step", type=size, default=2048, help="from length to length [2K]")
    parser.add_argument("--longest", type=size, default=131072, help="of the table [128K]")
    parser.add_argument("--measured", type=size, help="longest table that is run [--longest]")
    parser.add_argument("--sample", type=sizes, default=[2048, 4096, 8192, 16384],
                        help="lengths of the peer's passes [2K,4K,8K,16K]")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each, alternating [3]")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.measured = options.measured or options.longest

    own, peer = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        ropewalk = Ropewalk(options, folder)
        try:
            torch = Torch(options)
        except ImportError:
            torch = None
        own_lengths = sorted({n for n in options.sample + [options.measured]
                              if n <= options.measured})
        if options.measured == options.longest:
            own_lengths = [options.longest]
        for _ in range(options.rounds):
            for n in own_lengths:
                lengths = list(range(options.step, n + 1, options.step))
                own.setdefault(n, []).append(ropewalk.table(lengths))
            for n in options.sample if torch else []:
                peer.setdefault(n, []).append(torch.one_pass(n))

    result = dict(shape=options.shape, threads=options.threads, longest=options.longest,
                  lengths=options.longest // options.step, measured=options.measured)
    for which, clock in ((0, "wall"), (1, "cpu")):
        def medians(samples):
            return {n: statistics.median(t[which] for t in ts) for n, ts in samples.items()}
        ours = medians(own)
        if options.measured == options.longest:
            table = ours[options.longest]
        else:
            a, b = cost_curve(ours)
            table = a * options.longest + b * options.longest**2
        result[clock] = dict(ropewalk=ours, ropewalk_table=table)
        if not peer:
            continue
        theirs = medians(peer)
        a, b = cost_curve(theirs)
        lengths = range(options.step, options.longest + 1, options.step)
        total = sum(a * n + b * n * n for n in lengths)
        part = sum(a * n + b * n * n for n in lengths if n <= options.measured)
        result[clock].update(torch=theirs, torch_table=total, ratio=total / table,
                             ratio_measured=part / ours[options.measured])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
