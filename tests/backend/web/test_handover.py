"""What the acceptor's process has accepted is served, however that process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: In a process of its own, as the acceptor is forked. `end` is a statement that ends the acceptor.
SCRIPT = """
import fcntl, os, signal, socket, struct, termios, time
from waitress import wasyncore
from backend.settings import Settings
from backend.web import handover

class Server:
    has_acceptor = False
    adopted = []

    def adopt(self, connection):
        self.adopted.append(connection)

killed, kill = [], os.kill
handover.os.kill = lambda pid, number: killed.append(pid) or kill(pid, number)
listening = socket.create_server(("127.0.0.1", 0), backlog=200)
link, pid = handover.start_acceptor([listening], Settings(model="demo"))
server, watched = Server(), {}
ours = handover.Handover(link, pid, [server], watched, lambda: "ready", lambda: None)
clients = [socket.create_connection(listening.getsockname()) for _ in range(100)]
for client in clients:
    client.sendall(b"POST /webhook HTTP/1.1\\r\\nHost: backend\\r\\n\\r\\n")
until = time.monotonic() + 40
while struct.unpack("i", fcntl.ioctl(link, termios.FIONREAD, bytes(4)))[0] < len(clients):
    assert time.monotonic() < until  # each that is handed over is a byte of the link
    time.sleep(0.01)
{end}
for _ in range(3):
    wasyncore.loop(0.1, use_poll=True, map=watched, count=1)
assert len(server.adopted) == 100, len(server.adopted)
assert not any(each.get_inheritable() for each in server.adopted)
ours.end()
assert killed == [pid], killed
"""


@pytest.mark.parametrize("end", ["ours.end()", "kill(pid, signal.SIGKILL); time.sleep(0.2)"])
def test_no_accepted_connection_is_lost_where_the_acceptor_ends(end: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{end}", end)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
