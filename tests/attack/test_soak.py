"""A server under silent, slow, vanishing and too many clients: memory, descriptors and its log stay bounded."""

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs daptune[serve]")

from daptune.adapter.store import make_record, save_adapter
from daptune.clip.backbone import load_backbone
from daptune.methods import METHODS, make_config

from ..serve.conftest import png
from .serving import Server, serving, upload

PREDICT = "/v1/adapters/good/predict"
MOST_LINES = 20
"""Of a log, however long the attack: each kind of line once a minute, and a count."""
MOST_MEMORY = 150
"""MB that a server may grow by under load; the images of a full queue take 40 of them."""


@pytest.fixture(scope="module")
def folder(made_up_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one adapter."""
    backbone = load_backbone(made_up_backbone, precision="fp32")
    place = tmp_path_factory.mktemp("served")
    method = METHODS["coop"](backbone, ["a", "b"], make_config("coop", {"text_tokens": 2})).eval()
    save_adapter(place / "good", method, make_record(method, backbone))
    return place


@pytest.fixture(scope="module")
def server(folder: Path, made_up_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 128 descriptors, so 64 connections, which closes silent ones after a second."""
    log = tmp_path_factory.mktemp("log") / "log"
    options = ("--backbone", made_up_backbone, "--precision", "fp32", "--idle-timeout", "1", "--timeout", "5")
    with serving(folder, log, *options, descriptors=128) as running:
        assert b" 200 " in running.ask(upload(PREDICT, png())).split(b"\r\n")[0]
        yield running


def metric(server: Server, name: str) -> float:
    lines = server.get("/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def is_closed(client: socket.socket) -> bool:
    """Whether the server has closed a connection that it was sent nothing whole on."""
    client.setblocking(False)
    try:
        return client.recv(1000) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_silent_connections_do_not_stop_a_server(server: Server, tally: Callable[..., None]) -> None:
    """More than it has descriptors: the longest silent ones make room, and all are closed in the end."""
    silent, slowest = [], 0.0
    for number in range(300):
        silent.append(server.connect())
        if number % 3 == 0:
            silent[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX")  # slow headers are silence too
        if number % 30 == 0:
            began = time.monotonic()
            assert server.healthy()
            slowest = max(slowest, time.monotonic() - began)
    assert server.descriptors <= 128
    assert any(client.recv(100).startswith(b"HTTP/1.1 503") for client in silent[100:200]), "who lost a place is told"
    deadline = time.monotonic() + 60
    while not all(map(is_closed, silent)) and time.monotonic() < deadline:
        for client in silent[::3]:  # one byte at a time does not keep a connection
            try:
                client.send(b"x")
            except OSError:
                continue
        time.sleep(0.2)
    left = sum(not is_closed(client) for client in silent)
    for client in silent:
        client.close()
    tally(inputs=len(silent), failures=left, peak=server.memory, longest=slowest)
    assert left == 0 and server.healthy() and len(server.lines) <= MOST_LINES
    assert metric(server, "daptune_connections_closed_total") >= 300


def test_clients_that_go_away_are_no_fault(
    server: Server, tries: Callable[[int, int], int], seed: int, tally: Callable[..., None]
) -> None:
    """Cut off anywhere in a request, gently or by a reset: no traceback, and what was held is free again."""
    before, count, rng = server.descriptors, tries(60, 1500), random.Random(seed)
    requests = [
        upload(PREDICT, png(1)),
        upload("/v1/adapters/new", b"{}", "PUT", "adapter.json"),
        b"POST /v1/lessons HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        b"GET /v1/adapters/good/download HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ]
    for _ in range(count):
        whole = rng.choice(requests)
        with server.connect() as client:
            client.sendall(whole[: rng.randint(1, len(whole))])
            if rng.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 60
    # the metrics come first: once they are answered, the server has accepted all connections before
    while (metric(server, "daptune_queue_images ") or server.descriptors > before + 5) and time.monotonic() < deadline:
        time.sleep(0.1)
    tally(inputs=count, failures=sum("Traceback" in line for line in server.lines), peak=server.memory)
    left = [os.readlink(path) for path in Path(f"/proc/{server.process.pid}/fd").iterdir()]
    assert not any("Traceback" in line or "internal error" in line for line in server.lines)
    assert len(left) <= before + 5 and metric(server, "daptune_queue_images ") == 0, left
    assert len(server.lines) <= MOST_LINES and server.healthy()


def test_a_client_that_takes_no_answer_is_closed(server: Server) -> None:
    """Requests in a row whose answers are never read; the limit of an answer is five seconds."""
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0.2)
        one = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        sent, deadline, closed = 0, time.monotonic() + 30, False
        while time.monotonic() < deadline and not closed:
            try:
                sent += client.send(one * 50)
            except TimeoutError:
                continue
            except OSError:
                closed = True
    assert closed and sent > 50 * len(one) and server.healthy()


def test_more_clients_than_it_can_serve(
    server: Server, tries: Callable[[int, int], int], tally: Callable[..., None]
) -> None:
    """Every client is answered: with a prediction, or with 503 or 504 and when to try again."""
    before, count = server.memory, tries(120, 4000)

    def ask(number: int) -> tuple[int, float]:
        began = time.monotonic()
        try:
            answer = server.ask(upload(PREDICT, png(number % 7, (300, 200))))
        except ConnectionError:  # refused where all connections have a request, before its body was read
            return 503, time.monotonic() - began
        return int(answer.split(b" ", 2)[1]), time.monotonic() - began

    with ThreadPoolExecutor(tries(60, 160)) as clients:
        found = list(clients.map(ask, range(count)))
    statuses, longest = {status for status, _ in found}, max(seconds for _, seconds in found)
    tally(inputs=count, failures=sum(s not in (200, 503, 504) for s, _ in found), peak=server.memory, longest=longest)
    assert statuses <= {200, 503, 504} and 200 in statuses
    assert server.memory < before + MOST_MEMORY and server.descriptors <= 128
    assert len(server.lines) <= MOST_LINES and server.healthy()


def test_soak(
    server: Server, tries: Callable[[int, int], int], seed: int, tally: Callable[..., None], capsys: Any
) -> None:
    """Requests of all kinds for a while: memory grows no more after the first quarter, and nothing is left open."""
    seconds, rng = tries(2, 600), random.Random(seed)
    content = [png(number, (200, 150)) for number in range(8)]
    requests: list[Callable[[], bytes]] = [
        lambda: upload(PREDICT, rng.choice(content)),
        lambda: upload(PREDICT, b"no image"),
        lambda: upload(f"/v1/adapters/{rng.randrange(10**9)}", b"{", "PUT", "adapter.json"),
        lambda: upload(f"/v1/adapters/none{rng.randrange(10**9)}/predict", content[0]),
        lambda: b"GET /v1/adapters HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        lambda: b"DELETE /v1/lessons/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % rng.randrange(99),
        lambda: rng.randbytes(rng.randint(1, 300)) + b"\r\n\r\n",
    ]
    curve, asked, began, longest = [], 0, time.monotonic(), 0.0
    while (passed := time.monotonic() - began) < seconds:
        before = time.monotonic()
        assert server.ask(rng.choice(requests)())
        asked, longest = asked + 1, max(longest, time.monotonic() - before)
        if passed >= len(curve) * seconds / 20:
            curve.append((passed, asked, server.memory, server.descriptors, len(server.lines)))
    tally(inputs=asked, peak=max(row[2] for row in curve), longest=longest)
    with capsys.disabled():
        if seconds > 10:
            print("\nsoak: seconds, requests, MB, descriptors, lines of the log")
            for row in curve:
                print("{:7.0f} {:8,d} {:7.1f} {:4d} {:4d}".format(*row))
    settled = max(row[2] for row in curve[: max(1, len(curve) // 4)])
    assert curve[-1][2] < settled + 30
    assert max(row[3] for row in curve) <= 128 and len(server.lines) <= MOST_LINES + seconds // 30
    assert not any("Traceback" in line for line in server.lines)
