# SPDX-License-Identifier: Apache-2.0
"""How a peer is measured: names of measurements on stdin, one JSON line for each on stdout.

Without names in the arguments a script reads them from stdin until its end, so that a caller can
let it take turns with another program (compare_torch.py does).
"""

import json
import statistics
import sys
import time


def median_seconds(run, threads, budget, slice_seconds=2.5e-3):
    """Median seconds of run() over slices of some milliseconds that together take `budget` seconds.

    One thread is timed by its processor time, several by the clock on the wall.
    """
    now = time.thread_time if threads == 1 else time.perf_counter
    run()
    start = now()
    run()
    runs = int(slice_seconds / max(now() - start, 1e-7)) + 1
    found = []
    while len(found) < 3 or sum(found) * runs < budget:
        start = now()
        for _ in range(runs):
            run()
        found.append((now() - start) / runs)
    return statistics.median(found)


def serve(measure, names):
    """measure(name) gives a dict of what was found."""
    for name in names or (line.strip() for line in sys.stdin):
        try:
            found = {"name": name, **measure(name)}
        except Exception as error:  # said on the other side, which knows what it asked for
            found = {"name": name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)
