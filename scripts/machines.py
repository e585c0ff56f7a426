#!/usr/bin/env python3
"""Writes benches/machines/*.json: machines for `divvy simulate`, from published figures.

The planner's model is a roofline. These tables are not: on top of peak rates they have what real devices do. Caches
step, kernels reach very different shares of a peak and need a size to get there, several passes each cost a start, work
comes in whole waves, one CPU thread wins until the pool pays, and every point is off by some percent as if it had been
measured. The constants that are no published figure are estimates, marked as such in each file's "source".

Run it from the repository's root: python3 scripts/machines.py
"""

import json
import math
import pathlib
import zlib

KI, MI, GI = 1 << 10, 1 << 20, 1 << 30
US, GB, TF = 1e-6, 1e9, 1e12

# What a kernel of size n computes: flops, bytes read and written, bytes touched, independent pieces of work.
WORK = {
    "axpy": lambda n: (2 * n, 12 * n, 8 * n, n),
    "zip": lambda n: (n, 12 * n, 12 * n, n),
    "transform": lambda n: (12 * n, 8 * n, 8 * n, n),
    "fill": lambda n: (0, 4 * n, 4 * n, n),
    "sum": lambda n: (n, 4 * n, 4 * n, n / 16),
    "dot": lambda n: (2 * n, 8 * n, 8 * n, n / 16),
    "argmin": lambda n: (n, 4 * n, 4 * n, n / 16),
    "inclusive_scan": lambda n: (2 * n, 8 * n, 8 * n, n / 8),
    "gemm": lambda n: (2 * n**3, 4 * (3 * n**2 + n**3 / 64), 12 * n**2, n * n / 16),
    "gemv": lambda n: (2 * n**2, 4 * n**2, 4 * n**2, 8 * n),
    "nbody": lambda n: (20 * n**2, 32 * n, 32 * n, 4 * n),
    "heat": lambda n: (7 * n**2, 8 * n**2, 8 * n**2, n * n),
}

ITEMS = [1 << p for p in (10, 12, 14, 16, 18, 20, 22, 24)]
SIZES = {
    "gemm": [32, 64, 128, 256, 512, 1024, 2048, 4096],
    "gemv": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
    "nbody": [64, 256, 512, 1024, 2048, 4096, 8192, 32768],
    "heat": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
}

# Shares of a CPU's peak rates that its kernels reach: (arithmetic, memory).
CPU_SHARES = {
    "axpy": (0.5, 0.90), "zip": (0.5, 0.85), "transform": (0.35, 0.80), "fill": (0.5, 0.95), "sum": (0.5, 0.95),
    "dot": (0.5, 0.92), "argmin": (0.22, 0.60), "inclusive_scan": (0.10, 0.55), "gemm": (0.88, 0.9),
    "gemv": (0.5, 0.85), "nbody": (0.72, 0.9), "heat": (0.30, 0.80),
}  # fmt: skip

# The same of a GPU, and in how many dependent passes a kernel runs: a scan reads twice, sums end in a second pass.
GPU_SHARES = {
    "axpy": (0.5, 0.88, 1), "zip": (0.5, 0.86, 1), "transform": (0.25, 0.85, 1), "fill": (0.5, 0.92, 1),
    "sum": (0.3, 0.80, 1), "dot": (0.3, 0.82, 1), "argmin": (0.15, 0.42, 1), "inclusive_scan": (0.15, 0.40, 3),
    "gemm": (0.45, 0.80, 1), "gemv": (0.25, 0.58, 1), "nbody": (0.42, 0.80, 1), "heat": (0.35, 0.62, 1),
}  # fmt: skip


def ripple(*names, percent=5):
    """A factor near 1 that is always the same for the same names: points of tables are never smooth."""
    x = zlib.crc32("/".join(map(str, names)).encode()) / 2**32
    return 1 + percent / 100 * (2 * x - 1)


def level(footprint, levels):
    """The rate at a footprint, from [(bytes, rate)] of caches and memory: what exceeds one comes from the next."""
    rate = levels[0][1]
    for (size, fast), (_, slow) in zip(levels, levels[1:]):
        if footprint <= size * 0.6:
            return rate
        share = min(1.0, (footprint / size - 0.6) / 1.4)
        rate = 1 / ((1 - share) / fast + share / slow)
        if share < 1:
            return rate
    return levels[-1][1]


