"""What is in deploy/cluster/: three servers started from it form a cluster that loses nothing acknowledged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.doctor.doctor import examine
from baton_bus.server.embedded import find_server
from baton_bus.store.bus import open_bus

from .clusters import Peers, free_ports
from .maps import ROOT

FOLDER = ROOT / "deploy" / "cluster"
NAMES = ("a", "b", "c")
ENVIRON = {**os.environ, "NATS_ROUTE_PASSWORD": "secret"}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[str]]:
    """The URLs of the three servers, on ports and stores of the test's own, and the address of one's monitoring."""
    ports = free_ports(9)
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports[3:6])
    processes = []
    for index, name in enumerate(NAMES):
        ours = Path(shutil.copytree(FOLDER, tmp_path / name))
        common = ours / "common.conf"
        common.write_text(common.read_text("utf-8").replace("/var/lib/nats", str(ours)), "utf-8")
        options = ["-a", "127.0.0.1", "-p", str(ports[index]), "-m", str(ports[6 + index])]
        options += ["--cluster_listen", f"nats://127.0.0.1:{ports[3 + index]}", "--routes", routes]
        with (ours / "nats.log").open("wb") as log:
            command = [str(find_server()), "-c", str(ours / f"{name}.conf"), *options]
            processes.append(subprocess.Popen(command, env=ENVIRON, stderr=log))
    try:
        yield [*(f"nats://127.0.0.1:{port}" for port in ports[:3]), f"http://127.0.0.1:{ports[6]}"]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


@pytest.mark.parametrize("name", NAMES)
def test_nats_server_accepts_the_configuration_of_each_server(name: str) -> None:
    command = [str(find_server()), "-t", "-c", str(FOLDER / f"{name}.conf")]
    checked = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_servers_differ_in_their_names_and_zones_alone() -> None:
    of_b = (FOLDER / "b.conf").read_text("utf-8")
    for name in NAMES:
        assert (FOLDER / f"{name}.conf").read_text("utf-8") == re.sub(r"\bb\b", name, of_b)


def test_monitoring_of_each_is_on_loopback() -> None:
    assert re.search(r"^http: 127\.0\.0\.1:\d+$", (FOLDER / "common.conf").read_text("utf-8"), re.MULTILINE)


async def test_servers_started_from_the_files_keep_three_flushed_copies_in_different_zones(started: list[str]) -> None:
    *urls, monitor_url = started
    three = Peers(urls)
    await three.until_formed()
    async with open_bus(Settings(url=three.url, namespace="log", replicas=3)) as bus:
        await three.until_current("log")
        findings = {finding.what: finding for finding in await examine(bus, monitor_url)}
    assert findings["flushing"].level == "ok"
    assert findings["flushing"].says.startswith("a flushes each message before it acknowledges it")
    assert findings["replicas of the log"].says == "3, all current: any 1 may be lost"
