"""An issuer of JSON Web Tokens: keys of each kind, a key set that an HTTPS server gives out, and
tokens of any claims. It signs by the `cryptography` library, not by anything of ours."""

import base64
import http.server
import json
import ssl
import threading
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVES = {"ES256": (ec.SECP256R1, "P-256", 32), "ES384": (ec.SECP384R1, "P-384", 48),
          "ES512": (ec.SECP521R1, "P-521", 66)}
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
              "EdDSA"]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Key:
    """A private key for some algorithms, by its name."""

    def __init__(self, kid, alg):
        self.kid = kid
        self.alg = alg
        if alg == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        elif alg in CURVES:
            self.private = ec.generate_private_key(CURVES[alg][0]())
        else:
            self.private = rsa.generate_private_key(65537, 2048)

    def jwk(self):
        public = self.private.public_key()
        if self.alg == "EdDSA":
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
            raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
            shape = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
        elif self.alg in CURVES:
            _, name, size = CURVES[self.alg]
            point = public.public_numbers()
            shape = {"kty": "EC", "crv": name, "x": b64(point.x.to_bytes(size, "big")),
                     "y": b64(point.y.to_bytes(size, "big"))}
        else:
            numbers = public.public_numbers()
            shape = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        return dict(shape, kid=self.kid, use="sig")

    def sign(self, alg, data):
        if alg == "EdDSA":
            return self.private.sign(data)
        digest = HASHES[alg[2:]]()
        if alg in CURVES:
            r, s = utils.decode_dss_signature(self.private.sign(data, ec.ECDSA(digest)))
            size = CURVES[alg][2]
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if alg.startswith("RS"):
            return self.private.sign(data, padding.PKCS1v15(), digest)
        return self.private.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)


class Issuer:
    """Its keys, and the server that gives them out."""

    def __init__(self, name, keys):
        self.name = name
        self.keys = list(keys)
        self.reads = 0
        self.document = None  # of OpenID Connect Discovery; None: there is none.
        self.server = None
        self.port = 0
        self.chain = None

    def serve(self, cert, key, port=0):
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.reads += 1
                discovers = self.path.endswith("/.well-known/openid-configuration")
                body = json.dumps(issuer.document if discovers else
                                  {"keys": [k.jwk() for k in issuer.keys]}).encode()
                found = issuer.document is not None if discovers else self.path == "/keys"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.chain = (cert, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def away(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def back(self):
        return self if self.server else self.serve(*self.chain, port=self.port)

    @property
    def uri(self):
        return "https://localhost:%d/keys" % self.port

    def token(self, key=None, alg=None, header=None, life=600, **claims):
        """A token; claims that are None are left out."""
        key = key or self.keys[0]
        alg = alg or key.alg
        head = dict({"alg": alg, "typ": "JWT", "kid": key.kid}, **(header or {}))
        body = dict({"iss": self.name, "aud": "trilane", "sub": "alice",
                     "exp": int(time.time()) + life}, **claims)
        parts = [b64(json.dumps({n: v for n, v in part.items() if v is not None}).encode())
                 for part in (head, body)]
        text = ".".join(parts)
        return text + "." + b64(key.sign(alg, text.encode()))
