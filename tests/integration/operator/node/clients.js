// Calls Echo through a node with the clients that pages are written with: connect-node over HTTP/1.1
// and HTTP/2, improbable-eng's over HTTP and WebSocket, and grpc-web over XHR.
//
//     node clients.js PORT DESCRIPTORS
//
// One line for each client that finds all as it should be; anything else ends with 1.
"use strict";

const assert = require("assert");
const fs = require("fs");

const [port, descriptors] = process.argv.slice(2);
const host = "http://127.0.0.1:" + port;
const SERVICE = "trilane.test.v1.Echo";
const WEB = {authorization: "Bearer web-token"};

// What is asked, with which headers, and the gRPC status that must come of it.
const FAILURES = [
    ["fail", WEB, 15],
    ["trailers-only", WEB, 5],
    ["unauthenticated", {}, 16],
    ["denied", {authorization: "Bearer stranger-token"}, 7],
];

// ---- connect-node ----

async function* words(count) {
    for (let i = 0; i < count; i++) {
        yield {text: "w" + i};
    }
}

async function connectOver(httpVersion) {
    const {createClient, ConnectError} = require("@connectrpc/connect");
    const {createGrpcWebTransport} = require("@connectrpc/connect-node");
    const {createFileRegistry, fromBinary} = require("@bufbuild/protobuf");
    const {FileDescriptorSetSchema} = require("@bufbuild/protobuf/wkt");
    const files = fromBinary(FileDescriptorSetSchema, fs.readFileSync(descriptors));
    const client = createClient(createFileRegistry(files).getService(SERVICE),
        createGrpcWebTransport({baseUrl: host, httpVersion}));

    let trailers;
    const options = {headers: WEB, onTrailer: (t) => { trailers = t; }};
    assert.equal((await client.say({text: "hi"}, options)).text, "hi from a");
    assert.equal(trailers.get("x-trailer"), "yes");

    let count = 0;
    const many = {text: "m", count: 100, filler: new Uint8Array(5000)};
    for await (const word of client.sayMany(many, {headers: WEB})) {
        assert.equal(word.count, count++);
    }
    assert.equal(count, 100);
    assert.equal((await client.collect(words(20), {headers: WEB})).count, 20);

    for (const [text, headers, code] of FAILURES) {
        await assert.rejects(client.say({text}, {headers}),
            (e) => e instanceof ConnectError && e.code === code);
    }
    if (httpVersion === "2") { // it sends no stream by HTTP/1.1 before it ends.
        count = 0;
        for await (const word of client.chat(words(20), {headers: WEB})) {
            assert.equal(word.text, "re: w" + count++);
        }
        assert.equal(count, 20);
    }
}

// ---- messages of the older clients, which bring no reflection: text = 1, count = 2 ----

class Words {
    constructor(text, count = 0) {
        this.text = text;
        this.count = count;
    }

    serializeBinary() {
        const text = Buffer.from(this.text);
        return Uint8Array.from([10, text.length, ...text, 16, this.count]);
    }

    toObject() {
        return this;
    }

    static deserializeBinary(bytes) {
        const word = new Words("");
        for (let i = 0; i < bytes.length;) {
            if (bytes[i] === 10) {
                word.text = Buffer.from(bytes.slice(i + 2, i + 2 + bytes[i + 1])).toString();
                i += 2 + bytes[i + 1];
            } else {
                word.count = bytes[i + 1];
                i += 2;
            }
        }
        return word;
    }
}

// ---- improbable-eng ----

