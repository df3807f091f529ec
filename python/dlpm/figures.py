"""What was used: exact integers by device, and the same in joules and seconds."""

from __future__ import annotations

import html
from functools import reduce
from typing import Any, Dict, Iterable, Mapping, Optional, Set, Tuple

_CPU_KINDS = ("core", "one_core", "uncore", "rest", "whole")
#: Rows of a log that are processes of the recording, and not the rest of the machine.
LISTED = ("process", "merged")


class Energy:
    """Figures in joules and seconds, made from the integers that a class which inherits this has.

    None always means "not known", and 0 means 0.
    """

    #: Energy by device in µJ. The names of devices are those of zones in docs/log-format.md. None: its meter failed.
    energy_uj: Mapping[str, Optional[int]]
    #: Kind of each device: "core", "one_core", "uncore", "rest" and "whole" are parts of a CPU package; "dram"; "gpu".
    kinds: Mapping[str, str]
    #: How the energy of each device was split among processes: "cpu_time", "memory", "cgroup_memory"; of GPUs "sm",
    #: "sole_process", "no_process", "not_split"; "estimate"; "mixed" if it was not always the same.
    methods: Mapping[str, str]
    #: Devices that no figure contains: memory, as long as the agent has not read how much of it the processes have. It
    #: does so within about two seconds.
    without: Tuple[str, ...]
    #: CPU time of all CPUs together in ns.
    cpu_ns: Optional[int]
    #: Length in ns.
    length_ns: Optional[int]
    #: Whether it was measured from its begin to its end. If not, all figures are None.
    complete: bool

    @property
    def joules(self) -> Optional[float]:
        """Energy of all devices but those in `without` in J. None if a meter failed, or if there is none."""
        return self._joules(self.energy_uj)

    @property
    def cpu_joules(self) -> Optional[float]:
        """Energy of the CPU packages in J; with `is_estimate`, what is estimated of the machine without its GPUs."""
        return self._of_kinds(_CPU_KINDS)

    @property
    def gpu_joules(self) -> Optional[float]:
        """Energy of all GPUs in J. None if there is no GPU, or if the energy of one is not known."""
        return self._of_kinds(("gpu",))

    @property
    def dram_joules(self) -> Optional[float]:
        """Energy of the memory in J. None if the machine has no meter for it, or if it is in `without`."""
        return self._of_kinds(("dram",))

    @property
    def seconds(self) -> Optional[float]:
        """Length in s."""
        return None if self.length_ns is None else self.length_ns / 1e9

    @property
    def cpu_seconds(self) -> Optional[float]:
        """CPU time of all CPUs together in s."""
        return None if self.cpu_ns is None else self.cpu_ns / 1e9

    @property
    def is_estimate(self) -> Optional[bool]:
        """Whether some of the energy was made of watts that the operator gave, and not measured."""
        return "estimate" in self.methods.values() if self.methods else None

    def as_dict(self) -> Dict[str, Any]:
        """The figures in J and s by name, for loggers of experiments."""
        names = ("joules", "cpu_joules", "gpu_joules", "dram_joules", "seconds", "cpu_seconds", "is_estimate")
        return {name: getattr(self, name) for name in names}

    def _of_kinds(self, kinds: Iterable[str]) -> Optional[float]:
        return self._joules({device: uj for device, uj in self.energy_uj.items() if self.kinds.get(device, "") in kinds})

    @staticmethod
    def _joules(energy_uj: Mapping[str, Optional[int]]) -> Optional[float]:
        known = [uj for uj in energy_uj.values() if uj is not None]
        return sum(known) / 1e6 if known and len(known) == len(energy_uj) else None

    def __str__(self) -> str:
        if self.seconds is None:
            return "not measured"
        parts = [("CPU", self.cpu_joules), ("GPU", self.gpu_joules), ("DRAM", self.dram_joules)]
        listed = ", ".join("%s %.3f J" % (name, joules) for name, joules in parts if joules is not None)
        whole = "energy not known" if self.joules is None else "%.3f J" % self.joules
        whole += " without " + ", ".join(self.without) if self.without else ""
        text = "%s in %.3f s%s" % (whole, self.seconds, ": " + listed if listed else "")
        if self.cpu_seconds is not None:
            text += "; %.3f s of CPU time" % self.cpu_seconds
        return text + (" (energy estimated)" if self.is_estimate else "")

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [("Time", _shown(self.seconds, "s"), ""), ("CPU time", _shown(self.cpu_seconds, "s"), "counted")]
        for device, uj in self.energy_uj.items():
            rows.append((device, _shown(None if uj is None else uj / 1e6, "J"), self.methods.get(device, "")))
        rows.extend((device, _shown(None, "J"), "") for device in self.without)
        rows.append(("Together", _shown(self.joules, "J"), "an estimate" if self.is_estimate else ""))
        cells = ("".join("<td>%s</td>" % html.escape(text) for text in row) for row in rows)
        return "<table>%s</table>" % "".join("<tr>%s</tr>" % row for row in cells)


