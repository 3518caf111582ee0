"""The embedded broker: a real Apache Kafka (KRaft, one node, loopback only) for demo, tests and development.

`broker.EmbeddedKafka` starts and stops it; `topics` makes the topics of the catalogue, on it or another.
"""
