"""Reads the folder that `dlpm trace` wrote, as dictionaries or pandas frames."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from .figures import LISTED

_NAME = "power_metrics.json"
_CLOSED = re.compile(r"power_metrics\.(\d{6,})\.json(\.zst)?\Z")
_KEY = ("row", "tgid", "start_ns", "cgroup", "tenant")


class LogError(Exception):
    """A folder cannot be read as a log. The text says what to do."""


class Table(List[Dict[str, Any]]):
    """A list of dictionaries."""

    def frame(self) -> Any:
        """The same as a pandas.DataFrame. What is nested has names with dots: `energy_uj.dram-0`. Needs pandas."""
        try:
            import pandas  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
        except ImportError:
            raise ImportError('frames need pandas: pip install "dlpm[pandas]"') from None
        return pandas.json_normalize(list(self))


class Log:
    """What a log has. Energy is in µJ and time in ns, as in docs/log-format.md; `joules` is the sum in J.

    None, and a device that is left out, mean "not known", and never 0.
    """

    def __init__(self, folder: str):
        #: The folder.
        self.folder = folder
        #: What `metadata.json` says; empty if there is none.
        self.metadata: Dict[str, Any] = {}
        #: One entry for each row of each interval: the fields of the row, with `trace`, `seq`, `begin_ns`, `end_ns`,
        #: `date`, `phases` (labels of those that are open) and `joules`.
        self.rows = Table()
        #: One entry for each zone of each interval: its fields, with `trace`, `seq`, `begin_ns`, `end_ns` and `date`.
        self.zones = Table()
        #: One entry for each phase, from its begin to its end: `trace`, `label`, `begin_seq` (its first interval),
        #: `end_seq` (the first one after it), `begin_ns`, `end_ns`, and of the listed processes `cpu_ns`, `energy_uj`
        #: by device and `joules`.
        self.phases = Table()
        #: One entry for each row over the whole log, a process in each of its cgroups: `cpu_ns`, `energy_uj` by device,
        #: `joules`. All together are what the meters counted.
        self.totals = Table()

    def __repr__(self) -> str:
        return "<dlpm.Log %s: %d rows, %d phases>" % (self.folder, len(self.rows), len(self.phases))


def read(folder: Any) -> Log:
    """Reads a log into memory: `rows`, `zones`, `phases` and `totals`, see `Log`.

    >>> import dlpm, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(os.path.join(folder, "power_metrics.json"), "w") as file:
    ...         _ = file.write('{"date": "2026-01-01 00:00:00.000000+00:00", "metrics": {}, "dlpm": {"seq": 0, '
    ...             '"begin_ns": 0, "end_ns": 1000000000, "zones": [], "rows": [{"row": "process", "tgid": 7, '
    ...             '"comm": "python3", "cpu_ns": 900, "energy_uj": {"package-0/whole": 1500000}}]}}\\n')
    ...     log = dlpm.read(folder)
    >>> [(total["comm"], total["joules"], total["cpu_ns"]) for total in log.totals]
    [('python3', 1.5, 900)]

    A log that is still being written is read up to its last whole line, and one of several files (`--rotate`) whole.
    Raises LogError for what is not a log, and OSError.
    """
    log = Log(os.fspath(folder))
    metadata = os.path.join(log.folder, "metadata.json")
    if os.path.exists(metadata):
        with open(metadata, encoding="utf-8") as file:
            found = json.load(file)
            log.metadata = found if isinstance(found, dict) else {}
    reader = _Reader(log)
    for place, entry in _entries(log.folder):
        # The end of a segment is a string; what AIPowerMeter recorded has no exact part.
        exact = entry.get("dlpm") if isinstance(entry, dict) else None
        if not isinstance(exact, dict):
            continue
        try:
            reader.take(entry, exact)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LogError("%s is not a line of a log (%r); `dlpm verify` says what is wrong" % (place, error)) from None
    reader.finish()
    return log


class _Reader:
    def __init__(self, log: Log):
        self._log = log
        self._trace = 0
        self._last: Optional[Dict[str, Any]] = None
        self._open: List[Dict[str, Any]] = []
        self._depths: Dict[str, int] = {}
        self._totals: Dict[Tuple[Any, ...], Dict[str, Any]] = {}

    def take(self, entry: Dict[str, Any], exact: Dict[str, Any]) -> None:
        event = exact.get("event")
        if event in ("phase_begin", "phase_end"):
            self._trace_of(exact["seq"])
            (self._begin if event == "phase_begin" else self._end)(exact["label"], exact["seq"], exact["at_ns"])
        elif event is None:
            self._sample(entry, exact)

    def _sample(self, entry: Dict[str, Any], exact: Dict[str, Any]) -> None:
        self._trace_of(exact["seq"])
        self._last = exact
        where = {"trace": self._trace, **{name: exact[name] for name in ("seq", "begin_ns", "end_ns")}}
        where["date"] = entry.get("date")
        labels = [phase["label"] for phase in self._open]
        for row in exact["rows"]:
            used = row["energy_uj"]
            self._log.rows.append({**where, "phases": labels, **row, "joules": _joules(used)})
            self._add(self._total(row), row["cpu_ns"], used)
            if row["row"] in LISTED:
                for phase in self._open:
                    self._add(phase, row["cpu_ns"], used)
        self._log.zones.extend({**where, **zone} for zone in exact["zones"])

    def _total(self, row: Dict[str, Any]) -> Dict[str, Any]:
        key = tuple(row.get(name) for name in _KEY)
        total = self._totals.get(key)
        if total is None:
            total = {**{name: row[name] for name in _KEY if name in row}, "cpu_ns": 0, "energy_uj": {}}
            self._totals[key] = total
        # The newest names, as in `dlpm report`.
        total.update({name: row[name] for name in ("comm", "exec_comm", "uid") if name in row})
        return total

    @staticmethod
    def _add(to: Dict[str, Any], cpu_ns: int, used: Dict[str, Any]) -> None:
        to["cpu_ns"] += cpu_ns
        for device, uj in used.items():
            if uj is not None:
                to["energy_uj"][device] = to["energy_uj"].get(device, 0) + uj

    def _begin(self, label: str, seq: int, at_ns: int) -> None:
        # One that is open already is the same phase; its outermost end ends it.
        self._depths[label] = self._depths.get(label, 0) + 1
        if self._depths[label] == 1:
            phase = {"trace": self._trace, "label": label, "begin_seq": seq, "end_seq": None, "begin_ns": at_ns}
            self._open.append({**phase, "end_ns": None, "cpu_ns": 0, "energy_uj": {}})

    def _end(self, label: str, seq: Optional[int], at_ns: Optional[int]) -> None:
        depth = self._depths.get(label, 0)
        if depth == 0:
            return
        self._depths[label] = depth - 1
        if depth == 1:
            at = next(at for at, phase in enumerate(self._open) if phase["label"] == label)
            self._log.phases.append({**self._open.pop(at), "end_seq": seq, "end_ns": at_ns})

    def _trace_of(self, seq: int) -> None:
        """In the next trace (`--append`), numbers begin again. Phases of a trace that was killed end with it."""
        if self._last is not None and seq <= self._last["seq"]:
            self._end_all()
            self._trace += 1

    def _end_all(self) -> None:
        for phase in list(self._open):
            self._depths[phase["label"]] = 1
            last = self._last or {}
            self._end(phase["label"], last.get("seq", -1) + 1 if last else None, last.get("end_ns"))
        self._last = None

    def finish(self) -> None:
        self._end_all()
        self._log.totals.extend(self._totals.values())
        for entry in (*self._log.totals, *self._log.phases):
            entry["joules"] = _joules(entry["energy_uj"])


def _joules(energy_uj: Dict[str, Any]) -> Optional[float]:
    known = [uj for uj in energy_uj.values() if uj is not None]
    return sum(known) / 1e6 if known else None


def _entries(folder: str) -> Iterator[Tuple[str, Any]]:
    """All values of a log, each with its place."""
    for path in _files(folder):
        with _opened(path, folder) as file:
            for number, line in enumerate(file, 1):
                place = "line %d of %s" % (number, path)
                try:
                    yield place, json.loads(line)
                except ValueError:
                    if not line.endswith(b"\n"):
                        break  # It is still being written, or its trace was killed.
                    raise LogError("%s is not JSON; `dlpm verify %s` says what is wrong" % (place, folder)) from None


def _files(folder: str) -> List[str]:
    """The files of a log, the oldest first. Where one is there plain and compressed, the plain one."""
    closed: Dict[int, str] = {}
    for name in sorted(os.listdir(folder), reverse=True):
        match = _CLOSED.match(name)
        if match:  # `….json.zst` comes before `….json`, which then takes its place.
            closed[int(match.group(1))] = os.path.join(folder, name)
    newest = os.path.join(folder, _NAME)
    if not os.path.exists(newest):
        raise LogError("%s has no %s: name a folder that `dlpm trace` wrote" % (folder, _NAME))
    # Each file names the one that it continues. What is not named is of another log, or older than what was removed.
    files, before = [newest], _continued(newest, folder)
    while before in closed:
        files.insert(0, closed.pop(before))
        before = _continued(files[0], folder)
    return files


def _continued(path: str, folder: str) -> int:
    """The number of the file that this one continues; -1 if it continues none."""
    with _opened(path, folder) as file:
        try:
            exact = json.loads(file.readline())["dlpm"]
            return int(exact["file"]) if exact["event"] == "continues" else -1
        except (ValueError, KeyError, TypeError):
            return -1


def _opened(path: str, folder: str) -> Any:
    if not path.endswith(".zst"):
        return open(path, "rb")
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        raise LogError(
            "%s is compressed, which Python reads from 3.14 on: make one plain file with `dlpm convert %s --output "
            "COPY` and read that" % (path, folder)
        ) from None
    return zstd.open(path, "rb")
