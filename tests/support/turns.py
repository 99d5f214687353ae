"""The least sources that can be published, another content each turn; with more behind them."""

PLATFORM = """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: %s}
spec: {security: dev, trustDomain: trilane.test%s}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: web, tenant: acme}
spec: {traits: {turn: "%s"}}
"""
REVOCATION = """
---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: one}
spec: {certificates: ["0A"]}
"""


def write(platform, turn, more="", environment=""):
    """Replaces a Platform's sources; 'more': other resources; 'environment': other fields of its
    spec. Returns their directory."""
    text = PLATFORM % (platform.environment, environment, turn) + more
    return platform.write_policies({"platform.yaml": text})
