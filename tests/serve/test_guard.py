"""Who is let in: hosts, origins and tokens, and what every answer carries."""

import asyncio
from typing import Any

import pytest
from starlette.responses import JSONResponse

from daptune.serve.counters import Counters
from daptune.serve.guard import MOST_SENDING, Guard
from daptune.serve.limits import Limits

from .conftest import HOST, Start, files, png

PREDICT = "/v1/adapters/words/predict"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:8000", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_without_a_token_only_this_machine_is_answered(start: Start, host: str, status: int) -> None:
    answer = start().get("/v1/adapters", headers={"host": host})
    assert answer.status_code == status and (status == 200 or "localhost only" in answer.json()["error"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": HOST}, 200),
        ({"origin": HOST, "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(start: Start, headers: dict[str, str], status: int) -> None:
    client = start()
    answer = client.post(PREDICT, files=files(png()), headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert client.delete("/v1/adapters/words", headers=headers).status_code == 403
        assert any(row["name"] == "words" for row in client.get("/v1/adapters").json())


def test_with_a_token_nothing_goes_without_it(start: Start) -> None:
    client = start(token="a long secret")
    good: dict[str, Any] = {"headers": {"authorization": "Bearer a long secret"}}
    for path in ("/v1/adapters", "/v1/info", "/metrics", "/v1/lessons", "/v1/adapters/words/download"):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic a long secret"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert "Bearer TOKEN" in answer.json()["error"]
        assert client.get(path, **good).status_code == 200
    assert client.post(PREDICT, files=files(png())).status_code == 401
    assert client.post(PREDICT, files=files(png()), **good).status_code == 200
    for path in ("/", "/page/app.js", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200, path
    assert client.get("/v1/adapters", headers={"host": "gpu.example", **good["headers"]}).status_code == 200


def test_every_answer_forbids_what_a_page_needs_not(start: Start) -> None:
    client = start()
    for answer in (client.get("/"), client.get("/page/style.css"), client.get("/v1/adapters"), client.get("/nothing")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_asks_no_other_host(start: Start) -> None:
    client = start()
    for name in ("/", "/page/app.js", "/page/style.css"):
        text = client.get(name).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async def reads_all(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def half() -> Any:
        pieces.append("asked")
        if len(pieces) > 1:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def keep(message: Any) -> None:
        sent.append(message)

    pieces: list[str] = []
    sent: list[Any] = []
    guard = Guard(reads_all, token=None, limits=Limits(timeout=1), counters=Counters())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(guard(scope, half, keep))
    assert sent[0]["status"] == 408 and b"within 1 seconds" in sent[1]["body"]


def test_many_requests_at_a_time_are_refused() -> None:
    async def body() -> list[int]:
        go_on = asyncio.Event()

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            await JSONResponse({})(scope, receive, send)

        async def nothing() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def ask() -> int:
            sent: list[Any] = []

            async def keep(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
            await guard(scope, nothing, keep)
            return int(sent[0]["status"])

        guard = Guard(waits, token=None, limits=Limits(), counters=Counters())
        tasks = [asyncio.create_task(ask()) for _ in range(MOST_SENDING)]
        await asyncio.sleep(0)
        beyond = await ask()
        go_on.set()
        return [beyond, *await asyncio.gather(*tasks), await ask()]

    assert asyncio.run(body()) == [503, *[200] * (MOST_SENDING + 1)]
