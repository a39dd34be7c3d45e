#!/usr/bin/env python3
"""A store to be found guilty: registers that each node answers for at once, and tells the others of
afterwards. `late_register.py node` is one node, `late_register.py client` speaks to one for the lab:
  quorate jepsen run --node 'python3 late_register.py node' --client 'python3 late_register.py client'
"""
import json, os, queue, socket, socketserver, sys, threading, time

def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)

def serve(listen, answer):
    """Lines of JSON in, lines of JSON out."""
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    server = socketserver.ThreadingTCPServer(address(listen), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()

class Line:
    """One connection that is made anew when it has failed."""
    def __init__(self, to, timeout):
        self.to, self.timeout, self.file = to, timeout, None
    def ask(self, message):
        try:
            if self.file is None:
                self.file = socket.create_connection(address(self.to), self.timeout).makefile("rwb")
            self.file.write(json.dumps(message).encode() + b"\n")
            self.file.flush()
            return json.loads(self.file.readline())
        except (OSError, ValueError):
            self.file = None
            raise

def node():
    registers, lock, outboxes = {}, threading.Lock(), []
    def take(key, value, stamp):                     # the later stamp wins
        if stamp > registers.get(key, (None, 0))[1]:
            registers[key] = (value, stamp)
    def from_client(op):
        with lock:
            value, key = registers.get(op["key"], (None, 0))[0], op["key"]
            if op["f"] == "read":
                return {"type": "ok", "value": value}
            if op["f"] == "cas" and value != op["value"][0]:
                return {"type": "fail"}
            change = (key, op["value"][1] if op["f"] == "cas" else op["value"], time.time())
            take(*change)
        for outbox in outboxes:                      # told later: this is what makes it guilty
            outbox.put(change)
        return {"type": "ok", "value": op["value"]}
    def from_peer(change):
        with lock:
            take(*change)
        return {}
    def tell(peer, outbox):
        line, change = Line(peer, 1), outbox.get()
        while True:
            try:
                line.ask(change)
                change = outbox.get()
            except (OSError, ValueError):
                time.sleep(0.05)
    for peer in os.environ["QUORATE_LAB_PEERS"].split():
        outboxes.append(queue.Queue())
        threading.Thread(target=tell, args=(peer, outboxes[-1]), daemon=True).start()
    serve(os.environ["QUORATE_LAB_PEER_LISTEN"], from_peer)
    serve(os.environ["QUORATE_LAB_LISTEN"], from_client)
    sys.stdin.read()                                 # the lab is gone when this ends

def client():
    line = Line(os.environ["QUORATE_LAB_HOME"], 1)
    for text in sys.stdin:
        op = json.loads(text)
        try:
            answer = line.ask(op)
        except (OSError, ValueError) as error:
            kind = "fail" if op["f"] == "read" or isinstance(error, ConnectionRefusedError) else "info"
            answer = {"type": kind, "error": type(error).__name__}
        print(json.dumps(answer), flush=True)

{"node": node, "client": client}[sys.argv[1]]()
