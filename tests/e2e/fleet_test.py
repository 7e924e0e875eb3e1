#!/usr/bin/python3
"""docs/fleet.md's first way: two daemons on loopback ports, and gRPC's own round robin with health checks in front.
Debian's python3-grpcio is the client; messages are written by hand, so that nothing is generated."""

import json
import socket

import harness
from harness import Skip, wait_until

try:
    import grpc
except ImportError:
    grpc = None

FREE = ("--enforcement", "none")


def free_port():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


class TcpDaemon(harness.Daemon):
    """One that listens on a port."""

    def __init__(self, test, state=None, port=None):
        self.port = port or free_port()
        super().__init__(test, state=state, options=[*FREE, "--listen", f"127.0.0.1:{self.port}"])

    def client(self, *arguments):
        return [self.test.thimble, "--connect", f"127.0.0.1:{self.port}", *arguments]


def generate(channel, tokens):
    """GenerateRequest{prompt = 1: "The old boat", max_tokens = 3}: the number of its events."""
    prompt = b"The old boat"
    message = bytes([1 << 3 | 2, len(prompt)]) + prompt + bytes([3 << 3, tokens])
    call = channel.unary_stream("/thimble.v1.Thimble/Generate")(message, timeout=60)
    return sum(1 for _ in call)


def requests_reach_all_and_a_stopped_one_is_left_out(test):
    if grpc is None:
        raise Skip("no python3-grpcio")
    daemons = [TcpDaemon(test).ready(), TcpDaemon(test).ready()]
    addresses = "ipv4:" + ",".join(f"127.0.0.1:{daemon.port}" for daemon in daemons)
    config = {"loadBalancingConfig": [{"round_robin": {}}],
              "healthCheckConfig": {"serviceName": "thimble.v1.Thimble"}}
    with grpc.insecure_channel(addresses, options=[("grpc.service_config", json.dumps(config)),
                                                   ("grpc.enable_http_proxy", 0)]) as channel:
        def both_had_some():
            assert generate(channel, 4) > 4
            return all(daemon.number("requests_total") >= 2 for daemon in daemons)
        wait_until(both_had_some, 30, "requests reach both")

        daemons[0].stop()
        before = daemons[1].number("requests_total")
        for _ in range(6):
            assert generate(channel, 4) > 4
        assert daemons[1].number("requests_total") == before + 6, "all go to the one that is left"

        again = TcpDaemon(test, state=daemons[0].state, port=daemons[0].port).ready()
        def it_has_some():
            generate(channel, 2)
            return again.number("requests_total") >= 1
        wait_until(it_has_some, 60, "the one that came back is asked again")
        again.stop()
    daemons[1].stop()


if __name__ == "__main__":
    harness.main(requests_reach_all_and_a_stopped_one_is_left_out)
