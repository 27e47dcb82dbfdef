"""The HTTP interface: predictions, adapters that come and go, and every refusal with its status and one reason."""

import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import daptune
from daptune import files as files_module
from daptune import locks
from daptune.clip.backbone import Backbone
from daptune.serve.limits import Limits

from .conftest import CLASSES, JOINED, METHOD_OF, Start, files, png, pool_of


def test_predictions_equal_the_adapter_alone(start: Start, small: Backbone, folder: Path, tmp_path: Path) -> None:
    client, contents = start(), [png(1), png(2), png(3)]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    for name in METHOD_OF:
        answer = client.post(f"/v1/adapters/{name}/predict?top_k=2&zero_shot=true", files=files(*contents))
        assert answer.status_code == 200, answer.text
        classifier = daptune.load(folder / name, small)
        rows = answer.json()["predictions"]
        assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png"]
        for row, probabilities in zip(rows, classifier.predict_proba(paths), strict=True):
            order = np.argsort(-probabilities, kind="stable")[:2]
            assert [guess["label"] for guess in row["top"]] == classifier.classes_[order].tolist()
            np.testing.assert_allclose([g["probability"] for g in row["top"]], probabilities[order], atol=2e-6)
            assert {guess["label"] for guess in row["zero_shot"]} <= set(classifier.classes_)


def test_images_of_no_class_are_unknown(start: Start, small: Backbone, folder: Path, tmp_path: Path) -> None:
    """`known` is that of the adapter alone, and `unknown` if it is at most `reject`; the classes stay in `top`."""
    client, contents = start(), [png(number) for number in range(6)]
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    kinds = set()
    for name in METHOD_OF:
        plain = client.post(f"/v1/adapters/{name}/predict", files=files(*contents)).json()["predictions"]
        assert all(not row.keys() & {"unknown", "known"} for row in plain)
        answer = client.post(f"/v1/adapters/{name}/predict?reject=0.5", files=files(*contents))
        if name not in JOINED:
            assert answer.status_code == 422 and "fit a method that learns prompts again" in answer.json()["error"]
            continue
        rows, known = answer.json()["predictions"], daptune.load(folder / name, small).predict_known(paths)
        assert [row["known"] for row in rows] == known.tolist()  # quarters, of three known images
        assert [row["unknown"] for row in rows] == (known <= 0.5).tolist()
        assert [row["top"] for row in rows] == [row["top"] for row in plain]
        kinds |= set(known <= 0.5)
        none = client.post(f"/v1/adapters/{name}/predict?reject=0.2&zero_shot=true", files=files(*contents)).json()
        assert not any(row["unknown"] for row in none["predictions"]) and none["predictions"][0]["zero_shot"]
    assert kinds == {True, False}
    for wrong in ("1", "-0.1", "nan", "many"):
        answer = client.post(f"/v1/adapters/words/predict?reject={wrong}", files=files(png()))
        assert answer.status_code == 422 and "reject" in answer.json()["error"]


def test_a_server_rejects_by_default_where_it_can(start: Start) -> None:
    client = start(reject=0.5)
    assert client.get("/v1/info").json()["reject"] == 0.5
    for name in METHOD_OF:
        (row,) = client.post(f"/v1/adapters/{name}/predict", files=files(png(1))).json()["predictions"]
        assert (row.keys() >= {"unknown", "known"}) == (name in JOINED)
        (off,) = client.post(f"/v1/adapters/{name}/predict?reject=0", files=files(png(1))).json()["predictions"]
        assert not off.keys() & {"unknown", "known"} and off["top"] == row["top"]


def test_a_bad_file_gets_a_row_and_disturbs_no_other(start: Start) -> None:
    client = start()
    rows = client.post("/v1/adapters/words/predict", files=files(png(), b"no image", png()[:200])).json()["predictions"]
    assert "top" in rows[0] and "error" not in rows[0] and "zero_shot" not in rows[0]
    assert rows[1]["error"].startswith("1.png: not an image; expected JPEG") and "top" not in rows[1]
    assert rows[2]["error"].startswith("2.png: ") and "\n" not in rows[2]["error"]


