"""HAProxy and nginx with as many routes and rules as a large platform, and their reload: what stands
beside a publish. Their file lies ready on the disk of the very machine: no check, no signature, no
journal and no transport is in their time.
"""

import contextlib
import http.client
import signal
import threading
import time

import bench
import large_platform
import trilane


def haproxy_text(routes, port, version):
    """A path rule and a caller rule for each route, as ACLs; /version answers the version."""
    lines = ["global", "    maxconn 1000", "defaults", "    mode http", "    timeout connect 2s",
             "    timeout client 5s", "    timeout server 5s", "frontend callers",
             "    bind 127.0.0.1:%d" % port,
             "    http-request return status 200 content-type text/plain string %d "
             "if { path /version }" % version]
    for n in range(routes // large_platform.PER_SERVICE):
        for k in range(large_platform.PER_SERVICE):
            path = large_platform.path_of(n, k)
            name = "caller-%d" % (version if (n, k) == (0, 0) else n)
            lines.append("    http-request deny if { path_beg %s } !{ req.hdr(x-caller) %s }"
                         % (path, name))
            lines.append("    use_backend service-%d if { path_beg %s } METH_GET" % (n, path))
    for n in range(routes // large_platform.PER_SERVICE):
        lines += ["backend service-%d" % n, "    server one 127.0.0.1:%d" % (20000 + n % 10000)]
    return "\n".join(lines) + "\n"


def nginx_text(routes, port, version):
    """A location for each route, which asks for the caller; /version answers the version."""
    lines = ["daemon off;", "worker_processes 1;", "pid nginx.pid;", "error_log stderr error;",
             "events { worker_connections 1024; }", "http {", "access_log off;"]
    lines += ["%s_temp_path %s;" % (name, name) for name in ("proxy", "fastcgi", "uwsgi", "scgi")]
    lines += ["client_body_temp_path body;", "server {", "listen 127.0.0.1:%d;" % port,
              "location = /version { return 200 %d; }" % version]
    for n in range(routes // large_platform.PER_SERVICE):
        for k in range(large_platform.PER_SERVICE):
            name = "caller-%d" % (version if (n, k) == (0, 0) else n)
            lines.append('location %s { if ($http_x_caller != "%s") { return 403; } '
                         "proxy_pass http://127.0.0.1:%d; }"
                         % (large_platform.path_of(n, k), name, 20000 + n % 10000))
    return "\n".join(lines + ["}", "}"]) + "\n"


PEERS = {
    "haproxy": (haproxy_text, signal.SIGUSR2, lambda own: ["haproxy", "-W", "-f", own / "conf"]),
    "nginx": (nginx_text, signal.SIGHUP, lambda own: ["nginx", "-p", own, "-c", own / "conf"]),
}


def ask_version(connection):
    connection.request("GET", "/version")
    return int(connection.getresponse().read())


def version_at(port):
    """What a new connection is answered; None when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        return ask_version(connection)
    return None


class Callers:
    """Two that call without a pause, one over a connection that it keeps as long as it may, one over
    a new one each time. A call that has no answer is lost, and is not sent again."""

    def __init__(self, port):
        self.port = port
        self.calls = self.lost = 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=call, daemon=True)
                        for call in (self._keep, self._renew)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, problem, trace):
        self.ended.set()
        for thread in self.threads:
            thread.join(10)

    def _count(self, answered):
        self.calls += 1
        self.lost += not answered
        time.sleep(0.002)

    def _keep(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        while not self.ended.is_set():
            answered = False
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask_version(connection)
                answered = True
            if not answered:
                connection.close()
            self._count(answered)
        connection.close()

    def _renew(self):
        while not self.ended.is_set():
            self._count(version_at(self.port) is not None)


def measure(name, routes, reloads, directory, callers=False):
    """[live_ms] from the signal to the first new answer; with callers, what they lost meanwhile and
    until the old one has ended."""
    make, reload_signal, argv = PEERS[name]
    own, port, rows = directory / name, trilane.free_port(), []
    own.mkdir()
    (own / "conf").write_text(make(routes, port, 1))
    with contextlib.ExitStack() as stack:
        process = trilane.Process(name, own, argv(own))
        bench.start(stack, process, port)
        trilane.wait_until(lambda: version_at(port) == 1, what=name)
        for version in range(2, reloads + 2):
            (own / "conf").write_text(make(routes, port, version))
            bench.rest()
            with contextlib.ExitStack() as calling:
                load = calling.enter_context(Callers(port)) if callers else None
                start_ns = time.monotonic_ns()
                process.signal(reload_signal)
                trilane.wait_until(lambda v=version: version_at(port) == v, what=name, step=0.001)
                row = {"live_ms": (time.monotonic_ns() - start_ns) / 1e6}
                if load:
                    time.sleep(0.5)
            if load:
                row.update(calls=load.calls, lost=load.lost)
            rows.append(row)
    return rows
