"""A Ray cluster of two nodes on the loopback address, each a tree of processes that can be killed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.slurm import free_ports, listens

STARTS_WITHIN_S = 60.0
NEW_NETWORK = 0x40000000
SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x41
"""Of Linux: a network namespace, and what brings an interface up."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The address of a cluster, its head and its other node."""

    address: str
    head: subprocess.Popen[bytes]
    other: subprocess.Popen[bytes]


def kill(node: subprocess.Popen[bytes]) -> None:
    """End all processes of a node by SIGKILL."""
    with contextlib.suppress(psutil.Error):
        tree = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(tree, 10)
    node.wait()


@contextlib.contextmanager
def alone() -> Iterator[bool]:
    """A network that has nothing but a loopback address, for this thread and what it starts; whether one can be had."""
    c = ctypes.CDLL(None, use_errno=True)
    try:
        before = os.open("/proc/self/ns/net", os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        if c.unshare(NEW_NETWORK):
            yield False
            return
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", UP_AND_RUNNING))
        try:
            yield True
        finally:
            c.setns(before, NEW_NETWORK)
    finally:
        os.close(before)


@contextlib.contextmanager
def running() -> Iterator[Nodes]:
    """A cluster of two nodes with a CPU each and a token of its own, which we have in our environment meanwhile.

    It lies in a network of its own where we may make one: Ray listens on every interface.
    """
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with pytest.MonkeyPatch.context() as patch, alone():
        for name, value in own.items():
            patch.setenv(name, value)
        yield from _nodes()


def _nodes() -> Iterator[Nodes]:
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # pytest's own is too long for its sockets
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        program = "from ray.scripts.scripts import main; main()"
        options = ("--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats", "--block")
        with (folder / f"{len(started)}.out").open("wb") as out:
            node = subprocess.Popen(
                [sys.executable, "-c", program, "start", *arguments, *options],
                cwd=folder,
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        started.append(node)
        return node

    try:
        head = start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        end = time.monotonic() + STARTS_WITHIN_S
        while not listens(port):
            assert time.monotonic() < end, (folder / "0.out").read_text()
            time.sleep(0.2)
        yield Nodes(f"127.0.0.1:{port}", head, start(f"--address=127.0.0.1:{port}"))
    finally:
        for node in started:
            kill(node)
        shutil.rmtree(folder, ignore_errors=True)
