"""Asks the graph kernel, a program of its own, for what is not in the index.

One process per question, with a time limit and a bound on how many run at once. The program gets
an empty environment and no terminal; its arguments are a list, never a shell's text.
"""

import json
import subprocess
import threading

TIMEOUT_S = 10
PROCESSES_MAX = 4


class KernelError(Exception):
    """The kernel gave no answer; the message says why."""


class Kernel:
    """The program and the tables that it reads."""

    def __init__(self, program, entities, links):
        self._command = [program, "path", "--entities", entities, "--links", links]
        self._slots = threading.BoundedSemaphore(PROCESSES_MAX)

    def path(self, start, end, measure, max_hops=None):
        """The shortest path between two known entities, as `graph_tool path` prints it."""
        command = [*self._command, "--from", start, "--to", end, "--by", measure]
        if max_hops is not None:
            command += ["--max-hops", str(max_hops)]
        # An empty pipe stands in for /dev/null, which a bare root file system does not have.
        with self._slots:
            try:
                done = subprocess.run(
                    command, input=b"", capture_output=True, timeout=TIMEOUT_S, env={}, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise KernelError(str(error)) from error
        if done.returncode != 0:
            raise KernelError(done.stderr.decode("utf-8", "replace").strip())
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise KernelError("the answer is not JSON") from error
