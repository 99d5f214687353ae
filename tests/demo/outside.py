"""outside: a web server on loopback that plays the outside world.

    outside.py PORT

Every path answers with what arrived: method, path and headers.
"""

import http.server
import json
import signal
import sys


class Outside(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _echo(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = json.dumps({"method": self.command, "path": self.path, "bytes": len(body),
                             "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = _echo

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Outside).serve_forever()
