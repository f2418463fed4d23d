#!/usr/bin/env python3
"""Golden distances for ../dryer_distances.rs, computed without any code of Taktline.

    python3 dryer_distances.py ../shared/data/batches/dryer.csv > dryer_distances.json

The set: 71 batches of an industrial dryer, S. Garcia-Munoz, McMaster University, thesis 2004 (MIT, via process-improve).
Batch 1 is the template; batches 21 to 40 are held against it, each of the ten tags on its own. Times are the row's number
within its batch. Two distances:

dtw        root of the least summed squared difference over all warping paths within a Sakoe-Chiba window of 10 % of the
           longer series, rounded up; with unequal lengths n (batch) and m (template), row i may use columns
           i - max(0, n - m) - w to i + max(0, m - n) + w
euclidean  of the template and the batch interpolated onto as many evenly spaced points
"""

import csv
import json
import math
import sys

import numpy as np

TEMPLATE = 1
BATCHES = range(21, 41)
PERCENT = 10


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    tags = [name for name in rows[0] if name not in ("batch_id", "ClockTime")]
    batches = {}
    for row in rows[1:]:
        named = dict(zip(rows[0], row))
        batch = batches.setdefault(int(named["batch_id"]), {tag: [] for tag in tags})
        for tag in tags:
            batch[tag].append(float(named[tag]))
    return tags, batches


def dtw(a, b):
    n, m = len(a), len(b)
    window = math.ceil(PERCENT * max(n, m) / 100)
    cost = np.full((n + 1, m + 1), np.inf)
    cost[0, 0] = 0.0
    for i in range(n):
        first = max(0, i - max(0, n - m) - window)
        last = min(m - 1, i + max(0, m - n) + window)
        for j in range(first, last + 1):
            best = min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
            cost[i + 1, j + 1] = best + (a[i] - b[j]) ** 2
    return math.sqrt(cost[n, m])


def euclidean(a, b):
    time = np.arange(len(a)) / (len(a) - 1)
    resampled = np.interp(np.linspace(0, 1, len(b)), time, a)
    return float(np.sqrt(np.sum((resampled - np.array(b)) ** 2)))


def main():
    tags, batches = read(sys.argv[1])
    template = batches[TEMPLATE]
    rows = [
        {"batch": batch, "tag": tag, "dtw": dtw(batches[batch][tag], template[tag]),
         "euclidean": euclidean(batches[batch][tag], template[tag])}
        for batch in BATCHES
        for tag in tags
    ]
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    print(f'{{"template": {TEMPLATE}, "percent": {PERCENT}, "distances": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
