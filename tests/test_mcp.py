"""MCP servers: started, called, lost, started again, and ended with whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from baton_actors.agents.threads import Threads
from baton_actors.agents.tools import mcp_client, servers
from baton_actors.agents.tools.servers import STARTS_MAX, McpServer, McpServers
from baton_actors.agents.tools.toolbox import Toolbox
from baton_actors.errors import ServerLacksTool, ServerLost, ServerUnreachable, TooManyTools
from baton_schemas.flow.flow import Agent, Mcp, UsedTool

from .mcp_servers import SHOP, Web, noted, odd, odd_settings
from .servers import until


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def knows_of(server: McpServer) -> bool:
    """Say whether a server takes its process for alive."""
    return server._connection is not None and server._connection.is_open


def box(server: McpServer, *uses: str) -> Toolbox:
    agent = Agent(model="m", prompt="p", tools=[UsedTool(use=use) for use in uses])
    return Toolbox(agent, {}, {"odd": server}, Threads())


async def test_real_server_is_started_where_its_flow_is_with_the_variables_that_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP)
    settings = Mcp(command=[sys.executable, "shop.py"], env=["SHOP_KEY"])
    shop = McpServer("shop", settings, folder, {"SHOP_KEY": "abc", "OTHER_KEY": "def"})
    try:
        listed = {tool.name: tool for tool in await shop.tools()}
        assert list(listed) == ["find", "refund", "where"]
        assert listed["find"].description == "Find what there is."
        assert listed["find"].input_schema["required"] == ["query"]
        found = await shop.call("find", {"query": "tea", "limit": 2}, 10)
        assert (found.text, found.is_error) == ("tea, tea", False)
        refused = await shop.call("find", {"limit": 2}, 10)
        assert refused.is_error and "query" in refused.text
        raised = await shop.call("refund", {"order": "7"}, 10)
        assert raised.is_error and "no order 7" in raised.text
        unknown = await shop.call("nothing", {}, 10)
        assert unknown.is_error and "nothing" in unknown.text
        where = await shop.call("where", {}, 10)
        assert where.text == f"team abc None {os.getpgid(0)}"  # it ends with the group of its worker
    finally:
        await shop.aclose()


async def test_server_is_started_once_for_all_that_need_it_and_ends_with_them(tmp_path: Path) -> None:
    all_of_them = McpServers()
    settings = odd_settings(tmp_path)
    twice = [all_of_them.of("odd", settings, tmp_path) for _ in range(2)]
    listed = await asyncio.gather(*(server.tools() for server in twice * 3))
    assert [tool.name for tool in listed[0]] == ["act", "die", "hang", "large"]
    (pid,) = map(int, noted(tmp_path, "start"))
    large = await twice[0].call("large", {}, 20)
    assert len(large.text) == 3_000_000
    await all_of_them.aclose()
    assert not alive(pid)


async def test_server_that_ends_for_nothing_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = odd(tmp_path, "stubborn")
    await server.tools()
    (pid,) = map(int, noted(tmp_path, "start"))
    monkeypatch.setattr(mcp_client, "_END_S", 0.1)
    monkeypatch.setattr(mcp_client, "_TERM_S", 0.2)
    await server.aclose()
    assert not alive(pid)


async def test_server_that_died_while_nobody_used_it_is_started_again_and_nothing_is_in_doubt(tmp_path: Path) -> None:
    server = odd(tmp_path)
    try:
        await server.tools()
        (pid,) = map(int, noted(tmp_path, "start"))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not knows_of(server))
        again = await server.call("act", {}, 20)
        assert again.text.startswith("act done by") and not again.is_error
        assert noted(tmp_path, "call") == ["act"]
        assert len(noted(tmp_path, "start")) == 2
    finally:
        await server.aclose()


async def test_call_that_was_under_way_when_its_server_died_is_made_again_only_if_it_may_be(tmp_path: Path) -> None:
    server = odd(tmp_path)
    try:
        with pytest.raises(ServerLost) as caught:
            await server.call("die", {}, 20)
        assert caught.value.may_be_done
        assert noted(tmp_path, "call") == ["die"]
    finally:
        await server.aclose()
    (tmp_path / "well").unlink()
    server = odd(tmp_path, idempotent=["die"])
    try:
        done = await server.call("die", {}, 20)
        assert done.text.startswith("die done by")
        assert noted(tmp_path, "call") == ["die"] * 3
    finally:
        await server.aclose()


async def test_server_that_dies_at_every_start_is_left_alone_for_a_while(tmp_path: Path) -> None:
    server = odd(tmp_path, "dies")
    for _ in range(STARTS_MAX):
        with pytest.raises(ServerUnreachable, match="its command ended, with exit code 1: what it wrote"):
            await server.tools()
    with pytest.raises(ServerUnreachable, match="it was lost 5 times within 60 s, and is left alone for a while"):
        await server.tools()
    assert len(noted(tmp_path, "start")) == STARTS_MAX


async def test_server_that_does_not_say_what_it_has_is_unreachable(tmp_path: Path) -> None:
    silent = odd(tmp_path, "silent", open_s=1.0)
    try:
        with pytest.raises(ServerUnreachable, match="the list of its tools, in 1 s"):
            await silent.tools()
    finally:
        await silent.aclose()
    garbage = odd(tmp_path, "garbage")
    try:
        with pytest.raises(ServerUnreachable, match="it does not say what it has"):
            await garbage.tools()
    finally:
        await garbage.aclose()


async def test_tool_that_hangs_is_given_up_and_its_server_goes_on(tmp_path: Path) -> None:
    server = odd(tmp_path)
    try:
        hung = await server.call("hang", {}, 0.2)
        assert hung.is_error
        assert hung.text == (
            "hang of odd did not finish within 0.2 s (tool_timeout_s). It may have done what it does: do not call it "
            "again lightly."
        )
    finally:
        await server.aclose()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Mcp(command=["no-such-program"]), "FileNotFoundError"),
        (Mcp(url="http://127.0.0.1:9/mcp"), "ConnectError"),
        (Mcp(url="http://127.0.0.1:9/mcp", headers={"x": "${NO_KEY}"}), r"its \$\{NO_KEY\} is not in the environment"),
    ],
)
async def test_server_that_is_not_there_is_told_with_its_reason(settings: Mcp, said: str, tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match=said) as caught:
        await McpServer("there", settings, tmp_path, {}).tools()
    assert str(caught.value).startswith("the MCP server 'there' cannot be used: ")


async def test_package_that_is_missing_is_told_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'mcp'")

    monkeypatch.setattr(servers, "import_module", missing)
    with pytest.raises(ServerUnreachable, match=r"pip install 'baton-bus\[mcp\]'"):
        await odd(tmp_path).tools()


async def test_five_hundred_tools_are_refused_with_what_they_take_and_one_of_them_can_be_picked(tmp_path: Path) -> None:
    server = odd(tmp_path, "many")
    try:
        with pytest.raises(TooManyTools) as caught:
            await box(server, "mcp:odd").offer()
        said = str(caught.value)
        assert "500" in said and "128" in said and "mcp:odd/" in said
        (picked,) = await box(server, "mcp:odd/t444").offer()
        assert (picked.name, picked.use) == ("odd__t444", "mcp:odd/t444")
        with pytest.raises(ServerLacksTool, match=r"lists no tool 't44x'\. Did you mean"):
            await box(server, "mcp:odd/t44x").offer()
    finally:
        await server.aclose()


async def test_tools_are_listed_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = odd(tmp_path)
    try:
        assert len(await server.tools()) == 4
        (tmp_path / "tools").write_text("act more")
        assert len(await server.tools()) == 4
        monkeypatch.setattr(servers, "LISTED_S", 0.0)
        assert [tool.name for tool in await server.tools()] == ["act", "more"]
    finally:
        await server.aclose()


# ---- streamable HTTP -----------------------------------------------------------------------------


async def test_server_over_http_is_sent_headers_of_the_environment_and_no_error_shows_them(tmp_path: Path) -> None:
    web = Web(key="s3cret-s3cret")
    settings = Mcp(url=web.url, headers={"Authorization": "Bearer ${SHOP_KEY}"})
    async with web.up():
        shop = McpServer("shop", settings, tmp_path, {"SHOP_KEY": "s3cret-s3cret"})
        try:
            assert [tool.name for tool in await shop.tools()] == ["refund"]
            assert (await shop.call("refund", {"order": "7"}, 10)).text == "refunded 7"
        finally:
            await shop.aclose()
        wrong = McpServer("shop", settings, tmp_path, {"SHOP_KEY": "guessed-guessed"})
        with pytest.raises(ServerUnreachable, match="it answers with HTTP status 401") as caught:
            await wrong.tools()
        assert "guessed" not in str(caught.value)


async def test_server_that_was_started_anew_is_called_once_and_nothing_is_in_doubt(tmp_path: Path) -> None:
    web = Web()
    shop = McpServer("shop", Mcp(url=web.url), tmp_path)
    try:
        async with web.up():
            await shop.call("refund", {"order": "1"}, 10)
        with pytest.raises(ServerUnreachable):
            await shop.call("refund", {"order": "2"}, 10)
        async with web.up():
            assert (await shop.call("refund", {"order": "3"}, 10)).text == "refunded 3"
        assert web.called == ["1", "3"]
        async with web.up():  # a session that it does not know
            assert (await shop.call("refund", {"order": "4"}, 10)).text == "refunded 4"
        assert web.called == ["1", "3", "4"]
    finally:
        await shop.aclose()
