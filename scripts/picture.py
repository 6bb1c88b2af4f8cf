"""Take a screenshot of the top of a comparison's page in Chromium: ``make picture``, for the README."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="comparison.html")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--width", type=int, default=1100, help="of the window, CSS pixels (default: 1100)")
    parser.add_argument("--height", type=int, default=1700, help="of the picture, CSS pixels (default: 1700)")
    parser.add_argument("--dark", action="store_true", help="for readers who prefer dark pages")
    arguments = parser.parse_args()

    browser_path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work as root, as in many containers. The page has no script.
        browser = playwright.chromium.launch(executable_path=browser_path, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(
            viewport={"width": arguments.width, "height": arguments.height},
            color_scheme="dark" if arguments.dark else "light",
        )
        page.goto(arguments.page.resolve().as_uri())
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=arguments.picture)
        browser.close()


if __name__ == "__main__":
    main()
