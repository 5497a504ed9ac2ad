"""The server of the WebSocket cases: plays the part that an address asks for, and notes what came.

    GET /, /cases.js, ...      files of the folder beside this one's
    GET /seen?id=ID            what the WebSocket of that id said, as JSON, once it has ended
    GET /go?id=ID              lets the WebSocket of that id go on that waits for it
    WebSocket /ws?id=ID&...    see `Part`

Frames of the client are read by the package `websockets`; those of the server are bytes made here,
for many of them are wrong on purpose.
"""

import asyncio
import hashlib
import http
import json
import pathlib
import socket
import struct
import sys
import urllib.parse

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Opcode
from websockets.server import ServerProtocol

FILES = pathlib.Path(__file__).parent / "websocket_cases"
TYPES = {".html": "text/html", ".js": "text/javascript"}

# The longest that /seen waits for the end of a WebSocket: more than browsers wait for a close frame.
PATIENCE_S = 40

# Bytes read at once.
PIECE = 64 * 1024

# Text of which every line tells where it stands, long enough for the largest message.
PATTERN = b"".join(b"%07x\n" % line for line in range(2 * 1024 * 1024))


def frame(first, payload):
    """A frame as a server sends it; `first` is its first byte."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, length)
    elif length < 65536:
        head = struct.pack("!BBH", first, 126, length)
    else:
        head = struct.pack("!BBQ", first, 127, length)
    return head + payload


def digest(data):
    """What a note says of a message."""
    if len(data) <= 64:
        return data.hex()
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def close_note(data):
    """What a note says of a close frame."""
    if not data:
        return "without a code"
    code = int.from_bytes(data[:2], "big")
    # By these a client complains, each in its own words.
    if code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA):
        return "with a complaint"
    return f"{code} {data[2:].decode()!r}"


class Part:
    """One WebSocket. The query of its address:

    - `script`: steps in JSON, played when it is open; see `play`
    - `echo`: sends every message back, as one frame
    - `silent`: answers no close frame
    - `protocol`, `extensions`, `accept`: that header of the handshake's answer
    - `deflate`: takes the client's offer to compress
    """

    def __init__(self, reader, writer, protocol, query):
        self.reader, self.writer, self.protocol, self.query = reader, writer, protocol, query
        self.notes = []
        self.ended = asyncio.Event()
        self.may_go = asyncio.Event()
        self.client_spoke = asyncio.Event()
        self.client_closed = asyncio.Event()
        self.may_read = asyncio.Event()
        self.has_played = False
        self.sent_close = False
        self.message = None
        self.waiting = bytearray()

    async def run(self):
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self.read())
                await self.play()
                self.has_played = True
                await self.flush()
                await reading
        except* (ConnectionError, BrokenPipeError):
            pass
        finally:
            self.notes.append("end")
            self.ended.set()

    async def play(self):
        script = json.loads(self.query.get("script", "[]"))
        if ["wait", "go"] not in script:
            self.may_read.set()
        for verb, *args in script:
            match verb:
                case "raw" | "close":
                    self.sent_close |= verb == "close"
                    self.waiting += bytes.fromhex(args[0])
                case "message":
                    opcode, size, fragments = args
                    self.send_message(opcode, PATTERN[:size], fragments)
                case "burst":
                    for number in range(args[0]):
                        self.waiting += frame(0x81, b"%d" % number)
                case "compressed":
                    self.protocol.send_text(args[0].encode())
                    self.write_out()
                case "drop":
                    self.write_waiting()
                    self.writer.close()
                case "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection = self.writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.writer.transport.abort()
                case "wait":
                    self.write_waiting()
                    waited = {"close": self.client_closed, "message": self.client_spoke, "go": self.may_go}
                    await waited[args[0]].wait()
                    self.may_read.set()
        self.write_waiting()

    def write_waiting(self):
        # At once: what a client has not read when it gives up may take its last word along.
        if self.waiting and not self.writer.is_closing():
            self.writer.write(bytes(self.waiting))
        self.waiting.clear()

    def send_message(self, opcode, payload, fragments):
        size = -(-len(payload) // fragments)
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for index, piece in enumerate(pieces):
            first = opcode if index == 0 else Opcode.CONT
            last = 0x80 if index == len(pieces) - 1 else 0
            self.waiting += frame(first | last, piece)

    async def read(self):
        await self.may_read.wait()
        while data := await self.reader.read(PIECE):
            self.protocol.receive_data(data)
            for each in self.protocol.events_received():
                self.hear(each)
            if self.protocol.parser_exc is not None:
                self.notes.append(f"violation: {self.protocol.parser_exc}")
                break
            if self.client_closed.is_set() and self.sent_close:
                break
            if self.has_played:
                await self.flush()
        if not self.writer.is_closing():
            self.writer.close()

    def hear(self, received):
        match received.opcode:
            case Opcode.CLOSE:
                self.notes.append(f"close {close_note(bytes(received.data))}")
                self.client_closed.set()
            case Opcode.PING | Opcode.PONG:
                self.notes.append(f"{received.opcode.name.lower()} {digest(bytes(received.data))}")
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                self.hear_data(received)

    def hear_data(self, received):
        # Fragments are the client's choice, and no two choose alike.
        if received.opcode != Opcode.CONT:
            self.message = (received.opcode, bytearray())
        self.client_spoke.set()
        opcode, data = self.message
        data += received.data
        if not received.fin:
            return
        self.notes.append(f"{opcode.name.lower()} {digest(bytes(data))}")
        if opcode == Opcode.TEXT:
            data.decode()
        if "echo" in self.query:
            self.writer.write(frame(0x80 | opcode, bytes(data)))

    async def flush(self):
        if "silent" in self.query:
            return
        if self.sent_close:
            # The package knows nothing of a close frame that was sent past it.
            self.protocol.data_to_send()
        else:
            self.write_out()
        if not self.writer.is_closing():
            await self.writer.drain()
            if self.client_closed.is_set():
                self.writer.close()

    def write_out(self):
        for data in self.protocol.data_to_send():
            if data and not self.writer.is_closing():
                self.writer.write(data)


class Server:
    def __init__(self):
        self.parts = {}

    async def serve(self, reader, writer):
        protocol = ServerProtocol(max_size=None)
        try:
            request = await self.request(reader, protocol)
            if request is None:
                return
            url = urllib.parse.urlsplit(request.path)
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            if url.path == "/ws":
                await self.websocket(reader, writer, protocol, request, query)
            else:
                await self.http(writer, url.path, query)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def request(self, reader, protocol):
        while data := await reader.read(PIECE):
            protocol.receive_data(data)
            for event in protocol.events_received():
                return event
        return None

    async def http(self, writer, path, query):
        status, kind, body = 200, "application/json", b"null"
        file = FILES / (path.lstrip("/") or "index.html")
        if path == "/go":
            self.parts[query["id"]].may_go.set()
        elif path == "/seen":
            body = json.dumps(await self.seen(query["id"])).encode()
        elif file.is_relative_to(FILES) and file.is_file():
            kind, body = TYPES[file.suffix], file.read_bytes()
        else:
            status = 404
        writer.write(
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n"
            f"cache-control: no-store\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()

    async def seen(self, name):
        part = self.parts.pop(name, None)
        if part is None:
            return ["nothing"]
        try:
            await asyncio.wait_for(part.ended.wait(), PATIENCE_S)
        except TimeoutError:
            part.notes.append("no end")
        return part.notes

    async def websocket(self, reader, writer, protocol, request, query):
        part = Part(reader, writer, protocol, query)
        self.parts[query["id"]] = part
        offered = request.headers.get("Sec-WebSocket-Protocol")
        part.notes.append(f"offers {offered}")
        if "deflate" in query:
            protocol.available_extensions = [ServerPerMessageDeflateFactory()]
        if query.get("status") == "never":
            part.ended.set()
            await reader.read()
            return
        if "status" in query:
            response = protocol.reject(int(query["status"]), "refused")
            response.headers["Location"] = "/ws?echo&id=redirected"
        else:
            response = protocol.accept(request)
        for field, name in [
            ("protocol", "Sec-WebSocket-Protocol"),
            ("extensions", "Sec-WebSocket-Extensions"),
            ("accept", "Sec-WebSocket-Accept"),
        ]:
            if field in query:
                if name in response.headers:
                    del response.headers[name]
                response.headers[name] = query[field]
        protocol.send_response(response)
        part.write_out()
        if response.status_code == 101:
            await part.run()
        else:
            await writer.drain()
            part.notes.append("refused")
            part.ended.set()


async def main():
    server = await asyncio.start_server(Server().serve, "127.0.0.1", int(sys.argv[1]))
    host, port = server.sockets[0].getsockname()
    print(f"serving {host}:{port}", flush=True)
    await server.serve_forever()


asyncio.run(main())
