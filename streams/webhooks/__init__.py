"""Webhooks: what is sent to customers, how it is signed, and where it may not go."""
