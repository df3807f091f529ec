#!/usr/bin/env python3
"""Runs dlpm with simulated energy zones, to see what it prints on a machine with RAPL. Nothing is measured.

    sudo examples/simulated_rapl.py dlpm trace --output run1 -- python3 train.py

The zones are files in a temporary folder, which dlpm reads instead of /sys (`--sysfs`). Their counters follow the CPU
time of the machine: some watts while idle, and more for each busy CPU.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

# Zone: watts of a package that is idle, watts for each of its busy CPUs. The package contains core and uncore.
MODEL = {"core": (4.0, 11.0), "uncore": (2.0, 0.0), "dram": (3.0, 0.5), "package": (9.0, 1.0)}
RANGE_UJ = 262_143_328_850
STEP_S = 0.005


def write(path, text):
    """Replaces a file at once, so that no reader finds half of it."""
    with open(path + ".new", "w") as file:
        file.write(f"{text}\n")
    os.replace(path + ".new", path)


class Zone:
    def __init__(self, folder, name, idle_w, busy_w):
        os.makedirs(folder)
        write(os.path.join(folder, "name"), name)
        write(os.path.join(folder, "max_energy_range_uj"), RANGE_UJ)
        self.path = os.path.join(folder, "energy_uj")
        self.idle_w, self.busy_w, self.total_uj = idle_w, busy_w, 0.0
        self.advance(0.0, 0.0)

    def advance(self, seconds, busy_s):
        self.total_uj += 1e6 * (self.idle_w * seconds + self.busy_w * busy_s)
        write(self.path, int(self.total_uj) % (RANGE_UJ + 1))


def packages():
    """The CPUs of each package."""
    found, root = {}, "/sys/devices/system/cpu"
    for name in os.listdir(root):
        path = os.path.join(root, name, "topology/physical_package_id")
        if name[:3] == "cpu" and name[3:].isdigit() and os.path.exists(path):
            with open(path) as file:
                found.setdefault(int(file.read()), []).append(name)
    return found


def build(sysfs):
    """A tree like /sys, with zones, and the machine's own CPUs. Returns of each package its zone, then its parts."""
    powercap = os.path.join(sysfs, "class/powercap")
    cpus = os.path.join(sysfs, "devices/system/cpu")
    os.makedirs(cpus)
    os.symlink("/sys/kernel", os.path.join(sysfs, "kernel"))
    for name in os.listdir("/sys/devices/system/cpu"):
        if name != "modalias":
            os.symlink(os.path.join("/sys/devices/system/cpu", name), os.path.join(cpus, name))
    # A processor of Intel: on others the zone `core` covers something else.
    write(os.path.join(cpus, "modalias"), "cpu:type:x86,ven0000fam0006mod0055:feature:")
    zones = {}
    for package in packages():
        folder = os.path.join(powercap, f"intel-rapl:{package}")
        parts = [(f"{folder}:{index}", name) for index, name in enumerate(["core", "uncore", "dram"])]
        idle_w, busy_w = map(sum, zip(MODEL["package"], MODEL["core"], MODEL["uncore"]))
        zones[package] = [Zone(folder, f"package-{package}", idle_w, busy_w)]
        zones[package] += [Zone(path, name, *MODEL[name]) for path, name in parts]
    return zones


def busy_seconds():
    """CPU time of each CPU that was not idle, by its name."""
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    with open("/proc/stat") as file:
        lines = [line.split() for line in file if line.startswith("cpu") and line[3].isdigit()]
    # user, nice, system, irq, softirq; without idle, iowait and stolen time.
    return {line[0]: tick_s * sum(int(line[index]) for index in (1, 2, 3, 6, 7)) for line in lines}


def feed(zones, stop):
    members, before, last = packages(), busy_seconds(), time.monotonic()
    behind = {package: (0.0, 0.0) for package in zones}
    while not stop.wait(STEP_S):
        now, busy = time.monotonic(), busy_seconds()
        for package, (whole, *parts) in zones.items():
            busy_s = sum(busy.get(cpu, 0.0) - before.get(cpu, 0.0) for cpu in members[package])
            step = (now - last, max(0.0, busy_s))
            whole.advance(*step)
            # The parts are a step behind: whatever is read in between, a package has counted what its parts have.
            for part in parts:
                part.advance(*behind[package])
            behind[package] = step
        before, last = busy, now


def main():
    arguments = sys.argv[1:]
    if len(arguments) < 2:
        sys.exit(f"usage: {sys.argv[0]} DLPM trace|doctor|calibrate [ARGUMENTS]")
    with tempfile.TemporaryDirectory() as sysfs:
        stop = threading.Event()
        feeder = threading.Thread(target=feed, args=(build(sysfs), stop))
        feeder.start()
        try:
            status = subprocess.call([*arguments[:2], "--sysfs", sysfs, *arguments[2:]])
        finally:
            stop.set()
            feeder.join()
    print("The energy zones were simulated (examples/simulated_rapl.py).", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