def test_requests_for_different_adapters_meet_in_one_batch(start: Start) -> None:
    client = start(Limits(max_batch=4, max_wait_ms=5000))
    names = ["prompted", "prompted-too"] * 2
    for name in set(names):  # in memory, so that they arrive together
        client.app.state.context.engine.open(name)  # type: ignore[attr-defined]
    on_its_way = client.app.state.context.batcher.room(1)  # type: ignore[attr-defined]  # the others wait for it
    with on_its_way, ThreadPoolExecutor(4) as threads:
        paths = [f"/v1/adapters/{name}/predict" for name in names[:3]] + [f"/v1/adapters/{names[3]}/predict?reject=0.5"]
        answers = list(threads.map(lambda path: client.post(path, files=files(png())), paths))
    assert [answer.json()["adapter"] for answer in answers] == names
    judged = [answer.json()["predictions"][0].get("unknown") for answer in answers]
    assert judged[0] is judged[1] is judged[2] is None and judged[3] in (True, False)
    tops = [answer.json()["predictions"][0]["top"] for answer in answers]
    assert tops[0] == tops[2] != tops[1] == tops[3]
    text = client.get("/metrics").text.splitlines()
    assert "daptune_batch_images_count 1.0" in text and "daptune_batch_adapters_sum 2.0" in text


def bomb(side: int) -> bytes:
    """A small file that says it has side x side pixels."""
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("limits", "sent", "status", "reason"),
    [
        ({}, files(b"no image"), 422, "0.png: not an image; expected JPEG"),
        ({}, files(b""), 422, "0.png: not an image"),
        ({}, files(png()[:60]), 422, "0.png: "),
        ({"max_pixels": 999}, files(png()), 413, "0.png: 40 x 36 pixels are over the limit of 0.000999 million"),
        ({"max_files": 2}, files(png(), png(), png()), 413, "more than 2 files"),
        ({"max_bytes": 2000}, files(png(), png()), 413, "more than 2000 bytes"),
        ({"max_queue": 2}, files(png(), png(), png()), 413, "accepts at most 2 images"),
    ],
)
def test_what_is_too_much_or_no_image_is_refused(
    start: Start, limits: dict[str, Any], sent: Any, status: int, reason: str
) -> None:
    client = start(Limits(**limits))
    answer = client.post("/v1/adapters/words/predict", files=sent)
    assert answer.status_code == status and reason in answer.json()["error"]
    assert client.post("/v1/adapters/words/predict", files=files(bomb(8))).status_code == 200


def test_a_body_without_a_length_is_counted_as_it_comes(start: Start) -> None:
    client, seen = start(Limits(max_bytes=50_000)), 0

    def endless() -> Any:
        nonlocal seen
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(1000):
            seen += 1000
            yield bytes(1000)

    answer = client.post(
        "/v1/adapters/words/predict", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 413 and "more than 50000 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"content": png(), "headers": {"content-type": "image/png"}}, 415, "expected multipart/form-data"),
        ({"json": {"url": "http://example.org/cat.jpg"}}, 415, "found application/json"),
        ({"data": {"files": "http://example.org/cat.jpg"}, "files": {}}, 415, "urlencoded"),
        ({"files": {"url": (None, "http://example.org/cat.jpg")}}, 422, "expected one or more files, found none"),
        (
            {"content": b"--y\r\n\r\nhello", "headers": {"content-type": "multipart/form-data"}},
            400,
            "boundary",
        ),
    ],
)
def test_what_is_no_upload_is_refused(start: Start, request_: dict[str, Any], status: int, reason: str) -> None:
    answer = start().post("/v1/adapters/words/predict", **request_)
    assert answer.status_code == status and reason in answer.json()["error"]