// A call to its end; 'answer' is given each message and says what to send next (null: no more).
function improbable(transport, name, first, headers, answer) {
    const {grpc} = require("@improbable-eng/grpc-web");
    const streams = {Say: [false, false], SayMany: [false, true], Chat: [true, true]}[name];
    const method = {
        methodName: name, service: {serviceName: SERVICE}, requestStream: streams[0],
        responseStream: streams[1], requestType: Words, responseType: Words,
    };
    return new Promise((resolve) => {
        const result = {got: []};
        const client = grpc.client(method, {host, transport});
        client.onHeaders((headers) => { result.headers = headers; });
        client.onMessage((word) => {
            result.got.push(word.text);
            const next = answer ? answer(result.got) : undefined;
            if (next) {
                client.send(next);
            } else if (next === null) {
                client.finishSend();
            }
        });
        client.onEnd((code, message, trailers) => resolve({...result, code, message, trailers}));
        client.start(new grpc.Metadata(headers));
        client.send(first);
        if (!answer) {
            client.finishSend();
        }
    });
}

async function improbableOver(transport) {
    let result = await improbable(transport, "Say", new Words("hi"), WEB);
    assert.equal(result.code, 0, result.message);
    assert.deepEqual(result.got, ["hi from a"]);
    assert.deepEqual(result.headers.get("x-server"), ["a"]);
    assert.deepEqual(result.trailers.get("x-trailer"), ["yes"]);
    result = await improbable(transport, "SayMany", new Words("m", 50), WEB);
    assert.deepEqual([result.code, result.got.length], [0, 50]);
    for (const [text, headers, code] of FAILURES) {
        result = await improbable(transport, "Say", new Words(text), headers);
        assert.equal(result.code, code, result.message);
    }
}

async function improbableBothWays(transport) {
    const result = await improbable(transport, "Chat", new Words("0"), WEB,
        (got) => got.length < 20 ? new Words("" + got.length) : null);
    assert.equal(result.code, 0, result.message);
    assert.deepEqual(result.got, [...Array(20).keys()].map((i) => "re: " + i));
}

// ---- grpc-web ----

async function official(format) {
    const web = require("grpc-web");
    const client = new web.GrpcWebClientBase({format});
    const method = (name, type) => [`${host}/${SERVICE}/${name}`, new web.MethodDescriptor(
        `/${SERVICE}/${name}`, type, Words, Words, (w) => w.serializeBinary(),
        Words.deserializeBinary)];
    const [say, unary] = method("Say", web.MethodType.UNARY);
    assert.equal((await client.unaryCall(say, new Words("hi"), WEB, unary)).text, "hi from a");
    for (const [text, headers, code] of FAILURES) {
        const errors = await new Promise((resolve) => {
            const heard = [];
            client.rpcCall(say, new Words(text), headers, unary, (e) => {
                heard.push(e.code);
                setImmediate(() => resolve(heard)); // one more would come in the same turn.
            });
        });
        assert.deepEqual(errors, [code]);
    }
    const [sayMany, streaming] = method("SayMany", web.MethodType.SERVER_STREAMING);
    await new Promise((resolve, reject) => {
        let count = 0;
        const stream = client.serverStreaming(sayMany, new Words("m", 30), WEB, streaming);
        stream.on("data", () => { count++; });
        stream.on("error", reject);
        stream.on("end", () => resolve(assert.equal(count, 30)));
    });
}

// ---- all of them ----

async function main() {
    global.WebSocket = require("ws");
    global.XMLHttpRequest = require("xhr2");
    const {grpc} = require("@improbable-eng/grpc-web");
    const {NodeHttpTransport} = require("@improbable-eng/grpc-web-node-http-transport");
    const sockets = grpc.WebsocketTransport();
    for (const [name, run] of [
        ["connect-node over HTTP/1.1", () => connectOver("1.1")],
        ["connect-node over HTTP/2", () => connectOver("2")],
        ["improbable-eng over HTTP", () => improbableOver(NodeHttpTransport())],
        ["improbable-eng over WebSocket", () => improbableOver(sockets)],
        ["improbable-eng both ways over WebSocket", () => improbableBothWays(sockets)],
        ["grpc-web in text", () => official("text")],
        ["grpc-web in binary", () => official("binary")],
    ]) {
        await run();
        console.log(name);
    }
}

main().then(() => process.exit(0), (e) => {
    console.error(e);
    process.exit(1);
});
