"""A client of etcd's JSON gateway that knows nothing of ours: Python with its standard library.

It puts, compares and watches, says `kill` to have the leader killed, and goes on; then it locks and
elects. Its arguments are the endpoints. What does not hold ends it with an assertion.
"""

import base64
import contextlib
import http.client
import json
import sys
import threading
import time

ENDPOINTS = [argument.removeprefix("http://") for argument in sys.argv[1:]]
WITHIN = 60
PAUSE = 0.05
PUTS = 60


class Refused(Exception):
    """An answer that is an error."""


class Elsewhere(Exception):
    """Nobody answered here; another may."""


def b64(text):
    return base64.b64encode(text.encode()).decode()


def text(value):
    return base64.b64decode(value).decode()


def open_call(endpoint, path, body, timeout=10):
    """The answer up to its body."""
    connection = http.client.HTTPConnection(endpoint, timeout=timeout)
    try:
        connection.request("POST", "/v3/" + path, json.dumps(body))
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise Elsewhere(str(error)) from error
    if response.status == 503:
        raise Elsewhere(response.read().decode())
    if response.status != 200:
        raise Refused(json.loads(response.read())["message"])
    return connection, response


def call(path, body, first=0, timeout=10):
    """Has any of the endpoints do it. It may be done twice."""
    over = time.monotonic() + WITHIN
    turn = first
    while time.monotonic() < over:
        try:
            connection, response = open_call(ENDPOINTS[turn % len(ENDPOINTS)], path, body, timeout)
            with contextlib.closing(connection):
                return json.loads(response.read())
        except (Elsewhere, OSError, http.client.HTTPException):
            turn += 1
            time.sleep(PAUSE)
    raise AssertionError(f"{path}: nobody answers")


def put_once(key, value):
    """A put that can be tried again: only what is not there yet is put."""
    return call("kv/txn", {
        "compare": [{"key": b64(key), "target": "CREATE", "result": "EQUAL", "create_revision": 0}],
        "success": [{"request_put": {"key": b64(key), "value": b64(value)}}],
        "failure": [{"request_range": {"key": b64(key)}}],
    })


class Watch(threading.Thread):
    """All keys under a prefix as they are put: resumed elsewhere when its endpoint goes."""

    def __init__(self, turn, prefix, revision):
        super().__init__(daemon=True)
        self.turn, self.prefix, self.next = turn, prefix, revision
        self.seen, self.resumed, self.failed = [], 0, None

    def run(self):
        while True:
            try:
                self.follow()
            except (Elsewhere, OSError, http.client.HTTPException):
                self.turn += 1
                self.resumed += 1
                time.sleep(PAUSE)
            except Exception as error:
                self.failed = error
                return

    def follow(self):
        create = {"key": b64(self.prefix), "range_end": b64(self.prefix[:-1] + "0")}
        create["start_revision"] = str(self.next)
        endpoint = ENDPOINTS[self.turn % len(ENDPOINTS)]
        connection, response = open_call(endpoint, "watch", {"create_request": create})
        with contextlib.closing(connection):
            for line in response:
                told = json.loads(line)
                if "error" in told:
                    raise Elsewhere(told["error"]["message"])
                for event in told["result"].get("events", []):
                    self.seen.append(text(event["kv"]["key"]))
                    self.next = int(event["kv"]["mod_revision"]) + 1
        raise Elsewhere("the stream ended")


def check_values():
    put = call("kv/put", {"key": b64("a"), "value": b64("1")})
    revision = int(put["header"]["revision"])
    put = call("kv/put", {"key": b64("a"), "value": b64("2"), "prev_kv": True})
    assert text(put["prev_kv"]["value"]) == "1", put
    found = call("kv/range", {"key": b64("a"), "revision": revision})
    assert text(found["kvs"][0]["value"]) == "1", found
    compare = {"key": b64("a"), "target": "VALUE", "result": "EQUAL", "value": b64("2")}
    done = call("kv/txn", {
        "compare": [compare],
        "success": [{"request_put": {"key": b64("a"), "value": b64("3")}}],
    })
    assert done["succeeded"], done
    again = call("kv/txn", {"compare": [compare], "failure": [{"requestRange": {"key": b64("a")}}]})
    assert "succeeded" not in again, again
    assert text(again["responses"][0]["response_range"]["kvs"][0]["value"]) == "3", again
    try:
        call("kv/range", {"key": ""})
    except Refused as refused:
        assert str(refused) == "etcdserver: key is not provided", refused
    else:
        raise AssertionError("no key, and no refusal")
    return int(done["header"]["revision"])


def check_watches(revision):
    watches = [Watch(turn, "w/", revision + 1) for turn in range(len(ENDPOINTS))]
    for watch in watches:
        watch.start()
    wanted = [f"w/{number:03}" for number in range(PUTS)]
    for number, key in enumerate(wanted):
        if number == PUTS // 2:
            print("kill", flush=True)
            assert sys.stdin.readline() == "done\n"
        put_once(key, str(number))
    over = time.monotonic() + WITHIN
    while any(len(watch.seen) < PUTS and not watch.failed for watch in watches):
        assert time.monotonic() < over, [len(watch.seen) for watch in watches]
        time.sleep(PAUSE)
    for watch in watches:
        assert watch.failed is None, watch.failed
        assert watch.seen == wanted, watch.seen
    resumed = sum(watch.resumed for watch in watches)
    assert resumed > 0, "no watch was at the node that was killed"
    print(f"{len(watches)} watches: {PUTS} puts each, once and in order; resumed {resumed} times")


def lease():
    return call("lease/grant", {"TTL": "60"})["ID"]


def check_lock():
    first = call("lock/lock", {"name": b64("door"), "lease": lease()})
    second = {}
    waits = {"name": b64("door"), "lease": lease()}
    waiting = threading.Thread(
        target=lambda: second.update(call("lock/lock", waits, timeout=WITHIN)), daemon=True
    )
    waiting.start()
    over = time.monotonic() + WITHIN
    line = {"key": b64("door/"), "range_end": b64("door0"), "count_only": True}
    while call("kv/range", line)["count"] != "2":
        assert time.monotonic() < over, "the second does not stand in line"
        time.sleep(PAUSE)
    assert not second, "two hold one lock"
    call("lock/unlock", {"key": first["key"]})
    waiting.join(WITHIN)
    token = call("kv/range", {"key": second["key"]})["kvs"][0]["create_revision"]
    assert second["key"] != first["key"] and int(token) > 0, second
    print("lock: handed on")


def check_election():
    name = b64("chair")
    won = call("election/campaign", {"name": name, "value": b64("me"), "lease": lease()})
    call("election/proclaim", {"leader": won["leader"], "value": b64("still me")})
    leads = call("election/leader", {"name": name})
    assert text(leads["kv"]["value"]) == "still me", leads
    turn = 0
    while True:
        try:
            connection, response = open_call(ENDPOINTS[turn], "election/observe", {"name": name})
            break
        except Elsewhere:
            turn += 1
    with contextlib.closing(connection):
        told = json.loads(response.readline())
    assert text(told["result"]["kv"]["value"]) == "still me", told
    call("election/resign", {"leader": won["leader"]})
    try:
        call("election/leader", {"name": name})
    except Refused as refused:
        assert str(refused) == "election: no leader", refused
    else:
        raise AssertionError("who has resigned still leads")
    print("election: won, proclaimed, observed, resigned")


check_watches(check_values())
check_lock()
check_election()
