"""The generator against servers that behave, lie, stall and fall silent: what it reports is so.

HTTP/1.1 servers are written here; gRPC goes to the benches' own echo server, and to a liar made of
python3-h2. A stall is a stopped process: the server cannot know that it is measured.
"""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time

import h2.config
import h2.connection
import h2.events
import trilane

LOAD = str(trilane.BUILD / "bench-load")


def generate(port, *flags, code=0, **options):
    """Runs the generator; its result."""
    settings = dict({"connections": 2, "streams": 8, "rate": 500, "warmup-ms": 100,
                     "duration-ms": 500, "body-bytes": 100},
                    **{name.replace("_", "-"): value for name, value in options.items()})
    argv = [LOAD, "--port", str(port), "--path", "/test.Echo/Say"] + list(flags)
    for name, value in settings.items():
        argv += ["--" + name, str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, "%r: exit %d\n%s%s" % (argv, done.returncode, done.stdout,
                                                           done.stderr)
    result = json.loads(done.stdout) if done.stdout else {}
    if result:
        assert result["offered"] == result["answers"] + result["errors"], result
    return result


class Server:
    """Serves each connection on a thread of its own by serve(socket), until the block is left."""

    def __init__(self, serve):
        self.serve = serve
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        self.threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        for each in [self.listener] + self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        for each in [self.listener] + self.sockets:
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                each, _ = self.listener.accept()
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets.append(each)
                self.threads.append(threading.Thread(target=self._serve, args=(each,)))
                self.threads[-1].start()

    def _serve(self, each):
        with contextlib.suppress(OSError):
            self.serve(each)


def http1_bodies(each):
    """The body of each request on a connection; none: the connection ended."""
    held = b""
    while True:
        while b"\r\n\r\n" not in held:
            more = each.recv(65536)
            if not more:
                return
            held += more
        head, held = held.split(b"\r\n\r\n", 1)
        lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n")
                   if line.lower().startswith(b"content-length:")]
        size = lengths[0] if lengths else 0
        while len(held) < size:
            held += each.recv(65536)
        body, held = held[:size], held[size:]
        yield body


def http1_answer(body, status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def http1_server(answer):
    """A server whose answer to request n of a connection with a body is answer(n, body)."""
    def serve(each):
        for n, body in enumerate(http1_bodies(each)):
            each.sendall(answer(n, body))
    return Server(serve)


def grpc_server(status_of):
    """Echoes messages with grpc-status status_of(n) for the n-th answer of a connection."""
    def serve(each):
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        bodies, answered = {}, 0
        each.sendall(conn.data_to_send())
        while True:
            data = each.recv(65536)
            if not data:
                return
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    conn.send_headers(stream, [(":status", "200"),
                                               ("content-type", "application/grpc")])
                    conn.send_data(stream, bodies.pop(stream))
                    conn.send_headers(stream, [("grpc-status", status_of(answered))],
                                      end_stream=True)
                    answered += 1
            each.sendall(conn.data_to_send())
    return Server(serve)


def echoes_are_answers_at_the_rate():
    with http1_server(lambda n, body: http1_answer(body)) as server:
        got = generate(server.port, "--protocol", "http1", connections=8, rate=400)
        assert got["offered"] == got["answers"] == 200, got
        assert got["offered_per_s"] == 400, got
        got = generate(server.port, "--protocol", "http1", body_bytes=0, rate=200)  # GET
        assert got["answers"] == 100, got


def wrong_answers_are_errors():
    wrong = {
        "another body": lambda body: http1_answer(b"x" + body[1:]),
        "a short body": lambda body: http1_answer(body[:-1]),
        "a longer body": lambda body: http1_answer(body + b"x"),
        "no body": lambda body: http1_answer(b""),
        "another status": lambda body: http1_answer(body, b"503 Service Unavailable"),
    }
    for name, make in wrong.items():
        def answer(n, body, make=make):
            return make(body) if n % 4 == 0 else http1_answer(body)
        with http1_server(answer) as server:
            got = generate(server.port, "--protocol", "http1", rate=400)
        share = got["errors"] / got["offered"]
        assert 0.2 <= share <= 0.3, (name, got)


def what_is_no_answer_ends_the_run():
    for text in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                 http1_answer(b"", b"200 OK") + http1_answer(b"", b"200 OK")):
        with http1_server(lambda n, body, text=text: text) as server:
            got = generate(server.port, "--protocol", "http1", code=1)
        assert got["lost_connections"] == 1, got


def wrong_grpc_statuses_are_errors():
    with grpc_server(lambda n: "13" if n % 4 == 0 else "0") as server:
        got = generate(server.port, rate=200)
    assert 0.2 <= got["errors"] / got["offered"] <= 0.3, got
    assert got["unanswered"] == 0, got


def silence_is_counted():
    """From its 21st request on a connection is read and never answered."""
    def serve(each):
        for n, body in enumerate(http1_bodies(each)):
            if n == 20:
                while each.recv(65536):
                    pass
                return
            each.sendall(http1_answer(body))
    with Server(serve) as server:
        got = generate(server.port, "--protocol", "http1", rate=200, warmup_ms=0)
    assert got["answers"] == 40, got  # 20 on each of the two connections.
    assert got["errors"] == got["unanswered"] == 60, got


