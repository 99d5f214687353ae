"""HTTP/2 by hand: upstreams that break the rules, and callers that do.

An upstream's behaviour is a function of an exchange; it runs on the connection's thread, when the
request's head is whole, and again is not called. A caller sends what it is told to and gathers
what comes.
"""

import contextlib
import socket
import struct
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

OK = [(":status", "200"), ("content-type", "application/grpc")]
STATUS_OK = [("grpc-status", "0")]


def message(body, flag=0, size=None):
    """A gRPC message; 'size' declares another length than the body's."""
    return struct.pack(">BI", flag, len(body) if size is None else size) + body


def connection(client):
    """Neither side is checked: the other one is to be shown what is wrong."""
    return h2.connection.H2Connection(h2.config.H2Configuration(
        client_side=client, header_encoding="utf-8", validate_outbound_headers=False,
        normalize_outbound_headers=False, validate_inbound_headers=False))


class Exchange:
    """A request that an upstream got."""

    def __init__(self, peer, stream, headers):
        self.peer = peer
        self.stream = stream
        self.headers = dict(headers)
        self.fields = headers
        self.body = b""
        self.ended = False
        self.reset = None

    def send_headers(self, fields, end=False):
        self.peer.h2.send_headers(self.stream, fields, end_stream=end)

    def send(self, body, end=False):
        """All of it, as far as the windows go at once: what is sent here is small."""
        self.peer.h2.send_data(self.stream, body, end_stream=end)

    def answer(self, *bodies, trailers=STATUS_OK, fields=OK):
        self.send_headers(fields)
        for body in bodies:
            self.send(body)
        if trailers is not None:
            self.send_headers(trailers, end=True)

    def refuse(self, code=h2.errors.ErrorCodes.REFUSED_STREAM):
        self.peer.h2.reset_stream(self.stream, code)

    def goaway(self, last):
        """Says that nothing above stream 'last' was looked at, and goes on serving the rest."""
        self.peer.flush()
        frame = struct.pack(">IBIII", 8 << 8 | 7, 0, 0, last, 0)
        self.peer.sock.sendall(frame)

    def close(self):
        self.peer.flush()
        self.peer.sock.shutdown(socket.SHUT_RDWR)


class Upstream:
    """Listens; 'behaviours' maps the last segment of a path to what is done with the whole request."""

    def __init__(self, behaviours, port=0):
        self.behaviours = behaviours
        self.exchanges = []
        self.connections = 0
        self.leave_at = None  # the first connection goes away with this request, and sees no more.
        self.ignored = 0      # requests that came behind that.
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        self.peers = []
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            leave_at, self.leave_at = self.leave_at, None
            self.connections += 1
            self.sockets.append(sock)
            peer = _Peer(self, sock, leave_at)
            self.peers.append(peer)
            threading.Thread(target=peer.run, daemon=True).start()

    def drain(self, timeout=60):
        """Leaves as RFC 9113, 6.8 would have it: what comes before the second GOAWAY is answered.
        True when every connection ended so."""
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), so that no connection follows.
        self.acceptor.join()
        self.listener.close()
        peers = [peer for peer in self.peers if not peer.left]
        for peer in peers:
            peer.drain()
        return all([peer.ended.wait(timeout) for peer in peers])

    def stop(self):
        self.listener.close()
        for sock in self.sockets:
            sock.close()

    def seen(self, method):
        """Exchanges of that method, oldest first."""
        return [e for e in self.exchanges if e.headers[":path"].endswith("/" + method)]


