#!/usr/bin/env python3
"""Reads a log of dlpm with pandas: joules of each command over time, and who used most in the worst second.

    dlpm trace --output run1 ...
    python3 examples/analyse.py run1

The exact part of each line is used (docs/log-format.md): integers, in microjoules and nanoseconds. Energy that is not
known is null in the log and NaN here: sums skip it, and this program says how much of it there is. A log that was
rotated has several files: `dlpm convert run1 -o run1-whole` makes one of them.
"""

import json
import os
import sys

import pandas


def rows(folder):
    """One record for each row of each interval: who it is, its CPU time in ns, and its energy in µJ or None."""
    with open(os.path.join(folder, "power_metrics.json"), encoding="utf-8") as log:
        for line in log:
            entry = json.loads(line)
            # The end of a segment is a string; marks and other events have no rows.
            exact = entry.get("dlpm", {}) if isinstance(entry, dict) else {}
            for row in exact.get("rows", []):
                energies = list(row["energy_uj"].values())
                known = [energy for energy in energies if energy is not None]
                yield {
                    "end_s": exact["end_ns"] / 1e9,
                    "who": row.get("comm") or f"({row['row']})",
                    "cpu_ns": row["cpu_ns"],
                    "energy_uj": sum(known) if known else None,
                }


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIR")
    table = pandas.DataFrame(rows(sys.argv[1]))
    if table.empty:
        sys.exit("the log has no interval yet")
    table["end_s"] -= table["end_s"].min()

    by_name = table.groupby("who")[["cpu_ns", "energy_uj"]].sum(min_count=1)
    by_name["cpu_s"] = by_name.pop("cpu_ns") / 1e9
    by_name["joules"] = by_name.pop("energy_uj") / 1e6
    print(by_name.sort_values(["joules", "cpu_s"], ascending=False).head(10).to_string(float_format="%.3f"))

    unknown = table["energy_uj"].isna().sum()
    if unknown:
        print(f"\n{unknown} of {len(table)} rows have no known energy")
    if unknown < len(table):
        energy = table.pivot_table(index="end_s", columns="who", values="energy_uj", aggfunc="sum")
        worst = energy.sum(axis="columns").idxmax()
        print(f"\nMost energy: the interval that ended {worst:.1f} s after the first, with")
        print((energy.loc[worst].dropna().sort_values(ascending=False).head(3) / 1e6).to_string(float_format="%.3f J"))


if __name__ == "__main__":
    main()
