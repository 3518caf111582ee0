"""Each method of `DeliveryTracker` once, against workers that run.

With `make run` in another terminal, which prints the broker's URL and the worker's:

    .venv/bin/python -m examples.tracker --url http://127.0.0.1:6066 --broker kafka://127.0.0.1:9092
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from streams.client import DeliveryTracker, MessageError, MessageEvent

HEARD = ("tracking:started", "status:updated", "status:amended", "tracking:completed", "tracking:stopped")


async def main(url: str, broker: str, prefix: str) -> None:
    """Track a message from its request to its end, and show what is told of it."""
    message_id = f"example-{uuid.uuid4().hex[:8]}"
    tracker = DeliveryTracker(url, broker_url=broker, topic_prefix=prefix)
    ended = asyncio.Event()

    def show(event: MessageEvent) -> None:
        if event.data["messageId"] == message_id:
            print(f"  heard   {event.data['type']:<20} {event.type:<18} {event.data['reason']}")

    async def finish(event: MessageEvent) -> None:
        if event.data["messageId"] == message_id:
            ended.set()

    for name in HEARD:
        tracker.on(name, show)
    tracker.add_listener("tracking:stopped", finish)
    tracker.once("tracker:started", lambda: print("listening"))
    await tracker.start()

    await tracker.track_message(
        message_id, "+821012345678", "otp", "solapi", channel="sms", metadata={"campaign": "autumn"}
    )
    said: list[tuple[Any, dict[str, Any]]] = [
        ("SENT", {"provider": "solapi"}),
        ("FAILED", {"provider": "solapi", "error": MessageError("30003", "unreachable")}),
        ("SENT", {"provider": "aligo"}),
        ("DELIVERED", {"provider": "aligo", "source": "provider", "id": "cb-1"}),
        ("DELIVERED", {"provider": "aligo", "source": "provider", "id": "cb-1"}),
    ]
    for status, details in said:
        changed = await tracker.update_status(message_id, status, **details)
        print(f"  said    {status:<10} {details['provider']:<8} {'changed it' if changed else 'was known'}")

    report = await tracker.get_delivery_report(message_id)
    assert report is not None
    tries = ", ".join(f"{one.provider} {one.status}" for one in report.attempts)
    print(f"report    {report.status}: {tries}")
    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    print(f"record    {len(record.status_history)} entries, kept from {record.created_at:%H:%M:%S} on")
    newest = await tracker.get_messages_by_status("DELIVERED", limit=3)
    print(f"delivered {', '.join(one.message_id for one in newest)}, …")
    stats = await tracker.get_stats()
    print(f"stats     {stats.total_messages} messages, {stats.delivery_rate:.1f} % delivered")
    now = datetime.now(UTC)
    recent = await tracker.get_stats_for_period(now - timedelta(minutes=1), now)
    print(f"          {recent.total_messages} of them created in the last minute")

    await tracker.erase(message_id)
    await tracker.stop_tracking(message_id, reason="the example is over")
    async with asyncio.timeout(10):
        await ended.wait()
    print(f"removed   {await tracker.cleanup()} that were kept for long enough")

    tracker.off("tracking:stopped", finish).remove_listener("status:updated", show).remove_all_listeners()
    tracker.on("mine", lambda word: print(f"emitted   {word}"))
    tracker.emit("mine", "goodbye")
    await tracker.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", default="http://127.0.0.1:6066")
    parser.add_argument("--broker", default="kafka://127.0.0.1:9092")
    parser.add_argument("--prefix", default="delivery.")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.url, chosen.broker, chosen.prefix))
