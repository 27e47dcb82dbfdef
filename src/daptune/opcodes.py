"""A pickle read as data, by a machine of our own: nothing that it names is called but what the reader allows.

Python's unpickler runs what a pickle names, takes memory for numbers that a pickle states (a memo of 2**28 places from
ten bytes), and can hash nested tuples for ever. This one knows the instructions that checkpoints consist of
(`pickletools.opcodes`, PEP 307 and PEP 3154), and its memory is bounded by the pickle's own size: each instruction
makes one small object, of which there may be `MOST_OBJECTS` and one for every 16 bytes.
"""

import codecs
import struct
from collections.abc import Callable
from typing import Any

MOST_OBJECTS = 1_000_000
_BYTES_AN_OBJECT = 16
LONGEST_NUMBER = 255
"""Bytes of a whole number."""
_LINE = 65_536
_MARK = object()
_ATOMS = (str, int, float, bytes, bool, type(None))

Global = Callable[[str, str], Any]
"""(module, name) -> what stands for it: a `Callable` that is called with the arguments, or a value."""


class Machine:
    """Reads the pickle at the start of `data` from `place` on; afterwards `place` is behind it.

    find        what stands for a global; it raises an error of its own for one that is not allowed
    persistent  what stands for a persistent id
    build       (object, state): what becomes of an object's state
    Raises ValueError for anything else than a whole pickle of known instructions.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        find: Global,
        persistent: Callable[[Any], Any],
        build: Callable[[Any, Any], None],
        place: int = 0,
    ) -> None:
        self.data, self.place = memoryview(data), place
        self._find, self._persistent, self._build = find, persistent, build
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._left = MOST_OBJECTS + len(self.data) // _BYTES_AN_OBJECT

    def load(self) -> Any:
        """The object that the pickle describes."""
        stack, steps = self._stack, _STEPS
        while (code := self._take(1)[0]) != _STOP:
            step = steps.get(code)
            if step is None:
                raise ValueError(f"the instruction {code:#04x} is not one of a checkpoint's pickle")
            step(self)
        if len(stack) != 1 or stack[0] is _MARK:
            raise ValueError("it does not describe one object")
        return stack[0]

    def _take(self, size: int) -> memoryview:
        end = self.place + size
        if size < 0 or end > len(self.data):
            raise ValueError("it is truncated")
        found, self.place = self.data[self.place : end], end
        return found

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        found: int = struct.unpack(kind, self._take(size))[0]
        return found

    def _line(self, most: int = LONGEST_NUMBER) -> bytes:
        end = bytes(self.data[self.place : self.place + most + 1]).find(b"\n")
        if end < 0:
            raise ValueError("it is truncated")
        return bytes(self._take(end + 1))[:-1]

    def _push(self, value: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("it holds far more objects than a checkpoint of its size")
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("it is damaged")
        return value

    def _since_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("it is damaged")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _fill(self, items: list[Any], target: Any) -> None:
        """(key, value, key, value, ...) into a dict, where the key is an atom; another object stays as it is."""
        if len(items) % 2:
            raise ValueError("a key has no value")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, _ATOMS):  # hashing nested tuples can take for ever, and no name is one
                    target[key] = value

    def _extend(self, items: list[Any], target: Any) -> None:
        if isinstance(target, list):
            target.extend(items)

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _recall(self, place: int) -> None:
        if place not in self._memo:
            raise ValueError("it is damaged")
        self._stack.append(self._memo[place])
        self._left -= 1

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is no text")
        self._push(self._find(module, name))

    def _reduce(self, arguments: Any, function: Any) -> None:
        if not callable(function) or not isinstance(arguments, tuple):
            raise ValueError(f"it calls a {type(function).__name__}")
        self._push(function(*arguments))

    def _whole(self, size: int) -> None:
        if size > LONGEST_NUMBER:
            raise ValueError("a whole number has too many bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _text(self, size: int) -> None:
        self._push(str(self._take(size), "utf-8", "surrogatepass"))

    def _quoted(self) -> None:
        """A text of Python 2, in quotes."""
        text, quote = self._line(_LINE), self.data[self.place - 2 : self.place - 1]
        if len(text) < 2 or bytes(quote) not in (b"'", b'"') or text[:1] != text[-1:]:
            raise ValueError("a text has no quotes")
        self._push(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))

    def _decimal(self) -> None:
        digits = self._line().removesuffix(b"L")
        self._push({b"00": False, b"01": True}[digits] if digits in (b"00", b"01") else int(digits))

    def _built(self, state: Any, target: Any) -> None:
        self._stack.append(target)
        self._build(target, state)


def _tuple(size: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine._push(tuple(machine._pop() for _ in range(size))[::-1])

    return step


def _swap_global(machine: Machine) -> None:
    name, module = machine._pop(), machine._pop()
    machine._global(module, name)


def _dictionary(machine: Machine) -> None:
    items = machine._since_mark()
    machine._push({})
    machine._fill(items, machine._stack[-1])


def _object(machine: Machine) -> None:
    function, *arguments = machine._since_mark()
    machine._reduce(tuple(arguments), function)


_STOP = ord(".")
# pickletools.opcodes, by their code
_STEPS: dict[int, Callable[[Machine], Any]] = {
    0x80: lambda m: m._take(1),  # PROTO
    0x95: lambda m: m._take(8),  # FRAME: how long the next part is, which the pickle itself shows
    ord("("): lambda m: m._stack.append(_MARK),
    ord("0"): lambda m: m._stack.pop(),
    ord("1"): lambda m: m._since_mark(),
    ord("2"): lambda m: m._push(m._stack[-1]),
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("I"): Machine._decimal,
    ord("L"): Machine._decimal,
    ord("J"): lambda m: m._push(m._number("<i")),
    ord("K"): lambda m: m._push(m._number("<B")),
    ord("M"): lambda m: m._push(m._number("<H")),
    0x8A: lambda m: m._whole(m._number("<B")),
    0x8B: lambda m: m._whole(m._number("<i")),
    ord("G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    ord("F"): lambda m: m._push(float(m._line())),
    ord("X"): lambda m: m._text(m._number("<I")),
    0x8C: lambda m: m._text(m._number("<B")),
    0x8D: lambda m: m._text(m._number("<Q")),
    ord("T"): lambda m: m._push(str(m._take(m._number("<i")), "latin-1")),
    ord("U"): lambda m: m._push(str(m._take(m._number("<B")), "latin-1")),
    ord("S"): Machine._quoted,
    ord("V"): lambda m: m._push(m._line(_LINE).decode("raw-unicode-escape")),
    ord("B"): lambda m: m._push(bytes(m._take(m._number("<I")))),
    ord("C"): lambda m: m._push(bytes(m._take(m._number("<B")))),
    0x8E: lambda m: m._push(bytes(m._take(m._number("<Q")))),
    0x96: lambda m: m._push(bytes(m._take(m._number("<Q")))),
    ord("]"): lambda m: m._push([]),
    ord("}"): lambda m: m._push({}),
    ord(")"): lambda m: m._push(()),
    0x8F: lambda m: m._push([]),  # a set, whose items nothing here looks for
    ord("l"): lambda m: m._push(m._since_mark()),
    ord("t"): lambda m: m._push(tuple(m._since_mark())),
    ord("d"): _dictionary,
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    0x91: lambda m: m._push(tuple(m._since_mark())),  # FROZENSET
    ord("a"): lambda m: m._extend([m._pop()], m._stack[-1]),
    ord("e"): lambda m: m._extend(m._since_mark(), m._stack[-1]),
    0x90: lambda m: m._extend(m._since_mark(), m._stack[-1]),
    ord("s"): lambda m: m._fill([m._pop(), m._pop()][::-1], m._stack[-1]),
    ord("u"): lambda m: m._fill(m._since_mark(), m._stack[-1]),
    ord("q"): lambda m: m._remember(m._number("<B")),
    ord("r"): lambda m: m._remember(m._number("<I")),
    ord("p"): lambda m: m._remember(int(m._line())),
    0x94: lambda m: m._remember(len(m._memo)),
    ord("h"): lambda m: m._recall(m._number("<B")),
    ord("j"): lambda m: m._recall(m._number("<I")),
    ord("g"): lambda m: m._recall(int(m._line())),
    ord("c"): lambda m: m._global(m._line().decode(), m._line().decode()),
    0x93: _swap_global,
    ord("R"): lambda m: m._reduce(m._pop(), m._pop()),
    0x81: lambda m: m._reduce(m._pop(), m._pop()),  # NEWOBJ
    ord("o"): _object,
    ord("Q"): lambda m: m._push(m._persistent(m._pop())),
    ord("b"): lambda m: m._built(m._pop(), m._pop()),
}
