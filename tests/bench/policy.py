"""policy: nanoseconds of a decision about one target, by 10, 1,000 and 10,000 rules.

The node's own walk, from the part that the compiler makes, without and with the cache of decisions;
beside Cedar and Casbin with the same rules and requests, all that can be parsed beforehand parsed.
Each engine's answers are compared with Trilane's. The peers are built at the first run, from
crates.io and the Go module proxy; one that cannot be had is said so.
"""

import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import bench
import trilane

SIZES = [int(n) for n in os.environ.get("TRILANE_BENCH_RULES", "10,1000,10000").split(",")]
ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "5"))
MS = int(float(os.environ.get("TRILANE_BENCH_SECONDS", "1")) * 1000)
REQUESTS = 10000
PEERS = bench.BENCH / "peers"
ENVIRONMENT = """\
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: bench}
spec: {security: dev, trustDomain: bench.example}
"""
RESOURCE = "---\napiVersion: trilane.dev/v1\nkind: %s\nmetadata: {name: %s, tenant: %s}\n"


# ---- rules and requests ----

def make_rules(count, chance):
    """[(effect, caller, tenant, method)], each but the effect may be None: any."""
    rules = []
    for index in range(count):
        package, kind = chance.randrange(count), chance.random()
        method = "/p%d.S/%s" % (package, "*" if chance.random() < 0.4 else "Get")
        caller = "%s/s%d" % (chance.choice(("acme", "globex")), index)
        if kind < 0.85:
            rules.append(("allow", caller, None, method))
        elif kind < 0.95:
            rules.append(("allow", None, chance.choice(("acme", "globex")), method))
        else:
            rules.append(("deny", caller if chance.random() < 0.5 else None, None, method))
    return rules


def make_requests(rules, chance):
    """Half of them made to fit some rule's caller and method."""
    requests = []
    for _ in range(REQUESTS):
        _, caller, _, method = chance.choice(rules)
        other = chance.choice(rules)
        if chance.random() < 0.5:
            method = other[3]
        caller = caller or "%s/s%d" % (chance.choice(("acme", "globex")),
                                       chance.randrange(len(rules)))
        word = chance.choice(("Get", "List"))
        requests.append((caller, caller.split("/")[0], method.replace("*", word)))
    return requests


def as_yaml(rules):
    services = sorted({rule[1] for rule in rules if rule[1]} | {"acme/orders", "globex/other"})
    out = [ENVIRONMENT]
    for service in services:
        tenant, name = service.split("/")
        out.append(RESOURCE % ("Service", name, tenant) + "spec: {}\n")
    out.append("---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p}\n"
               "spec:\n  target: {service: acme/orders}\n  rules:\n")
    for index, (effect, caller, tenant, method) in enumerate(rules):
        who = ("callers: [{service: %s}], " % caller if caller
               else "callers: [{tenant: %s}], " % tenant if tenant else "")
        out.append('    - {name: r%d, effect: %s, %smethods: ["%s"]}\n'
                   % (index, effect, who, method))
    return "".join(out)


def as_cedar(rules):
    out = []
    for effect, caller, tenant, method in rules:
        who = ('principal == Service::"%s"' % caller if caller
               else 'principal in Tenant::"%s"' % tenant if tenant else "principal")
        what = "like" if "*" in method else "=="
        out.append('%s(%s, action == Action::"call", resource == Service::"acme/orders") '
                   'when { context.method %s "%s" };\n'
                   % ("permit" if effect == "allow" else "forbid", who, what, method))
    return "".join(out)


def cedar_entities(requests):
    entities = [{"uid": {"type": "Tenant", "id": tenant}, "attrs": {}, "parents": []}
                for tenant in ("acme", "globex")]
    for caller in sorted({request[0] for request in requests}):
        entities.append({"uid": {"type": "Service", "id": caller}, "attrs": {},
                         "parents": [{"type": "Tenant", "id": caller.split("/")[0]}]})
    return json.dumps(entities)


def as_casbin(rules):
    return "".join("p, %s, %s, %s, %s\n" % (caller or "-", tenant or "-", method, effect)
                   for effect, caller, tenant, method in rules)


# ---- peers ----

def build(name, argv, environment, product):
    """Builds a peer into the build folder; its program, or a sentence why there is none."""
    folder = trilane.SOURCE / "build" / "peers" / name
    if (folder / product).exists():
        return folder / product, None
    if shutil.which(argv[0]) is None:
        return None, "no %s on this machine" % argv[0]
    shutil.copytree(PEERS / name, folder, dirs_exist_ok=True)
    print("building %s into %s" % (name, folder), flush=True)
    try:
        done = subprocess.run(argv, cwd=folder, env=dict(os.environ, **environment), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=600)
    except subprocess.TimeoutExpired:
        return None, "its build takes more than ten minutes"
    if done.returncode != 0 or not (folder / product).exists():
        return None, "its build failed: " + (done.stdout.strip().splitlines() or ["?"])[-1][:200]
    return folder / product, None


