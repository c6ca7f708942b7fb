"""How much memory fleetd takes for many clients: followers, slow imports, idle connections, journals.

Usage: api_memory.py FLEETD [UNITS], as target/debug/fleetd 1000. It runs that fleetd on a store of its own, with no systemd.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time

UNIT = "[Unit]\nDescription=unit {0} of a measurement\n[Service]\nExecStart=/bin/sleep 1d\nRestart=always\n"
HEAD = "Host: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"

program, units = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "fleet.sock")
with open(os.path.join(folder.name, "fleetd.conf"), "w") as config:
    for option, name in [("socket", "fleet.sock"), ("data_dir", "data"), ("run_dir", "run"), ("units_directory", "units")]:
        config.write(f'{option} = "{os.path.join(folder.name, name)}"\n')
fleetd = subprocess.Popen(
    [program, "--config", config.name],
    env={"PATH": os.environ["PATH"], "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere"},
    stderr=subprocess.DEVNULL,
)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


def connect(timeout=60):
    """A connection; fleetd may not listen yet."""
    for _ in range(600):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            time.sleep(0.1)
    raise SystemExit("fleetd does not listen")


def ask(request, body=b""):
    """Sends a request; gives the connection and the answer's status."""
    connection = connect()
    connection.sendall(f"{request} HTTP/1.1\r\n{HEAD.format(len(body))}".encode() + body)
    return connection, connection.recv(65536).split(b" ", 2)[1].decode()


def say(what):
    """Prints what fleetd takes now, when it has had time to let go of what it can."""
    time.sleep(2)
    with open(f"/proc/{fleetd.pid}/status") as status:
        [resident] = [int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS")]
    print(f"{what}: {resident} MB, {len(os.listdir(f'/proc/{fleetd.pid}/fd'))} descriptors")


try:
    export = {f"u{n}.service": {"text": UNIT.format(n), "desiredState": "launched"} for n in range(units)}
    body = json.dumps({"format": 1, "units": export}).encode()
    while ask("POST /fleet/v1/import", body)[1] != "200":
        time.sleep(0.2)
    say(f"{units} units")
    followers = [ask("GET /fleet/v1/follow?unit=u1.service") for _ in range(300)]
    say(f"300 followers, {sum(status == '200' for _, status in followers)} of them served")
    del followers
    imports = []
    for _ in range(16):
        connection = connect(timeout=2)
        connection.sendall(f"POST /fleet/v1/import HTTP/1.1\r\n{HEAD.format(64 * 1024 * 1024)}".encode())
        try:
            connection.sendall(b" " * (60 * 1024 * 1024))
        except OSError:
            pass  # it is refused, or has had enough for now
        imports.append(connection)
    say("16 imports of 64 MiB that do not end")
    del imports
    idle = [connect() for _ in range(1020)]
    say("1,020 idle connections")
    print("one more is answered with", ask("GET /fleet/v1/machines")[1])
    del idle
    journals = [connect() for _ in range(500)]
    for connection in journals:
        connection.sendall(f"GET /fleet/v1/units/u1.service/journal?follow=true HTTP/1.1\r\n{HEAD.format(0)}".encode())
    served = sum(b" 200 " in connection.recv(4096)[:16] for connection in journals)
    say(f"500 followed journals, {served} of them served")
    del journals, connection
finally:
    fleetd.terminate()
    fleetd.wait()
