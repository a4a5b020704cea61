"""The technician's page in a browser: each state, wide and narrow, light and dark."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from edge.technician.page import HEADERS, HERE, render
from tests.support.branch_local import Branch
from tests.support.chromium import Chromium, chromium
from tests.support.technician import STATES

WIDTHS = (1280, 390)
CONTRAST_MIN = 4.5
# WCAG 2.2, 1.4.3: the lowest contrast of a text with what is painted behind it.
CONTRAST = """(() => {
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => {
    const [r, g, b] = rgb.slice(0, 3).map(value => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let lowest = 21, count = 0;
  while (texts.nextNode()) {
    if (!texts.currentNode.textContent.trim()) continue;
    const element = texts.currentNode.parentElement;
    const front = light(rgba(getComputedStyle(element).color)), back = light(behind(element));
    const [high, low] = front > back ? [front, back] : [back, front];
    lowest = Math.min(lowest, (high + 0.05) / (low + 0.05));
    count += 1;
  }
  return [lowest, count];
})()"""


@asynccontextmanager
async def shown() -> AsyncIterator[str]:
    """Where a browser finds the page of each state, by the number of the state."""

    async def state(request: web.Request) -> web.Response:
        facts = list(STATES.values())[int(request.match_info["number"])]
        return web.Response(
            text=render(facts, live=False), content_type="text/html", headers=HEADERS
        )

    async def file(request: web.Request) -> web.Response:
        kind = {"page.css": "text/css", "icon.svg": "image/svg+xml"}[request.match_info["name"]]
        body = (HERE / request.match_info["name"]).read_bytes()
        return web.Response(body=body, content_type=kind, headers=HEADERS)

    app = web.Application()
    app.router.add_get("/states/{number}", state)
    app.router.add_get("/{name}", file)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/states"
    finally:
        await runner.cleanup()


async def check_readable(tab: Chromium, name: str) -> None:
    """Whatever stands there can be read, and nothing stands beside the window."""
    lowest, count = await tab.ask(CONTRAST)
    assert lowest >= CONTRAST_MIN and count > 20, (name, lowest, count)
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await tab.ask(over) == 0, name


async def check_spoken(tab: Chromium, name: str) -> None:
    """A screen reader finds one heading of the page, tables with names, and headers in them."""
    roles = await tab.roles()
    tables = [text for role, text in roles if role == "table"]
    headers = [text for role, text in roles if role in ("rowheader", "columnheader")]
    assert tables and all(tables) and all(headers), (name, roles)
    rows = await tab.ask("document.querySelectorAll('tr').length")
    assert sum(role == "row" for role, _ in roles) == rows, name
    assert {"main", "banner", "contentinfo"} <= {role for role, _ in roles}
    assert await tab.ask("document.querySelectorAll('h1').length") == 1
    assert await tab.ask("document.documentElement.lang") == "en"


async def test_every_state_can_be_read_on_every_window(tmp_path: Path) -> None:
    async with shown() as url, chromium(tmp_path) as tab:
        for width in WIDTHS:
            for number, name in enumerate(STATES):
                await tab.look(width=width, dark=False)
                await tab.open(f"{url}/{number}")
                await check_readable(tab, f"{name} {width} light")
                if width == min(WIDTHS):
                    await check_spoken(tab, name)
                await tab.look(width=width, dark=True)
                await check_readable(tab, f"{name} {width} dark")
        assert tab.complaints == []


@pytest.mark.parametrize("scripts", [True, False])
async def test_the_gateways_own_page_needs_keys_alone_and_no_script(
    branch: Branch, tmp_path: Path, scripts: bool
) -> None:
    url = f"http://127.0.0.1:{branch.ports['technician_port']}"
    async with chromium(tmp_path) as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        await tab.look(width=390, dark=False)
        await tab.open(f"{url}/")
        await check_readable(tab, "the gateway")
        assert "Taking payments" in await tab.ask("document.title")
        met = []
        for _ in range(2):
            await tab.press("Tab")
            met.append(await tab.ask("document.activeElement.getAttribute('href')"))
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert await tab.ask(outline) == "solid"
        assert met == ["/", "/live"]
        await tab.open(f"{url}/live")
        assert await tab.ask("document.querySelectorAll('meta[http-equiv=refresh]').length") == 1
        assert tab.complaints == []
