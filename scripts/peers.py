#!/usr/bin/env python3
"""Divvy on the CPU against numba's prange, in turn, for the sizes in README's table.

    python3 -m venv venv && venv/bin/pip install numba
    cargo build --release && venv/bin/python scripts/peers.py

Each round times numba in this process and Divvy with `divvy run --placement cpu --json`; the medians over all rounds are
compared, so that a machine whose speed drifts treats both alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import numba
import numpy as np


@numba.njit(parallel=True, fastmath=True)
def axpy(alpha, x, y):
    for i in numba.prange(x.size):
        y[i] = alpha * x[i] + y[i]


@numba.njit(parallel=True, fastmath=True)
def total(x):
    acc = np.float32(0)
    for i in numba.prange(x.size):
        acc += x[i]
    return acc


@numba.njit(parallel=True, fastmath=True)
def heat(u, v, r):
    rows, cols = u.shape
    for i in numba.prange(1, rows - 1):
        for j in range(1, cols - 1):
            v[i, j] = u[i, j] + r * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1] - 4 * u[i, j])


def numba_call(kernel, n):
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.random(shape, dtype=np.float32)
    if kernel == "axpy":
        x, y = draw(n), draw(n)
        return lambda: axpy(np.float32(1e-9), x, y)
    if kernel == "sum":
        x = draw(n)
        return lambda: total(x)
    u, v = draw(n, n), draw(n, n)
    return lambda: heat(u, v, np.float32(0.2))


def numba_median(call, repeat):
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def divvy_median(binary, kernel, n, repeat, threads):
    command = [binary, "run", kernel, "--n", str(n), "--placement", "cpu", "--residency", "device"]
    command += ["--repeat", str(repeat), "--threads", str(threads), "--json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)["seconds"]["median"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--divvy", default="target/release/divvy")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    numba.set_num_threads(args.threads)
    print(f"{'':<14}{'divvy':>12}{'numba':>12}{'ratio':>8}")
    for kernel, n in [(k, 1 << e) for k in ("axpy", "sum") for e in (10, 16, 20, 24)] + [("heat", 1024)]:
        repeat = max(9, min(2000, (1 << 24) // (n * n if kernel == "heat" else n)))
        call = numba_call(kernel, n)
        rounds = [
            (numba_median(call, repeat), divvy_median(args.divvy, kernel, n, repeat, args.threads))
            for _ in range(args.rounds)
        ]
        theirs, ours = (statistics.median(column) for column in zip(*rounds))
        print(f"{kernel + ' ' + str(n):<14}{ours * 1e6:>9.2f} µs{theirs * 1e6:>9.2f} µs{ours / theirs:>8.3f}")


if __name__ == "__main__":
    main()
