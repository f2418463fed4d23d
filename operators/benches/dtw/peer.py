"""dtaidistance's side of the bench: one job a line from standard input, seconds and a number to compare as the answer.

Windows: dtaidistance counts the diagonal itself, so that its window is ours and one.
"""
import logging
import sys
import time

import numpy as np
from dtaidistance import dtw
from dtaidistance.subsequence.subsequencesearch import SubsequenceSearch

logging.disable(logging.CRITICAL)


def pairs(series, window, pruning):
    """All pairs, in its C code, one thread."""
    begin = time.process_time()
    found = dtw.distance_matrix_fast(series, window=window + 1, use_pruning=pruning, compact=True, parallel=False)
    return time.process_time() - begin, float(np.sum(found))


def single(series, window):
    """All pairs, one call of `distance_fast` each."""
    begin = time.process_time()
    found = sum(
        dtw.distance_fast(series[i], series[j], window=window + 1) for i in range(len(series)) for j in range(i)
    )
    return time.process_time() - begin, found


def nearest(series, window, queries, pruning):
    """The nearest of all but the first `queries` series to each of these, with LB_Keogh and the best so far as `max_dist`."""
    known = list(series[queries:])
    begin = time.process_time()
    found = 0.0
    for query in series[:queries]:
        options = {"window": window + 1, "use_pruning": pruning, "use_c": True}
        found += SubsequenceSearch(query, known, dists_options=options, use_lb=True).best_match_fast().distance
    return time.process_time() - begin, found


print("ready", flush=True)
for line in sys.stdin:
    job, path, length, window, rest = line.split()
    data = np.fromfile(path).reshape(-1, int(length))
    if job == "pairs":
        answers = [pairs(data, int(window), pruning) for pruning in (False, True)]
    elif job == "single":
        answers = [single(data, int(window))]
    else:
        answers = [nearest(data, int(window), int(rest), pruning) for pruning in (False, True)]
    # The faster of its settings counts.
    print(*min(answers), flush=True)
