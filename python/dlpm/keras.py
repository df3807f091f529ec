"""Joules of each epoch, for Keras.

    import dlpm.keras

    energy = dlpm.keras.Energy()
    history = model.fit(x, y, epochs=3, callbacks=[energy])
    print(history.history["joules"], energy.training)

Needs Keras 3, or TensorFlow with Keras 2.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from . import phases
from .measuring import Measurement

try:
    from keras.callbacks import Callback  # type: ignore
except ImportError:  # Keras 2 inside of TensorFlow.
    from tensorflow.keras.callbacks import Callback  # type: ignore

__all__ = ["Energy"]


class Energy(Callback):  # type: ignore[misc]
    """Measures each epoch, with its validation, and the whole training.

    Under `dlpm trace` each epoch is also a phase, `epoch 1` and so on. With an agent, `logs` of each epoch, and so the
    history, get `joules` (J) and `cpu_seconds` (s), and `gpu_joules` (J) if there are GPUs. What is not known is left
    out; where some epochs were measured, the history has NaN for the others. Without either, nothing happens.

    Put it before callbacks that read the logs, such as CSVLogger.
    """

    #: The names that it adds to the logs.
    NAMES = ("joules", "gpu_joules", "cpu_seconds")

    def __init__(self) -> None:
        super().__init__()
        #: The whole training: a Measurement, with figures after its end.
        self.training = Measurement()
        #: One Measurement for each epoch that has ended.
        self.epochs: List[Measurement] = []
        self._epoch: Optional[Measurement] = None
        self._label: Optional[str] = None
        self._seen: Dict[str, bool] = {}

    def on_train_begin(self, logs: Optional[Dict[str, Any]] = None) -> None:
        """Begins to measure the training."""
        self._end_epoch()
        self.training.end()  # One that an exception has ended.
        self.training = Measurement()
        self.epochs = []
        self._seen = {}
        self.training.begin()

    def on_epoch_begin(self, epoch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """Begins to measure the epoch, and its phase."""
        self._end_epoch()
        self._label = "epoch %d" % (epoch + 1)
        phases.begin(self._label)
        self._epoch = Measurement()
        self._epoch.begin()

    def on_epoch_end(self, epoch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """Ends both, and adds the figures to `logs`."""
        measured = self._end_epoch()
        if measured is None:
            return
        self.epochs.append(measured)
        if logs is not None:
            figures = measured.as_dict()
            for name in self.NAMES:
                if figures[name] is not None:
                    logs[name] = figures[name]
                    self._seen[name] = True
                elif name in self._seen:
                    logs[name] = float("nan")

    def on_train_end(self, logs: Optional[Dict[str, Any]] = None) -> None:
        """Ends the measurement of the training."""
        self._end_epoch()
        self.training.end()

    def _end_epoch(self) -> Optional[Measurement]:
        measured, self._epoch = self._epoch, None
        if measured is not None:
            measured.end()
        if self._label is not None:
            phases.end(self._label)
            self._label = None
        return measured
