"""A gRPC server that does at each attempt of a call what the call says, and remembers them all.

A call has a key (x-key) and a script (x-script): one word an attempt, the last one for all that
follow. A word is a status, with letters before it and a push-back behind it:

    14       ends with UNAVAILABLE              h14    sends its headers first
    0        answers                            m14    sends a message first
    14p200   says grpc-retry-pushback-ms: 200   s0     stalls until it is cancelled
"""

import concurrent.futures
import re
import threading

import grpc

STATUSES = {code.value[0]: code for code in grpc.StatusCode}
WORD = re.compile(r"^([hms]*)(\d+)(?:p(.*))?$")


class Attempt:
    def __init__(self, server, context):
        self.server = server
        self.metadata = dict(context.invocation_metadata())
        self.left = context.time_remaining()
        self.gone = threading.Event()    # the call is over, at the server.
        self.cancelled = False           # before it had ended.
        self.body = b""

    @property
    def previous(self):
        return self.metadata.get("grpc-previous-rpc-attempts")


class Calls:
    """All attempts by their key; shared by servers."""

    def __init__(self):
        self.lock = threading.Lock()
        self.of = {}

    def begin(self, attempt):
        """Its number among those of its call."""
        with self.lock:
            attempts = self.of.setdefault(attempt.metadata.get("x-key", ""), [])
            attempts.append(attempt)
            return len(attempts) - 1


class Server(grpc.GenericRpcHandler):
    def __init__(self, name, calls, port=0):
        self.name = name
        self.calls = calls
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32),
                                  options=(("grpc.so_reuseport", 0),))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:%d" % port)
        self.server.start()

    def stop(self):
        self.server.stop(grace=None).wait(5)

    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(self._behave)

    def _behave(self, requests, context):
        attempt = Attempt(self.name, context)
        context.add_callback(attempt.gone.set)
        words = attempt.metadata.get("x-script", "0").split()
        word = words[min(self.calls.begin(attempt), len(words) - 1)]
        letters, status, pushback = WORD.match(word).groups()
        if "h" in letters:
            context.send_initial_metadata((("x-server", self.name),))
        attempt.body = b"".join(requests)
        if "m" in letters:
            yield b"first from " + self.name.encode()
        if "s" in letters:
            attempt.gone.wait(120)
            attempt.cancelled = True
            return
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        if int(status):
            context.abort(STATUSES[int(status)], "as told by " + self.name)
        yield b"answer of " + self.name.encode()
