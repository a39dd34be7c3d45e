#!/usr/bin/env python3
"""A store to be found guilty: registers that each node answers for at once, and tells the others of
afterwards. `late_register.py node` is one node, `late_register.py client` speaks to one for the lab:
  quorate jepsen run --node 'python3 late_register.py node' --client 'python3 late_register.py client'
"""
import json, os, queue, socket, socketserver, sys, threading, time

def ask(to, message):
    with socket.create_connection(to.rsplit(":", 1), 1) as line:
        line.sendall(json.dumps(message).encode() + b"\n")
        return json.loads(line.makefile().readline())

def serve(listen, answer):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(json.dumps(answer(json.loads(self.rfile.readline()))).encode() + b"\n")
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    host, port = listen.rsplit(":", 1)
    server = socketserver.ThreadingTCPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

def node():
    registers, lock, outboxes = {}, threading.Lock(), []
    def take(key, value, stamp):                     # the later stamp wins
        if stamp > registers.get(key, (None, 0))[1]:
            registers[key] = (value, stamp)
    def from_client(op):
        with lock:
            value = registers.get(op["key"], (None, 0))[0]
            if op["f"] == "read":
                return {"type": "ok", "value": value}
            if op["f"] == "cas" and value != op["value"][0]:
                return {"type": "fail"}
            change = (op["key"], op["value"][1] if op["f"] == "cas" else op["value"], time.time())
            take(*change)
        for outbox in outboxes:                      # told later: this is what makes it guilty
            outbox.put(change)
        return {"type": "ok", "value": op["value"]}
    def tell(peer, outbox):
        while True:
            try:
                ask(peer, outbox.get())
            except (OSError, ValueError):
                time.sleep(0.05)                     # and what was lost is told to nobody
    for peer in os.environ["QUORATE_LAB_PEERS"].split():
        outboxes.append(queue.Queue())
        threading.Thread(target=tell, args=(peer, outboxes[-1]), daemon=True).start()
    serve(os.environ["QUORATE_LAB_PEER_LISTEN"], lambda change: take(*change) or {})
    serve(os.environ["QUORATE_LAB_LISTEN"], from_client)
    sys.stdin.read()                                 # the lab is gone when this ends

def client():
    for text in sys.stdin:
        op = json.loads(text)
        try:
            answer = ask(os.environ["QUORATE_LAB_HOME"], op)
        except (OSError, ValueError) as error:
            answer = {"type": "fail" if op["f"] == "read" else "info", "error": str(error)}
        print(json.dumps(answer), flush=True)
{"node": node, "client": client}[sys.argv[1]]()