def cpu_seconds(cpu, kernel, n):
    flops, traffic, footprint, _ = WORK[kernel](n)
    arithmetic, memory = cpu.get("shares", {}).get(kernel, CPU_SHARES[kernel])
    if kernel == "gemm":
        # Small products do not fill the registers' blocks.
        arithmetic *= n / (n + 48)

    def seconds(threads, flops_rate, levels):
        compute = flops / (flops_rate * arithmetic)
        move = traffic / (level(footprint, levels) * memory)
        return (compute**3 + move**3) ** (1 / 3)

    one = 60e-9 + seconds(1, cpu["flops"] / cpu["threads"] * cpu.get("boost", 1.0), cpu["levels_one"])
    region = cpu["region"] + cpu.get("straggling", 0.0)
    spread = min(1.0, (flops + traffic) / (cpu["threads"] * 2e4))
    pool = region + seconds(cpu["threads"], cpu["flops"] * max(spread, 1 / cpu["threads"]), cpu["levels_all"])
    return min(one, pool)


def gpu_seconds(gpu, kernel, n):
    flops, traffic, footprint, pieces = WORK[kernel](n)
    arithmetic, memory, passes = gpu.get("shares", {}).get(kernel, GPU_SHARES[kernel])
    # Too few pieces of work leave lanes idle; the last wave is rarely full.
    lanes = gpu["lanes"]
    occupancy = pieces / (pieces + lanes)
    waves = pieces / (lanes * 8)
    quantised = math.ceil(waves) / waves if waves > 1 else 1.0
    compute = flops / (gpu["flops"] * arithmetic * occupancy) * quantised
    move = traffic / (level(footprint, gpu["levels"]) * memory * occupancy)
    return passes * gpu["floor"] + (compute**2 + move**2) ** 0.5


def table(seconds, machine, device, kernel, sizes):
    points = []
    for n in sizes:
        value = seconds(n) * ripple(machine, device, kernel, n)
        points.append([n, float(f"{value:.4g}")])
    return points


def link(latency, rate, staged=0.0, small_rate=None):
    """Seconds against bytes: a latency, a rate for small ones, and a one-off cost once a transfer is staged in pieces."""
    points = []
    for p in range(8, 31, 2):
        size = 1 << p
        seconds = latency + size / (small_rate or rate) if size <= 256 * KI else latency + staged + size / rate
        points.append([size, float(f"{seconds:.4g}")])
    return points


def machine(name, source, cpu, gpus, kernels, corun=None, changes=None, sizes=None, edit=None):
    devices = [{"id": "cpu", "kind": "cpu"}]
    for i, gpu in enumerate(gpus):
        device = {"id": f"gpu{i}", "kind": gpu["kind"], "launch_s": gpu["launch"]}
        if "upload" in gpu:
            device |= {"upload": gpu["upload"], "download": gpu["download"]}
        device |= {"memory_bytes": gpu["memory"], "max_binding_bytes": gpu.get("binding", 2 * GI - 1)}
        devices.append(device)
    tables = {}
    for kernel in kernels:
        ns = (sizes or {}).get(kernel) or SIZES.get(kernel, ITEMS)
        tables[kernel] = {"cpu": table(lambda n: cpu_seconds(cpu, kernel, n), name, "cpu", kernel, ns)}
        for i, gpu in enumerate(gpus):
            if kernel not in gpu.get("without", ()):
                tables[kernel][f"gpu{i}"] = table(
                    lambda n, gpu=gpu: gpu_seconds(gpu, kernel, n), name, f"gpu{i}", kernel, ns
                )
    if edit:
        edit(tables)
    made = {"name": name, "source": source, "devices": devices, "kernels": tables}
    if corun:
        made["corun"] = corun
    made["noise"] = {"sigma": 0.1, "spike_probability": 0.01, "spike_factor": 20}
    made["changes"] = changes or []
    write(name, made)


