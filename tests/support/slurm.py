"""A real Slurm for tests: munged, slurmctld and slurmd on the loopback address, in a folder of their own.

It keeps no accounts unless a database for them is wanted. Tests that ask for it are skipped, with the reason, where
programs are missing or we are not root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
OF_ACCOUNTS = ("mariadbd", "mariadb-install-db", "slurmdbd")
STARTS_WITHIN_S = 30.0

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{accounting}
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,requeue_delay=1
ReturnToService=2
SlurmdTimeout=10
KillWait=1
OverTimeLimit=0
MinJobAge=5
MaxArraySize={array}
InactiveLimit=0
FirstJobId={first}
NodeName=localhost NodeAddr=127.0.0.1 Port={node} CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=short Nodes=localhost MaxTime=5 State=UP
"""
WITHOUT_ACCOUNTS = "AccountingStorageType=accounting_storage/none"
WITH_ACCOUNTS = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounts}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=limits
"""
ACCOUNTS = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounts}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm
"""


def needed(*, accounts: bool = False) -> None:
    """Skip the test that asks where no Slurm can be started, or none that keeps accounts."""
    missing = [name for name in PROGRAMS + OF_ACCOUNTS * accounts if program(name) is None]
    if missing:
        more = ", mariadb-server-core and slurmdbd" if accounts else ""
        pytest.skip(f"no {', '.join(missing)} here: install slurm-wlm and munge{more} (Debian)")
    if os.geteuid():
        pytest.skip("Slurm's daemons are started by root alone")


def program(name: str) -> str | None:
    """The path of a program, daemons' folders included."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(slots=True)
class Cluster:
    """A running Slurm; `environment` makes its commands, and ours, speak to it."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]]
    environment: dict[str, str]
    hidden: Path | None = None
    """A folder that the node does not see."""

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """The state of each job in the queue, by its number."""
        lines = self.ask("squeue", "--noheader", "--array", "--format=%F_%K|%T").splitlines()
        return dict(line.replace("_N/A", "").split("|") for line in lines)

    def start(self, command: str, *arguments: str, name: str = "") -> None:
        """Start a daemon in the foreground, its output in a file; `name` is what it is called here."""
        path, name = program(command), name or command
        assert path is not None
        dies_with_us = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                [*dies_with_us, path, *arguments],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def start_accounts(self, database: int) -> None:
        """Start slurmdbd on a database of its own, at a port, and make this cluster known to it."""
        data, root = self.folder / "database", ("--no-defaults", "--user=root")
        program_of_tables = program("mariadb-install-db") or ""
        tables = (program_of_tables, *root, f"--datadir={data}", "--auth-root-authentication-method=normal")
        subprocess.run(tables, capture_output=True, check=True)
        socket_file = f"--socket={self.folder}/database.socket"
        place = (f"--datadir={data}", socket_file, f"--port={database}", "--bind-address=127.0.0.1")
        self.start("mariadbd", *root, *place, "--skip-grant-tables")
        until(lambda: listens(database), STARTS_WITHIN_S, "mariadbd")
        self.start("slurmdbd", "-D")
        until(self._knows_accounts, STARTS_WITHIN_S, "slurmdbd")

    def _knows_accounts(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):
            return "loopback" in self.ask("sacctmgr", "-i", "add", "cluster", "loopback")
        return False

    def start_controller(self) -> None:
        """Start slurmctld, which takes up its state where it has one."""
        self.start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))

    def start_node(self) -> None:
        """Start slurmd."""
        arguments = ("-D", "-N", "localhost", "-f", str(self.folder / "slurm.conf"))
        if self.hidden is None:
            self.start("slurmd", *arguments)
            return
        script = 'mount -t tmpfs none "$0" && exec "$@"'
        command = ("--mount", "sh", "-c", script, str(self.hidden), program("slurmd") or "", *arguments)
        self.start("unshare", *command, name="slurmd")

    def kill(self, name: str) -> None:
        """End a daemon by SIGKILL; jobs' own processes go on."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def ready(self) -> bool:
        """Whether the node takes jobs."""
        with contextlib.suppress(subprocess.SubprocessError):
            return self.ask("sinfo", "--noheader", "--partition=main", "--format=%T") in ("idle", "mixed", "allocated")
        return False

    def log(self) -> str:
        """The ends of the daemons' logs."""
        logs = (*self.folder.glob("*.out"), *self.folder.glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in logs)


def listens(port: int) -> bool:
    """Whether somebody listens at a port of the loopback address."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def until(condition: Callable[[], bool], within: float, what: str) -> None:
    """Wait for a condition; the test fails where it does not come."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.1)


@contextlib.contextmanager
def running(
    folder: Path, *, cpus: int = 4, first: int = 1, array: int = 5, hidden: Path | None = None, accounts: bool = False
) -> Iterator[Cluster]:
    """A Slurm of one node with `cpus` of them, its job numbers from `first` on; nothing of it is left at the end.

    The numbers of an array's tasks stay below `array`. The node does not see what lies in the folder `hidden`. A
    database keeps `accounts` where they are wanted, and limits of users hold.
    """
    needed(accounts=accounts)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    controller, node, database, bookkeeper = free_ports(4)
    configuration = folder / "slurm.conf"
    facts = {"folder": folder, "controller": controller, "node": node, "cpus": cpus, "first": first, "array": array}
    facts |= {"accounting": WITH_ACCOUNTS.format(accounts=bookkeeper, folder=folder) if accounts else WITHOUT_ACCOUNTS}
    configuration.write_text(CONFIGURATION.format(**facts))
    of_accounts = folder / "slurmdbd.conf"
    of_accounts.write_text(ACCOUNTS.format(folder=folder, accounts=bookkeeper, database=database))
    of_accounts.chmod(0o600)
    cluster = Cluster(folder, {}, {"SLURM_CONF": str(configuration)}, hidden)
    try:
        files = (f"--{name}-file={folder}/munged.{name}" for name in ("log", "pid", "seed"))
        cluster.start(
            "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", *files
        )
        until((folder / "munge.socket").exists, STARTS_WITHIN_S, "munged")
        if accounts:
            cluster.start_accounts(database)
        cluster.start_controller()
        cluster.start_node()
        end = time.monotonic() + STARTS_WITHIN_S
        while not cluster.ready():
            if time.monotonic() > end:
                pytest.fail(f"Slurm did not start: {cluster.log()}")
            time.sleep(0.2)
        yield cluster
    finally:
        if "slurmctld" in cluster.daemons:
            with contextlib.suppress(subprocess.SubprocessError):
                cluster.ask("scancel", "--user=root")
                end = time.monotonic() + 4
                while cluster.jobs() and time.monotonic() < end:  # their step daemons tell the controller that they end
                    time.sleep(0.1)
        for name in ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged"):
            if name in cluster.daemons:
                cluster.daemons[name].terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    cluster.daemons[name].wait(5)
                cluster.kill(name)
        _end_steps(folder)


def _end_steps(folder: Path) -> None:
    """End the step daemons of this cluster that outlived it, with what they run: they listen in its folder."""
    import psutil

    listening = Path("/proc/net/unix").read_text().splitlines()
    inodes = {line.split()[6] for line in listening if str(folder) in line}
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.info["name"].startswith("slurmstepd") and inodes & _sockets(process.pid):
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    return {link[8:-1] for link in links if link.startswith("socket:[")}
