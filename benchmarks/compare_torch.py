#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lets ropewalk and torch take turns (A B A B ... A) and prints the medians of their ratios.

Each turn of torch is compared with the mean of the two of ropewalk around it, and only where the
machine's limit, which ropewalk measures with every turn, was the same in both within 5 %: on a
shared machine the limit itself may halve from one second to the next.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
ROOT = PEERS.parent.parent
OPERATIONS = [
    f"{op}/{dtype}"
    for dtype in ("f32", "bf16")
    for op in [
        "linalg/gemm/512x688x256",
        "linalg/gemm/512x2048x2048",
        "linalg/gemm/2048x256x256",
        *(f"attention/forward/d{d}/n{n}" for d in (64, 128) for n in (512, 2048, 8192, 32768)),
        *(f"attention/backward/d{d}/n{n}" for d in (64, 128) for n in (2048, 8192)),
        "attention/decode/d64/n32768",
        "attention/decode/d128/n32768",
        "model/head_nll/C256/V32000",
        "model/head_nll/C2048/V65029",
    ]
]
PASSES = [
    f"score/{shape}/{length}/{dtype}"
    for dtype in ("f32", "bf16")
    for shape, length in [("micro", 2048), ("small", 2048), ("index", 2048), ("micro", 32768)]
]


TRAINING = [
    f"train/{shape}/8192/{dtype}/threads:2"
    for dtype in ("f32", "bf16")
    for shape in ("nano/256", "micro/512")
]


class Torch:
    """A script of peers/, which answers each name with a line."""

    def __init__(self, python, script):
        command = [python, PEERS / script]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"compare_torch.py: the peer ended at {name}")
        found = json.loads(line)
        if "error" in found:
            sys.exit(f"compare_torch.py: {name}: {found['error']}")
        return next(found[key] for key in ("tok_s", "gflops", "gbps") if key in found)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"compare_torch.py: {' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def ropewalk(options, name):
    """The rate of one turn, its share of the limit, and the limit."""
    if name.startswith("score/"):
        _, shape, length, dtype, *_ = name.split("/")
        threads = re.search(r"/threads:(\d+)$", name)
        command = [options.ropewalk, "bench", "--shape", shape, "--length", length]
        command += ["--dtype", dtype, "--threads", threads[1] if threads else "2"]
        command += ["--repetitions", "3", "--format", "jsonl", "--quiet"]
        found = json.loads(output_of(command))
        return found["tok_s"], found["share_of_limit"], found["limit_gflops"]
    command = [options.bench, f"--benchmark_filter=^{name}$", "--benchmark_format=json"]
    command += ["--benchmark_min_time=0.5"]
    found = json.loads(output_of(command))["benchmarks"]
    if len(found) != 1:
        sys.exit(f"compare_torch.py: ropewalk-bench has no {name}")
    rate = found[0]["gflops"] if "gflops" in found[0] else found[0]["gbps"]
    return rate, found[0]["share_of_limit"], found[0]["limit"]


def compare(options, name, torch):
    ours, theirs = [ropewalk(options, name)], []
    for _ in range(options.turns):
        theirs.append(torch.measure(name))
        ours.append(ropewalk(options, name))
    ratios = []
    for before, other, after in zip(ours, theirs, ours[1:]):
        if abs(before[2] - after[2]) < 0.05 * max(before[2], after[2]):
            ratios.append((before[0] + after[0]) / 2 / other)
    used = len(ratios)
    if not ratios:  # the machine was never steady: better noisy than nothing, and said
        ratios = [(b[0] + a[0]) / 2 / o for b, o, a in zip(ours, theirs, ours[1:])]
    return {
        "name": name,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "turns_used": used,
        "turns": options.turns,
        "ropewalk": statistics.median(o[0] for o in ours),
        "torch": statistics.median(theirs),
        "share_of_limit": statistics.median(o[1] for o in ours),
        "limit": statistics.median(o[2] for o in ours),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--bench", default=ROOT / "build/release/ropewalk-bench")
    parser.add_argument("--ropewalk", default=ROOT / "build/release/ropewalk")
    parser.add_argument("--only", default="", help="regular expression: rows whose name it matches")
    parser.add_argument("--turns", type=int, default=7, help="of torch; ropewalk has one more [7]")
    parser.add_argument("--format", choices=["table", "jsonl"], default="table")
    parser.add_argument("names", nargs="*", help="other names than those of the tables")
    options = parser.parse_args()
    names = [n for n in options.names or OPERATIONS + PASSES + TRAINING if re.search(options.only, n)]
    if options.format == "table":
        titles = ["what", "ratio (smallest to largest)", "turns used", "ropewalk", "torch", "share"]
        print("| " + " | ".join([*titles, "limit"]) + " |")
        print("|---|---|---|---|---|---|---|")
    for script, mine in (
        ("torch_ops.py", [n for n in names if not n.startswith(("score/", "train/"))]),
        ("transformers_score.py", [n for n in names if n.startswith("score/")]),
        ("torch_train.py", [n for n in names if n.startswith("train/")]),
    ):
        if not mine:
            continue
        torch = Torch(options.python, script)
        for name in mine:
            row = compare(options, name, torch)
            if options.format == "jsonl":
                print(json.dumps(row), flush=True)
                continue
            print(
                "| {name} | {ratio:.2f} ({ratio_min:.2f} to {ratio_max:.2f}) | {turns_used} of "
                "{turns} | {ropewalk:.4g} | {torch:.4g} | {share:.0f} % | {limit:.4g} |".format(
                    share=100 * row["share_of_limit"], **row
                ),
                flush=True,
            )
        torch.close()


if __name__ == "__main__":
    main()