def write(name, made):
    """JSON with one table on a line."""
    text = json.dumps(made, indent=1, ensure_ascii=False)
    out, depth, quoted, escaped = [], 0, False, False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
            out.append(char)
            continue
        quoted = char == '"'
        if char == "[":
            depth += 1
        if char == "]":
            depth -= 1
        # Within a list of numbers no line breaks: those of devices hold objects.
        out.append(char)
    text = "".join(out)
    import re

    text = re.sub(r"\[\s+(-?[\d.e+-]+),\s+(-?[\d.e+-]+)\s+\]", r"[\1, \2]", text)
    text = re.sub(r"\],\s+\[", "], [", text)
    text = re.sub(r"\[\s+\[", "[[", text)
    text = re.sub(r"\]\s+\]", "]]", text)
    pathlib.Path("benches/machines").mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"benches/machines/{name}.json").write_text(text + "\n")


SCALED = (
    " Peak rates and bandwidths are those; the tables follow from them with the shares, starts, cache steps and"
    " ripples in scripts/machines.py, which are estimates where no figure is cited."
)
EVERYDAY = ["axpy", "transform", "sum", "inclusive_scan", "argmin", "gemm", "gemv", "nbody", "heat"]


def main():
    zen4_server = dict(
        flops=5.0 * TF, threads=64, region=14 * US, straggling=6 * US, boost=1.35,
        levels_one=[(1 * MI, 150 * GB), (32 * MI, 60 * GB), (GI, 30 * GB)],
        levels_all=[(64 * MI, 4000 * GB), (512 * MI, 1500 * GB), (2 * GI, 520 * GB)],
    )  # fmt: skip
    h200 = dict(
        kind="discrete", flops=60 * TF, lanes=132 * 2048, floor=3.0 * US, launch=22 * US, memory=141 * 10**9,
        levels=[(50 * MI, 7000 * GB), (GI, 4100 * GB)],
        upload=link(7 * US, 42 * GB, staged=25 * US, small_rate=12 * GB),
        download=link(9 * US, 38 * GB, staged=30 * US, small_rate=10 * GB),
    )  # fmt: skip
    machine(
        "server-h200",
        "NVIDIA H200 data sheet (67 TFLOP/s fp32, 141 GB, 4.8 TB/s), copy at 4.1 TB/s and fp32 GEMM from 4.3 (naive) to"
        " 51 TFLOP/s (cuBLAS) as published for it; two AMD EPYC Genoa of 32 cores (12 x DDR5-4800 each, 460 GB/s by"
        " data sheet); PCIe 5.0 x16, 63 GB/s nominal." + SCALED,
        zen4_server,
        [h200],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.02, 1.0], "memory": [1.06, 1.02]}},
    )

    ryzen = dict(
        flops=2.2 * TF, threads=16, region=5 * US, straggling=1 * US, boost=1.15,
        levels_one=[(1 * MI, 180 * GB), (32 * MI, 90 * GB), (256 * MI, 42 * GB)],
        levels_all=[(16 * MI, 1800 * GB), (64 * MI, 700 * GB), (256 * MI, 62 * GB)],
    )  # fmt: skip
    rtx4090 = dict(
        kind="discrete", flops=82.6 * TF, lanes=128 * 1536, floor=2.5 * US, launch=28 * US, memory=24 * 10**9,
        levels=[(72 * MI, 3500 * GB), (512 * MI, 930 * GB)],
        upload=link(6 * US, 13 * GB, staged=20 * US, small_rate=9 * GB),
        download=link(12 * US, 11 * GB, staged=40 * US, small_rate=6 * GB),
    )  # fmt: skip
    machine(
        "desktop-rtx4090",
        "NVIDIA Ada whitepaper (82.6 TFLOP/s fp32, 1008 GB/s GDDR6X, 72 MB L2), 'Microbenchmarking Nvidia's RTX 4090'"
        " (chipsandcheese.com, 2022-11-02) for the L2 step; PCIe 4.0 x16 from pageable memory reaches about half of its"
        " 25 GB/s; AMD Ryzen 9 7950X data sheet (16 cores, 64 MB L3), two channels of DDR5-5200." + SCALED,
        ryzen,
        [rtx4090],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.01, 1.0], "memory": [1.12, 1.03]}},
    )

    m2 = dict(
        flops=0.9 * TF, threads=8, region=7 * US, straggling=8 * US, boost=1.6,
        levels_one=[(128 * KI, 200 * GB), (16 * MI, 95 * GB), (64 * MI, 60 * GB)],
        levels_all=[(512 * KI, 700 * GB), (16 * MI, 260 * GB), (64 * MI, 78 * GB)],
        # Accelerate's matrix unit makes products much faster than the vector units would.
        shares={"gemm": (0.95, 0.9)},
    )  # fmt: skip
    m2_gpu = dict(
        kind="integrated", flops=3.6 * TF, lanes=10 * 1024, floor=6 * US, launch=130 * US, memory=16 * 10**9,
        binding=4 * GI - 4, levels=[(8 * MI, 220 * GB), (64 * MI, 91 * GB)],
        shares={"gemm": (0.62, 0.8, 1), "inclusive_scan": (0.2, 0.5, 3), "argmin": (0.1, 0.35, 1)},
    )  # fmt: skip
    machine(
        "laptop-m2",
        "'Apple vs. Oranges: Evaluating the Apple Silicon M-Series SoCs for HPC' (arXiv:2502.05317) for the M2: STREAM"
        " near 80 GB/s from the CPU and 90 from the GPU of 100, GEMM at 2.2 TFLOP/s on the GPU; 10 GPU cores, 3.6 TFLOP/s"
        " by Apple; memory is shared, so nothing is uploaded; a Metal command buffer that is waited for takes over"
        " 100 us; WebGPU scans on Apple GPUs after 'Decoupled Fallback' (SPAA 2025)." + SCALED,
        m2,
        [m2_gpu],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.08, 1.02], "memory": [1.75, 1.55]}},
    )

    i5 = dict(
        flops=0.75 * TF, threads=14, region=6 * US, straggling=9 * US, boost=1.9,
        levels_one=[(512 * KI, 140 * GB), (12 * MI, 48 * GB), (96 * MI, 26 * GB)],
        levels_all=[(4 * MI, 600 * GB), (20 * MI, 210 * GB), (96 * MI, 41 * GB)],
    )  # fmt: skip
    xe = dict(
        kind="integrated", flops=0.79 * TF, lanes=32 * 56, floor=7 * US, launch=65 * US, memory=8 * 10**9,
        levels=[(3 * MI, 160 * GB), (48 * MI, 39 * GB)],
        upload=link(5 * US, 11 * GB, staged=4 * US), download=link(6 * US, 9 * GB, staged=4 * US),
        shares={"gemm": (0.38, 0.8, 1), "nbody": (0.6, 0.8, 1), "transform": (0.55, 0.85, 1)},
    )  # fmt: skip
    machine(
        "office-xe",
        "Intel Core i5-14500 with UHD 770 (32 execution units at 1.55 GHz: 0.79 TFLOP/s) and two channels of DDR4-3200:"
        " the GPU reads at 36-40 GB/s of 51 as measured in community.intel.com thread 1701943; both share the memory, so"
        " running together halves what each gets; a driver that copies into its own buffers." + SCALED,
        i5,
        [xe],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.12, 1.06], "memory": [1.85, 1.7]}},
    )

    pi5 = dict(
        flops=0.12 * TF, threads=4, region=9 * US, straggling=2 * US, boost=1.05,
        levels_one=[(64 * KI, 60 * GB), (2 * MI, 22 * GB), (8 * MI, 8.5 * GB)],
        levels_all=[(256 * KI, 210 * GB), (2 * MI, 60 * GB), (8 * MI, 10.5 * GB)],
    )  # fmt: skip
    v3d = dict(
        kind="integrated", flops=0.06 * TF, lanes=2048, floor=35 * US, launch=180 * US, memory=2 * 10**9,
        binding=128 * MI, levels=[(1 * MI, 14 * GB), (16 * MI, 7.5 * GB)],
        upload=link(12 * US, 2.6 * GB), download=link(14 * US, 1.1 * GB),
        shares={"gemm": (0.16, 0.5, 1), "nbody": (0.75, 0.8, 1), "inclusive_scan": (0.1, 0.25, 3)},
        without=("argmin",),
    )  # fmt: skip
    machine(
        "board-pi5",
        "Raspberry Pi 5: four Cortex-A76 at 2.4 GHz, VideoCore VII at 0.8-1 GHz, LPDDR4X-4267 on 32 bits (17 GB/s by data"
        " sheet, about 10 reached by four cores). The GPU has no figures of its own maker: peak from its eight quad"
        " processors." + SCALED,
        pi5,
        [v3d],
        ["axpy", "transform", "sum", "inclusive_scan", "argmin", "gemm", "nbody", "heat"],
        corun={"cpu+gpu0": {"compute": [1.03, 1.01], "memory": [1.6, 1.8]}},
        sizes={
            "gemm": [16, 32, 64, 128, 256, 512, 1024, 2048],
            "nbody": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
            "heat": [32, 64, 128, 256, 512, 1024, 2048, 4096],
        },
    )

    write_lavapipe()

    rtx3060 = dict(
        rtx4090, flops=12.7 * TF, lanes=28 * 1536, floor=3 * US, launch=33 * US, memory=12 * 10**9,
        levels=[(3 * MI, 1500 * GB), (64 * MI, 320 * GB)],
        upload=link(9 * US, 5.6 * GB, staged=25 * US, small_rate=4.5 * GB),
        download=link(15 * US, 5.2 * GB, staged=45 * US, small_rate=4 * GB),
    )  # fmt: skip
    rx7800 = dict(
        rtx4090, flops=31 * TF, lanes=60 * 2048, floor=4.5 * US, launch=24 * US, memory=16 * 10**9,
        levels=[(60 * MI, 1900 * GB), (400 * MI, 560 * GB)],
        shares={"gemm": (0.36, 0.8, 1), "nbody": (0.5, 0.8, 1), "inclusive_scan": (0.15, 0.52, 3), "argmin": (0.15, 0.55, 1)},
        upload=link(8 * US, 12.5 * GB, staged=15 * US, small_rate=8 * GB),
        download=link(10 * US, 10 * GB, staged=25 * US, small_rate=6 * GB),
    )  # fmt: skip
    machine(
        "desktop-two-gpus",
        "AMD Radeon RX 7800 XT (31 TFLOP/s without dual issue counted twice, 624 GB/s, 64 MB of Infinity Cache) and NVIDIA"
        " GeForce RTX 3060 (12.7 TFLOP/s, 360 GB/s) by data sheet, the second in a PCIe 4.0 x4 slot; AMD Ryzen 9"
        " 7950X." + SCALED,
        ryzen,
        [rx7800, rtx3060],
        EVERYDAY,
        corun={
            "cpu+gpu0": {"compute": [1.01, 1.0], "memory": [1.1, 1.03]},
            "cpu+gpu1": {"compute": [1.01, 1.0], "memory": [1.06, 1.04]},
            "gpu0+gpu1": {"compute": [1.0, 1.02], "memory": [1.03, 1.12]},
        },
    )

    laptop = dict(ryzen, flops=1.0 * TF, threads=8, region=6 * US, straggling=3 * US)
    laptop["levels_all"] = [(8 * MI, 900 * GB), (16 * MI, 350 * GB), (128 * MI, 55 * GB)]
    rtx4060m = dict(
        rtx4090, flops=11.6 * TF, lanes=24 * 1536, floor=3 * US, launch=35 * US, memory=8 * 10**9,
        levels=[(32 * MI, 1100 * GB), (200 * MI, 235 * GB)],
        upload=link(8 * US, 9 * GB, staged=25 * US, small_rate=6 * GB),
        download=link(13 * US, 8 * GB, staged=45 * US, small_rate=5 * GB),
    )  # fmt: skip
    machine(
        "laptop-throttling",
        "NVIDIA GeForce RTX 4060 Laptop (24 SMs; 11.6 TFLOP/s at the clock of 60 W, 256 GB/s, 32 MB L2) beside eight Zen 4"
        " cores; a thin case that throttles the GPU to a third after a while and lets it recover in part, after reports"
        " of sustained against burst clocks; PCIe 4.0 x8." + SCALED,
        laptop,
        [rtx4060m],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.15, 1.08], "memory": [1.1, 1.04]}},
        changes=[
            {"after_call": 70, "device": "gpu0", "factor": 3},
            {"after_call": 140, "device": "gpu0", "factor": 1.3},
        ],
    )

    def middle_band(tables):
        # Past its small memory the GPU pages: everything above is far slower.
        for kernel, devices in tables.items():
            for point in devices["gpu0"]:
                footprint = WORK[kernel](point[0])[2]
                if footprint > 24 * MI:
                    point[1] = float(f"{point[1] * 14:.4g}")

    band_gpu = dict(
        kind="integrated", flops=1.9 * TF, lanes=8192, floor=4 * US, launch=18 * US, memory=32 * 10**9,
        levels=[(24 * MI, 480 * GB), (64 * MI, 110 * GB)],
    )  # fmt: skip
    machine(
        "odd-middle-band",
        "Invented: an accelerator with 24 MiB of fast memory that pages beyond it, so that it is faster than the CPU only"
        " in a middle band of sizes; no figures of a real device.",
        i5,
        [band_gpu],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.05, 1.02], "memory": [1.2, 1.15]}},
        edit=middle_band,
    )

    cliff = dict(
        flops=0.4 * TF, threads=4, region=3 * US, boost=1.1,
        levels_one=[(256 * KI, 120 * GB), (1 * MI, 70 * GB), (2 * MI, 2.2 * GB)],
        levels_all=[(1 * MI, 420 * GB), (4 * MI, 200 * GB), (8 * MI, 4.5 * GB)],
    )  # fmt: skip
    no_launch = dict(
        kind="discrete", flops=2.4 * TF, lanes=4096, floor=0.4 * US, launch=0.0, memory=4 * 10**9, binding=128 * MI,
        levels=[(2 * MI, 150 * GB), (32 * MI, 60 * GB)],
        upload=link(2 * US, 1.2 * GB), download=link(1.5 * US, 9 * GB),
    )  # fmt: skip
    machine(
        "odd-cache-cliff",
        "Invented: a CPU whose memory is forty times slower than its cache, and a GPU that starts at once but to which"
        " data go much more slowly than they come back; no figures of a real device.",
        cliff,
        [no_launch],
        EVERYDAY,
        corun={"cpu+gpu0": {"compute": [1.0, 1.0], "memory": [1.3, 1.0]}},
    )

    iris = dict(xe, flops=1.6 * TF, lanes=96 * 56, levels=[(4 * MI, 220 * GB), (48 * MI, 48 * GB)], without=("heat",))
    machine(
        "workstation-three-gpus",
        "NVIDIA GeForce RTX 4090 and RTX 3060 and the integrated GPU of an Intel laptop chip (96 execution units) in one"
        " machine, by the figures of desktop-rtx4090, desktop-two-gpus and office-xe; a combination that is possible but"
        " was not measured." + SCALED,
        ryzen,
        [rtx3060, iris, rtx4090],
        EVERYDAY,
        corun={
            "cpu+gpu0": {"compute": [1.01, 1.0], "memory": [1.06, 1.04]},
            "cpu+gpu1": {"compute": [1.15, 1.1], "memory": [1.8, 1.6]},
            "cpu+gpu2": {"compute": [1.01, 1.0], "memory": [1.12, 1.03]},
            "gpu0+gpu2": {"compute": [1.0, 1.0], "memory": [1.08, 1.06]},
        },
        changes=[{"after_call": 110, "device": "gpu2", "factor": 3}],
    )


