"""Which log lines pass, by a clock of our own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from streams.engine import repetitions
from streams.engine.repetitions import RepetitionLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> RepetitionLimit:
    return RepetitionLimit(10, clock)


@pytest.fixture
def attach(limit: RepetitionLimit) -> Iterator[Callable[[], Lines]]:
    """Attach one more handler with the limit to the root logger."""
    attached: list[Lines] = []

    def add() -> Lines:
        lines = Lines()
        lines.addFilter(limit)
        logging.root.addHandler(lines)
        attached.append(lines)
        return lines

    yield add
    for lines in attached:
        logging.root.removeHandler(lines)


def test_a_template_passes_once_in_an_interval(attach: Callable[[], Lines], clock: Clock) -> None:
    """Whatever is filled in; the next line has the number of those that were suppressed."""
    lines, library = attach(), logging.getLogger("aiokafka.conn")

    for node in range(5):
        library.error("no connection to node %d, 100%% sure", node)
        clock.now += 2
    library.error("no connection to node %d, 100%% sure", 5)
    clock.now += 10
    library.error("no connection to node %d, 100%% sure", 6)

    assert lines.texts == [
        "no connection to node 0, 100% sure",
        "no connection to node 5, 100% sure (4 more like this in the last 10 s)",
        "no connection to node 6, 100% sure",
    ]


def test_other_templates_levels_and_loggers_are_counted_apart(attach: Callable[[], Lines]) -> None:
    """One noisy line hides no other."""
    lines = attach()

    for name, level, text in [
        ("faust.x", logging.ERROR, "a"),
        ("faust.x", logging.ERROR, "b"),
        ("faust.x", logging.WARNING, "a"),
        ("mode.x", logging.ERROR, "a"),
    ]:
        logging.getLogger(name).log(level, text)

    assert lines.texts == ["a", "b", "a", "a"]


@pytest.mark.parametrize("name", ["streams.engine.lanes", "agents.timers", "tables.deliveries"])
def test_lines_of_our_own_all_pass(name: str, attach: Callable[[], Lines]) -> None:
    """Two partitions with the same fault are two lines."""
    lines = attach()

    for partition in range(2):
        logging.getLogger(name).error("records of %d expired", partition)

    assert lines.texts == ["records of 0 expired", "records of 1 expired"]


def test_two_handlers_write_the_same_lines(attach: Callable[[], Lines], clock: Clock) -> None:
    """A line counts once, however many handlers there are."""
    one, other = attach(), attach()

    for _ in range(3):
        logging.getLogger("aiokafka").error("down")
    clock.now += 10
    logging.getLogger("aiokafka").error("down")

    assert one.texts == other.texts == ["down", "down (2 more like this in the last 10 s)"]


def test_templates_are_forgotten_after_a_while(
    attach: Callable[[], Lines], clock: Clock, limit: RepetitionLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that are all different do not fill the memory."""
    monkeypatch.setattr(repetitions, "MOST_TEMPLATES", 10)
    lines = attach()

    for number in range(100):
        logging.getLogger("mode").error(f"text {number}")
        clock.now += 0.1

    assert len(lines.texts) == 100
    assert len(limit._written) <= 10
