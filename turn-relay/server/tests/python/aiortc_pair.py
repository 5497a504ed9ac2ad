"""Two aiortc peers with a data channel over nothing but their relayed addresses.

usage: aiortc_pair.py {udp|tcp|tls} HOST PORT
"""

import asyncio
import sys

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
)

transport, host, port = sys.argv[1:]

PATIENCE = 30
MESSAGES = [bytes([at]) * size for at in range(10) for size in (1, 1000, 20_000)]
URL = {
    "udp": f"turn:{host}:{port}?transport=udp",
    "tcp": f"turn:{host}:{port}?transport=tcp",
    "tls": f"turns:{host}:{port}?transport=tcp",
}[transport]


def peer():
    server = RTCIceServer(urls=URL, username="ann", credential="ann's")
    return RTCPeerConnection(
        RTCConfiguration(
            iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY
        )
    )


def relayed(description):
    candidates = [
        line for line in description.sdp.splitlines() if line.startswith("a=candidate")
    ]
    assert candidates and all(" typ relay" in line for line in candidates), candidates
    return description


async def main():
    one, other = peer(), peer()
    echoed = asyncio.Queue()

    @other.on("datachannel")
    def opened(channel):
        channel.on("message", channel.send)

    channel = one.createDataChannel("test")
    channel.on("message", echoed.put_nowait)
    is_open = asyncio.Event()
    channel.on("open", is_open.set)

    await one.setLocalDescription(await one.createOffer())
    await other.setRemoteDescription(relayed(one.localDescription))
    await other.setLocalDescription(await other.createAnswer())
    await one.setRemoteDescription(relayed(other.localDescription))
    await is_open.wait()
    for message in MESSAGES:
        channel.send(message)
    for message in MESSAGES:
        assert await echoed.get() == message
    await asyncio.gather(one.close(), other.close())


asyncio.run(asyncio.wait_for(main(), PATIENCE))
