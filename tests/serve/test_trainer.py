"""Teaching over HTTP on the embedded backbone: pictures in, training followed to its end, corrected, kept."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import daptune
from daptune.classifier import FewShotClassifier
from daptune.data.demo import demo_styles, extract_demo
from daptune.serve import trainer
from daptune.serve.app import make_app
from daptune.serve.pool import AdapterPool

from ..clip.made_up_resnet import make_tensors, write_openclip
from ..conftest import COLOURS, save_picture
from .conftest import HOST, files, png


@pytest.fixture(scope="module")
def tiny() -> Any:
    return daptune.load_backbone("tiny", precision="fp32")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded pictures of the training style, by class."""
    return extract_demo(tmp_path_factory.mktemp("demo")) / demo_styles()[0] / "support"


@pytest.fixture
def client(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(trainer, "STEPS", 3)
    monkeypatch.setattr(trainer, "_EVERY", 0.0)
    with TestClient(make_app(AdapterPool(tiny), folder=tmp_path), base_url=HOST) as client:
        yield client


def pictures(tmp_path: Path, name: str, count: int) -> list[Any]:
    contents = []
    for number in range(count):
        path = tmp_path / ".drawn" / f"{number}.png"
        save_picture(path, COLOURS[name], number)
        contents.append(path.read_bytes())
    return files(*contents)


def events(client: TestClient, lesson: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/lessons/{lesson}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_taught_tried_corrected_and_still_there_after_a_restart(client: TestClient, tiny: Any, tmp_path: Path) -> None:
    made = client.post("/v1/lessons", json={"name": "colours", "classes": ["red", "green thing"]})
    assert made.status_code == 201 and [each["name"] for each in made.json()["classes"]] == ["red", "green thing"]
    for name in ("red", "green thing"):
        added = client.post(f"/v1/lessons/colours/classes/{name}/images", files=pictures(tmp_path, name, 3))
        assert added.status_code == 201 and len(set(added.json()["images"])) == 3
    assert client.post("/v1/lessons/colours/training").status_code == 202
    told = events(client, "colours")
    assert [each["type"] for each in told] == ["waiting", "check", *["progress"] * 3, "done"]
    assert told[1]["contradictions"] == []
    assert [each["step"] for each in told[2:5]] == [1, 2, 3] and told[4]["steps"] == 3
    assert all(each["loss"] > 0 and 0 <= each["accuracy"] <= 1 for each in told[2:5])
    state = client.get("/v1/lessons/colours").json()
    assert state["training"] is False and state["told"] is True

    (row,) = [each for each in client.get("/v1/adapters").json() if each["name"] == "colours"]
    assert row["taught"] and row["classes"] == ["red", "green thing"]
    assert row["method"] == FewShotClassifier().method and row["known_images"] == 6
    predict = "/v1/adapters/colours/predict?zero_shot=true"
    before = client.post(predict, files=files(png(5))).json()["predictions"][0]
    assert sum(guess["probability"] for guess in before["top"]) == pytest.approx(1, abs=1e-5)

    client.post("/v1/lessons/colours/classes/red/images", files=files(png(5)))
    client.post("/v1/lessons/colours/training")
    assert events(client, "colours")[-1] == {"type": "done", "adapter": "colours"}
    after = client.post(predict, files=files(png(5))).json()["predictions"][0]
    assert after["zero_shot"] == before["zero_shot"] and after["top"] != before["top"]

    again = AdapterPool(tiny)
    again.add(tmp_path / "colours", "colours")
    with TestClient(make_app(again, folder=tmp_path), base_url=HOST) as restarted:
        (lesson,) = restarted.get("/v1/lessons").json()
        assert lesson["trained"] and [len(each["images"]) for each in lesson["classes"]] == [4, 3]
        assert restarted.get("/v1/lessons/colours").json()["told"] is True
        again_told = events(restarted, "colours")
        assert [each["type"] for each in again_told] == [each["type"] for each in told] and again_told != told
        picture = restarted.get(f"/v1/lessons/colours/classes/red/images/{lesson['classes'][0]['images'][0]}")
        assert picture.headers["content-type"] == "image/png" and picture.content[:4] == b"\x89PNG"
        assert restarted.post(predict, files=files(png(5))).json()["predictions"][0] == after


def test_a_residual_network_is_taught_by_its_texts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default method learns visual tokens, which it has none of."""
    monkeypatch.setattr(trainer, "STEPS", 2)
    network = daptune.load_backbone(write_openclip(tmp_path / "w", make_tensors()), precision="fp32")
    (tmp_path / "served").mkdir()
    with TestClient(make_app(AdapterPool(network), folder=tmp_path / "served"), base_url=HOST) as client:
        client.post("/v1/lessons", json={"name": "colours", "classes": ["red", "blue_thing"]})
        for name in ("red", "blue_thing"):
            client.post(f"/v1/lessons/colours/classes/{name}/images", files=pictures(tmp_path, name, 3))
        client.post("/v1/lessons/colours/training")
        assert events(client, "colours")[-1] == {"type": "done", "adapter": "colours"}
        (row,) = client.get("/v1/adapters").json()
        assert row["method"] == "coop" and row["known_images"] == 6
        answer = client.post("/v1/adapters/colours/predict?zero_shot=true", files=files(png(5)))
        assert answer.status_code == 200 and len(answer.json()["predictions"][0]["zero_shot"]) == 2


def test_what_cannot_be_trained_says_why(client: TestClient, tmp_path: Path) -> None:
    client.post("/v1/lessons", json={"name": "x", "classes": ["red"]})
    for reason in ("expected two or more classes, found 1", "the class 'blue_thing' has no image"):
        answer = client.post("/v1/lessons/x/training")
        assert answer.status_code == 422 and reason in answer.json()["error"]
        client.post("/v1/lessons/x/classes/red/images", files=pictures(tmp_path, "red", 1))
        client.post("/v1/lessons/x/classes", json={"name": "blue_thing"})
    assert client.post("/v1/lessons/none/training").status_code == 404
    assert client.get("/v1/lessons/x/events").status_code == 404
    assert client.get("/v1/lessons/x").json()["told"] is False
    bad = client.post("/v1/lessons/x/classes/red/images", files=files(b"no image"))
    assert bad.status_code == 422 and "not an image" in bad.json()["error"]
    some = client.post("/v1/lessons/x/classes/red/images", files=files(b"no image", png()))
    assert some.status_code == 201 and some.json()["images"][0] is None and len(some.json()["errors"]) == 1


def test_pictures_that_contradict_their_class_are_told_before_the_training(client: TestClient, demo: Path) -> None:
    """One bird among the fruit; then all in the other class, which only the names can contradict."""
    for name, of in (("one", {"fruit": ["fruit"] * 5 + ["bird"], "bird": ["bird"] * 5}),
                     ("all", {"fruit": ["bird"] * 4, "bird": ["fruit"] * 3})):  # fmt: skip
        client.post("/v1/lessons", json={"name": name, "classes": list(of)})
        shelf = {each: iter(sorted((demo / each).iterdir())[4:]) for each in ("fruit", "bird")}
        ids = {}
        for label, shown in of.items():
            contents = files(*(next(shelf[each]).read_bytes() for each in shown))
            ids[label] = client.post(f"/v1/lessons/{name}/classes/{label}/images", files=contents).json()["images"]
        client.post(f"/v1/lessons/{name}/training")
        told = events(client, name)
        assert [each["type"] for each in told[:3]] == ["waiting", "check", "progress"]
        found = told[1]["contradictions"]
        if name == "one":
            assert found == [{"class": "fruit", "like": "bird", "images": ids["fruit"][5:]}]
        else:
            assert [(each["class"], each["like"]) for each in found] == [("fruit", "bird"), ("bird", "fruit")]
            assert [sorted(each["images"]) for each in found] == [sorted(own) for own in ids.values()]


def test_one_picture_a_class_is_trained_on_and_judges_nothing(client: TestClient, demo: Path) -> None:
    client.post("/v1/lessons", json={"name": "few", "classes": ["fruit", "bird"]})
    for label in ("fruit", "bird"):
        picture = sorted((demo / label).iterdir())[0].read_bytes()
        client.post(f"/v1/lessons/few/classes/{label}/images", files=files(picture))
    client.post("/v1/lessons/few/training")
    told = events(client, "few")
    assert told[-1] == {"type": "done", "adapter": "few"} and told[1]["contradictions"] == []
    (row,) = [each for each in client.get("/v1/adapters").json() if each["name"] == "few"]
    assert row["known_images"] == 0 and row["taught"]
    answer = client.post("/v1/adapters/few/predict?reject=0.05", files=files(picture))
    assert answer.status_code == 422


def test_one_training_at_a_time_is_stopped_and_leaves_no_adapter(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    report = trainer._reporter

    def held(job: trainer.Training) -> Any:
        inner = report(job)

        def hold(progress: Any) -> None:
            begun.set()
            go_on.wait(30)
            inner(progress)

        return hold

    monkeypatch.setattr(trainer, "_reporter", held)
    client.post("/v1/lessons", json={"name": "x", "classes": ["red", "green thing"]})
    for name in ("red", "green thing"):
        client.post(f"/v1/lessons/x/classes/{name}/images", files=pictures(tmp_path, name, 1))
    image = client.get("/v1/lessons/x").json()["lesson"]["classes"][0]["images"][0]
    client.post("/v1/lessons/x/training")
    assert begun.wait(30)
    for answer in (
        client.post("/v1/lessons/x/training"),
        client.delete(f"/v1/lessons/x/classes/green thing/images/{image}"),
        client.delete("/v1/lessons/x"),
    ):
        assert answer.status_code == 409 and "is being trained" in answer.json()["error"]
    assert client.delete("/v1/lessons/x/training").status_code == 202
    go_on.set()
    assert events(client, "x")[-1] == {"type": "stopped"} and not (tmp_path / "x").exists()
    assert client.get("/v1/adapters").json() == []
    assert client.delete("/v1/lessons/x").status_code == 204
    client.post("/v1/lessons", json={"name": "x", "classes": ["red"]})
    assert client.get("/v1/lessons/x").json()["told"] is False, "another lesson, of the same name"


def test_a_lesson_takes_no_name_that_is_served(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, status in (("there", 409), ("../x", 422), ("x/y", 422)):
        answer = client.post("/v1/lessons", json={"name": name, "classes": []})
        assert answer.status_code == status and answer.json()["error"], name


def test_a_lesson_has_as_many_steps_with_many_pictures(client: TestClient, tmp_path: Path) -> None:
    """With 40 and 24 pictures an epoch draws 16 of each, which is one step of 32: three epochs are three steps."""
    client.post("/v1/lessons", json={"name": "many", "classes": ["red", "green thing"]})
    for name, count in (("red", 40), ("green thing", 24)):
        for first in range(0, count, 8):
            contents = files(*(png(100 * len(name) + first + number) for number in range(8)))
            assert client.post(f"/v1/lessons/many/classes/{name}/images", files=contents).status_code == 201
    assert client.post("/v1/lessons/many/training").status_code == 202
    told = events(client, "many")
    assert [(each["step"], each["steps"]) for each in told[2:-1]] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1]["type"] == "done"
