"""A server in a process of its own, and what it takes: memory, descriptors, lines of its log."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STARTER = """
import faulthandler
import signal
import sys
import torch
faulthandler.register(signal.SIGUSR1)
torch.set_num_threads(1)
from daptune.serve import trainer
trainer.STEPS = 2
from daptune.cli import main
main(["serve", sys.argv[1], "--port", "0", *sys.argv[2:]])
"""


@dataclass
class Server:
    """A running server; its log is a file, which no reader can hold up."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    @property
    def lines(self) -> list[str]:
        return self.log.read_text("utf-8", "replace").splitlines()

    @property
    def memory(self) -> float:
        """Resident memory in MB."""
        fields = (Path("/proc") / str(self.process.pid) / "statm").read_text().split()
        return int(fields[1]) * resource.getpagesize() / 2**20

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(self, request: bytes, timeout: float = 30) -> bytes:
        """Everything that is answered to the bytes of a request, until the server closes."""
        with self.connect(timeout) as client:
            client.sendall(request)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def get(self, path: str) -> bytes:
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())

    def healthy(self) -> bool:
        return b" 200 " in self.get("/healthz").split(b"\r\n")[0]


@contextmanager
def serving(folder: Path, log: Path, *options: str, descriptors: int = 1024) -> Iterator[Server]:
    """`daptune serve` with so many descriptors, ready; ended by SIGTERM, which it must obey."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(folder), *options], stderr=file, preexec_fn=limited, env={**os.environ}
        )
    try:
        address = ""
        while not address:
            assert process.poll() is None, log.read_text()
            address = next((word for word in log.read_text().split() if word.startswith("http://127")), "")
            time.sleep(0.02)
        server = Server(process, log, int(address.rstrip("/").rpartition(":")[2]))
        assert server.healthy()  # the address is said when it listens, not before
        yield server
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=120) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)  # what it is doing goes into its log
            time.sleep(1)
            raise AssertionError(log.read_text()) from None
    finally:
        process.kill()
        process.wait()


def upload(path: str, content: bytes, method: str = "POST", name: str = "a.png") -> bytes:
    """A multipart request with one file; the connection is closed after the answer."""
    body = b'--B\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--B--\r\n' % (
        name.encode(),
        content,
    )
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
