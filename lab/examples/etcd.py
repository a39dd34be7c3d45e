#!/usr/bin/env python3
"""etcd for the lab: `etcd.py node` is one member, `etcd.py client` speaks to one by its JSON gateway.
Takes `etcd` on the path, and network namespaces: members tell each other one address for all.
  quorate jepsen run --hosts netns --node 'python3 etcd.py node' --client 'python3 etcd.py client'
"""
import base64, json, os, socket, sys, urllib.error, urllib.request

def node():
    own, listen = os.environ["QUORATE_LAB_PEER_LISTEN"], os.environ["QUORATE_LAB_LISTEN"]
    number, count = int(os.environ["QUORATE_LAB_NODE"]), int(os.environ["QUORATE_LAB_NODES"])
    others = [n for n in range(1, count + 1) if n != number]
    peers = dict(zip(others, os.environ["QUORATE_LAB_PEERS"].split()))
    peers[number] = own
    cluster = ",".join(f"n{n}=http://{peers[n]}" for n in sorted(peers))
    os.execvp("etcd", ["etcd", f"--name=n{number}", f"--data-dir={os.environ['QUORATE_LAB_DIR']}/etcd",
        f"--listen-client-urls=http://{listen}", f"--advertise-client-urls=http://{listen}",
        f"--listen-peer-urls=http://{own}", f"--initial-advertise-peer-urls=http://{own}",
        f"--initial-cluster={cluster}", "--initial-cluster-state=new",
        "--heartbeat-interval=60", "--election-timeout=300"])

def code(value):
    return base64.b64encode(str(value).encode()).decode()

def call(path, body):
    request = urllib.request.Request(f"http://{os.environ['QUORATE_LAB_HOME']}/v3/kv/{path}",
                                     json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=1.5) as answer:
        return json.load(answer)

def answer(op):
    key = code(f"key/{op['key']}")
    if op["f"] == "read":
        found = call("range", {"key": key}).get("kvs", [])
        return {"type": "ok", "value": int(base64.b64decode(found[0]["value"])) if found else None}
    if op["f"] == "write":
        call("put", {"key": key, "value": code(op["value"])})
        return {"type": "ok"}
    old, new = op["value"]
    done = call("txn", {"compare": [{"key": key, "target": "VALUE", "value": code(old)}],
                        "success": [{"requestPut": {"key": key, "value": code(new)}}]})
    return {"type": "ok" if done.get("succeeded") else "fail"}

def client():
    for line in sys.stdin:
        op = json.loads(line)
        try:
            said = answer(op)
        except (OSError, urllib.error.URLError, socket.timeout) as error:
            refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            kind = "fail" if op["f"] == "read" or refused else "info"
            said = {"type": kind, "error": type(error).__name__}
        print(json.dumps(said), flush=True)

{"node": node, "client": client}[sys.argv[1]]()
