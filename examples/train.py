#!/usr/bin/env python3
"""Trains a small classifier, in phases that dlpm measures.

    sudo dlpm trace --output run1 -- python3 examples/train.py
    dlpm report run1 --by phase

Without a trace it trains all the same: the marks then do nothing. Only the standard library is needed.
"""

import argparse
import math
import os
import random
import sys

# In a checkout the package lies beside this folder. pip and the Debian package install it for every program.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import dlpm


@dlpm.phase("load")
def load(count, generator):
    """Points of two classes, each as (features, class)."""
    points = []
    for _ in range(count):
        label = generator.randrange(2)
        centre = 1.0 if label else -1.0
        points.append(([generator.gauss(centre, 1.5) for _ in range(8)], label))
    return points


def predict(weights, features):
    """The probability of class 1, from 0 to 1."""
    total = sum(weight * feature for weight, feature in zip(weights, features))
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, total))))


def train(weights, points, rate):
    """One epoch of stochastic gradient descent on the log loss. Changes `weights`."""
    for features, label in points:
        error = predict(weights, features) - label
        for index, feature in enumerate(features):
            weights[index] -= rate * error * feature


def accuracy(weights, points):
    """The share of points that are classified correctly, from 0 to 1."""
    right = sum((predict(weights, features) > 0.5) == bool(label) for features, label in points)
    return right / len(points)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--points", type=int, default=20000)
    options = parser.parse_args()

    generator = random.Random(1)
    points = load(options.points, generator)
    held_back, points = points[: len(points) // 5], points[len(points) // 5 :]
    weights = [0.0] * 8
    for epoch in range(1, options.epochs + 1):
        with dlpm.phase("train"):
            train(weights, points, 0.01)
        with dlpm.phase("validate"):
            share = accuracy(weights, held_back)
        print(f"epoch {epoch}: accuracy {share:.3f}")


if __name__ == "__main__":
    main()
