#!/usr/bin/env python3
"""The eventual path's speed against the strong one's: three nodes, 256-byte values, in one run.

    cargo build --release
    python3 tests/speed/eventual.py target/release/quorate [--seconds 5] [--rounds 3]

Workloads alternate, so that what else the machine does meets all of them; the medians of the rounds
are compared. Processor time is that of the three nodes for each operation: on a busy machine it says
more than operations in a second. The last lines are puts at eventual:one while one node is stopped
(SIGSTOP) against the same clients before that; clients use the other two nodes.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

WORKLOADS = [
    # Name, workload, clients, in flight on the stream of each (1: unary), eventual levels.
    ("put, 1 client", "put", 1, 1, ["eventual:one"]),
    ("put, 64 unary", "put", 64, 1, ["eventual:one", "eventual:quorum"]),
    ("put, 256 in flight", "put", 4, 64, ["eventual:one", "eventual:quorum"]),
    ("get, 64 unary", "get", 64, 1, ["eventual:one"]),
    ("get, 256 in flight", "get", 4, 64, ["eventual:one"]),
]
STRONG = "linearizable"


class Cluster:
    """A cluster of child processes, with a keyspace of mode eventual."""

    def __init__(self, binary, seconds):
        self.binary, self.seconds = binary, seconds
        self.dir = tempfile.mkdtemp(prefix="quorate-speed-")
        ready = os.path.join(self.dir, "ready")
        dev = [binary, "dev", "--port", "0", "--dir", os.path.join(self.dir, "data"), "--ready-file", ready]
        self.process = subprocess.Popen(dev, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not os.path.exists(ready):
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                raise SystemExit("the cluster does not start")
            time.sleep(0.1)
        with open(ready, encoding="utf-8") as file:
            self.nodes = json.load(file)["nodes"]
        self.run(self.nodes, ["keyspace", "create", "speed", "--mode", "eventual"])

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def run(self, nodes, arguments):
        endpoints = ",".join(node["endpoint"] for node in nodes)
        command = [self.binary, "--endpoints", endpoints, "--output", "json", *arguments]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL)

    def cpu_seconds(self):
        ticks = 0
        for node in self.nodes:
            with open(f"/proc/{node['pid']}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def bench(self, workload, clients, depth, level, nodes=None):
        """Operations a second, p50, p99 and processor time of an operation in microseconds."""
        arguments = ["bench", "--duration", f"{self.seconds}s", "--value-bytes", "256", "--keys", "10000"]
        arguments += ["--workload", workload, "--clients", str(clients), "--depth", str(depth), "--level", level]
        if level != STRONG:
            arguments += ["--keyspace", "speed"]
        before = self.cpu_seconds()
        shown = json.loads(self.run(nodes or self.nodes, arguments))
        cpu = (self.cpu_seconds() - before) * 1e6 / max(1, shown["ops"])
        latency = shown["latency_us"]
        return shown["ops_per_s"], latency["p50"], latency["p99"], cpu, shown["errors"]


def medians(runs):
    return [statistics.median(column) for column in zip(*runs)]


def line(name, level, ours, against):
    ratios = [mine / max(1, theirs) for mine, theirs in zip(ours, against)]
    print(
        f"{name:20} {level:16} {ours[0]:8.0f}/s ({ratios[0]:.2f}x)  p50 {ours[1]:6.0f} us ({ratios[1]:.2f}x)  "
        f"p99 {ours[2]:7.0f} us ({ratios[2]:.2f}x)  cpu {ours[3]:6.1f} us ({ratios[3]:.2f}x)  errors {ours[4]:.0f}",
        flush=True,
    )


def compare(cluster, rounds):
    for name, workload, clients, depth, levels in WORKLOADS:
        runs = {level: [] for level in [STRONG, *levels]}
        for _ in range(rounds):
            for level, done in runs.items():
                done.append(cluster.bench(workload, clients, depth, level))
        against = medians(runs[STRONG])
        for level, done in runs.items():
            line(name, level, medians(done), against)


def pause_one(cluster, rounds):
    """Puts at eventual:one by way of two nodes, while all run, and while the third is stopped."""
    others, paused = cluster.nodes[:-1], cluster.nodes[-1]["pid"]
    healthy, stopped = [], []
    for _ in range(rounds):
        healthy.append(cluster.bench("put", 64, 1, "eventual:one", others))
        os.kill(paused, signal.SIGSTOP)
        try:
            stopped.append(cluster.bench("put", 64, 1, "eventual:one", others))
        finally:
            os.kill(paused, signal.SIGCONT)
        # Until what it has missed is with it.
        time.sleep(cluster.seconds)
    line("put, all nodes run", "eventual:one", medians(healthy), medians(healthy))
    line("put, one is stopped", "eventual:one", medians(stopped), medians(healthy))


def main():
    parser = argparse.ArgumentParser(description="The eventual path's speed against the strong one's.")
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["compare", "pause"])
    chosen = parser.parse_args()
    cluster = Cluster(chosen.binary, chosen.seconds)
    try:
        if chosen.only != "pause":
            compare(cluster, chosen.rounds)
        if chosen.only != "compare":
            pause_one(cluster, chosen.rounds)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
