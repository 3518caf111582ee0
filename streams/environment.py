"""The environment of a worker's process without the variables that other libraries would read."""

from __future__ import annotations

from collections.abc import MutableMapping

__all__ = ["remove_foreign_settings"]

#: Faust reads these when it is imported (``faust/types/_env.py``), as defaults of its command line.
_FAUST_PREFIXES = ("FAUST_", "F_")
#: Faust's loader of Django settings (``faust/fixups/django.py``) and mode's debug log.
_FAUST_NAMES = frozenset({"DJANGO_SETTINGS_MODULE", "DEVLOG"})


def remove_foreign_settings(environ: MutableMapping[str, str]) -> None:
    """Remove the variables that configure Faust; to be called before Faust is imported.

    Only ``TRACKER_`` variables configure a worker. Kubernetes also sets ``F_WEB_PORT=tcp://…`` for a service
    named ``f-web``, with which Faust cannot be imported.
    """
    for name in [name for name in environ if name.startswith(_FAUST_PREFIXES) or name in _FAUST_NAMES]:
        del environ[name]
