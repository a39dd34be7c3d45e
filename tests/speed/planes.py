#!/usr/bin/env python3
"""What one key on two planes costs: three nodes, 256-byte values, in one run.

    cargo build --release
    python3 tests/speed/planes.py target/release/quorate [--only overhead|fence|absorption]

overhead    strong puts in a keyspace of mode mixed, without eventual traffic, against mode strong
fence       linearizable gets with a fence against those without, nothing being beside the log
absorption  eventual writes at a fixed rate, and silence: how long until all is in the log and all
            replicas are equal, how far the log was behind, what strong puts beside it lose, against
            the same eventual writes to a keyspace that has no log

Workloads alternate; the medians of the rounds are compared.
"""

import argparse
import json
import os
import re
import subprocess
import threading
import time
import urllib.request

from eventual import Cluster, line, medians

KEYS = "10000"


def bench(cluster, keyspace, workload, clients, depth, *more, seconds=None):
    """Operations a second, p50, p99 and processor time of an operation in microseconds."""
    arguments = ["--keyspace", keyspace, "bench", "--duration", f"{seconds or cluster.seconds}s"]
    arguments += ["--value-bytes", "256", "--keys", KEYS, "--workload", workload]
    arguments += ["--clients", str(clients), "--depth", str(depth), *more]
    before = cluster.cpu_seconds()
    shown = json.loads(cluster.run(cluster.nodes, arguments))
    cpu = (cluster.cpu_seconds() - before) * 1e6 / max(1, shown["ops"])
    latency = shown["latency_us"]
    return shown["ops_per_s"], latency["p50"], latency["p99"], cpu, shown["errors"]


def compare(name, rounds, kinds):
    """`kinds`: what is measured, by name; the first is what the others are compared with."""
    runs = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, measure in kinds.items():
            runs[kind].append(measure())
    against = medians(runs[next(iter(kinds))])
    for kind, done in runs.items():
        line(name, kind, medians(done), against)


def overhead(cluster, rounds):
    cluster.run(cluster.nodes, ["keyspace", "create", "plain", "--mode", "strong"])
    cluster.run(cluster.nodes, ["keyspace", "create", "both", "--mode", "mixed"])
    for name, clients, depth in [("put, 64 unary", 64, 1), ("put, 256 in flight", 4, 64)]:
        kinds = {
            mode: lambda keyspace=keyspace: bench(cluster, keyspace, "put", clients, depth)
            for mode, keyspace in [("strong", "plain"), ("mixed", "both")]
        }
        compare(name, rounds, kinds)


def fence(cluster, rounds):
    for name, clients, depth in [("get, 1 client", 1, 1), ("get, 64 unary", 64, 1), ("get, 256 in flight", 4, 64)]:
        kinds = {
            "plain": lambda: bench(cluster, "default", "get", clients, depth),
            "fenced": lambda: bench(cluster, "default", "get", clients, depth, "--fence"),
        }
        compare(name, rounds, kinds)


def replicas(cluster, keyspace):
    command = [cluster.binary, "--endpoints", cluster.nodes[0]["endpoint"], "--output", "json"]
    ranges = json.loads(subprocess.check_output([*command, "ranges", "--of", keyspace, "--hash"]))["ranges"]
    return [replica for entry in ranges for replica in entry["replicas"]]


def is_settled(cluster, keyspace):
    """Nothing is beside the log, and all replicas are equal."""
    states = [(r["hash"], r["eventual"]["hash"], r["eventual"]["overlay_rows"]) for r in replicas(cluster, keyspace)]
    return len(set(states)) == 1 and states[0][0] != "" and states[0][2] == 0


def metrics(cluster):
    """All samples of all nodes: name with labels, value."""
    for node in cluster.nodes:
        text = urllib.request.urlopen(f"http://{node['http']}/metrics", timeout=5).read().decode()
        for line in text.splitlines():
            if not line.startswith("#") and line:
                name, _, value = line.rpartition(" ")
                yield name, float(value)


def lag_p99(cluster):
    """Seconds from a write to its absorption at the leader: the bound that 99 of 100 keep."""
    counts = {}
    for name, value in metrics(cluster):
        bound = re.fullmatch(r'quorate_absorption_lag_seconds_bucket\{le="(.*)"\}', name)
        if bound:
            counts[float(bound[1])] = counts.get(float(bound[1]), 0) + value
    return min(bound for bound, count in counts.items() if count >= 0.99 * counts[float("inf")])


def strong_beside(cluster, eventual_keyspace, rate, seconds):
    """Strong puts while eventual writes of `eventual_keyspace` go on at `rate`."""
    found = {}

    def strong():
        found["strong"] = bench(cluster, "other", "put", 64, 1, seconds=seconds)

    thread = threading.Thread(target=strong)
    thread.start()
    before = cluster.cpu_seconds()
    level = ["--level", "eventual:one", "--rate", str(rate)]
    eventual = bench(cluster, eventual_keyspace, "put", 8, 64, *level, seconds=seconds)
    thread.join()
    return found["strong"][0], eventual[0], cluster.cpu_seconds() - before, eventual[4]


def absorption(cluster, rate, seconds):
    cluster.run(cluster.nodes, ["keyspace", "create", "other", "--mode", "strong"])
    rows = []
    done = threading.Event()

    def watch():
        while not done.wait(1):
            rows.extend(value for name, value in metrics(cluster) if name.startswith("quorate_overlay_rows"))

    # First by themselves.
    watcher = threading.Thread(target=watch)
    watcher.start()
    level = ["--level", "eventual:one", "--rate", str(rate)]
    eventual = bench(cluster, "default", "put", 8, 64, *level, seconds=seconds)
    stopped = time.monotonic()
    done.set()
    while not is_settled(cluster, "default"):
        if time.monotonic() > stopped + 60:
            raise SystemExit("the overlay is not empty, or replicas are not equal, after 60 s")
        time.sleep(0.05)
    settled = time.monotonic() - stopped
    watcher.join()
    print(
        f"eventual puts {eventual[0]:.0f}/s for {seconds} s, errors {eventual[4]:.0f}, p99 {eventual[2] / 1000:.1f} ms; "
        f"absorption lag p99 at most {lag_p99(cluster)} s; rows beside the log at most {max(rows):.0f}; "
        f"all absorbed and equal {settled:.2f} s after the last",
        flush=True,
    )
    short = max(5, seconds // 6)
    alone = bench(cluster, "other", "put", 64, 1, seconds=short)[0]
    without = strong_beside(cluster, "speed", rate, short)
    beside = strong_beside(cluster, "default", rate, short)
    for name, (strong, written, cpu, errors) in [("no log", without), ("absorbed", beside)]:
        print(
            f"strong puts beside {written:8.0f}/s eventual ones, {name:9}: {strong:8.0f}/s ({strong / alone:.2f}x of alone), "
            f"nodes' processor time {cpu:.1f} s, errors {errors:.0f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description="What one key on two planes costs.")
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=10_000, help="eventual writes a second")
    parser.add_argument("--load-seconds", type=int, default=60, help="how long they go on")
    parser.add_argument("--only", choices=["overhead", "fence", "absorption"])
    chosen = parser.parse_args()
    cluster = Cluster(os.path.abspath(chosen.binary), chosen.seconds)
    try:
        if chosen.only in (None, "overhead"):
            overhead(cluster, chosen.rounds)
        if chosen.only in (None, "fence"):
            fence(cluster, chosen.rounds)
        if chosen.only in (None, "absorption"):
            absorption(cluster, chosen.rate, chosen.load_seconds)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
