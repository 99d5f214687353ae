"""The ceremony of keys and roots for tests, by the commands that people use."""

import pathlib


class Ceremony:
    """Keys and roots of a Platform; root n is at root(n)."""

    def __init__(self, platform):
        self.platform = platform
        self.keys = platform.keys

    def generate(self, role, name):
        """The path of a new private key; its public half is beside it."""
        self.platform.command("key", "generate", "--role", role, "--out", self.keys, name)
        return self.keys / (name + ".key")

    def public(self, *names):
        return ",".join(str(self.keys / (name + ".pub")) for name in names)

    def root(self, version):
        return self.keys / ("root.%d" % version)

    def draft(self, version, *args):
        """root.<version>.draft out of the root before, by key rotate."""
        self.platform.command("key", "rotate", "--out", self.keys, *args, self.root(version - 1))
        return self.keys / ("root.%d.draft" % version)

    def revocation(self, version, *names):
        """The same by key revoke."""
        self.platform.command("key", "revoke", "--out", self.keys, self.root(version - 1), *names)
        return self.keys / ("root.%d.draft" % version)

    def sign(self, draft, *names):
        for name in names or ("root",):
            self.platform.command("root", "sign", "--key", self.keys / (name + ".key"), draft)
        return draft.with_suffix("")

    def next_root(self, version, *args, by=("root",)):
        return self.sign(self.draft(version, *args), *by)

    @staticmethod
    def hold(cp, role, key):
        """Puts a private key in the place of the one that a control plane was started with."""
        path = pathlib.Path(cp.flags["key-" + role])
        aside = path.with_suffix(".next")
        aside.write_text(key.read_text())
        aside.chmod(0o600)
        aside.rename(path)
