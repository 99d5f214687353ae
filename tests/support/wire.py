"""A wire between a program of ours and a server, which tests cut.

    wire = Wire(("127.0.0.1", server.port)).start()
    wire.freeze()      # bytes go nowhere, connections stay: a network that loses everything
    wire.cut()         # connections are reset and new ones refused at once
    wire.mend()
"""

import select
import socket
import threading

CHUNK = 1 << 16


class Wire:
    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.pairs = {}  # each socket to the one that it is tied to.
        self.state = "whole"
        self.closing = False
        self.wake_read, self.wake_write = socket.socketpair()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def freeze(self):
        self._set("frozen")

    def cut(self):
        self._set("cut")
        with self.lock:
            for end in list(self.pairs):
                self._drop(end)

    def mend(self):
        self._set("whole")

    def close(self):
        self.closing = True
        self._wake()
        self.thread.join(5)

    def _set(self, state):
        with self.lock:
            self.state = state
        self._wake()

    def _wake(self):
        self.wake_write.send(b"x")

    def _drop(self, end):
        other = self.pairs.pop(end, None)
        if other is not None:
            self.pairs.pop(other, None)
            other.close()
        end.close()

    def _accept(self):
        near, _ = self.listener.accept()
        if self.state == "cut":
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            near.close()  # reset.
            return
        try:
            far = socket.create_connection(self.target, 5)
        except OSError:
            near.close()
            return
        self.pairs[near] = far
        self.pairs[far] = near

    def _carry(self, end):
        other = self.pairs.get(end)
        if other is None:
            return
        try:
            data = end.recv(CHUNK)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._drop(end)

    def _run(self):
        while not self.closing:
            with self.lock:
                carried = [] if self.state == "frozen" else list(self.pairs)
                watched = [self.wake_read] + carried
                if self.state != "frozen":  # the kernel takes them; nobody answers.
                    watched.append(self.listener)
            for end in select.select(watched, [], [])[0]:
                with self.lock:
                    if end is self.wake_read:
                        end.recv(64)
                    elif end is self.listener:
                        self._accept()
                    elif self.state != "frozen":
                        self._carry(end)
        with self.lock:
            for end in list(self.pairs):
                self._drop(end)
        for end in (self.listener, self.wake_read, self.wake_write):
            end.close()
