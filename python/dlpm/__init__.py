"""Joules and CPU time that a program really used, and the phases of a traced one.

    import dlpm

    with dlpm.measure() as m:           # what runs inside, measured by the machine's dlpm agent, without root
        ...
    print(m.joules, m.cpu_seconds)

    @dlpm.measured                      # the same for each call of a function
    def train(): ...
    print(train.energy.joules)

    with dlpm.phase("train"):           # a phase of a program that `dlpm trace` measures
        ...

    log = dlpm.read("run1")             # the folder that `dlpm trace` wrote
    print(log.totals[0])

Standard library only, Python 3.8 or newer. Where nothing measures, the program runs as usual and the figures are None.
Everything else: docs/python.md of dlpm.
"""

from .figures import Figures
from .measuring import Calls, Measurement, measure, measured
from .phases import begin, end, mark, phase
from .reading import Log, LogError, Table, read

__all__ = [
    "mark",
    "begin",
    "end",
    "phase",
    "measure",
    "measured",
    "Measurement",
    "Calls",
    "Figures",
    "read",
    "Log",
    "LogError",
    "Table",
]
