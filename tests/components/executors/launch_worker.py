"""Run by Ray to start a worker: asks the process at the socket beside this program to fork one (see warm_workers.py)."""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))  # noqa: PTH118, PTH120  (pathlib takes its time)
    content = json.dumps([sys.argv[1:], dict(os.environ)]).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(content)
    server.recv(1)
