"""A free port can be used at once."""

import socket

from acc_megatron.common.network_ports import free_port


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port := free_port()))
        listener.listen()
        assert listener.getsockname()[1] == port
