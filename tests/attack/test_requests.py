"""Requests generated from the server's own description: no fault, and no answer that the description does not name."""

# ruff: noqa: F811  fixtures are imported by name

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs daptune[serve]")
pytest.importorskip("schemathesis", reason="needs daptune[dev]")

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from daptune.clip.backbone import Backbone
from daptune.serve import trainer as trainer_module
from daptune.serve.app import make_app
from daptune.serve.limits import Limits

from ..serve.conftest import HOST, png, pool_of, shelf, small  # noqa: F401  fixtures

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.allow_header_conformance,
]
KNOWN = {"name": ["words", "lesson", "new"], "label": ["robin", "tit"]}
"""Names that exist now and then: without them nearly all answers would be 404."""


@pytest.fixture
def client(small: Backbone, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server of two adapters and a lesson, whose trainings take one step."""
    monkeypatch.setattr(trainer_module, "STEPS", 1)
    for name in ("words", "deep"):
        shutil.copytree(shelf / name, tmp_path / "served" / name)
    served = tmp_path / "served"
    app = make_app(pool_of(small, served), Limits(max_wait_ms=0, max_bytes=200_000), folder=served)
    with TestClient(app, base_url=HOST, raise_server_exceptions=False) as running:
        made = running.post("/v1/lessons", json={"name": "lesson", "classes": ["robin", "tit"]})
        assert made.status_code == 201
        yield running


def operations(client: TestClient) -> list[Any]:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    return [found.ok() for found in schema.get_all_operations()]


def sent(client: TestClient, case: Any, rng: random.Random) -> Any:
    """The answer to a generated case, as it would go over the wire; half of the names in paths are known ones."""
    for name, value in KNOWN.items():
        if name in (case.path_parameters or {}) and rng.random() < 0.5:
            case.path_parameters[name] = rng.choice(value)
    wire = requests.Request(**case.as_transport_kwargs(base_url=HOST)).prepare()
    return client.request(wire.method or "", str(wire.url), headers=dict(wire.headers), content=wire.body or b"")


@pytest.mark.filterwarnings("ignore")
def test_generated_requests_are_answered_as_described(
    client: TestClient, tries: Callable[[int, int], int], request: pytest.FixtureRequest, tally: Callable[..., None]
) -> None:
    """Valid and invalid values for every operation."""
    number: int = request.getfixturevalue("seed")
    rng, statuses = random.Random(number), []
    for operation, mode in itertools.product(operations(client), (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):

        @seed(number)
        @settings(
            max_examples=tries(1, 100),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def attack(case: Any) -> None:
            answer = sent(client, case, rng)
            statuses.append(answer.status_code)
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                assert set(answer.json()) == {"error"} and "\n" not in answer.json()["error"]

        try:
            attack()
        except Unsatisfiable:  # nothing that this operation takes can be invalid
            assert mode is GenerationMode.NEGATIVE
    tally(inputs=len(statuses), failures=sum(status >= 500 for status in statuses))
    assert len(statuses) > 20 and not [status for status in statuses if status >= 500]


def test_every_route_describes_what_it_refuses(client: TestClient) -> None:
    """The statuses of the guard and of a full server, and one body for all of them: {"error": reason}."""
    whole = client.get("/openapi.json").json()
    described = [operation for path in whole["paths"].values() for operation in path.values()]
    assert len(described) == len(operations(client)) > 15
    for operation in described:
        refused = {status: each for status, each in operation["responses"].items() if status >= "400"}
        assert {"401", "403", "413", "500", "503"} <= set(refused)
        for each in refused.values():
            assert each["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}
    assert whole["components"]["schemas"]["Refusal"]["required"] == ["error"]


def test_a_wrong_method_is_told_the_right_ones(client: TestClient) -> None:
    """`Allow` has the methods of all routes of a path, by the description; and files are read only."""
    whole = client.get("/openapi.json").json()
    expected = {path: {method.upper() for method in found} for path, found in whole["paths"].items()}
    expected |= {"/": {"GET"}, "/page/app.js": {"GET", "HEAD"}}
    for path, methods in expected.items():
        real = path.format(name="words", label="robin", identity="0" * 16)
        for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - methods:
            answer = client.request(method, real)
            assert answer.status_code == 405, (method, real, answer.status_code)
            assert set(answer.headers["allow"].split(", ")) == methods, (method, real)


ODD = [
    ("GET", "/v1/adapters", {"origin": "http://["}, 200),
    ("POST", "/v1/adapters", {"origin": "http://["}, 403),
    ("POST", "/v1/adapters", {"content-length": "9" * 30}, 413),
    ("POST", "/v1/adapters", {"content-type": "application/json"}, 422),
    ("GET", "/v1/adapters/", {}, 404),
    ("GET", "/v1/adapters", {"host": "127.0.0.2:8000"}, 200),
    ("GET", "/v1/adapters", {"host": "127.1.2.3"}, 200),
    ("GET", "/v1/adapters", {"host": "[::1%lo]"}, 200),
    ("GET", "/v1/adapters", {"host": "128.0.0.1"}, 403),
    ("GET", "/v1/adapters", {"host": "0.0.0.0"}, 403),
    ("GET", "/v1/adapters", {"host": "127.0.0.1.example"}, 403),
    ("GET", "/v1/adapters", {"host": "[::1"}, 403),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), ODD)
def test_odd_headers_have_an_answer(
    client: TestClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert client.request(method, path, headers=headers).status_code == status


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-16", "idna", "none", "utf-7", "punycode"])
def test_names_of_files_in_any_charset(client: TestClient, charset: str) -> None:
    """A charset that the client names can make half characters of a file's name; the answer has whole ones."""
    body = b'--B\r\nContent-Disposition: form-data; name="files"; filename="\\ud800.png"\r\n\r\nno image\r\n--B--\r\n'
    kind = f"multipart/form-data; boundary=B; charset={charset}"
    answer = client.post("/v1/adapters/words/predict", content=body, headers={"content-type": kind})
    assert answer.status_code in (400, 422) and answer.json()["error"]
