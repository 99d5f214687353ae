"""A program that is stopped where it holds up nobody else."""

import pathlib
import signal
import sqlite3

from trilane import wait_until


def states_of(program):
    """Of its threads: all go on until one of them takes a SIGSTOP for all."""
    tasks = pathlib.Path("/proc/%d/task" % program.popen.pid)
    return {(t / "stat").read_text().rsplit(")", 1)[1].split()[0] for t in tasks.iterdir()}


def stop(program):
    """SIGSTOP, until each of its threads stands still."""
    program.signal(signal.SIGSTOP)
    wait_until(lambda: states_of(program) == {"T"}, 60, "it stands still", step=0.0005)


def stop_between_transactions(cp, database):
    """A process that is stopped within one keeps SQLite's lock: see docs/operations.md."""
    while True:
        stop(cp)
        db = sqlite3.connect(database, timeout=0, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            cp.signal(signal.SIGCONT)
        finally:
            db.close()
