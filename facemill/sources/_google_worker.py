"""The process that google-images-download runs in: started by `google.py`, never imported.

    python -m facemill.sources._google_worker REQUEST.json

The library prints, sleeps, leaves browsers behind when it fails, and ends the process where others raise; so it has one
of its own. The result page as the browser had it is `page.html` in the working folder; `google.py` reads it, since the
library takes only addresses that end like pictures, and Google's own logos with them.

The library also disguises the browser as a person's. Here it says what it is: a headless Chrome that facemill drives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Runs one search. Exit codes: 0 done, 3 the library is missing or changed, anything else is its own."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        from google_images_download import google_images_download

        library = google_images_download.googleimagesdownload()
        _without_disguise(request["agent"])
    except (ImportError, AttributeError) as error:
        print(f"google-images-download cannot be used: {error}")
        return 3
    _keep_page(library)
    arguments = {
        # The library splits keywords at commas and would search for each part.
        "keywords": request["query"].replace(",", " "),
        "limit": request["limit"],
        "no_download": True,
        "extract_metadata": True,
        "silent_mode": True,
        "chromedriver": request["chromedriver"],
    }
    if request["result_url"]:
        arguments["url"] = request["result_url"]
    library.download(arguments)
    return 0


def _without_disguise(agent: str) -> None:
    """The browser shows that it is driven by a program, and names it: the library would hide both."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
    except ImportError:  # the library says what is missing when it needs it
        return
    chrome: Any = webdriver.Chrome
    add_argument, go, command = Options.add_argument, chrome.get, chrome.execute_cdp_cmd

    def argument(self: Options, text: str) -> None:
        if not text.startswith("user-agent=") and "AutomationControlled" not in text:
            add_argument(self, text)

    def get(self: Any, url: str) -> None:
        own = self.execute_script("return navigator.userAgent")
        command(self, "Network.setUserAgentOverride", {"userAgent": f"{own} {agent}"})
        go(self, url)

    changes: dict[str, Any] = {"add_argument": argument, "add_experimental_option": lambda *option: None}
    for name, changed in changes.items():
        setattr(Options, name, changed)
    chrome.get, chrome.execute_cdp_cmd = get, lambda *call: None


def _keep_page(library: Any) -> None:
    """Writes each page that the library loads to page.html."""
    load = getattr(library, "download_extended_page", None)
    if load is None:
        return

    def loaded(*arguments: Any) -> Any:
        page = load(*arguments)
        Path("page.html").write_text(str(page), encoding="utf-8", errors="replace")
        return page

    library.download_extended_page = loaded


if __name__ == "__main__":
    sys.exit(main())