def peers():
    """{name: (program or None, why not)}"""
    return {"cedar": build("cedar", ["cargo", "build", "--release", "--quiet"], {},
                           "target/release/cedar-peer"),
            "casbin": build("casbin", ["go", "build", "-o", "casbin-peer", "."],
                            {"GOFLAGS": "-mod=mod"}, "casbin-peer")}


# ---- runs ----

def prepare(directory, count):
    """The files of one size; {engine: its arguments}."""
    chance = random.Random(count)
    rules = make_rules(count, chance)
    requests = make_requests(rules, chance)
    files = {"rules.yaml": as_yaml(rules), "rules.cedar": as_cedar(rules),
             "entities.json": cedar_entities(requests), "rules.csv": as_casbin(rules),
             "requests.tsv": "".join("\t".join(request) + "\n" for request in requests)}
    for name, text in files.items():
        (directory / name).write_text(text)
    asked = directory / "requests.tsv"
    return {"trilane": [directory / "rules.yaml", asked],
            "cedar": [directory / "rules.cedar", directory / "entities.json", asked],
            "casbin": [PEERS / "casbin" / "model.conf", directory / "rules.csv", asked]}


def run(program, arguments):
    argv = [str(word) for word in [program] + arguments + [MS]]
    done = subprocess.run(bench.pinned(bench.PROGRAM_CORE, argv), stdout=subprocess.PIPE,
                          check=True, timeout=300)
    return json.loads(done.stdout)


def same_answers(ours, theirs):
    """How many answers both gave, and that they are the same ones."""
    count = min(len(ours), len(theirs))
    wrong = [i for i in range(count) if ours[i] != theirs[i]]
    assert not wrong, "request %d is decided otherwise" % wrong[0]
    return count


def measure(programs):
    """{size: {engine: [run]}}, engines in random order."""
    results = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as name:
            arguments = prepare(pathlib.Path(name), size)
            results[size] = {engine: [] for engine in programs}
            for _ in range(ROUNDS):
                for engine in bench.shuffled(programs):
                    results[size][engine].append(run(programs[engine], arguments[engine]))
            ours = results[size]["trilane"][0]["verdicts"]
            assert "0" in ours and "1" in ours
            for engine in programs:
                for one in results[size][engine]:
                    one["compared"] = same_answers(ours, one.pop("verdicts"))
    return results


def row_of(results, engine, field="ns"):
    """The largest size's spread, and each size's median."""
    row = bench.spread([one[field] for one in results[SIZES[-1]][engine]])
    row["sizes"] = {str(size): bench.spread([one[field] for one in results[size][engine]])["median"]
                    for size in SIZES}
    return row


def goals_of(ours, rows):
    first, last = str(SIZES[0]), str(SIZES[-1])
    goals = {"growth": (ours["sizes"][last] / ours["sizes"][first],
                        math.log(SIZES[-1]) / math.log(SIZES[0]), "<=")}
    for name, row in rows.items():
        goals["%s.%s" % (name, first)] = (row["sizes"][first] / ours["sizes"][first], 50, ">=")
        goals["%s.%s" % (name, last)] = (row["sizes"][last] / ours["sizes"][last], 1000, ">=")
    return goals


def main():
    found = peers()
    programs = {"trilane": trilane.BUILD / "bench-policy"}
    programs.update({name: program for name, (program, _) in found.items() if program})
    quiet = bench.Quiet()
    results = measure(programs)
    state = quiet.report()
    ours = row_of(results, "trilane")
    cached = row_of(results, "trilane", "cached_ns")
    ours["cached"] = cached["sizes"]
    ours["compile_ms"] = row_of(results, "trilane", "compile_ms")["sizes"]
    ours["part_bytes"] = row_of(results, "trilane", "part_bytes")["sizes"]
    rows = {name: row_of(results, name) for name in programs if name != "trilane"}
    ratio = {name: row["median"] / ours["median"] for name, row in rows.items()}
    bench.write("policy", "ns", "lower", ROUNDS, ours, rows, ratio, {
        "sizes": SIZES, "machine": state, "missing": {
            name: why for name, (_, why) in found.items() if why}, "all": results},
        goals=goals_of(ours, rows))
    print("%-16s" % "rules" + "".join("%14d" % size for size in SIZES) + "  decisions a second")
    for name, sizes in [("trilane", ours["sizes"]), ("trilane, cached", cached["sizes"])] + [
            (name, row["sizes"]) for name, row in sorted(rows.items())]:
        print("%-16s" % name + "".join("%14.0f" % (1e9 / sizes[str(size)]) for size in SIZES))
    for name, (_, why) in found.items():
        if why:
            print("%-16s not here: %s" % (name, why))
    bench.warn([state])


if __name__ == "__main__":
    main()
