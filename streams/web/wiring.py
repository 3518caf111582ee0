"""Puts the views on the web server of the app; importing this is enough, before the worker starts."""

from __future__ import annotations

from typing import Any

from streams.app import app
from streams.web.views import mount
from tables.deliveries import deliveries
from tables.period_stats import period_stats

# Faust's interface of a web server does not tell that it runs an aiohttp application
server: Any = app.web
mount(server.web_app, app.reader, deliveries, period_stats)
