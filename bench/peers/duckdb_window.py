"""DuckDB's batch scan of the same rows: 1 s count, mean, min, max, std per machine and signal, to Parquet.

Usage: duckdb_window.py ROWS.{csv,parquet} OUT.parquet THREADS. Prints the seconds it took.
"""
import sys
import time

import duckdb

rows, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = duckdb.connect()
connection.execute(f"SET threads = {threads}")
columns = "{'machine': 'VARCHAR', 'signal': 'VARCHAR', 'ts': 'BIGINT', 'value': 'DOUBLE'}"
if rows.endswith(".csv"):
    source, second = f"read_csv('{rows}', header = true, columns = {columns})", "ts // 1000000"
else:
    source, second = f"read_parquet('{rows}')", "epoch_us(ts) // 1000000"
started = time.perf_counter()
connection.execute(
    f"""COPY (
        SELECT machine, signal, {second} AS second, count(*) AS count, avg(value) AS mean, min(value) AS min,
               max(value) AS max, stddev_pop(value) AS std
        FROM {source} GROUP BY ALL
    ) TO '{out}' (FORMAT parquet)"""
)
print(time.perf_counter() - started)
