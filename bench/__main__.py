"""`python -m bench`: throughput beside a bare loop, and latency; its commands are the long ones."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from bench import due, latency, reports, restore, rounds, soak, stats, webhooks
from bench.brokers import broker
from bench.ours import BenchFailed
from streams.kafka.errors import EmbeddedKafkaError

LATENCY_RATE = 1_000
LATENCY_S = 30.0


@click.group(invoke_without_command=True)
@click.option("--rounds", "round_count", type=click.IntRange(1), default=3, show_default=True)
@click.option("--callbacks", type=click.IntRange(1_000), default=300_000, show_default=True)
@click.option("--transactions", help="Limits of records per transaction to compare, as in 1000,5000,25000.")
@click.option(
    "--processes",
    default="1,2",
    show_default=True,
    help="Processes of a worker to compare; the first with all limits of --transactions.",
)
@click.option("--quick", is_flag=True, help="One round over 50,000 callbacks, latency over 5 s: does it run?")
@click.option("--latency/--no-latency", "with_latency", default=True, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as well.")
@click.pass_context
def bench(
    context: click.Context,
    round_count: int,
    callbacks: int,
    transactions: str | None,
    processes: str,
    quick: bool,
    with_latency: bool,
    json_path: Path | None,
) -> None:
    """Measure on TRACKER_BROKER_URL's broker, else on an embedded one."""
    context.obj = json_path
    if context.invoked_subcommand is not None:
        return
    if quick:
        round_count, callbacks = 1, min(callbacks, 50_000)
    first, *others = [int(count) for count in processes.split(",")]
    limits = [int(limit) for limit in transactions.split(",")] if transactions else [None]
    variants = [*(rounds.Variant(first, limit) for limit in limits), *map(rounds.Variant, others)]
    figures: dict[str, Any] = {"machine": reports.machine()}
    out = reports.console()
    with broker() as url:
        figures["throughput"] = rounds.measure(url, callbacks, round_count, variants, say)
        if with_latency:
            say(f"latency at {LATENCY_RATE:,}/s")
            delays = latency.measure(url, LATENCY_RATE, 5.0 if quick else LATENCY_S)
            figures["latency"] = {"rate": LATENCY_RATE, **delays}
    out.print(reports.heading(figures["machine"]))
    out.print(reports.throughput(figures["throughput"]))
    if with_latency:
        out.print(reports.latency(figures["latency"]))
    keep(json_path, figures)


@bench.command("latency")
@click.option("--rate", type=click.IntRange(2), default=LATENCY_RATE, show_default=True)
@click.option("--seconds", type=float, default=LATENCY_S, show_default=True)
@click.pass_obj
def latency_alone(json_path: Path | None, rate: int, seconds: float) -> None:
    """Only the latency from callback to event."""
    with broker() as url:
        figures = {"rate": rate, **latency.measure(url, rate, seconds)}
    out = reports.console()
    out.print(reports.heading(reports.machine()))
    out.print(reports.latency(figures))
    keep(json_path, {"machine": reports.machine(), "latency": figures})


@bench.command("restore")
@click.option("--messages", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.pass_obj
def restore_alone(json_path: Path | None, messages: int) -> None:
    """A full changelog into an empty data directory."""
    single("restore", lambda url: restore.measure(url, messages), json_path)


@bench.command("soak")
@click.option("--callbacks", type=click.IntRange(1_000), default=10_000_000, show_default=True)
@click.option("--days", type=click.FloatRange(0.01), default=30.0, show_default=True, help="Of event time.")
@click.pass_obj
def soak_alone(json_path: Path | None, callbacks: int, days: float) -> None:
    """Memory and the collector's share over many callbacks."""
    single("soak", lambda url: soak.measure(url, callbacks, days), json_path)


@bench.command("stats")
@click.option("--messages", type=click.IntRange(1), default=300_000, show_default=True)
@click.option("--rate", type=click.IntRange(2), default=LATENCY_RATE, show_default=True)
@click.option("--seconds", type=float, default=LATENCY_S, show_default=True)
@click.pass_obj
def stats_alone(json_path: Path | None, messages: int, rate: int, seconds: float) -> None:
    """Statistics of a month, while callbacks flow."""
    single("stats", lambda url: stats.measure(url, messages, rate, seconds), json_path)


@bench.command("due")
@click.option("--messages", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--rate", type=click.IntRange(2), default=LATENCY_RATE, show_default=True)
@click.option("--seconds", type=float, default=LATENCY_S, show_default=True)
@click.pass_obj
def due_alone(json_path: Path | None, messages: int, rate: int, seconds: float) -> None:
    """Many messages that are due at once: how fast they expire, and what others notice of it."""
    single("due", lambda url: due.measure(url, messages, rate, seconds), json_path)


@bench.command("webhooks")
@click.option("--callbacks", type=click.IntRange(1_000), default=300_000, show_default=True)
@click.option("--rounds", "round_count", type=click.IntRange(1), default=3, show_default=True)
@click.option("--per-second", type=click.IntRange(0), default=1_520, show_default=True, help="0: all.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Beside bad receivers.")
@click.pass_obj
def webhooks_alone(
    json_path: Path | None, callbacks: int, round_count: int, per_second: int, seconds: float
) -> None:
    """Webhooks to local receivers while callbacks flow, and what the lanes and others notice of it."""
    with broker() as url:
        flow = webhooks.lanes(url, callbacks, round_count, per_second or None, say)
        others = webhooks.others(url, seconds, say)
    out = reports.console()
    out.print(reports.heading(reports.machine()))
    out.print(reports.plain("webhooks while callbacks flow", flow))
    out.print(reports.plain("18 receivers beside two bad ones", others))
    keep(json_path, {"machine": reports.machine(), "webhooks": flow, "others": others})


def single(name: str, measure: Any, json_path: Path | None) -> None:
    """One measurement on a broker, printed and kept."""
    with broker() as url:
        figures = measure(url)
    out = reports.console()
    out.print(reports.heading(reports.machine()))
    out.print(reports.plain(name, figures))
    keep(json_path, {"machine": reports.machine(), name: figures})


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def keep(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that workers and broker are stopped on the way out


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    try:
        bench(prog_name="python -m bench")
    except (BenchFailed, EmbeddedKafkaError) as error:
        sys.exit(f"the measurement failed: {error}")
