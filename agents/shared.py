"""What the agents share: the tables, and how events are counted and told."""

from __future__ import annotations

from agents.counting import Counting
from agents.flows import Tables
from agents.publishing import Publishing
from agents.telling import Telling
from streams.app import grace_ms, settings, windows
from streams.domain.routing import Routing
from streams.topics import names
from tables.deliveries import deliveries
from tables.endpoints import endpoints
from tables.pending_stats import pending_stats
from tables.period_stats import period_stats
from tables.provider_health import provider_health
from tables.webhook_events import webhook_events
from tables.webhook_queues import webhook_queues
from tables.webhook_sendings import webhook_sendings
from tables.webhooks import WebhookTables

__all__ = ["tables", "telling", "topics"]

topics = names(settings.topic_prefix)
telling = Telling(
    WebhookTables(webhook_events, webhook_queues, webhook_sendings),
    Routing(),
    topics,
    tuple(round(pause * 1000) for pause in settings.webhook_schedule_s),
    round(settings.webhook_disable_after_s * 1000),
    round(settings.webhook_retention_s * 1000),
)
tables = Tables(
    deliveries,
    Counting(period_stats, pending_stats, Publishing(topics.stats, grace_ms), windows),
    provider_health,
    endpoints,
    telling,
)
