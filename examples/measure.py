#!/usr/bin/env python3
"""Trains as train.py does, and says what each epoch cost. Needs no root, and an agent (`dlpm agent`) on the machine.

    python3 examples/measure.py

Without an agent it trains all the same, and says "not measured".
"""

import argparse
import os
import random
import sys

# In a checkout the package lies beside this folder. pip and the Debian package install it for every program.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import dlpm
import train


@dlpm.measured
def epoch(weights, points):
    train.train(weights, points, 0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--points", type=int, default=20000)
    options = parser.parse_args()

    with dlpm.measure() as whole:
        points = train.load(options.points, random.Random(1))
        weights = [0.0] * 8
        for number in range(1, options.epochs + 1):
            epoch(weights, points)
            print(f"epoch {number}: {epoch.energy.last}")
    print(f"all epochs: {epoch.energy}")
    print(f"everything: {whole}")


if __name__ == "__main__":
    main()
