"""hello-canonical: a service of the sample platform that speaks through events.

    hello_canonical.py PORT PUBLISH_NODE SUBSCRIBE_NODE

It publishes Greeting.v1 through trilane.bus.v1.Bus on one node and subscribes through another. Its
own small HTTP interface: POST /greet {"to", "text", "count"} publishes; GET /greetings tells what
arrived, in order.
"""

import datetime
import http.server
import json
import queue
import signal
import sys
import threading
import time
import uuid

import bus_pb2
import bus_pb2_grpc
import greeting_pb2
import grpc

TOKEN = (("authorization", "Bearer demo-hello-canonical-token"),)
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500))


class Inbox:
    """A subscription that begins anew whenever its stream ends, and what it has received."""

    def __init__(self, node):
        self.stub = bus_pb2_grpc.BusStub(grpc.insecure_channel(node, options=OPTIONS))
        self.lock = threading.Lock()
        self.greetings = []
        self.opened = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                self._subscribe()
            except grpc.RpcError as error:
                print("subscription ended: %s" % error.details(), flush=True)
            self.opened = False
            time.sleep(0.2)

    def _subscribe(self):
        requests = queue.Queue()
        requests.put(bus_pb2.SubscribeRequest(open=bus_pb2.Open(
            consumer="hello-canonical", types=["Greeting.v1"], credit=100)))
        for answer in self.stub.Subscribe(iter(requests.get, None), metadata=TOKEN):
            if answer.opened:
                self.opened = True
                continue
            self._take(answer)
            requests.put(bus_pb2.SubscribeRequest(ack=[answer.delivery], credit=1))

    def _take(self, answer):
        greeting = greeting_pb2.Greeting.FromString(answer.envelope.payload)
        with self.lock:
            self.greetings.append({
                "event_id": answer.envelope.event_id, "type": answer.envelope.canonical_type,
                "text": greeting.text, "to": greeting.to, "tenant": answer.envelope.tenant,
                "attempt": answer.attempt, "headers": dict(answer.envelope.headers)})

    def state(self):
        with self.lock:
            return {"opened": self.opened, "greetings": list(self.greetings)}


class Outbox:
    def __init__(self, node):
        self.stub = bus_pb2_grpc.BusStub(grpc.insecure_channel(node, options=OPTIONS))

    def greet(self, to, text, count):
        """Publishes; the ids and stream sequences of what JetStream has."""
        done = []
        for number in range(count):
            greeting = greeting_pb2.Greeting(**{"from": "hello-canonical", "to": to,
                                                "text": text % number if "%" in text else text})
            greeting.said_at.FromDatetime(datetime.datetime.now(datetime.timezone.utc).replace(
                tzinfo=None))
            answer = self.stub.PublishOne(bus_pb2.PublishRequest(envelope=bus_pb2.Envelope(
                event_id=str(uuid.uuid4()), canonical_type="Greeting.v1", key=to,
                payload=greeting.SerializeToString())), metadata=TOKEN, timeout=20)
            done.append({"event_id": answer.event_id, "sequence": answer.sequence})
        return done


class Api(http.server.BaseHTTPRequestHandler):
    inbox = None
    outbox = None

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._answer(200, self.inbox.state())

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            self._answer(200, self.outbox.greet(request["to"], request["text"],
                                                request.get("count", 1)))
        except grpc.RpcError as error:
            self._answer(502, {"grpc": error.code().name, "message": error.details()})

    def log_message(self, *args):
        pass


def main(port, publish_node, subscribe_node):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Api.inbox = Inbox(subscribe_node)
    Api.outbox = Outbox(publish_node)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Api).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
