"""Ray as it is: our engine on a cluster of two nodes of this machine, whatever becomes of them."""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from senet_bench.core.catalog import resolve
from senet_bench.core.source import source_files
from senet_bench.errors import MeasurementError
from senet_bench.run.engines import Busy
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.run.sources import WithSources, with_sources
from tests.support import ray_nodes

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def nodes() -> Iterator[ray_nodes.Nodes]:
    """A running cluster."""
    pytest.importorskip("ray")
    with ray_nodes.running() as nodes:
        yield nodes


def slow(job: tuple[int, str]) -> int:
    """Twice the number, in a second; the node that did it is a line of the log."""
    time.sleep(1)
    with Path(job[1]).open("a") as file:
        file.write(f"{job[0]} {os.environ.get('RAY_NODE_ID', os.getppid())}\n")
    return 2 * job[0]


def answer(job: int) -> int:
    """What the user's module says."""
    return job * int(importlib.import_module("hers_on_ray.block").ANSWER)


def package(folder: Path) -> None:
    """A package of the user's own, one of whose modules imports another."""
    (folder / "hers_on_ray").mkdir()
    (folder / "hers_on_ray" / "__init__.py").touch()
    (folder / "hers_on_ray" / "number.py").write_text("ANSWER = 7\n")
    (folder / "hers_on_ray" / "block.py").write_text("from hers_on_ray.number import ANSWER\nclass Gate: pass\n")


def test_modules_of_the_user_go_along_to_engines_that_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    files = source_files("hers_on_ray.block:Gate")
    assert set(files) == {f"hers_on_ray/{name}.py" for name in ("__init__", "number", "block")}
    spec = resolve("seresnet20_cifar")
    assert spec.attention is not None
    hers = replace(spec, attention=replace(spec.attention, block="hers_on_ray.block:Gate"))
    assert with_sources(RayCluster(), answer, [spec, hers]) == WithSources(answer, files)
    assert with_sources(RayCluster(), answer, [spec]) is answer
    assert with_sources(Local(2), answer, [hers]) is answer


def test_a_network_of_its_own_has_the_loopback_address_alone_and_is_left_again() -> None:
    before = socket.if_nameindex()
    with ray_nodes.alone() as own:
        if not own:
            pytest.skip("no network namespace can be made here")
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2], 5):
            pass
    assert socket.if_nameindex() == before


@pytest.mark.slow
def test_modules_that_no_node_has_are_there(
    nodes: ray_nodes.Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    function = WithSources(answer, source_files("hers_on_ray.block:Gate"))
    for path in (tmp_path / "hers_on_ray").glob("*.py"):
        path.unlink()  # nowhere but in what travels
    assert dict(RayCluster(nodes.address).run(function, iter([1, 2, 3]))) == {1: 7, 2: 14, 3: 21}


@pytest.mark.slow
def test_the_death_of_a_node_loses_no_job_and_that_of_the_head_is_told(nodes: ray_nodes.Nodes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [(number, str(log)) for number in range(12)]
    outcomes, killed = {}, False
    for moment in RayCluster(nodes.address).watched(slow, iter(jobs)):
        if not isinstance(moment, Busy):
            outcomes[moment[0][0]] = moment[1]
        if len(outcomes) == 3 and not killed:
            ray_nodes.kill(nodes.other)
            killed = True
    assert outcomes == {number: 2 * number for number in range(12)}
    assert killed
    ended = []

    def headless() -> None:
        for moment in RayCluster(nodes.address).watched(slow, iter(jobs)):
            if not isinstance(moment, Busy):
                ended.append(moment)
                ray_nodes.kill(nodes.head)

    with pytest.raises(MeasurementError, match=r"the head of the Ray cluster at 127.0.0.1:\d+ is gone") as raised:
        headless()
    assert raised.value.exit_code == 5
    assert ended
