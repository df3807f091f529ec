"""A log (of `dlpm trace`, or an agent's history) as a Parquet file, made by DuckDB, and what that saves.

    python3 parquet.py /var/lib/dlpm/history day.parquet

Each row of each interval becomes a row of the file. Then the same sums are read from both, and sizes and times printed.
Needs DuckDB (`pip install duckdb`).
"""

import glob
import os
import sys
import time

import duckdb

# Events and the ends of segments have no rows.
ROWS = """
SELECT dlpm.seq AS seq, dlpm.end_ns AS end_ns, unnest(dlpm."rows", recursive := true)
FROM read_json({files}, format = 'newline_delimited', maximum_object_size = 33554432, columns = {{
    date: 'VARCHAR',
    dlpm: 'STRUCT(seq UBIGINT, end_ns UBIGINT, "rows" STRUCT("row" VARCHAR, tgid UINTEGER, start_ns UBIGINT,
        comm VARCHAR, cgroup VARCHAR, tenant VARCHAR, uid UINTEGER, cpu_ns UBIGINT, energy_uj MAP(VARCHAR, UBIGINT))[])'
}})
"""

SUMS = """
SELECT coalesce(tenant, cgroup) AS whose, sum(cpu_ns) AS cpu_ns, sum(list_sum(map_values(energy_uj))) AS energy_uj
FROM ({rows}) GROUP BY whose ORDER BY whose
"""


def summed(rows, rounds=5):
    """The sums over `rows`, a query, and the median of the seconds that they take in one thread."""
    seconds, sums = [], None
    for _ in range(rounds):
        database = duckdb.connect()
        database.execute("SET threads = 1").fetchall()
        begin = time.perf_counter()
        sums = database.execute(SUMS.format(rows=rows)).fetchall()
        seconds.append(time.perf_counter() - begin)
    return sums, sorted(seconds)[rounds // 2]


def without_segments(folder, target):
    """Copies the lines that are objects into one file: DuckDB refuses a log for its line `"END OF RECORDING SEGMENT"`."""
    reader = duckdb.connect()
    files = sorted(glob.glob(os.path.join(folder, "power_metrics.*.json*")))
    files += glob.glob(os.path.join(folder, "power_metrics.json"))
    with open(target, "w", encoding="utf-8") as out:
        for file in files:
            read = f"""SELECT line FROM read_csv('{file}', columns = {{line: 'VARCHAR'}}, header = false, quote = '',
                escape = '', delim = '\\x01', max_line_size = 33554432, auto_detect = false)"""
            rows = reader.execute(read)
            while batch := rows.fetchmany(64):
                out.writelines(line + "\n" for (line,) in batch if line.startswith("{"))
    return sum(os.path.getsize(file) for file in files)


def main():
    """Writes the file and prints what it saves."""
    folder, target = sys.argv[1:3]
    plain = target + ".jsonl"
    try:
        on_disk = without_segments(folder, plain)
        if not os.path.getsize(plain):
            sys.exit(f"{folder} has no interval yet, or is not the folder of a log")
        rows = ROWS.format(files=f"'{plain}'")
        duckdb.execute(f"COPY ({rows}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchall()
        sums, seconds = summed(rows)
        same_sums, parquet_seconds = summed(f"SELECT * FROM '{target}'")
        assert sums == same_sums, "the sums differ"
        size = os.path.getsize(target)
        print(f"{len(sums)} sums. Parquet has {size} bytes: {size / os.path.getsize(plain):.3f} of the lines as JSON, "
              f"{size / on_disk:.3f} of the files of the log; its sums take {parquet_seconds / seconds:.3f} of the time")
    finally:
        if os.path.exists(plain):
            os.remove(plain)


if __name__ == "__main__":
    main()