def write_lavapipe():
    """Measured: two cores of a Zen 4 server with Mesa's software adapter, this repository's kernels and its peers."""
    cpu = {
        "axpy": [[1024, 0.8e-7], [4096, 3.2e-7], [16384, 1.3e-6], [65536, 5.7e-6], [262144, 1.4e-5], [1048576, 4.7e-5], [4194304, 4.9e-4], [16777216, 2.97e-3]],
        "sum": [[1024, 0.6e-7], [4096, 2.3e-7], [16384, 0.9e-6], [65536, 3.5e-6], [262144, 1.1e-5], [1048576, 4.5e-5], [4194304, 2.3e-4], [16777216, 1.12e-3]],
        "transform": [[1024, 4.4e-7], [4096, 1.7e-6], [16384, 6.8e-6], [65536, 1.8e-5], [262144, 6.1e-5], [1048576, 2.4e-4], [4194304, 1.1e-3], [16777216, 5.2e-3]],
        "inclusive_scan": [[1024, 2.6e-7], [4096, 1.1e-6], [16384, 4.3e-6], [65536, 1.5e-5], [262144, 4.4e-5], [1048576, 1.89e-4], [4194304, 9.2e-4], [16777216, 4.04e-3]],
        "argmin": [[1024, 1.1e-7], [4096, 4.4e-7], [16384, 1.7e-6], [65536, 6.4e-6], [262144, 1.7e-5], [1048576, 6.2e-5], [4194304, 2.9e-4], [16777216, 1.31e-3]],
        "gemm": [[32, 1.4e-6], [64, 6.1e-6], [128, 3.1e-5], [256, 1.76e-4], [512, 1.21e-3], [1024, 1.01e-2], [2048, 8.09e-2]],
        "nbody": [[64, 1.1e-6], [256, 1.1e-5], [512, 3.6e-5], [1024, 1.3e-4], [2048, 4.9e-4], [4096, 1.88e-3], [8192, 7.5e-3], [16384, 2.99e-2]],
        "heat": [[64, 0.9e-6], [128, 3.1e-6], [256, 1.0e-5], [512, 2.6e-5], [1024, 8.9e-5], [2048, 9.3e-4], [4096, 3.9e-3]],
    }  # fmt: skip
    gpu = {
        "axpy": [[1024, 7e-6], [4096, 9e-6], [16384, 1.5e-5], [65536, 3.9e-5], [262144, 3.2e-4], [1048576, 1.39e-3], [4194304, 5.2e-3], [16777216, 1.96e-2]],
        "sum": [[1024, 1.1e-5], [4096, 1.5e-5], [16384, 3.3e-5], [65536, 1.05e-4], [262144, 3.9e-4], [1048576, 1.5e-3], [4194304, 5.9e-3], [16777216, 2.3e-2]],
        "transform": [[1024, 9e-6], [4096, 1.5e-5], [16384, 4.1e-5], [65536, 1.4e-4], [262144, 5.6e-4], [1048576, 2.2e-3], [4194304, 8.9e-3], [16777216, 3.5e-2]],
        "inclusive_scan": [[1024, 5.1e-5], [4096, 6.6e-5], [16384, 1.3e-4], [65536, 3.6e-4], [262144, 1.3e-3], [1048576, 5.1e-3], [4194304, 2.1e-2], [16777216, 8.3e-2]],
        "argmin": [[1024, 1.4e-5], [4096, 2.4e-5], [16384, 6.5e-5], [65536, 2.3e-4], [262144, 8.7e-4], [1048576, 3.4e-3], [4194304, 1.4e-2], [16777216, 5.4e-2]],
        "gemm": [[32, 5.6e-5], [64, 2.3e-4], [128, 1.8e-3], [256, 1.4e-2], [512, 0.107], [1024, 0.86], [2048, 6.9]],
        "nbody": [[64, 2.9e-5], [256, 1.7e-4], [512, 4.2e-4], [1024, 1.1e-3], [2048, 3.0e-3], [4096, 9.3e-3], [8192, 3.5e-2], [16384, 0.68]],
        "heat": [[64, 1.6e-5], [128, 4.8e-5], [256, 2.6e-4], [512, 1.2e-3], [1024, 5.0e-3], [2048, 2.0e-2], [4096, 7.9e-2]],
    }  # fmt: skip
    write(
        "lavapipe",
        {
            "name": "lavapipe",
            "source": "Measured on two cores of a Zen 4 server (virtual machine, Debian 12) with Mesa's software adapter"
            " lavapipe, 2026-11-20: axpy, sum, heat, gemm and n-body on the CPU and axpy, gemm and n-body on the adapter"
            " as in this repository's README; scans and peers' kernels on both for the shape of the rest; sizes between"
            " those measured are interpolated by hand, with the steps of one thread against two and of the caches. The"
            " adapter computes on the CPU's cores, so that both together gain nothing.",
            "devices": [
                {"id": "cpu", "kind": "cpu"},
                {
                    "id": "gpu0",
                    "kind": "software",
                    "launch_s": 9.6e-5,
                    "upload": [[256, 2e-6], [4096, 2.5e-6], [65536, 9e-6], [1048576, 1.1e-4], [16777216, 2.6e-3], [268435456, 5.2e-2]],
                    "download": [[256, 3e-6], [4096, 4e-6], [65536, 1.1e-5], [1048576, 1.2e-4], [16777216, 2.9e-3], [268435456, 5.6e-2]],
                    "memory_bytes": 24 * 10**9,
                    "max_binding_bytes": 128 * MI,
                },
            ],
            "kernels": {name: {"cpu": cpu[name], "gpu0": gpu[name]} for name in cpu},
            "corun": {"cpu+gpu0": {"compute": [2.0, 2.0], "memory": [1.9, 1.9]}},
            "noise": {"sigma": 0.1, "spike_probability": 0.01, "spike_factor": 20},
            "changes": [],
        },
    )


if __name__ == "__main__":
    main()
