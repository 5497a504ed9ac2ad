"""Two aioice connections that may use nothing but their relayed addresses.

usage: aioice_pair.py {udp|tcp|tls} HOST PORT
"""

import asyncio
import sys

from aioice import Connection, TransportPolicy

transport, host, port = sys.argv[1:]

PATIENCE = 30
SIZES = [1, 2, 3, 4, 500, 1200]
ROUNDS = 20


def connection(controlling):
    return Connection(
        ice_controlling=controlling,
        components=1,
        turn_server=(host, int(port)),
        turn_username="ann",
        turn_password="ann's",
        turn_ssl=transport == "tls",
        turn_transport="udp" if transport == "udp" else "tcp",
        transport_policy=TransportPolicy.RELAY,
    )


async def introduce(one, other):
    other.remote_username = one.local_username
    other.remote_password = one.local_password
    assert one.local_candidates, "no relayed address"
    for candidate in one.local_candidates:
        assert candidate.type == "relay", candidate
        await other.add_remote_candidate(candidate)
    await other.add_remote_candidate(None)


async def main():
    one, other = connection(True), connection(False)
    await asyncio.gather(one.gather_candidates(), other.gather_candidates())
    await introduce(one, other)
    await introduce(other, one)
    await asyncio.gather(one.connect(), other.connect())
    for at in range(ROUNDS):
        for size in SIZES:
            payload = bytes([at]) * size
            await one.send(payload)
            assert await other.recv() == payload
            await other.send(payload[::-1])
            assert await one.recv() == payload[::-1]
    await asyncio.gather(one.close(), other.close())


asyncio.run(asyncio.wait_for(main(), PATIENCE))
