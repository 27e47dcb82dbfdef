"""Frames by time, of films that PyAV makes here: 25 frames a second, a second each red, green and blue."""

import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from daptune.data import video
from daptune.data.images import decode
from daptune.data.video import MissingFrames, frames, interval
from daptune.errors import DataError
from daptune.predict.inputs import Share, items

from ..films import COLOURS, make_film

av = pytest.importorskip("av", reason="films need the extra `video`")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mp4")


def reason(path: Path) -> str:
    """What the only row of a film says."""
    (frame,) = frames(path, Fraction(1))
    assert isinstance(frame, MissingFrames) and str(frame) == str(path)
    with pytest.raises(DataError) as told:
        decode(frame)
    return str(told.value).removeprefix(f"{path}: ")


def test_frames_are_those_of_their_time(film: Path) -> None:
    found = {str(frame).removeprefix(f"{film}@"): decode(frame) for frame in frames(film, Fraction(1, 2))}
    assert list(found) == ["0.000s", "0.520s", "1.000s", "1.520s", "2.000s", "2.520s"]  # a frame is 40 ms
    for second, (name, image) in zip((0, 0, 1, 1, 2, 2), found.items(), strict=True):
        assert image.size == (64, 48) and np.abs(np.array(image) - np.array(COLOURS[second])).max() < 8, name
    assert [str(frame)[-6:] for frame in frames(film, Fraction(10))] == ["0.000s"]


def test_no_frame_comes_twice(tmp_path: Path) -> None:
    slow = make_film(tmp_path / "slow.mkv", rate=1)
    assert [str(frame)[-6:] for frame in frames(slow, Fraction(1, 10))] == ["0.000s", "1.000s", "2.000s"]


def test_what_is_no_film_is_one_line(film: Path, tmp_path: Path) -> None:
    words = "damaged, or no film; expected MP4, MOV, MKV, WebM, AVI or MPEG."
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    # FFmpeg's own list of files, which would open others
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {film.name}\n")
    (tmp_path / film.name).write_bytes(film.read_bytes())
    for name in ("text.mp4", "empty.mp4", "list.mp4"):
        assert reason(tmp_path / name) == words, name
    assert reason(tmp_path / "gone.mp4") == "No such file or directory."
    assert reason(tmp_path) == "Is a directory."


def test_a_film_without_pictures_is_one_line(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        out.mux(stream.encode(silence))
    assert reason(tmp_path / "sound.mkv") == "it has no frames."


def test_a_film_that_ends_in_the_middle_keeps_the_frames_before(film: Path, tmp_path: Path) -> None:
    whole = make_film(tmp_path / "film.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    *good, last = frames(tmp_path / "cut.mkv", Fraction(1, 5))
    assert 2 < len(good) < 14 and not isinstance(good[-1], MissingFrames)
    assert str(last).startswith(str(tmp_path / "cut.mkv"))


def test_frames_have_a_limit_before_one_is_decoded(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_PIXELS", 64 * 48 - 1)
    assert reason(film) == "its frames have 64 x 48 pixels, the limit is 0.003071 million."


def test_few_frames_wait(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two, the third is not decoded before one of them is gone; frames that are skipped are gone."""
    monkeypatch.setattr(video, "HELD", 1)
    stream = frames(film, Fraction(1, 25))
    held = [next(stream), next(stream)]
    done: list[str] = []
    waiting = threading.Thread(target=lambda: done.append(str(next(stream))), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert not done
    decode(held[0])
    waiting.join(20)
    assert [name[-6:] for name in done] == ["0.080s"]
    assert len(list(items([str(film)], Fraction(1, 25), Share("74/75")))) == 1


def test_times() -> None:
    given = {"1s": 1, "0.5s": Fraction(1, 2), "500ms": Fraction(1, 2), "2min": 120, "1h": 3600, "10": 10, "2 s": 2}
    assert {text: interval(text) for text in given} == given
    for text in ("", "0s", "-1s", "1d", "s", "1e9s", "nan", "1 2"):
        with pytest.raises(DataError, match="--every must be a time such as 1s, 500ms or 2min; found"):
            interval(text)


def test_folders_and_lists_hold_films_too(film: Path, tmp_path: Path) -> None:
    (tmp_path / "a.MP4").write_bytes(film.read_bytes())
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'b.png'}\n{film}\n")
    second = Fraction(2)
    expected = [f"{tmp_path / 'a.MP4'}@{time}" for time in ("0.000s", "2.000s")]
    assert [item.name for item in items([str(tmp_path)], second)] == [*expected, str(tmp_path / "b.png")]
    assert [item.name for item in items([str(tmp_path)])] == [str(tmp_path / "b.png")]
    assert [item.name for item in items([str(tmp_path / "list.txt")], second)][1:] == [
        f"{film}@0.000s",
        f"{film}@2.000s",
    ]
    with pytest.raises(DataError, match="a film; `daptune predict --every 1s` reads its frames"):
        decode(film)
