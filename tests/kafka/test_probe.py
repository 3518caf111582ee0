from streams.kafka import probe

MANY = 500


def test_ports_that_are_asked_for_together_differ() -> None:
    """Asked for one by one, of so many some would be the same."""
    ports = probe.free_ports(MANY)

    assert len(set(ports)) == MANY


def test_ports_of_servers_that_go_and_come_are_not_the_kernels_to_give() -> None:
    """A client that tries such a port again and again while its server is away cannot get it for itself."""
    ports = probe.lasting_ports(20)

    assert len(set(ports)) == 20
    assert all(port < probe._first_ephemeral_port() and probe.is_free(port) for port in ports)
