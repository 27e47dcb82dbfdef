"""What is served, where, and how it ends: sources and addresses in this process, the end in one of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from daptune.cli import run
from daptune.errors import AdapterError, DaptuneError
from daptune.serve.limits import Limits
from daptune.serve.server import check_exposure, make_engine, open_socket, read_sources, url_of

from .conftest import METHOD_OF, files, png


def test_sources_are_sorted_into_adapters_models_and_a_folder(folder: Path, tmp_path: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "notes.txt").write_text("")
    found = read_sources([folder])
    assert list(found.adapters) == sorted(METHOD_OF) and found.folder == folder and not found.models
    single = read_sources([folder / "words", folder / "deep"])
    assert list(single.adapters) == ["words", "deep"] and single.folder is None
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    assert read_sources([model]).models == {"model": model}


def test_sources_that_cannot_be_served_are_one_line(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (folder / "words").rename(other / "deep")
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "two").mkdir()
    for paths, reason in (
        ([], "found none; name adapters or a folder"),
        ([folder, other / "deep"], "two adapters are named 'deep'"),
        ([folder, tmp_path / "two"], "expected one folder"),
        ([tmp_path / "nothing"], "create a folder: mkdir"),
        ([folder, tmp_path / "model.onnx"], "cannot be served together"),
    ):
        with pytest.raises(AdapterError, match=reason) as raised:
            read_sources(paths)
        assert "\n" not in str(raised.value)


def test_of_a_folder_what_fits_is_served_and_what_was_named_must_fit(
    folder: Path, made_up_backbone: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = folder / "words" / "adapter.json"
    record = json.loads(place.read_text())
    record["backbone"]["sha256"] = "f" * 64
    place.write_text(json.dumps(record))
    (folder / "deep" / "adapter.json").write_text("{")
    engine = make_engine(read_sources([folder]), Limits(), backbone=made_up_backbone)
    status = {each.name: each.status for each in engine.adapters()}
    assert status == dict.fromkeys(METHOD_OF, "ready") | {"words": "broken", "deep": "broken"}
    told = [message for message in caplog.messages if message.startswith("broken")]
    assert len(told) == 2 and any("f" * 12 in each for each in told)
    with pytest.raises(AdapterError, match="f" * 12):
        make_engine(read_sources([folder / "prompted", folder / "words"]), Limits(), backbone=made_up_backbone)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_beyond_this_machine_a_token_is_needed(host: str) -> None:
    with pytest.raises(DaptuneError, match="a token is needed: --token"):
        check_exposure(host, None)
    with pytest.raises(DaptuneError, match="8 or more"):
        check_exposure(host, "short")
    check_exposure(host, "long enough")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_on_this_machine_it_may_be_left_out(host: str) -> None:
    check_exposure(host, None)


def test_a_port_in_use_is_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert url_of(taken) == f"http://127.0.0.1:{port}/"
        assert run(["serve", str(folder), "--port", str(port)]) == 2
        assert capsys.readouterr().err.strip() == (
            f"daptune: error: port {port} is in use; choose another with --port, such as {port + 1}"
        )
    for words, reason in (
        (["--host", "0.0.0.0"], "a token is needed"),
        (["--port", "99999"], "--port must be a number from 0"),
        (["--reject", "1"], "--reject must be a share between 0 and 1, such as 0.05; found 1"),
        (["--max-batch", "0"], "--max-batch must be a number of at least 1"),
    ):
        assert run(["serve", str(folder), *words]) == 2
        error = capsys.readouterr().err.strip()
        assert reason in error and "\n" not in error


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "daptune.serve.app", None)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert run(["serve", "."]) == 2
    assert "pip install 'daptune[serve]'" in capsys.readouterr().err


@pytest.fixture
def server(folder: Path, made_up_backbone: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`daptune serve` in a process of its own, ready, and its address."""
    command = [
        sys.executable, "-m", "daptune", "serve", str(folder), "--port", "0", "--backbone", made_up_backbone,
        "--max-wait-ms", "1500", "--timeout", "20",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    assert process.stderr is not None
    line = ""
    while " at http" not in line:
        line = process.stderr.readline()
        assert line, f"the server ended with {process.wait()}"
    url = next(word for word in line.split() if word.startswith("http"))
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(url + "readyz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_stop_finishes_what_was_accepted(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    answers: list[Any] = []

    def ask() -> None:  # waits 1.5 s for others to share a batch with
        answers.append(httpx.post(f"{url}v1/adapters/words/predict", files=files(png()), timeout=30))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(400):
        if "daptune_queue_images 3.0" in httpx.get(f"{url}metrics").text:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert process.wait(timeout=20) == 0
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=2):
        pass