def test_unknown_names_paths_and_numbers(start: Start) -> None:
    client = start()
    for path, status, reason in (
        ("/v1/adapters/none/predict", 404, "no adapter named 'none'"),
        ("/v1/adapters/..%2Fwords/predict", 404, ""),
        ("/v1/adapters/words/predict?top_k=0", 422, "top_k"),
        ("/v1/adapters/words/predict?top_k=many", 422, "top_k"),
        ("/nowhere", 404, "nothing at /nowhere"),
    ):
        answer = client.post(path, files=files(png()))
        assert answer.status_code == status and reason in answer.json()["error"], path
    assert client.get("/v1/adapters/words/predict").status_code == 405


def test_a_full_queue_and_a_late_answer(start: Start, small: Backbone, folder: Path) -> None:
    engine = pool_of(small, folder)
    run = engine.run
    engine.run = lambda served, images: (time.sleep(0.4), run(served, images))[1]  # type: ignore[method-assign]
    client = start(Limits(timeout=1, max_queue=3, max_batch=1), engine=engine)
    late = client.post("/v1/adapters/words/predict", files=files(png(), png(), png()))
    assert late.status_code == 504 and "within 1 seconds" in late.json()["error"] and late.headers["retry-after"]
    with client.app.state.context.batcher.room(2):  # type: ignore[attr-defined]
        full = client.post("/v1/adapters/words/predict", files=files(png(), png()))
    assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1
    assert client.post("/v1/adapters/words/predict", files=files(png())).status_code == 200


def test_adapters_are_listed_with_whether_they_share(start: Start) -> None:
    client = start()
    client.post("/v1/adapters/words/predict", files=files(png()))
    rows = {row["name"]: row for row in client.get("/v1/adapters").json()}
    assert list(rows) == sorted(METHOD_OF)
    assert {name for name, row in rows.items() if not row["shared"]} == {"pixels"}
    assert [name for name, row in rows.items() if row["loaded"]] == ["words"]
    assert rows["deep"]["classes"] == CLASSES["deep"] and rows["deep"]["method"] == "vpt"


def test_an_adapter_is_removed_and_added_while_others_go_on(start: Start, folder: Path) -> None:
    client = start()
    assert client.delete("/v1/adapters/deep").status_code == 204
    assert client.post("/v1/adapters/deep/predict", files=files(png())).status_code == 404
    assert client.delete("/v1/adapters/deep").status_code == 404 and (folder / "deep").is_dir()
    assert client.post("/v1/adapters", json={"name": "deep"}).status_code == 201
    assert client.post("/v1/adapters/deep/predict", files=files(png())).status_code == 200
    taken = client.post("/v1/adapters", json={"name": "deep"})
    assert taken.status_code == 409 and "already an adapter named 'deep'" in taken.json()["error"]
    for name, status in (("../words", 422), ("a/b", 422), ("", 422), (".hidden", 422), ("none", 404)):
        answer = client.post("/v1/adapters", json={"name": name})
        assert answer.status_code == status and answer.json()["error"], name
    assert client.post("/v1/adapters", json={}).json()["error"].startswith("name: ")


