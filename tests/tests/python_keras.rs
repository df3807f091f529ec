//! The package for Python with a real Keras.

use std::{env, process::Command};

use dlpm_tests::{
    agent::{SOCKET, agent, folder, wait_for_intervals},
    phases::{Traced, labels, phases},
    powercap::{Powercap, node},
    python::{package, said},
    require_dlpm,
};

/// Names a Python with Keras; `cargo xtask keras` makes one, of some hundred megabytes. Elsewhere nothing is tested here.
const KERAS_PYTHON: &str = "DLPM_KERAS_PYTHON";

const TRAIN: &str = "
import math, os
os.environ['KERAS_BACKEND'] = 'jax'
import keras, numpy
import dlpm.keras
x = numpy.random.default_rng(1).random((2000, 16)).astype('float32')
y = (x.sum(1) > 8).astype('float32')
model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8, 'relu'), keras.layers.Dense(1, 'sigmoid')])
model.compile('sgd', 'binary_crossentropy')
energy = dlpm.keras.Energy()
fit = lambda: model.fit(x, y, epochs=3, validation_split=0.2, verbose=0, callbacks=[energy]).history
history = fit()
assert len(energy.epochs) == 3 and len(history['loss']) == 3
";

#[test]
fn the_history_has_the_joules_of_each_epoch() {
    require_dlpm!();
    let Some(python) = env::var_os(KERAS_PYTHON) else {
        return;
    };
    let (state, tree, package) = (folder(), Powercap::start(node()), package());
    let mut running = agent(&tree, state.path()).start();
    wait_for_intervals(&mut running, state.path(), 2);
    let program = format!(
        "{TRAIN}
for name in ('joules', 'cpu_seconds'):
    assert len(history[name]) == 3 and all(value > 0 for value in history[name]), history
    whole = getattr(energy.training, name)
    assert sum(history[name]) <= whole, (history, whole)
assert 'gpu_joules' not in history and energy.training.complete
# Again, and the agent is there for the first epoch only: what is not known is NaN.
class Away(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        os.environ['DLPM_AGENT'] = '/nowhere'
fit = lambda: model.fit(x, y, epochs=3, verbose=0, callbacks=[energy, Away()]).history
joules = fit()['joules']
assert joules[0] > 0 and all(math.isnan(value) for value in joules[1:]) and len(joules) == 3, joules
"
    );
    let mut command = Command::new(&python);
    command
        .args(["-B", "-c", &program])
        .env("PYTHONPATH", package.path())
        .env("DLPM_AGENT", state.path().join(SOCKET));
    said(&mut command);
    running.end_with(libc::SIGTERM).exited(0);
}

#[test]
fn each_epoch_is_a_phase_of_a_trace() {
    require_dlpm!();
    let Some(python) = env::var_os(KERAS_PYTHON) else {
        return;
    };
    let (traced, package) = (Traced::new(), package());
    let output = traced
        .trace()
        .variable("PYTHONPATH", &package.path().display().to_string())
        .variable("DLPM_AGENT", "/nowhere")
        .arg("--")
        .arg(python)
        .args(["-B", "-c", &format!("{TRAIN}assert 'joules' not in history, history\n")])
        .run()
        .exited(0);
    assert!(output.stderr.contains("nothing is measured"), "{}", output.stderr);
    assert_eq!(labels(&phases(&traced.folder)), ["epoch 1", "epoch 2", "epoch 3"]);
}
