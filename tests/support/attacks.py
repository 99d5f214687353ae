"""HTTP/2 and HTTP/1 that no decent client sends, by hand: what tests and benches attack a node with.

    target = attacks.Target("/acme.Echo/Say", [("authorization", "Bearer …")])
    with attacks.Connection(port) as c:
        c.send(attacks.FLOODS[0].bytes(target))
        c.read_to_end()
    c.goaway   # the code of the last GOAWAY; None: none came.
"""

import socket
import struct
import typing

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
CANCEL, ENHANCE_YOUR_CALM = 8, 11
READ_S = 60


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags,
                       stream) + payload


def number(value, bits):
    """An integer of HPACK with so many bits of its first byte (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = [most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return number(len(value), 7) + value


def literal(name, value, first=b"\0"):
    """A field of HPACK; first=b"\\x40": it goes into the table."""
    return first + text(name) + text(value)


class Target(typing.NamedTuple):
    """A method that may be called, and with what."""
    path: str
    metadata: typing.Sequence = ()

    def section(self, **changes):
        """The fields of a call; a change of None leaves one out."""
        fields = {":method": "POST", ":scheme": "http", ":path": self.path,
                  ":authority": "attacked.test", "te": "trailers",
                  "content-type": "application/grpc"}
        fields.update({name.replace("pseudo_", ":"): value for name, value in changes.items()})
        fields = [(name, value) for name, value in fields.items() if value is not None]
        return b"".join(literal(*field) for field in fields + list(self.metadata))

    def call(self, stream=1, end=False, more=b"", section=None):
        """HEADERS of a call; 'more' is HPACK behind its fields."""
        payload = (self.section() if section is None else section) + more
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, payload)


def window(stream, size):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def setting(key, value):
    return frame(SETTINGS, 0, 0, struct.pack(">HI", key, value))


def streams(count):
    return range(1, 2 * count, 2)


# ---- floods: bytes behind the preface ----

def rapid_reset(target, count):
    return b"".join(target.call(s) + frame(RST_STREAM, 0, s, struct.pack(">I", CANCEL))
                    for s in streams(count))


def made_you_reset(target, count):
    """CVE-2025-8671: a window past the largest one has the server reset the stream."""
    return b"".join(target.call(s) + window(s, 0x7fffffff) for s in streams(count))


def continuation(target, count):
    return frame(HEADERS, 0, 1, target.section()) + frame(CONTINUATION, 0, 1) * count


def on_a_call(more):
    """Frames of a call that is open."""
    return lambda target, count: target.call() + more * count


def window_of_one(target, count):
    """The answer is asked for by the byte."""
    return setting(4, 0) + target.call() + window(1, 1) * count


def hpack_bomb(target, count):
    """A large value goes into the table once; then each byte is that value again."""
    seed = literal("x-bomb", "v" * 3000, first=b"\x40")
    return target.call(1, more=seed) + b"".join(
        target.call(s, end=True, more=b"\xbe" * 4000) for s in list(streams(count))[1:])


def cookie_crumbs(target, count):
    return b"".join(target.call(s, end=True, more=literal("cookie", "") * 500)
                    for s in streams(count))


def huge_section(target, count):
    return frame(HEADERS, 0, 1, target.section()) + frame(
        CONTINUATION, 0, 1, literal("x-more", "v" * 100) * 140) * count


def sections_of_no_stream(target, count):
    """What comes for a stream that was refused has to be decoded, and is dropped."""
    return target.call(section=target.section(te=None)) + target.call() * count


class Flood(typing.NamedTuple):
    name: str
    kind: str  # of trilane_connections_flooded_total.
    count: int
    make: typing.Callable

    def bytes(self, target):
        """Behind the preface and a first SETTINGS."""
        return PREFACE + frame(SETTINGS) + self.make(target, self.count)


FLOODS = (
    Flood("rapid reset", "reset", 1000, rapid_reset),
    Flood("made you reset", "reset", 1000, made_you_reset),
    Flood("continuation", "continuation", 900, continuation),
    Flood("settings", "control", 3000, on_a_call(frame(SETTINGS))),
    Flood("ping", "control", 3000, on_a_call(frame(PING, 0, 0, b"12345678"))),
    Flood("priority", "control", 3000, on_a_call(frame(PRIORITY, 0, 1, b"\0\0\0\0\1"))),
    Flood("unknown frames", "control", 3000, on_a_call(frame(99))),
    Flood("window updates", "control", 3000, on_a_call(window(0, 1))),
    Flood("empty data", "control", 3000, on_a_call(frame(DATA, 0, 1))),
    Flood("padding", "control", 3000, on_a_call(frame(DATA, PADDED, 1, b"\7" + bytes(7)))),
    Flood("data by the byte", "control", 3000, on_a_call(frame(DATA, 0, 1, b"\0"))),
    Flood("window of one", "control", 3000, window_of_one),
    Flood("HPACK bomb", "headers", 240, hpack_bomb),
    Flood("cookie crumbs", "headers", 240, cookie_crumbs),
    Flood("huge section", "headers", 5, huge_section),
    Flood("sections of no stream", "headers", 600, sections_of_no_stream),
)


class Connection:
    """A raw connection, and what came by it."""

    def __init__(self, port, receive_buffer=None):
        self.sock = socket.socket()
        self.sock.settimeout(READ_S)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(("127.0.0.1", port))
        self.name = "%s:%d" % self.sock.getsockname()
        self.bytes = b""
        self.goaway = None
        self.resets = {}  # streams to codes.
        self.frames = []  # (kind, flags, stream, payload)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        """All of it, or as much as is taken before the other side has had enough."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def start(self, data=b""):
        """The preface, a first SETTINGS, and what is to come behind them."""
        self.send(PREFACE + frame(SETTINGS) + data)

    def read(self):
        """Reads once, and takes frames; False at the end of the connection, or its reset."""
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.bytes += data
        while len(self.bytes) >= 9:
            size = self.bytes[0] << 16 | self.bytes[1] << 8 | self.bytes[2]
            if len(self.bytes) < 9 + size:
                break
            kind, flags, stream = struct.unpack(">BBI", self.bytes[3:9])
            self._take(kind, flags, stream, self.bytes[9:9 + size])
            self.bytes = self.bytes[9 + size:]
        return bool(data)

    def _take(self, kind, flags, stream, payload):
        self.frames.append((kind, flags, stream, payload))
        if kind == GOAWAY:
            self.goaway = struct.unpack(">I", payload[4:8])[0]
        elif kind == RST_STREAM:
            self.resets[stream] = struct.unpack(">I", payload)[0]

    def read_to_end(self):
        while self.read():
            pass

    def read_until(self, condition):
        """False when the connection ended before."""
        while not condition(self):
            if not self.read():
                return condition(self)
        return True


def http1(port, data):
    """Sends bytes and reads to the end; what came. A reset is an end."""
    out = b""
    with socket.create_connection(("127.0.0.1", port), READ_S) as sock:
        try:
            sock.sendall(data)
            while True:
                piece = sock.recv(1 << 16)
                if not piece:
                    return out
                out += piece
        except (BrokenPipeError, ConnectionResetError):
            return out