def parts(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def send(client: Any, name: str, content: dict[str, bytes]) -> Any:
    return client.put(f"/v1/adapters/{name}", files=[("files", item) for item in content.items()])


def test_an_adapter_is_downloaded_and_uploaded_under_another_name(start: Start, folder: Path) -> None:
    client = start()
    answer = client.get("/v1/adapters/prompted/download")
    assert 'filename="prompted.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        content = {Path(name).name: archive.read(name) for name in archive.namelist()}
        assert {name.partition("/")[0] for name in archive.namelist()} == {"prompted"}
    assert content == parts(folder / "prompted")
    assert send(client, "copy", content).status_code == 201 and (folder / "copy" / "adapter.json").is_file()
    both = [
        client.post(f"/v1/adapters/{name}/predict", files=files(png())).json()["predictions"]
        for name in ("prompted", "copy")
    ]
    assert both[0] == both[1]
    again = send(client, "copy", content)
    assert again.status_code == 409 and "'copy' is already taken" in again.json()["error"]


def test_an_upload_waits_for_another_of_the_same_name(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, content = start(), parts(folder / "words")
    monkeypatch.setattr(files_module, "WAIT", 0.05)
    with locks.lock(folder / ".copy.lock"):
        answer = send(client, "copy", content)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "2"
    assert "is writing this; try again" in answer.json()["error"]
    assert send(client, "copy", content).status_code == 201


def test_an_upload_that_is_no_adapter_of_this_server_leaves_nothing_behind(start: Start, folder: Path) -> None:
    client, good, before = start(), parts(folder / "words"), sorted(folder.iterdir())
    record = json.loads(good["adapter.json"])
    other = json.dumps(record | {"backbone": record["backbone"] | {"sha256": "f" * 64}}).encode()
    for content, status, reason in (
        (good | {"weights.pkl": b"x"}, 415, "found 'weights.pkl'"),
        ({"adapter.json": good["adapter.json"]}, 422, "needs adapter.safetensors"),
        (good | {"adapter.json": other}, 422, "f" * 12),
        (good | {"adapter.safetensors": good["adapter.safetensors"][:-9]}, 422, "is damaged"),
        (good | {"adapter.json": b"{"}, 422, "not JSON"),
    ):
        answer = send(client, "new", content)
        assert answer.status_code == status and reason in answer.json()["error"], answer.text
        assert str(folder) not in answer.json()["error"]
    assert send(client, "..%2Fnew", good).status_code in (404, 405, 422)
    assert send(client, "con", good).status_code == 422
    assert sorted(folder.iterdir()) == before


def test_an_adapter_damaged_on_disk_is_said_so(start: Start, folder: Path) -> None:
    client = start()
    (folder / "words" / "adapter.safetensors").write_bytes(b"x")
    answer = client.post("/v1/adapters/words/predict", files=files(png()))
    assert answer.status_code == 409 and "is damaged" in answer.json()["error"]
    assert client.post("/v1/adapters/deep/predict", files=files(png())).status_code == 200


def test_without_a_folder_nothing_is_written(start: Start, folder: Path) -> None:
    client = start(folder=None)
    assert client.get("/v1/info").json()["teach"] is False
    for answer in (send(client, "new", parts(folder / "words")), client.post("/v1/lessons", json={"name": "x"})):
        assert answer.status_code == 409 and "daptune serve FOLDER" in answer.json()["error"]


def test_health_metrics_and_openapi(start: Start) -> None:
    client = start()
    assert client.get("/healthz").json() == {"status": "ok"} and client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/adapters/words/predict", files=files(png(), png()))
    client.get("/v1/adapters/none/download")
    text = client.get("/metrics").text
    for line in (
        'daptune_requests_total{route="/v1/adapters/{name}/predict",status="200"} 1.0',
        'daptune_requests_total{route="/v1/adapters/{name}/download",status="404"} 1.0',
        "daptune_images_total 2.0",
        "daptune_batch_images_sum 2.0",
        "daptune_queue_images 0.0",
        f"daptune_adapters {len(METHOD_OF)}.0",
        "daptune_adapters_loaded 1.0",
    ):
        assert line in text.splitlines()
    whole = client.get("/openapi.json").json()
    described, schema = whole["paths"], whole["components"]["schemas"]["Prediction"]["properties"]
    kinds = {name: {kind.get("type") for kind in schema[name]["anyOf"]} for name in ("unknown", "known")}
    assert kinds == {"unknown": {"boolean", "null"}, "known": {"number", "null"}}
    options = {each["name"]: each["schema"] for each in described["/v1/adapters/{name}/predict"]["post"]["parameters"]}
    assert {"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0} in options["reject"]["anyOf"]
    body = described["/v1/adapters/{name}/predict"]["post"]["requestBody"]["content"]
    assert body["multipart/form-data"]["schema"]["properties"]["files"]["items"]["format"] == "binary"
    client.app.state.context.batcher.draining = True  # type: ignore[attr-defined]
    assert client.get("/readyz").status_code == 503
