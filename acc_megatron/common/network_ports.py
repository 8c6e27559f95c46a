"""TCP ports of this machine."""

import random
import socket


def free_port() -> int:
    """A free TCP port of 127.0.0.1, below the range from which sockets without a fixed port are numbered.

    It is not reserved: use it soon.
    """
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
