"""The delivery tracker: what flows, and what it means."""