class Figures(Energy):
    """Figures that do not change any more.

    >>> one = Figures({"package-0/whole": 2_500_000}, {"package-0/whole": "whole"}, {"package-0/whole": "cpu_time"},
    ...               cpu_ns=1_000_000_000, length_ns=2_000_000_000)
    >>> one.joules, one.gpu_joules, one.cpu_seconds
    (2.5, None, 1.0)
    >>> print(together([one, one]))
    5.000 J in 4.000 s: CPU 5.000 J; 2.000 s of CPU time
    >>> print(together([one, UNKNOWN]))
    not measured

    What is not known of a part is not known of the whole:

    >>> failed = Figures({"package-0/whole": None}, one.kinds, one.methods, cpu_ns=1, length_ns=1)
    >>> print(together([one, failed]).joules, together([one, failed]).cpu_ns)
    None 1000000001
    >>> gpu = Figures({"gpu-1": 7, "package-0/rest": 3}, {"gpu-1": "gpu"}, {"gpu-1": "sm"}, cpu_ns=0, length_ns=1)
    >>> together([one, gpu]).energy_uj
    {'package-0/whole': 2500000, 'gpu-1': None, 'package-0/rest': 3}
    >>> unread = Figures({"package-0/whole": 5}, one.kinds, one.methods, cpu_ns=0, length_ns=1, without=["dram-0"])
    >>> print(together([one, unread]))
    2.500 J without dram-0 in 2.000 s: CPU 2.500 J; 1.000 s of CPU time
    """

    def __init__(
        self,
        energy_uj: Mapping[str, Optional[int]],
        kinds: Mapping[str, str],
        methods: Mapping[str, str],
        cpu_ns: Optional[int],
        length_ns: Optional[int],
        without: Iterable[str] = (),
    ):
        self.energy_uj = dict(energy_uj)
        self.kinds = dict(kinds)
        self.methods = dict(methods)
        self.cpu_ns = cpu_ns
        self.length_ns = length_ns
        self.complete = length_ns is not None
        self.without = tuple(without)

    def __repr__(self) -> str:
        return "<dlpm.Figures: %s>" % self


#: What is known of something that was not measured.
UNKNOWN = Figures({}, {}, {}, None, None)


def together(all_of_them: Iterable[Figures]) -> Figures:
    """The sum of figures of different times. What is not known in one of them is not known of the sum."""
    return reduce(_plus, all_of_them)


def _plus(one: Figures, other: Figures) -> Figures:
    if not (one.complete and other.complete):
        return UNKNOWN
    energy_uj: Dict[str, Optional[int]] = {}
    methods: Dict[str, str] = {}
    meters = _meters(one) & _meters(other)
    without = sorted({*one.without, *other.without})
    for device in [*one.energy_uj, *(device for device in other.energy_uj if device not in one.energy_uj)]:
        if device in without:
            continue
        # The parts of a package can change, if one of them fails: what counts is that its meter was there all the time.
        parts = [figures.energy_uj.get(device, 0) for figures in (one, other)]
        is_known = None not in parts and _meter(device) in meters
        energy_uj[device] = sum(part or 0 for part in parts) if is_known else None
        used = {figures.methods[device] for figures in (one, other) if device in figures.methods}
        methods[device] = used.pop() if len(used) == 1 else "mixed"
    return Figures(
        energy_uj,
        {**one.kinds, **other.kinds},
        methods,
        _sum(one.cpu_ns, other.cpu_ns),
        _sum(one.length_ns, other.length_ns),
        without,
    )


def _meter(device: str) -> str:
    return device.split("/", 1)[0]


def _meters(figures: Figures) -> Set[str]:
    return {_meter(device) for device in figures.energy_uj}


def _sum(one: Optional[int], other: Optional[int]) -> Optional[int]:
    return None if one is None or other is None else one + other


def of_sample(exact: Mapping[str, Any]) -> Figures:
    """The listed processes of one line of a log. `exact` is its part `dlpm` (docs/log-format.md).

    >>> of_sample({"begin_ns": 0, "end_ns": 10, "rows": [{"row": "process", "cpu_ns": 4, "energy_uj": {"dram-0": 7}},
    ...            {"row": "idle", "cpu_ns": 6, "energy_uj": {"dram-0": 1}}], "zones": [
    ...            {"zone": "dram-0", "role": "leaf", "kind": "dram", "state": "ok", "method": "memory"}]}).energy_uj
    {'dram-0': 7}
    """
    rows = [row for row in exact["rows"] if row["row"] in LISTED]
    leaves = [zone for zone in exact["zones"] if zone["role"] == "leaf"]
    is_memory_read = any("memory" in row for row in rows)
    energy_uj: Dict[str, Optional[int]] = {}
    without = []
    for leaf in leaves:
        zone, used_uj = leaf["zone"], sum(int(row["energy_uj"].get(leaf["zone"], 0)) for row in rows)
        if leaf["state"] != "ok":
            energy_uj[zone] = None
        elif leaf["method"] == "memory" and used_uj == 0 and not is_memory_read:
            without.append(zone)
        else:
            energy_uj[zone] = used_uj
    return Figures(
        energy_uj,
        {leaf["zone"]: leaf["kind"] for leaf in leaves},
        {leaf["zone"]: leaf["method"] for leaf in leaves if leaf["zone"] in energy_uj},
        sum(int(row["cpu_ns"]) for row in rows),
        int(exact["end_ns"]) - int(exact["begin_ns"]),
        without,
    )


def _shown(value: Optional[float], unit: str) -> str:
    return "not known" if value is None else "%.3f %s" % (value, unit)
