"""What a terminal obeys does not reach it; what stands in files stays as it is."""

import json
from collections.abc import Callable

import pytest

from daptune.cli import run
from daptune.cli.console import emit_json, note, print_pairs, print_table, say
from daptune.errors import DaptuneError, foreign, suggest
from daptune.text import one_line, printable, printable_json

EVIL = "\x1b]0;pwned\x07\x9b2J\u202eexe.jpg\ud800\r"
SHOWN = "\\x1b]0;pwned\\x07\\x9b2J\\u202eexe.jpg\\ud800\\x0d"


def test_control_characters_come_as_escapes_and_letters_as_they_are() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("\u00e9 \u732b \U0001f469\u200d\U0001f33e\n\t") == "\u00e9 \u732b \U0001f469\u200d\U0001f33e\n\t"
    assert printable("abcdefgh", 6) == "abc..." and printable("abcdef", 6) == "abcdef"
    assert one_line("a\n  b\tc") == "a b c"


def test_json_keeps_the_value() -> None:
    text = printable_json(json.dumps({EVIL: [EVIL]}, ensure_ascii=False))
    assert json.loads(text) == {EVIL: [EVIL]}
    assert "\x9b" not in text and "\u202e" not in text
    text.encode()


PRINTERS = (
    say,
    note,
    lambda text: print_pairs({text: text}),
    lambda text: emit_json({text: text}),
    lambda text: print_table(text, (text, "n"), [(text, 1)]),
)


@pytest.mark.parametrize("through", PRINTERS)
def test_nothing_that_is_printed_holds_them(
    through: Callable[[str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    through(EVIL)
    captured = capsys.readouterr()
    assert "pwned" in captured.out + captured.err
    assert not set(captured.out + captured.err) & set("\x1b\x07\x9b\u202e\ud800\r")


@pytest.mark.parametrize("through", PRINTERS)
def test_names_between_colons_stay_as_they_are(
    through: Callable[[str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    through(":x: :cat:")
    captured = capsys.readouterr()
    assert ":x: :cat:" in captured.out + captured.err


def test_messages_do_not_hold_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert str(DaptuneError(f"found {EVIL}")) == f"found {SHOWN}"
    assert str(DaptuneError("a name of\n  two  lines\r\nand more")) == "a name of two  lines and more"
    assert str(DaptuneError(f"found{' ' * 10**6}\n{' ' * 10**6}nothing")) == "found nothing"
    assert run(["show", f"/nowhere/{EVIL[:-2]}"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_the_boundary_turns_whatever_is_raised_into_one_line() -> None:
    class Panic(BaseException):
        pass

    for raised, words in (
        (IndexError("a\nb"), "IndexError: a b"),
        (ValueError("odd"), "odd"),
        (RecursionError("x"), "nested too deeply"),
        (MemoryError(), "more memory than there is"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (Panic("rust"), "Panic: rust"),
    ):
        with pytest.raises(DaptuneError) as caught, foreign(lambda why: DaptuneError(f"x.bin cannot be read ({why})")):
            raise raised
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_ends_the_program_and_errors_of_ours_pass_the_boundary() -> None:
    for raised in (KeyboardInterrupt(), SystemExit(3), DaptuneError("ours")):
        with pytest.raises(type(raised)) as caught, foreign(lambda why: DaptuneError("other")):
            raise raised
        assert caught.value is raised


def test_a_suggestion_among_very_many_or_for_a_very_long_name_takes_no_time() -> None:
    assert suggest("x" * 100_000, ["coop"] * 3) == " Choose from: coop, coop, coop."
    assert suggest("dapd", ["dapt", "coop"]) == " Did you mean 'dapt'?"
