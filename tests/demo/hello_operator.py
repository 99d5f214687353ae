"""hello-operator: a service of the sample platform, one process an endpoint.

    hello_operator.py PORT NAME

It serves trilane.demo.hello.v1.Hello, all four kinds of calls, and shows which headers of
Trilane's context arrived.
"""

import concurrent.futures
import signal
import sys
import threading
import time

import grpc
import hello_pb2
import hello_pb2_grpc

CONTEXT = ("x-tenant-id", "x-caller-id", "x-correlation-id", "x-request-id", "traceparent")


class Hello(hello_pb2_grpc.HelloServicer):
    def __init__(self, name):
        self.name = name

    def _reply(self, message, call):
        metadata = {key: value for key, value in call.invocation_metadata() if key in CONTEXT}
        return hello_pb2.HelloReply(message=message, served_by=self.name, context=metadata)

    def Say(self, request, context):
        time.sleep(request.delay_ms / 1000)
        return self._reply("Hello, %s!" % request.name, context)

    def SayMany(self, request, context):
        for number in range(request.count):
            time.sleep(request.delay_ms / 1000)
            yield self._reply("Hello %d, %s!" % (number + 1, request.name), context)

    def Collect(self, request_iterator, context):
        names = [request.name for request in request_iterator]
        return self._reply("Hello, %s!" % " and ".join(names), context)

    def Chat(self, request_iterator, context):
        for request in request_iterator:
            yield self._reply("Hello, %s!" % request.name, context)


def main(port, name):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    hello_pb2_grpc.add_HelloServicer_to_server(Hello(name), server)
    server.add_insecure_port("127.0.0.1:%s" % port)
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    ended.wait()
    server.stop(0.5).wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
