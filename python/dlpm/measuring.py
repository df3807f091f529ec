"""Measures what runs inside a `with`, or in a function, through the agent of the machine."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
import weakref
from typing import Any, Callable, List, Mapping, Optional, Tuple, TypeVar, Union, cast, overload

from . import _log, agent
from .figures import UNKNOWN, Energy, Figures, of_sample, together

F = TypeVar("F", bound=Callable[..., Any])

#: How long an answer is waited for, in s. An agent that does not answer in time is left alone for a while.
_PATIENCE_S = 5.0
_PAUSE_S = 60.0

#: Lines of a recording come at its end, at the latest after an hour: nobody has to read meanwhile.
_INTERVAL_MS = 3_600_000

#: Calls of a function whose figures are not read yet.
_MOST_PENDING = 4

_paused_until = 0.0
_live: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


class _Read(Energy):
    """Figures that are read when they are asked for."""

    @property
    def figures(self) -> Figures:
        """All figures, as a record of their own."""
        raise NotImplementedError

    @property
    def energy_uj(self) -> Mapping[str, Optional[int]]:  # type: ignore[override]
        """Energy by device in µJ; None for a device whose meter failed."""
        return self.figures.energy_uj

    @property
    def kinds(self) -> Mapping[str, str]:  # type: ignore[override]
        """Kind of each device."""
        return self.figures.kinds

    @property
    def methods(self) -> Mapping[str, str]:  # type: ignore[override]
        """How the energy of each device was split among processes."""
        return self.figures.methods

    @property
    def without(self) -> Tuple[str, ...]:  # type: ignore[override]
        """Devices that no figure contains."""
        return self.figures.without

    @property
    def cpu_ns(self) -> Optional[int]:  # type: ignore[override]
        """CPU time of all CPUs together in ns."""
        return self.figures.cpu_ns

    @property
    def length_ns(self) -> Optional[int]:  # type: ignore[override]
        """Length in ns."""
        return self.figures.length_ns

    @property
    def complete(self) -> bool:  # type: ignore[override]
        """Whether it was measured from its begin to its end. If not, all figures are None."""
        return self.figures.complete


class Measurement(_Read):
    """Energy and CPU time of a process and all its descendants, from `begin` to `end`, as a context manager.

    Every figure is None before the end, and where there is no agent. Nothing here raises.
    """

    def __init__(self, pid: Optional[int] = None):
        self._pid = pid
        self._depth = 0
        self._recording: Optional[agent.Recording] = None
        self._figures: Optional[Figures] = UNKNOWN  # None: the recording has ended, and is not read yet.
        self._lock = threading.RLock()
        _live[id(self)] = self

    def begin(self) -> None:
        """Begins now. A measurement that has ended can begin again; its figures are then those of the last time."""
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._close()
                self._figures = UNKNOWN
                self._recording = _begin("caller" if self._pid is None else self._pid)

    def end(self) -> None:
        """Ends now. Does nothing if it has not begun, or in a process that has inherited it by `fork`."""
        with self._lock:
            if self._depth == 1 and self._recording is not None:
                if _end(self._recording):
                    self._figures = None
                else:
                    self._close()
            self._depth = max(0, self._depth - 1)

    def __enter__(self) -> "Measurement":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def figures(self) -> Figures:
        """All figures, as a record of their own. The first time it waits until GPUs have answered, up to 0.5 s."""
        with self._lock:
            if self._figures is None:
                self._figures = UNKNOWN if self._recording is None else _read(self._recording)
                self._close()
            return self._figures

    def __repr__(self) -> str:
        return "<dlpm.Measurement: %s>" % self

    def __reduce__(self) -> Any:
        # What goes to another process, or into a file, are the figures.
        return _restored, (self.figures,)

    def __del__(self) -> None:
        if getattr(self, "_recording", None) is not None:
            self._close()

    def _close(self) -> None:
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    def _before_fork(self) -> None:
        # Afterwards two processes would read from one connection.
        if self._figures is None:
            self._figures = self.figures

    def _after_fork(self) -> None:
        # It is the parent's; closing it here does not end it there.
        self._lock = threading.RLock()
        self._depth = 0
        self._close()


class Calls(_Read):
    """The sum over all calls of a function that have ended."""

    def __init__(self) -> None:
        #: Number of calls that have ended.
        self.count = 0
        #: The call that ended last.
        self.last: Optional[Measurement] = None
        self._sum: Optional[Figures] = None
        self._pending: List[Measurement] = []
        self._lock = threading.RLock()
        _live[id(self)] = self

    def add(self, call: Measurement) -> None:
        """One more call has ended."""
        with self._lock:
            self.count += 1
            self.last = call
            self._pending.append(call)
            self._take(_MOST_PENDING)

    @property
    def figures(self) -> Figures:
        """The sum. Not known as soon as one call was not measured."""
        with self._lock:
            self._take(0)
            return self._sum or UNKNOWN

    def _take(self, but: int) -> None:
        while len(self._pending) > but:
            call = self._pending.pop(0).figures
            self._sum = call if self._sum is None else together([self._sum, call])

    def __repr__(self) -> str:
        return "<dlpm.Calls: %d, %s>" % (self.count, self)

    def _before_fork(self) -> None:
        pass

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


def measure(pid: Optional[int] = None) -> Measurement:
    """Measures the calling process, its threads and all its descendants; or those of `pid`, of the same user.

    >>> import dlpm
    >>> with dlpm.measure() as m:
    ...     total = sum(range(100_000))
    >>> isinstance(m.joules, (float, type(None)))       # None where no agent runs
    True

    Measurements can be nested, and run in several threads at once: each is of the whole process. A process that is
    forked inside is measured with it, and may measure itself. Entering and leaving take about a millisecond together.
    The figures are there after the end: see `Energy` for their names and units. A user can have 16 at a time.

    Without an agent nothing is measured, with one warning of the logger `dlpm`. If the agent stops meanwhile, `complete`
    is False, all figures are None, and there is one warning. An agent that hangs costs 5 s once a minute.
    """
    return Measurement(pid)


@overload
def measured(function: F) -> F: ...
@overload
def measured(function: None = None) -> Callable[[F], F]: ...


def measured(function: Optional[F] = None) -> Union[F, Callable[[F], F]]:
    """Measures each call of a function, as `measure` does. Coroutines and generators are measured to their end.

    The function gets an attribute `energy`, the sum over all calls, with the names of `measure` and `count` and `last`.

    >>> import dlpm
    >>> @dlpm.measured
    ... def step():
    ...     return 7
    >>> step(), step()
    (7, 7)
    >>> step.energy.count
    2
    """
    if function is None:
        return measured
    calls = Calls()
    call: Any = function
    wrapper: Any

    def ended(measurement: Measurement) -> None:
        measurement.end()
        calls.add(measurement)

    if inspect.iscoroutinefunction(function):

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            measurement = Measurement()
            measurement.begin()
            try:
                return await call(*args, **kwargs)
            finally:
                ended(measurement)

        wrapper = awaited
    elif inspect.isgeneratorfunction(function):

        def iterated(*args: Any, **kwargs: Any) -> Any:
            measurement = Measurement()
            measurement.begin()
            try:
                return (yield from call(*args, **kwargs))
            finally:
                ended(measurement)

        wrapper = iterated
    else:

        def called(*args: Any, **kwargs: Any) -> Any:
            measurement = Measurement()
            measurement.begin()
            try:
                return call(*args, **kwargs)
            finally:
                ended(measurement)

        wrapper = called
    named: Any = functools.wraps(function)(wrapper)
    named.energy = calls
    return cast(F, named)


def _restored(figures: Figures) -> Measurement:
    measurement = Measurement()
    measurement._figures = figures
    return measurement


def _begin(root: Union[str, int]) -> Optional[agent.Recording]:
    global _paused_until
    where = agent.path()
    if time.monotonic() < _paused_until:
        return None
    request = {"follow": [root], "interval_ms": _INTERVAL_MS, "max_rows": 1}
    try:
        return agent.Recording(where, request, time.monotonic() + _PATIENCE_S)
    except agent.NoAgent as error:
        _log.once(
            "no agent",
            "nothing is measured: no dlpm agent at %s (%s); ask the operator for `dlpm agent`, or name its socket with "
            "the variable DLPM_AGENT",
            where,
            error,
        )
    except agent.Silent as error:
        _paused_until = time.monotonic() + _PAUSE_S
        _log.rarely("silent", "not measured for the next %d s: %s", _PAUSE_S, error)
    except Exception as error:  # Whatever is wrong, the program that is measured goes on.
        _log.rarely("begin", "not measured: %s", error)
    return None


def _end(recording: agent.Recording) -> bool:
    """Whether its figures can be read."""
    try:
        recording.end(time.monotonic() + _PATIENCE_S)
        return True
    except agent.NoAgent:
        _log.rarely("lost", "not measured to the end: the agent stopped")
    except Exception as error:
        _log.rarely("lost", "not measured to the end: %s", error)
    return False


def _read(recording: agent.Recording) -> Figures:
    try:
        return _sum_of(recording, time.monotonic() + _PATIENCE_S)
    except Exception as error:
        _log.rarely("lost", "not measured: %s", error)
        return UNKNOWN


def _sum_of(recording: agent.Recording, deadline: float) -> Figures:
    lines: List[Figures] = []
    while True:
        line = recording.line(deadline)
        if line is None:
            raise agent.AgentError("the agent stopped before it told the last interval")
        if not isinstance(line, dict):
            continue  # The end of a segment.
        if "ended" in line:
            if line["ended"].get("reason") != "asked":
                raise agent.AgentError("the agent stopped")
            break
        exact = line["dlpm"]
        if exact.get("event") in ("gap", "dropped"):
            raise agent.AgentError("the agent had to leave intervals out")
        if "rows" in exact:
            lines.append(of_sample(exact))
    if not lines:
        raise agent.AgentError("the agent told no interval")
    return together(lines)


def _all_live() -> List[Any]:
    return [live for live in (reference() for reference in _live.valuerefs()) if live is not None]


def _before_fork() -> None:
    for live in _all_live():
        live._before_fork()


def _after_fork() -> None:
    for live in _all_live():
        live._after_fork()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
