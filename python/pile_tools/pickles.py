"""Checks a pickle of `torch.save` without running it.

Unpickling calls what a pickle names, so whoever writes the file chooses what runs. And a value that a pickle
takes from its memo again and again is hashed, compared and printed each time: nested so, a kilobyte keeps a
process busy for ever. `check_pickle` therefore lists the names, and follows the instructions with sizes in
place of values.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from pile_tools.errors import FormatError

#: Limit for a pickle. It describes tensors and holds none: that of the largest Pythia has under 1 MB.
MAX_PICKLE_BYTES = 8 << 20
#: Limit for the parts of all values taken from the memo, and for the depth of any. Tensors have some fifteen
#: parts, settings a depth of ten.
MAX_REPEATED, MAX_DEPTH = 1 << 20, 100

#: A module and a name in it, as a pickle writes them.
Global = tuple[str, str]

#: Instructions that replace so many values by one, or all values down to a mark.
_BUILDS = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1}
#: Instructions that put so many values, or all down to a mark, into the value below them.
_FILLS = {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "BUILD": 1}
_EMPTY = frozenset({"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"})
_PLAIN = frozenset(
    {
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    }
)
#: All that `torch.save` writes. Others name globals by values on the stack or by number, and could not be
#: listed.
_INSTRUCTIONS = (
    frozenset({"PROTO", "STOP", "MARK", "GLOBAL", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"})
    | _PLAIN
    | _EMPTY
    | _BUILDS.keys()
    | _FILLS.keys()
)


class Inert:
    """An object of a class that is not loaded: takes any arguments and state, and does nothing."""

    def __new__(cls, *_: object) -> Inert:
        """An object that does nothing."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


@dataclass(slots=True, eq=False)
class _Value:
    """What a value is made of.

    Attributes:
        size: Its parts and theirs, itself included.
        depth: How deep they are nested.
        name: Of a global.
        is_inert: Of a class that is not loaded, whose objects forget what they are made from.
        is_shared: Was taken from the memo.
    """

    size: int = 1
    depth: int = 0
    name: Global | None = None
    is_inert: bool = False
    is_shared: bool = False


#: All plain values: one for every pickle, so nothing may be put into it.
_PLAIN_VALUE = _Value()


def check_pickle(
    stream: IO[bytes],
    where: str,
    allowed: Callable[[Global], bool],
    is_inert: Callable[[Global], bool] = lambda _: False,
) -> set[Global]:
    """Reads one pickle to its end, without running it, and returns the globals that it names.

    Args:
        stream: Begins with the pickle.
        where: Names it in messages.
        allowed: Whether it may name a global.
        is_inert: Whether a global is replaced by a class that does nothing.

    Raises:
        FormatError: It names a global that is not allowed, calls one that only names a kind of data, repeats
            values without bound, has an instruction that `torch.save` never writes, or is no pickle.
    """
    checker = _Checker(where, allowed, is_inert)
    try:
        for instruction, argument, offset in pickletools.genops(stream):
            checker.follow(instruction.name, argument, offset or 0)
    except FormatError:
        raise
    except Exception as err:
        # Its decoders raise what they please on damaged arguments.
        raise FormatError(f"not a pickle of torch.save: {err or type(err).__name__} ({where})") from err
    return checker.names


class _Checker:
    """The stack and the memo of an unpickler."""

    def __init__(
        self, where: str, allowed: Callable[[Global], bool], is_inert: Callable[[Global], bool]
    ) -> None:
        self.names: set[Global] = set()
        self._where, self._allowed, self._is_inert = where, allowed, is_inert
        self._stack: list[_Value] = []
        #: Sizes of the stack when the marks were set that are not used yet.
        self._marks: list[int] = []
        self._memo: dict[int, _Value] = {}
        self._n_repeated = 0

    def follow(self, instruction: str, argument: object, offset: int) -> None:
        """Does what an instruction does. Raises FormatError; LookupError if it takes what is not there."""
        where = f"byte {offset} of {self._where}"
        if instruction not in _INSTRUCTIONS:
            raise FormatError(
                f"a pickle with instruction {instruction}, which torch.save never writes ({where})"
            )
        if instruction == "GLOBAL":
            self._stack.append(self._global(str(argument), where))
        elif instruction == "MARK":
            self._marks.append(len(self._stack))
        elif instruction in _PLAIN:
            self._stack.append(_PLAIN_VALUE)
        elif instruction in _EMPTY:
            self._stack.append(_Value())
        elif instruction in ("BINPUT", "LONG_BINPUT"):
            self._memo[int(str(argument))] = self._stack[-1]
        elif instruction in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._repeated(self._memo[int(str(argument))], where))
        elif instruction in _BUILDS:
            self._build(instruction, where)
        elif instruction in _FILLS:
            self._fill(instruction, where)

    def _global(self, argument: str, where: str) -> _Value:
        # Exactly one space: neither part of an allowed pair has one.
        module, _, name = argument.partition(" ")
        if not self._allowed((module, name)):
            what = argument.replace(" ", ".", 1)
            raise FormatError(
                f"refused to load a pickle that imports {what!r}, which could run code ({where})"
            )
        self.names.add((module, name))
        return _Value(name=(module, name), is_inert=self._is_inert((module, name)))

    def _repeated(self, value: _Value, where: str) -> _Value:
        value.is_shared = value.is_shared or value is not _PLAIN_VALUE
        self._n_repeated += value.size - 1
        if self._n_repeated > MAX_REPEATED:
            raise FormatError(f"a pickle that repeats more than {MAX_REPEATED:,} values ({where})")
        return value

    def _taken(self, n_values: int | None) -> list[_Value]:
        """Removes values from the stack: the last `n_values`, or all since the last mark."""
        start = self._marks.pop() if n_values is None else len(self._stack) - n_values
        if start < (self._marks[-1] if self._marks else 0):
            raise IndexError("too few values on the stack")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _build(self, instruction: str, where: str) -> None:
        parts = self._taken(_BUILDS[instruction])
        called = parts[0] if instruction in ("REDUCE", "NEWOBJ") else None
        if called is not None and (called.name is None or called.name[1].endswith("Storage")):
            # A call of a storage's type would allocate as much memory as its argument says.
            raise FormatError(
                f"a pickle that calls what is no function, which torch.save never writes ({where})"
            )
        made = _Value(is_inert=called is not None and called.is_inert)
        _put(parts, made, where)
        self._stack.append(made)

    def _fill(self, instruction: str, where: str) -> None:
        parts = self._taken(_FILLS[instruction])
        into = self._stack[-1]
        if into is _PLAIN_VALUE:
            raise FormatError(f"a pickle that puts values into a plain one ({where})")
        if into.is_shared and not into.is_inert:
            # What holds it already would grow unseen.
            raise FormatError(f"a pickle that changes a value which it has repeated ({where})")
        _put(parts, into, where)


def _put(parts: list[_Value], into: _Value, where: str) -> None:
    if into.is_inert or not parts:
        return
    into.size += sum(part.size for part in parts)
    into.depth = max(into.depth, 1 + max(part.depth for part in parts))
    if into.depth > MAX_DEPTH:
        raise FormatError(f"a pickle with values nested deeper than {MAX_DEPTH} ({where})")
