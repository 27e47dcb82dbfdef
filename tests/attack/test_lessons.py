"""The server's adapters and lessons by a state machine: what is listed is what was done, also after a restart."""

# ruff: noqa: F811  fixtures are imported by name

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

pytest.importorskip("fastapi", reason="needs daptune[serve]")

from starlette.testclient import TestClient

from daptune.clip import backbone as backbone_module
from daptune.clip.backbone import Backbone
from daptune.serve.app import make_app
from daptune.serve.limits import Limits
from daptune.serve.server import make_engine, read_sources

from ..serve.conftest import HOST, files, png, shelf, small  # noqa: F401  fixtures

GOOD_NAMES = ["a", "b", "my birds", "ü"]
BAD_NAMES = ["", ".x", "x.images", "con", "𐐀" * 51, "x" * 65, "a\ud800"]
GOOD_LABELS = ["robin", "tit", "🐦", "a.b"]
BAD_LABELS = ["", " x", "a:b", "🐦" * 51, "\ud800", "\udc80", "\u202e"]
names = st.sampled_from(GOOD_NAMES * 3 + BAD_NAMES)
labels = st.sampled_from(GOOD_LABELS * 3 + BAD_LABELS)


def damaged(parts: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """An adapter's files, each time with another thing wrong that a server must not accept."""
    record = json.loads(parts["adapter.json"])

    def with_record(**changes: Any) -> dict[str, bytes]:
        return parts | {"adapter.json": json.dumps(record | changes).encode()}

    metrics = json.dumps(record | {"metrics": "DEEP"}).replace('"DEEP"', '{"a":' * 300 + "1" + "}" * 300)
    return {
        "json": parts | {"adapter.json": b"{"},
        "tensors": parts | {"adapter.safetensors": parts["adapter.safetensors"][:-4]},
        "deep": parts | {"adapter.json": metrics.encode()},
        "surrogate": with_record(class_names=["\ud800", *record["class_names"][1:]]),
        "infinite": parts | {"adapter.json": json.dumps(record | {"metrics": {"x": float("inf")}}).encode()},
        "backbone": with_record(backbone=record["backbone"] | {"sha256": "f" * 64}),
        "method": with_record(method="nothing"),
        "config": with_record(method_config={"text_tokens": -1}),
        "empty": parts | {"adapter.json": b""},
    }


class ServedFolder(RuleBasedStateMachine):
    """A server, and beside it what its folder must hold."""

    backbone: Backbone
    name: str
    parts: dict[str, bytes]
    client: TestClient
    statuses: set[int]
    steps: list[int]

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.lessons: dict[str, dict[str, set[str]]] = {}
        self.on_disk: dict[str, str] = {}  # "sound", "json" or "tensors"
        self.served: dict[str, str] = {}  # "ready" or "broken"
        self.loaded: set[str] = set()
        self._start()
        self.create("a", GOOD_LABELS[:2])
        self.put("b", self.parts)

    def _start(self) -> None:
        engine = make_engine(read_sources([self.folder]), Limits(), backbone=self.name)
        self.client = TestClient(make_app(engine, folder=self.folder), base_url=HOST, raise_server_exceptions=False)
        self.client.__enter__()

    def teardown(self) -> None:
        self.client.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def ask(self, method: str, path: str, expected: int, **more: Any) -> Any:
        answer = self.client.request(method, path, **more)
        self.steps.append(answer.status_code)
        assert answer.status_code == expected, (method, path, answer.text)
        if expected >= 400:
            assert set(answer.json()) == {"error"} and "\n" not in answer.json()["error"]
        return answer

    def post(self, path: str, expected: int, body: dict[str, Any]) -> Any:
        """With ASCII escapes, which carry half characters too."""
        return self.ask("POST", path, expected, content=json.dumps(body), headers={"content-type": "application/json"})

    # lessons

    @rule(name=names, given=st.lists(labels, max_size=3))
    def create(self, name: str, given: list[str]) -> None:
        wrong = name in BAD_NAMES or len(set(given)) < len(given) or any(label in BAD_LABELS for label in given)
        taken = name in self.served or name in self.on_disk or name in self.lessons
        expected = 409 if name in self.served else 422 if name in BAD_NAMES else 409 if taken else 422 if wrong else 201
        self.post("/v1/lessons", expected, {"name": name, "classes": given})
        if expected == 201:
            self.lessons[name] = {label: set() for label in given}

    @rule(name=st.sampled_from(GOOD_NAMES), label=labels)
    def add_class(self, name: str, label: str) -> None:
        known = name in self.lessons
        expected = 404 if not known else 422 if label in BAD_LABELS else 201
        self.post(f"/v1/lessons/{name}/classes", expected, {"name": label})
        if expected == 201:
            self.lessons[name].setdefault(label, set())

    @rule(name=st.sampled_from(GOOD_NAMES), label=st.sampled_from(GOOD_LABELS))
    def remove_class(self, name: str, label: str) -> None:
        known = label in self.lessons.get(name, {})
        self.ask("DELETE", f"/v1/lessons/{name}/classes/{label}", 204 if known else 404)
        if known:
            del self.lessons[name][label]

    @rule(name=st.sampled_from(GOOD_NAMES), label=st.sampled_from(GOOD_LABELS), picture=st.integers(0, 4))
    def add_image(self, name: str, label: str, picture: int) -> None:
        content = png(picture, (8, 6)) if picture else b"no image"
        path, known = f"/v1/lessons/{name}/classes/{label}/images", label in self.lessons.get(name, {})
        expected = 422 if not picture else 201 if known else 404
        answer = self.ask("POST", path, expected, files=files(content))
        if expected == 201:
            self.lessons[name][label] |= set(answer.json()["images"])

    @rule(name=st.sampled_from(GOOD_NAMES), label=st.sampled_from(GOOD_LABELS), to=st.sampled_from(GOOD_LABELS))
    def move_or_remove_image(self, name: str, label: str, to: str) -> None:
        held = self.lessons.get(name, {}).get(label, set())
        identity = next(iter(sorted(held)), "0" * 16)
        path = f"/v1/lessons/{name}/classes/{label}/images/{identity}"
        found = bool(held) and (label == to or to in self.lessons[name])
        if label == to:
            self.ask("DELETE", path, 204 if found else 404)
        else:
            self.ask("PUT", path, 204 if found else 404, json={"to": to})
        if found:
            held.discard(identity)
            if label != to:
                self.lessons[name][to].add(identity)

    @rule(name=st.sampled_from(GOOD_NAMES))
    def delete_lesson(self, name: str) -> None:
        self.ask("DELETE", f"/v1/lessons/{name}", 204 if name in self.lessons else 404)
        self.lessons.pop(name, None)

    # adapters

    @rule(
        name=st.sampled_from(GOOD_NAMES * 3 + ["con", "x" * 65]),
        how=st.sampled_from(["sound"] * 6 + ["damaged"] * 6),
        data=st.data(),
    )
    def upload(self, name: str, how: str, data: st.DataObject) -> None:
        wrong = damaged(self.parts)
        content = self.parts if how == "sound" else wrong[data.draw(st.sampled_from(sorted(wrong)))]
        self.put(name, content)

    def put(self, name: str, content: dict[str, bytes]) -> None:
        sound = content is self.parts
        expected = 422 if name not in GOOD_NAMES else 409 if name in self.on_disk else 201 if sound else 422
        self.ask("PUT", f"/v1/adapters/{name}", expected, files=[("files", item) for item in content.items()])
        if expected == 201:
            self.on_disk[name], self.served[name] = "sound", "ready"

    @rule(name=st.sampled_from(GOOD_NAMES))
    def stop_serving(self, name: str) -> None:
        self.ask("DELETE", f"/v1/adapters/{name}", 204 if name in self.served else 404)
        self.served.pop(name, None)
        self.loaded.discard(name)

    @rule(name=st.sampled_from(GOOD_NAMES))
    def serve_again(self, name: str) -> None:
        state = self.on_disk.get(name)
        new = name not in self.served
        expected = 404 if state is None else 201 if new and state != "json" else 409
        self.post("/v1/adapters", expected, {"name": name})
        if expected == 201:
            self.served[name] = "ready"

    @rule(name=st.sampled_from(GOOD_NAMES))
    def predict(self, name: str) -> None:
        if name in self.loaded:
            expected = 200
        else:
            expected = 404 if name not in self.served else 200 if self.on_disk[name] == "sound" else 409
        self.ask("POST", f"/v1/adapters/{name}/predict", expected, files=files(png(1)))
        if expected == 200:
            self.loaded.add(name)
        elif expected == 409:
            self.served[name] = "broken"

    @rule(name=st.sampled_from(GOOD_NAMES), part=st.sampled_from(["json", "tensors"]))
    def damage_on_disk(self, name: str, part: str) -> None:
        if self.on_disk.get(name) == "sound":
            place = self.folder / name / f"adapter.{'json' if part == 'json' else 'safetensors'}"
            place.write_bytes(b"{")
            self.on_disk[name] = part

    @rule()
    def restart(self) -> None:
        self.client.__exit__(None, None, None)
        self.served = {name: "broken" if state == "json" else "ready" for name, state in self.on_disk.items()}
        self.loaded = set()
        self._start()

    # what must hold after every step

    @invariant()
    def what_is_listed_is_what_was_done(self) -> None:
        found = self.ask("GET", "/v1/lessons", 200).json()
        seen = {each["name"]: {c["name"]: set(c["images"]) for c in each["classes"]} for each in found}
        assert seen == self.lessons
        for each in found:  # in the order in which they were added
            assert [c["name"] for c in each["classes"]] == list(self.lessons[each["name"]])
        adapters = self.ask("GET", "/v1/adapters", 200).json()
        assert {each["name"]: each["status"] for each in adapters} == self.served
        assert all((each["error"] is None) == (each["status"] == "ready") for each in adapters)
        there = {path.name for path in self.folder.iterdir()}
        assert there == {*self.on_disk, *(f"{name}.images" for name in self.lessons)}


def test_adapters_and_lessons_are_what_was_done(
    small: Backbone,
    shelf: Path,
    made_up_backbone: str,
    tries: Callable[[int, int], int],
    tally: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = tries(1, 2) == 1
    monkeypatch.setattr(backbone_module, "load_backbone", lambda *_, **__: small)  # a restart reads it again
    machine = type("Machine", (ServedFolder,), {"name": made_up_backbone, "steps": []})
    machine.parts = {path.name: path.read_bytes() for path in (shelf / "words").iterdir()}
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=tries(3, 300),
            stateful_step_count=tries(20, 60),
            derandomize=few,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    tally(inputs=len(machine.steps), failures=sum(status >= 500 for status in machine.steps))
    assert not [status for status in machine.steps if status >= 500]
    assert {200, 201, 204, 404, 409, 422} <= set(machine.steps) or few


@pytest.mark.parametrize("how", ["deep", "surrogate", "infinite", "config", "json"])
def test_what_cannot_be_listed_is_not_installed_and_harms_no_other(
    small: Backbone, shelf: Path, made_up_backbone: str, tmp_path: Path, how: str
) -> None:
    """PUT answers 422 and leaves nothing; put into the folder by hand, it is broken, and the others are served."""
    parts = {path.name: path.read_bytes() for path in (shelf / "words").iterdir()}
    bad = damaged(parts)[how]
    shutil.copytree(shelf / "deep", tmp_path / "deep")
    for by_hand in (False, True):
        if by_hand:
            (tmp_path / "bad").mkdir()
            for name, content in bad.items():
                (tmp_path / "bad" / name).write_bytes(content)
        engine = make_engine(read_sources([tmp_path]), Limits(), backbone=made_up_backbone)
        with TestClient(make_app(engine, folder=tmp_path), base_url=HOST, raise_server_exceptions=False) as client:
            answer = client.put("/v1/adapters/new", files=[("files", item) for item in bad.items()])
            assert answer.status_code == 422 and "\n" not in answer.json()["error"], answer.text
            assert {path.name for path in tmp_path.iterdir()} == {"deep", *(["bad"] if by_hand else [])}
            client.post("/v1/adapters/bad/predict", files=files(png()))
            listed = client.get("/v1/adapters")
            assert listed.status_code == 200
            found = {row["name"]: row["status"] for row in listed.json()}
            assert found == {"deep": "ready"} | ({"bad": "broken"} if by_hand else {})
            assert client.post("/v1/adapters/deep/predict", files=files(png())).status_code == 200
            assert client.get("/metrics").status_code == 200
