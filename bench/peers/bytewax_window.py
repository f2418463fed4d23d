"""Bytewax, one worker, on the first rows of the same CSV file: 1 s count, mean, min, max per machine and signal.

Usage: bytewax_window.py ROWS.csv LIMIT. Prints the seconds it took for LIMIT rows.
"""
import csv
import itertools
import sys
import time
from datetime import datetime, timedelta, timezone

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, TestingSink, run_main

rows, limit = sys.argv[1], int(sys.argv[2])


def parse(row):
    machine, signal, ts, value = row
    at = datetime.fromtimestamp(int(ts) / 1e6, tz=timezone.utc)
    return f"{machine}/{signal}", (at, float(value))


def add(state, item):
    value = item[1]
    count, total, low, high = state
    return count + 1, total + value, min(low, value), max(high, value)


def merge(a, b):
    return a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])


out = []
flow = Dataflow("window")
with open(rows, newline="") as file:
    reader = csv.reader(file)
    next(reader)
    started = time.perf_counter()
    stream = op.input("rows", flow, TestingSource(itertools.islice(reader, limit), batch_size=1000))
    keyed = op.map("parse", stream, parse)
    clock = win.EventClock(ts_getter=lambda item: item[0], wait_for_system_duration=timedelta(0))
    windower = win.TumblingWindower(length=timedelta(seconds=1), align_to=datetime(2026, 1, 1, tzinfo=timezone.utc))
    folded = win.fold_window("fold", keyed, clock, windower, lambda: (0, 0.0, float("inf"), float("-inf")), add, merge)
    op.output("out", folded.down, TestingSink(out))
    run_main(flow)
print(time.perf_counter() - started)
