"""The Faust app: what it is made of, and the modules that belong to it."""

from __future__ import annotations

from streams.domain.health import Thresholds
from streams.domain.lifetimes import Lifetimes
from streams.domain.statistics import Windows
from streams.engine.hosting import StreamApp
from streams.settings import Settings, is_wildcard, settings_or_exit, url_host
from streams.topics import DELETE_RETENTION_MS, co_partitioned, outputs

__all__ = ["MODULES", "app", "grace_ms", "lanes", "lifetimes", "settings", "thresholds", "windows"]

#: Leaf modules by name: a package in ``autodiscover`` would silently drop a module that fails to import
#: (faust-streaming issue 269).
MODULES = (
    "tables.deliveries",
    "tables.period_stats",
    "tables.pending_stats",
    "tables.endpoints",
    "tables.provider_health",
    "tables.webhook_events",
    "tables.webhook_queues",
    "tables.webhook_sendings",
    "agents.requests",
    "agents.statuses",
    "agents.webhooks",
    "agents.timers",
    "streams.web.wiring",
)


def build(settings: Settings) -> StreamApp:
    """Return the app for these settings; nothing is started or connected."""
    return StreamApp(
        settings.app_id,
        # not the environment of the process: Faust would let WEB_PORT or PROCESSING_GUARANTEE override this
        env={},
        sources=co_partitioned(settings.topic_prefix),
        partitions=settings.partitions,
        unit_records=settings.unit_records,
        idle_s=settings.idle_wait_s,
        delete_retention_ms=DELETE_RETENTION_MS,
        codecs=dict.fromkeys(outputs(settings.topic_prefix), settings.compression),
        autodiscover=list(MODULES),
        broker=settings.broker_url,
        datadir=str(settings.data_dir),
        store="rocksdb://",
        topic_replication_factor=settings.replication,
        table_standby_replicas=settings.standbys,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=min(2.0, settings.session_timeout_s / 3),
        broker_request_timeout=max(20.0, settings.session_timeout_s),
        # asyncio listens at "::" over IPv6 only, at "" over both versions
        web_bind="" if settings.web_bind == "::" else settings.web_bind,
        web_port=settings.web_port,
        # how other workers reach this one; by default Faust takes the machine's name
        **({} if is_wildcard(settings.web_bind) else {"web_host": url_host(settings.web_bind)}),
        # Faust's pages show every table's values to anyone who asks
        web_tables_enabled=False,
        web_router_enabled=False,
        web_graph_enabled=False,
        web_stats_enabled=False,
        web_metrics_enabled=False,
    )


settings = settings_or_exit()
app = build(settings)
lanes = app.lanes
windows = Windows(
    round(settings.minutes_retention_s * 1000),
    round(settings.hours_retention_s * 1000),
    round(settings.days_retention_s * 1000),
)
thresholds = Thresholds(
    settings.health_messages,
    settings.health_rate / 100,
    settings.health_slow_share / 100,
    round(settings.health_cooldown_s * 1000),
)
grace_ms = round(settings.grace_s * 1000)
lifetimes = Lifetimes(
    round(settings.max_tracking_s * 1000),
    round(settings.retention_s * 1000),
    round(settings.marker_retention_s * 1000),
)
