"""What a pickle describes, without doing what it says.

A pickle is a program. Here nothing of it is run: no module is imported, no function called, no object made. What would be
called becomes a :class:`Call` that names the function and holds its arguments, so that a reader can look for the few calls it
knows, as those that stand for a tensor, and leave the rest.

Source: Python's documentation of `pickletools`, whose decoder takes the bytes apart.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any, Final

from lichen.errors import EncodingError

__all__ = ["Call", "Persistent", "Symbol", "described", "items_of"]

OPCODES_MAX = 50_000_000


class Symbol:
    """A global that the pickle names.

    Attributes:
        name: Its module and its name there, joined by a dot.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Call:
    """A call that the pickle asks for.

    Attributes:
        function: What would be called: a :class:`Symbol`, or whatever the pickle put there.
        arguments: Its arguments.
        state: What the object would be given afterwards; None when nothing.
        items: Keys and values that the object would be given afterwards.
        appended: What would be appended to it.
    """

    __slots__ = ("appended", "arguments", "function", "items", "state")

    def __init__(self, function: object, arguments: object) -> None:
        self.function = function
        self.arguments = arguments
        self.state: object = None
        self.items: list[tuple[object, object]] = []
        self.appended: list[object] = []

    @property
    def name(self) -> str:
        """Name of the function; empty when it is no global."""
        return self.function.name if isinstance(self.function, Symbol) else ""


class Persistent:
    """A reference to something outside of the pickle.

    Attributes:
        reference: What the pickle says of it.
    """

    __slots__ = ("reference",)

    def __init__(self, reference: object) -> None:
        self.reference = reference


class _Dictionary:
    """A dictionary; a list of pairs, for its keys may be anything here."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[object, object]]) -> None:
        self.items = items


_MARK: Final = object()
_CONSTANTS: Final[dict[str, object]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES: Final = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip


def described(data: bytes) -> object:
    """Read a pickle.

    Args:
        data: The whole pickle.

    Returns:
        Values, lists, tuples and sets (as lists) as they are; dictionaries for :func:`items_of`; :class:`Symbol`,
        :class:`Call` and :class:`Persistent` for the rest. Parts may contain themselves.

    Raises:
        EncodingError: Not a pickle, or one with opcodes that no library writes for weights.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > OPCODES_MAX:
                raise EncodingError("the pickle has more opcodes than weights need")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EncodingError(f"the pickle in the file is damaged: {error}") from error
    return machine.result()


def items_of(value: object) -> list[tuple[object, object]] | None:
    """Give keys and values of what is a dictionary, ordered or not; None for anything else."""
    if isinstance(value, _Dictionary):
        return value.items
    if isinstance(value, Call) and value.name in {"collections.OrderedDict", "builtins.dict"}:
        return value.items
    return None


class _Machine:
    """A stack and a memo; one method per group of opcodes."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, object] = {}

    def result(self) -> object:
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise EncodingError("the pickle in the file does not end with one value")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        """Do one opcode, as far as the shape of things goes."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name not in {"PROTO", "FRAME", "STOP"} and not (
            self._gather(name) or self._remember(name, argument) or self._name_or_call(name, argument)
        ):
            raise EncodingError(f"the pickle in the file has the opcode {name}, which weights do not need")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise EncodingError("the pickle in the file takes more from its stack than is there")
        return value

    def _pop_to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise EncodingError("the pickle in the file lacks a mark")
        taken = self._stack[at + 1 :]
        del self._stack[at:]
        return taken

    def _gather(self, name: str) -> bool:
        """Tuples, lists, sets and dictionaries."""
        stack = self._stack
        if name in {"EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}:
            count = 0 if name == "EMPTY_TUPLE" else int(name[-1])
            parts = [self._pop() for _ in range(count)]
            stack.append(tuple(reversed(parts)))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name in {"EMPTY_LIST", "EMPTY_SET"}:
            stack.append([])
        elif name in {"LIST", "FROZENSET"}:
            stack.append(self._pop_to_mark())
        elif name == "EMPTY_DICT":
            stack.append(_Dictionary([]))
        elif name == "DICT":
            stack.append(_Dictionary(list(_pairs(self._pop_to_mark()))))
        elif name in {"APPEND", "APPENDS", "ADDITEMS"}:
            added = [self._pop()] if name == "APPEND" else self._pop_to_mark()
            target = stack[-1]
            (target.appended if isinstance(target, Call) else target).extend(added)
        elif name in {"SETITEM", "SETITEMS"}:
            added = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._pop_to_mark()
            target = stack[-1]
            if not isinstance(target, Call | _Dictionary):
                raise EncodingError("the pickle in the file sets items of what has none")
            target.items.extend(_pairs(added))
        else:
            return False
        return True

    def _remember(self, name: str, argument: Any) -> bool:
        """The memo, and what only moves the stack."""
        if name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            place = len(self._memo) if name == "MEMOIZE" else int(argument)
            if self._stack[-1] is _MARK:
                raise EncodingError("the pickle in the file remembers a mark")
            self._memo[place] = self._stack[-1]
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            self._stack.append(self._memo[int(argument)])
        elif name == "POP":
            self._stack.pop()
        elif name == "POP_MARK":
            self._pop_to_mark()
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        else:
            return False
        return True

    def _name_or_call(self, name: str, argument: Any) -> bool:
        """Globals, calls, and what an object is given after it was made."""
        stack = self._stack
        if name == "GLOBAL":
            stack.append(Symbol(str(argument).replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            found, module = self._pop(), self._pop()
            stack.append(Symbol(f"{module}.{found}"))
        elif name in {"REDUCE", "NEWOBJ"}:
            arguments, function = self._pop(), self._pop()
            stack.append(Call(function, arguments))
        elif name == "NEWOBJ_EX":
            named, arguments, function = self._pop(), self._pop(), self._pop()
            stack.append(Call(function, (arguments, named)))
        elif name == "BUILD":
            state, target = self._pop(), stack[-1]
            if isinstance(target, Call):
                target.state = state
        elif name in {"PERSID", "BINPERSID"}:
            stack.append(Persistent(argument if name == "PERSID" else self._pop()))
        else:
            return False
        return True


def _pairs(parts: list[Any]) -> Iterator[tuple[object, object]]:
    if len(parts) % 2:
        raise EncodingError("the pickle in the file has a key without a value")
    return zip(parts[::2], parts[1::2], strict=True)
