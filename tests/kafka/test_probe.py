from streams.kafka import probe

MANY = 500


def test_ports_that_are_asked_for_together_differ() -> None:
    """Asked for one by one, of so many some would be the same."""
    ports = probe.free_ports(MANY)

    assert len(set(ports)) == MANY
