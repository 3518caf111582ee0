"""Faust, made batch-native and transactional.

A batch of records goes in; tables, outputs and the input offset move in one Kafka transaction.
The engine knows no domain type. ``docs/engine.md`` explains it with a picture.
"""
