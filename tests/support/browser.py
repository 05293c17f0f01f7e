"""A headless Chromium for the tests of pages; a test that asks for it is skipped where there is none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # Chromium refuses its sandbox to root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def found() -> tuple[str, str]:
    """The paths of Chromium and of its driver; skips the test that asks where one is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium with chromedriver here: install both (Debian: chromium chromium-driver)")
    return browser, driver


@contextmanager
def opened(profile: Path, *, wide: int = 1280, high: int = 1000) -> Iterator[Any]:
    """A browser with an empty profile and its log on; closed at the end."""
    browser, driver = found()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={wide},{high}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver, log_output=os.devnull))
    try:
        yield running
    finally:
        running.quit()


def requests(running: Any) -> list[str]:
    """The addresses that pages asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in running.get_log("performance"))
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def resize(running: Any, wide: int, high: int) -> None:
    """Give the page exactly that many pixels."""
    size = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 500}
    running.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def prefer(running: Any, **features: str) -> None:
    """Set what the reader prefers: `prefers_color_scheme="dark"`."""
    wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    running.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
