"""The process that google-images-download runs in: started by `google.py`, never imported.

    python -m facemill.sources._google_worker REQUEST.json

The library prints, sleeps, leaves browsers behind when it fails, and ends the process where others raise; so it has one
of its own. Its results are `logs/*.json` in the working folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Runs one search. Exit codes: 0 done, 3 the library is missing or changed, anything else is its own."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        from google_images_download import google_images_download

        library = google_images_download.googleimagesdownload()
    except (ImportError, AttributeError) as error:
        print(f"google-images-download cannot be used: {error}")
        return 3
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


if __name__ == "__main__":
    sys.exit(main())
