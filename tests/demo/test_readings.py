"""Rules of reading a worker's metrics and of judging a run by them."""

from __future__ import annotations

from collections import Counter

from streams.demo.readings import Metrics, parse_metrics
from streams.demo.screens import Board, LineScreen, board_line, board_table
from streams.demo.summaries import delivered, differences, summary
from streams.demo.traffic import Tally, Traffic, produced

METRICS = """\
# HELP tracker_records_total Consumed records by what became of them
# TYPE tracker_records_total counter
tracker_records_total{outcome="applied",partition="0"} 10.0
tracker_records_total{partition="1",outcome="applied"} 5.0
tracker_records_total{outcome="repeated",partition="0"} 2.0
tracker_records_created{outcome="applied",partition="0"} 1.7e+09
tracker_units_total 3.0
tracker_first_unit_timestamp_seconds 100.0
tracker_last_commit_timestamp_seconds 102.0
tracker_gc_seconds_total 0.5
tracker_empty_polls_total 4.0
process_resident_memory_bytes 1.0
"""


def test_metrics_are_summed_over_partitions() -> None:
    """By outcome; the time is from the first unit to the last commit."""
    metrics = parse_metrics(METRICS)

    assert metrics.outcomes == {"applied": 15, "repeated": 2}
    assert (metrics.consumed, metrics.elapsed_s, metrics.rate) == (17, 2.0, 8.5)
    assert (metrics.units, metrics.gc_s, metrics.empty_polls) == (3, 0.5, 4)


def test_a_worker_that_has_done_nothing_has_no_rate() -> None:
    """Gauges that were never set are 0, not the year 1970."""
    metrics = parse_metrics("tracker_first_unit_timestamp_seconds 0.0\ntracker_units_total 0.0\n")
    assert (metrics.consumed, metrics.rate) == (0, 0.0)


def right(tally: Tally) -> tuple[Metrics, dict[str, object]]:
    """What a worker without fault says of the traffic."""
    outcomes = Counter(
        {
            "repeated": tally.repeated,
            "forwarded": tally.forwarded,
            "dead-lettered": tally.dead_letters.total(),
        }
    )
    outcomes["applied"] = tally.consumed - outcomes.total()
    stats = {"totalMessages": tally.messages, "byStatus": dict(tally.by_status)}
    return Metrics(outcomes=outcomes, first_unit_s=1.0, last_commit_s=2.0), stats


def test_a_right_run_has_no_differences() -> None:
    """And its summary names what was counted."""
    tally = produced(Traffic(1_000))
    metrics, stats = right(tally)

    assert differences(tally, metrics, stats) == []
    assert f"{tally.by_status['DELIVERED']:,}" in summary(tally, metrics, stats, {"messageId": "m"})


def test_every_wrong_number_is_named() -> None:
    """One message too few, one record unheard, one status moved: each has its line."""
    tally = produced(Traffic(1_000))
    metrics, stats = right(tally)
    stats["totalMessages"] = 999
    metrics.outcomes["repeated"] -= 1
    stats["byStatus"] = {**tally.by_status, "SENT": tally.by_status["SENT"] + 1}
    lines = "\n".join(differences(tally, metrics, stats))

    assert "messages: the traffic says 1000, the worker 999" in lines
    assert "repeated" in lines and "records consumed" in lines and "SENT" in lines
    assert differences(tally, metrics, None) != []


def test_lines_come_every_few_seconds_only() -> None:
    """A log is not flooded; what stays is written at once."""
    lines: list[str] = []
    screen = LineScreen(lines.append)
    screen.say("hello")
    screen.show(Board())
    screen.show(Board())
    assert lines == ["hello"]


def test_a_board_shows_whatever_is_known() -> None:
    """Before the worker is ready, and after."""
    assert "starting" in board_line(Board(produced=3))
    ready = Board(ready=True, lag=7, by_status=Counter(SENT=2, DELIVERED=40))
    assert "lag 7" in board_line(ready)
    assert board_line(ready).index("SENT 2") < board_line(ready).index("DELIVERED 40")
    board_table(ready)


def test_a_delivered_message_is_told_on_one_line() -> None:
    """From its record; what is not known is left out."""
    record = {"messageId": "m-1", "provider": "meta", "channel": "sms"}
    assert delivered(record) == "m-1 by meta as sms"