@contextlib.contextmanager
def echo_program():
    port = trilane.free_port()
    with tempfile.TemporaryDirectory() as directory:
        process = trilane.Process("echo", pathlib.Path(directory),
                                  [str(trilane.BUILD / "bench-echo"), str(port)])
        process.spawn()
        try:
            trilane.wait_until(
                lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None,
                what="bench-echo")
            yield port, process
        finally:
            process.signal(signal.SIGCONT)
            process.stop()


def latency_counts_from_when_a_request_was_due():
    """A server that stands still for 200 ms of a second delays a fifth of all requests, though
    few of them could be sent meanwhile: p99 is near 200 ms, the median is not. It does so again and
    again, for whenever the second begins, there is one whole such time in it."""
    with echo_program() as (port, process):
        over = threading.Event()

        def stall():
            while not over.wait(0.6):
                process.signal(signal.SIGSTOP)
                time.sleep(0.2)
                process.signal(signal.SIGCONT)
        thread = threading.Thread(target=stall)
        thread.start()
        try:
            got = generate(port, rate=1000, duration_ms=1000, connections=2, streams=2)
        finally:
            over.set()
            thread.join()
        assert got["errors"] == 0 and got["answers"] == 1000, got
        assert 150000 <= got["p99_us"] <= got["max_us"], got
        assert got["p50_us"] < 100000, got


def a_slow_server_is_behind():
    """One answer in 20 ms on two connections is 100 a second: of 400 the rest comes late."""
    def answer(_, body):
        time.sleep(0.02)
        return http1_answer(body)
    with http1_server(answer) as server:
        got = generate(server.port, "--protocol", "http1", rate=400, warmup_ms=0)
    assert got["answers_per_s"] <= 105 and got["behind"] >= 100, got


def connections_are_made_one_by_one():
    with echo_program() as (port, _):
        got = generate(port, connections=600, rate=2000, warmup_ms=500)
        assert got["errors"] == 0 and got["connections"] == 600, got
    generate(trilane.free_port(), code=1)  # nobody listens.
    generate(1, "--protocol", "http2", code=2)
    generate(1, "another-word", code=2)
    generate(1, rate=0, code=2)
    generate(1, connections=16385, code=2)


def a_punctual_one_waits_for_no_burst():
    """Else what is due waits for the next look, up to 200 us: the best of some runs shows it."""
    with echo_program() as (port, _):
        p50 = {flags: min(generate(port, *flags, rate=1000)["p50_us"] for _ in range(5))
               for flags in ((), ("--punctual",))}
    assert p50[("--punctual",)] + 20 < p50[()], p50


def settings_are_acknowledged_while_others_are_made():
    """The first connection's acknowledgement does not wait for the last connection."""
    accepted, acknowledged = [], []

    def serve(each):
        accepted.append(each)
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        each.sendall(conn.data_to_send())
        while data := each.recv(65536):
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.SettingsAcknowledged):
                    acknowledged.append(len(accepted))
            each.sendall(conn.data_to_send())
    with Server(serve) as server:
        generate(server.port, connections=400, rate=1, await_ms=0)
    assert acknowledged[0] < 200, acknowledged[:3]


def large_messages_are_whole_both_ways():
    """A MiB is more than a frame, a window, a socket and one look at either of them hold."""
    with echo_program() as (port, _):
        for size, rate in ((65536, 200), (1 << 20, 40)):
            got = generate(port, connections=4, streams=4, rate=rate, body_bytes=size)
            assert got["errors"] == 0 and got["answers"] == rate // 2, got
    with http1_server(lambda n, body: http1_answer(body)) as server:
        got = generate(server.port, "--protocol", "http1", rate=20, body_bytes=1 << 20)
        assert got["answers"] == 10, got

    def last_byte_differs(n, body):
        return http1_answer(body[:-1] + b"?")
    with http1_server(last_byte_differs) as server:
        got = generate(server.port, "--protocol", "http1", rate=20, body_bytes=1 << 20)
        assert got["answers"] == 0, got
    generate(1, body_bytes=(1 << 20) + 1, code=2)


def a_file_is_the_body_as_it_is():
    seen = []

    def answer(_, body):
        seen.append(body)
        return http1_answer(body)
    with tempfile.TemporaryDirectory() as directory, http1_server(answer) as server:
        path = pathlib.Path(directory) / "body"
        path.write_bytes(b"\0any bytes\n")
        got = generate(server.port, "--protocol", "http1", "--body-file", str(path), rate=40)
        assert got["answers"] == 20 and set(seen) == {b"\0any bytes\n"}, (got, seen[:1])
        path.write_bytes(bytes((1 << 20) + 1))
        generate(1, "--body-file", str(path), code=2)
    generate(1, "--body-file", "/nonexistent", code=2)


def main():
    for check in (echoes_are_answers_at_the_rate, wrong_answers_are_errors,
                  what_is_no_answer_ends_the_run, wrong_grpc_statuses_are_errors,
                  silence_is_counted, latency_counts_from_when_a_request_was_due,
                  a_slow_server_is_behind, connections_are_made_one_by_one,
                  settings_are_acknowledged_while_others_are_made,
                  a_punctual_one_waits_for_no_burst, large_messages_are_whole_both_ways,
                  a_file_is_the_body_as_it_is):
        start = time.monotonic()
        check()
        print("%s: %.1f s" % (check.__name__, time.monotonic() - start), flush=True)


if __name__ == "__main__":
    main()
