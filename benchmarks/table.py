#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the JSON of ropewalk-bench as a Markdown table.

  build/release/ropewalk-bench --benchmark_format=json --benchmark_filter=gemm > gemm.json
  benchmarks/table.py gemm.json
"""

import json
import sys


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    print("| what | rate | limit | share | quiet |")
    print("|---|---|---|---|---|")
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["benchmarks"]
        for row in rows:
            if row.get("error_occurred"):
                sys.exit(f"table.py: {row['name']}: {row['error_message']}")
            unit = next((u for u in ("gflops", "gbps") if u in row), None)
            if unit is None:
                continue  # no rate and no limit: core/parallel_region
            rate = f"{row[unit]:.3g} {'GFLOP/s' if unit == 'gflops' else 'GB/s'}"
            quiet = f"{100 * row['quiet']:.0f} %" if "quiet" in row else ""
            share = f"{100 * row['share_of_limit']:.1f} %"
            print(f"| {row['name']} | {rate} | {row['limit']:.3g} | {share} | {quiet} |")


if __name__ == "__main__":
    main()
