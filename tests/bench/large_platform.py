"""A platform of many services as sources: so many routes, so many rules, evenly over services.

The same numbers give the same files, so that benches of different days compare.
"""

import base64

PER_SERVICE = 10  # routes; and rules, unless it is said how many.
TENANTS = 10

ENVIRONMENT = """apiVersion: trilane.dev/v1
kind: Environment
metadata:
  name: bench
spec:
  security: dev
  trustDomain: bench.test
"""

SERVICE = """apiVersion: trilane.dev/v1
kind: Service
metadata:
  name: service-{n}
  tenant: {tenant}
spec:
  traits:
    tier: {tier}
  grpcServices:
    - bench.s{n}.v1.Api
  endpoints:
    - address: 127.0.0.1
      port: {port}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata:
  name: service-{n}
  tenant: {tenant}
spec:
  target:
    service: service-{n}
  rules:
"""

RULE = """    - name: rule-{k}
      effect: {effect}
      verbs: [call]
      callers:
        - service: {caller}
          traits:
            tier: {tier}
      methods:
        - {methods}
"""

ROUTE = """---
apiVersion: trilane.dev/v1
kind: Route
metadata:
  name: service-{n}-{k}
  tenant: {tenant}
spec:
  match:
    - path:
        prefix: /api/service-{n}/{k}
      method: GET
  targets:
    - service: service-{n}
"""


def path_of(n, k):
    """The path that a route's match begins with."""
    return "/api/service-%d/%d" % (n, k)


def service_file(n, count, edit=0, rules=PER_SERVICE):
    """One service of 'count', its policy of so many rules and its routes; 'edit' changes its first
    rule."""
    tenant = "tenant-%d" % (n % TENANTS)
    # A caller of the same tenant, another one for each rule.
    same = [m for m in range(count) if m % TENANTS == n % TENANTS]
    text = SERVICE.format(n=n, tenant=tenant, tier=("gold", "silver")[n % 2],
                          port=20000 + n % 10000)
    for k in range(rules):
        methods = "/bench.s%d.v1.Api/Get%d*" % (n, k)
        if k == 0 and edit:
            methods = "/bench.s%d.v1.Api/Edit%d*" % (n, edit)
        text += RULE.format(k=k, effect="deny" if k == rules - 1 else "allow",
                            caller="service-%d" % same[(n // TENANTS + k + 1) % len(same)],
                            tier=("gold", "silver")[k % 2], methods=methods)
    for k in range(PER_SERVICE):
        text += ROUTE.format(n=n, k=k, tenant=tenant)
    return text


def sources(routes, edit=0, rules=0):
    """{name: text} with so many routes and rules (0: as many); 'edit' is a change of one rule."""
    count = routes // PER_SERVICE
    per_service = (rules or routes) // count
    files = {"environment.yaml": ENVIRONMENT}
    for n in range(count):
        changed = edit if n == count // 2 else 0
        files["service-%d.yaml" % n] = service_file(n, count, changed, per_service)
    return files


def as_json(files):
    """What the API takes as "files"."""
    return [{"name": name, "content": base64.b64encode(text.encode()).decode()}
            for name, text in sorted(files.items())]
