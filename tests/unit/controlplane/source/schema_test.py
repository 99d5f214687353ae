#!/usr/bin/python3
"""The JSON Schemas are valid, and judge as the loader does, by a real validator.

Every document of policies/ is accepted by the schema that its file names; so is every example of
docs/resources.md; documents that break a rule of shape are refused.
"""
import copy
import json
import os
import pathlib
import re
import sys

import jsonschema
import yaml

ROOT = pathlib.Path(os.environ["TRILANE_SOURCE_DIR"])
SCHEMAS = {p.stem: json.loads(p.read_text()) for p in sorted((ROOT / "policies/schema").glob("*.json"))}
VALIDATORS = {kind: jsonschema.Draft202012Validator(schema) for kind, schema in SCHEMAS.items()}
failures = []


def expect(good, what):
    if not good:
        failures.append(what)


def valid(document):
    return VALIDATORS[document["kind"]].is_valid(document)


def path_set(document, path, value):
    """A copy with the value at a path of keys and indexes; KeyError when the way is not there."""
    changed = copy.deepcopy(document)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def documents(text):
    return [d for d in yaml.safe_load_all(text) if d is not None]


for kind, schema in SCHEMAS.items():
    jsonschema.Draft202012Validator.check_schema(schema)
expect(len(SCHEMAS) == 10, "ten kinds")

samples = {}
for file in sorted((ROOT / "policies").glob("*/*.yaml")):
    text = file.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    expect(named, f"{file} names its schema")
    for document in documents(text):
        kind = document["kind"]
        samples.setdefault(kind, document)
        expect((file.parent / named[1]).resolve() == ROOT / f"policies/schema/{kind}.json",
               f"{file} names the schema of {kind}")
        errors = [e.message for e in VALIDATORS[kind].iter_errors(document)]
        expect(not errors, f"{file}: {errors}")
expect(samples.keys() == SCHEMAS.keys(), "policies/ uses every kind")

page = (ROOT / "docs/resources.md").read_text()
examples = [d for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "…" not in block
            for d in documents(block)]
expect(len(examples) == 10, "an example of each kind")
for document in examples:
    expect(valid(document), f"the example of {document['kind']}")

REFUSED = [
    ("Service", ("spec", "nothing"), 1),
    ("Service", ("metadata", "name"), "Bad_Name"),
    ("Service", ("metadata", "name"), "a" * 64),
    ("Service", ("apiVersion",), "trilane.dev/v2"),
    ("Service", ("spec", "endpoints"), [{"address": "10.0.0.1", "port": 65536}]),
    ("Service", ("spec", "endpoints"), [{"address": "10.0.0.1", "port": "80"}]),
    ("Service", ("spec", "endpoints"), [{"port": 80}]),
    ("Service", ("spec", "tokens"), ["demo-web-token"]),
    ("Service", ("spec", "traits"), {"version": 1.0}),
    ("Environment", ("spec", "security"), "lax"),
    ("Environment", ("metadata", "tenant"), "acme"),
    ("Environment", ("spec", "bus", "partitions"), 0),
    ("TransportProfile", ("spec", "timeout"), 250),
    ("TransportProfile", ("spec", "timeout"), "250sec"),
    ("TransportProfile", ("spec", "requestMessage"), "64KB"),
    ("RateLimit", ("spec", "rate"), "100"),
    ("RateLimit", ("spec", "by"), ["caller", "caller"]),
    ("RateLimit", ("spec", "target"), {"service": "a", "topic": "A.v1"}),
    ("Policy", ("spec", "rules"), []),
    ("Policy", ("spec", "rules", 0, "effect"), "maybe"),
    ("Policy", ("spec", "rules", 0, "callers"), [{}]),
    ("Policy", ("spec", "rules", 0, "headers"), [{"name": "x-a", "value": "b", "present": True}]),
    ("Policy", ("spec", "rules", 0, "headers"), [{"name": "x-a", "present": False}]),
    ("Route", ("spec", "match"), [{"path": {"prefix": "/"}, "grpc": {"service": "a.B"}}]),
    ("Route", ("spec", "hosts"), ["*.*.example"]),
    ("Egress", ("spec", "hosts"), ["*"]),
    ("Egress", ("spec", "ports"), [0]),
    ("Topic", ("spec", "descriptorSet"), {}),
    ("Topic", ("spec", "version"), "1.0"),
    ("Revocation", ("metadata", "tenant"), "acme"),
    ("Revocation", ("spec",), {"reason": "nothing in it"}),
    ("Revocation", ("spec", "tokens"), ["demo-web-token"]),
    ("Revocation", ("spec", "tokens"), []),
    ("Revocation", ("spec", "certificates"), ["0a:1b"]),
    ("Revocation", ("spec", "certificates"), [1234]),
    ("Revocation", ("spec", "identities"), ["http://demo.trilane.test/a"]),
    ("Revocation", ("spec", "types"), ["Greeting"]),
    ("Revocation", ("spec", "subjects"), ["alice"]),
    ("Issuer", ("spec", "algorithms"), ["HS256"]),
    ("Issuer", ("spec", "algorithms"), []),
    ("Issuer", ("spec", "audiences"), []),
    ("Issuer", ("spec", "issuer"), "https://id.example.com#a"),
    ("Issuer", ("spec", "jwks"), {}),
    ("Issuer", ("spec", "jwks"), {"uri": "http:/keys"}),
    ("Issuer", ("spec", "jwks"), {"uri": "https://a/b", "inline": "{}"}),
    ("Issuer", ("spec", "tenants"), [{"tenant": "a", "claim": "b"}]),
    ("Issuer", ("spec", "tenants"), [{"when": [{"claim": "a"}], "tenant": "b"}]),
]
for kind, path, value in REFUSED:
    expect(not valid(path_set(samples[kind], path, value)), f"{kind} {path} = {value!r} is accepted")
for kind, sample in samples.items():
    for key in ("apiVersion", "metadata", "spec"):
        broken = copy.deepcopy(sample)
        del broken[key]
        expect(not valid(broken), f"{kind} without {key} is accepted")

for failure in failures:
    print(failure, file=sys.stderr)
print(f"{len(samples)} kinds, {len(REFUSED)} refusals, {len(failures)} failures")
sys.exit(1 if failures else 0)
