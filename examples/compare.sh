#!/bin/sh
# Compares the energy of two commands: runs them in turns, each in a trace of its own, and prints the medians.
#
#     sudo examples/compare.sh 5 'gzip -1 -c big.tar' 'gzip -9 -c big.tar'
#
# On a machine without a meter, give the watts of an estimate:
#
#     sudo DLPM_OPTIONS='--estimate idle=0,busy=12' examples/compare.sh 5 'COMMAND A' 'COMMAND B'
#
# Runs in turns share what changes slowly, such as the temperature. Read the spread before you believe the difference.
set -eu

if [ $# -ne 3 ]; then
    echo "usage: $0 ROUNDS 'COMMAND A' 'COMMAND B'" >&2
    exit 2
fi
rounds=$1
first=$2
second=$3
dlpm=${DLPM:-dlpm}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# What a command prints is not what is compared.
trace() {
    # shellcheck disable=SC2086 # Options are words.
    "$dlpm" trace --quiet ${DLPM_OPTIONS:-} --output "$folder/$1" -- sh -c "$2" >/dev/null
    "$dlpm" report "$folder/$1" --format json >"$folder/$1.json"
}

round=1
while [ "$round" -le "$rounds" ]; do
    trace "A-$round" "$first"
    trace "B-$round" "$second"
    round=$((round + 1))
done

python3 - "$folder" <<'PYTHON'
import glob, json, statistics, sys

def values(command):
    for path in glob.glob(f"{sys.argv[1]}/{command}-*.json"):
        with open(path) as file:
            report = json.load(file)
        listed = [row for row in report["processes"] if row["row"] in ("process", "smaller")]
        energy = report["energy"] and report["energy"]["listed_uj"]
        yield energy and energy / 1e6, sum(row["cpu_ns"] for row in listed) / 1e9

for command in "AB":
    joules, seconds = zip(*values(command))
    for unit, figures in (("J", joules), ("s of CPU time", seconds)):
        if None in figures:
            print(f"{command}: energy is not known: there is no meter, or it was lost; see `dlpm doctor`")
        else:
            print(f"{command}: {statistics.median(figures):.3f} {unit} ({min(figures):.3f} to {max(figures):.3f})")
PYTHON
