"""Stop signals between a command's end and its record."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from lichen.runs.process.late_signals import LateSignals
from lichen.runs.process.supervise import supervise


class Desk:
    """Handlers of our own in place of the signals' default, and a clock that stands until it is set."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.said: list[bytes] = []
        self.now = 100.0

    def late(self) -> LateSignals:
        return LateSignals(self.said.append, lambda: self.now)


@pytest.fixture
def desk() -> Iterator[Desk]:
    here = Desk()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda got, _: here.got.append(got)) for number in numbers]
    yield here
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_nothing_waits_before_the_command_has_ended(desk: Desk) -> None:
    with desk.late() as late:
        signal.raise_signal(signal.SIGTERM)
        assert (late.number, desk.got) == (None, [signal.SIGTERM])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_waits_and_the_second_is_taken_at_its_word(desk: Desk, number: int) -> None:
    with desk.late() as late:
        supervise(["true"], late=late)
        signal.raise_signal(number)
        assert (late.number, desk.got, len(desk.said)) == (number, [], 1)
        desk.now += 0.1
        signal.raise_signal(signal.SIGTERM)  # as timeout(1) sends it again to the group
        assert desk.got == []
        desk.now += 1
        signal.raise_signal(signal.SIGINT)
        assert desk.got == [signal.SIGINT]
        signal.raise_signal(signal.SIGTERM)
        assert desk.got == [signal.SIGINT, signal.SIGTERM]
    assert late.number == number


def test_afterwards_signals_are_their_owners_again(desk: Desk) -> None:
    with desk.late() as late:
        supervise(["true"], late=late)
    signal.raise_signal(signal.SIGHUP)
    assert (late.number, desk.got) == (None, [signal.SIGHUP])


def test_what_was_ignored_stays_ignored(desk: Desk) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with desk.late() as late:
        supervise(["true"], late=late)
        signal.raise_signal(signal.SIGHUP)
        assert late.number is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