class _Peer:
    """One connection to an upstream."""

    def __init__(self, upstream, sock, leave_at):
        self.upstream = upstream
        self.sock = sock
        self.leave_at = leave_at
        self.requests = 0
        self.last = None  # the stream of the last request that is looked at.
        self.h2 = connection(client=False)
        self.open = {}
        self.lock = threading.Lock()  # of the socket's sending side.
        self.final = None             # the last stream that is answered, once we leave.
        self.drains = False           # the first GOAWAY went out.
        self.left = False             # the client went before that.
        self.ended = threading.Event()

    def flush(self):
        with self.lock:
            self.sock.sendall(self.h2.data_to_send())

    def drain(self):
        """The first GOAWAY, and a PING: its answer comes behind all that was sent before."""
        with self.lock, contextlib.suppress(OSError):  # run() sees that it is gone.
            self.drains = True
            self.sock.sendall(struct.pack(">IBIII", 8 << 8 | 7, 0, 0, 0x7fffffff, 0) +
                              struct.pack(">IBIQ", 8 << 8 | 6, 0, 0, 1))

    def _leave(self):
        """The second one, with the last stream that came until now."""
        self.final = self.h2.highest_inbound_stream_id
        self.flush()
        with self.lock:
            self.sock.sendall(struct.pack(">IBIII", 8 << 8 | 7, 0, 0, self.final, 0))

    def run(self):
        self.h2.initiate_connection()
        try:
            self._serve()
        except (OSError, h2.exceptions.ProtocolError):
            self.sock.close()
        self.left = not self.drains
        if self.drains and not self.open:  # a client that has nothing open may go at once.
            self.ended.set()

    def _serve(self):
        self.flush()
        while True:
            data = self.sock.recv(65536)
            if not data:
                return
            for event in self.h2.receive_data(data):
                self._event(event)
            self.flush()
            if self.final is not None and not self.open:
                self.sock.shutdown(socket.SHUT_WR)
                self.ended.set()

    def _event(self, event):
        if isinstance(event, h2.events.PingAckReceived):
            self._leave()
        if isinstance(event, h2.events.RequestReceived):
            if self.final is not None:
                self.upstream.ignored += 1
                return
            self.requests += 1
            if self.leave_at is not None and self.requests > self.leave_at:
                self.upstream.ignored += 1
                return
            if self.requests == self.leave_at:
                self.last = event.stream_id
            exchange = Exchange(self, event.stream_id, event.headers)
            self.open[event.stream_id] = exchange
            self.upstream.exchanges.append(exchange)
        exchange = self.open.get(getattr(event, "stream_id", None))
        if exchange is None:
            return
        if isinstance(event, h2.events.DataReceived):
            exchange.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            exchange.reset = event.error_code
        elif isinstance(event, h2.events.StreamEnded):
            exchange.ended = True
            method = exchange.headers[":path"].rsplit("/", 1)[1]
            self.upstream.behaviours[method](exchange)
            del self.open[exchange.stream]
            if exchange.stream == self.last:
                exchange.goaway(last=exchange.stream)


class Answer:
    """What a caller got."""

    def __init__(self):
        self.headers = {}
        self.trailers = {}
        self.body = b""
        self.ended = False
        self.reset = None

    @property
    def fields(self):
        return {**self.headers, **self.trailers}

    @property
    def status(self):
        return self.fields.get("grpc-status")

    @property
    def code(self):
        return self.fields.get("x-trilane-code")


class Caller:
    """A client's connection to a node, in clear."""

    def __init__(self, port, settings=None, reads=True, timeout=60):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.h2 = connection(client=True)
        self.reads = reads
        self.answers = {}
        self.goaways = []
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def start(self, path, metadata=(), extra=(), end=False, flush=True):
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path),
                  (":authority", "echo.test"), ("te", "trailers"),
                  ("content-type", "application/grpc")]
        self.h2.send_headers(stream, fields + list(metadata) + list(extra), end_stream=end)
        if flush:
            self.flush()
        self.answers[stream] = Answer()
        return stream

    def send(self, stream, body, end=False):
        while self.h2.local_flow_control_window(stream) < len(body) and self.pump():
            pass
        self.h2.send_data(stream, body, end_stream=end)
        self.flush()

    def reset(self, stream, code=h2.errors.ErrorCodes.CANCEL):
        self.h2.reset_stream(stream, code)
        self.flush()

    def pump(self):
        """Reads once; False at the end of the connection."""
        data = self.sock.recv(65536)
        for event in self.h2.receive_data(data) if data else ():
            self._event(event)
        self.flush()
        return bool(data)

    def wait(self, stream):
        """Reads until the exchange is over; its answer."""
        answer = self.answers[stream]
        while not answer.ended and answer.reset is None and self.pump():
            pass
        return answer

    def call(self, path, *bodies, metadata=(), extra=()):
        stream = self.start(path, metadata, extra)
        for i, body in enumerate(bodies):
            self.send(stream, body, end=i + 1 == len(bodies))
        return self.wait(stream)

    def _event(self, event):
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append(event)
        answer = self.answers.get(getattr(event, "stream_id", None))
        if answer is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code
        if isinstance(event, h2.events.StreamEnded):
            answer.ended = True
