"""The page of `facemill review`: who gets past its guard, and a person at work in a real browser."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from reviewed import PEOPLE, face_id, project, sha

from facemill.errors import FacemillError
from flows.review import _listening, review_app
from tasks.commands.review import FaceList
from tasks.curating.decisions import DECISIONS_FILE, Verdict, read_decisions

LOGIN = "facemill:a-sécret"
BASIC = "Basic " + b64encode(LOGIN.encode()).decode()


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, hopper: np.ndarray, collins: np.ndarray
) -> Iterator[tuple[Path, int]]:
    """The project's folder, and the port at which its page is served for real."""
    root = project(tmp_path_factory.mktemp("reviewed") / "project", {"anna": hopper, "bert": collins}, each=40)
    with _listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(review_app(FaceList(root, PEOPLE, "ann"), LOGIN), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield root, listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def root(served: tuple[Path, int]) -> Path:
    """Its folder, with nothing said yet."""
    (served[0] / DECISIONS_FILE).unlink(missing_ok=True)
    return served[0]


def ask(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; by default as the page itself asks. A header that is empty is left out."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent = {"Host": f"127.0.0.1:{port}", "Authorization": BASIC, "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    for name, value in {**sent, "Content-Length": str(len(data))}.items():
        if value:
            connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:9999"}, 200),  # a tunnel has another port
        ({"Host": "[::1]"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "127.0.0.1@evil.example"}, 421),
        ({"Host": ""}, 400),  # HTTP/1.1 without one: the server itself
        ({"Authorization": ""}, 401),
        ({"Authorization": "Basic " + b64encode(b"facemill:guess").decode()}, 401),
        ({"Authorization": "Bearer \xe9"}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),  # another port of this machine
    ],
)
def test_only_the_page_itself_gets_an_answer(served: tuple[Path, int], headers: dict[str, str], status: int) -> None:
    assert ask(served[1], "/api/overview", **headers)[0] == status


def test_a_form_of_another_page_says_nothing(served: tuple[Path, int], root: Path) -> None:
    body = {"faces": [face_id("blurred")], "verdict": "drop"}
    assert ask(served[1], "/api/decide", body, Content_Type="text/plain")[0] == 415
    assert ask(served[1], "/api/decide", body, Origin="http://localhost:1")[0] == 403
    assert not (root / DECISIONS_FILE).exists()
    assert ask(served[1], "/api/decide", body, Origin=f"http://127.0.0.1:{served[1]}")[0] == 200
    assert [one.verdict for one in read_decisions(root, PEOPLE)] == [Verdict.DROP]


def test_the_empty_page_holds_nothing_and_may_load_nothing_else(served: tuple[Path, int]) -> None:
    status, headers, body = ask(served[1], "/", Authorization="")
    assert status == 200
    assert b"anna" not in body
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert (headers["cache-control"], headers["x-frame-options"]) == ("no-store", "DENY")
    assert "set-cookie" not in headers
    assert ask(served[1], "/docs")[0] == ask(served[1], "/api/../params.yaml")[0] == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "a JSON object is expected"),
        (b"[" * 100_000, "a JSON object is expected"),
        ([], "a JSON object is expected"),
        ({}, "either faces or a choice of them is expected"),
        ({"faces": []}, "a list of ids is expected"),
        ({"faces": [1]}, "a list of ids is expected"),
        ({"faces": ["nobody"], "verdict": "drop"}, "not in the dataset any more"),
        ({"faces": ["nobody"], "verdict": "burn"}, "a verdict is keep, drop or empty"),
        ({"faces": ["nobody"], "verdict": "keep", "identity": "carl"}, "'carl' is none of anna, bert"),
        ({"wanted": {"said": "maybe"}, "expected": 1}, "no such choice of faces"),
        ({"wanted": {"reason": ["blurred"]}, "expected": 1}, "no such choice of faces"),
        ({"wanted": {"reason": "blurred"}, "expected": 2}, "there are 1 faces of this choice by now"),
        ({"wanted": {"reason": "nothing"}, "expected": 0}, "there is no face of this choice"),
        (b"x" * (5 * 2**20), "too long"),
    ],
)
def test_odd_requests_are_told_in_words(served: tuple[Path, int], root: Path, body: Any, told: str) -> None:
    status, _, answer = ask(served[1], "/api/decide", body)
    assert status == 400
    assert told in json.loads(answer)["error"]
    assert not (root / DECISIONS_FILE).exists()


def test_a_file_that_a_person_broke_is_told_on_the_page(served: tuple[Path, int], root: Path) -> None:
    (root / DECISIONS_FILE).write_text("what?\n")
    status, _, answer = ask(served[1], "/api/overview")
    assert status == 400
    assert "decisions.csv, line 1: the first line has to be" in json.loads(answer)["error"]


def test_a_taken_port_is_told() -> None:
    with _listening(0) as listener, pytest.raises(FacemillError, match="--port takes another"):
        _listening(listener.getsockname()[1])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("wants Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1360,900"):
        options.add_argument(word)
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


class Person:
    """Somebody at the page."""

    def __init__(self, driver: Any, port: int) -> None:
        self.driver = driver
        driver.get(f"http://127.0.0.1:{port}/")

    def sees(self, what: str, within_s: float = 20.0) -> Any:
        """Waits until JavaScript says something that is true, and gives it."""
        end = time.monotonic() + within_s
        while not (found := self.driver.execute_script(f"return {what}")):
            assert time.monotonic() < end, f"not seen: {what}; the page says {self.text('message')!r}"
            time.sleep(0.05)
        return found

    def text(self, name: str) -> str:
        return str(self.driver.execute_script(f"return document.getElementById('{name}').textContent"))

    def types(self, keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def chooses(self, text: str) -> None:
        self.driver.execute_script(
            "[...document.querySelectorAll('.choice')].find(one => one.innerText.startsWith(arguments[0])).click()",
            text,
        )

    def logs_in(self) -> None:
        self.sees("!document.getElementById('login').hidden")
        self.types(LOGIN + "\n")
        self.sees("document.querySelectorAll('.face').length")


def test_a_person_looks_through_faces_with_the_keyboard(served: tuple[Path, int], root: Path, browser: Any) -> None:
    person = Person(browser, served[1])
    person.sees("!document.getElementById('login').hidden")
    person.types("facemill:wrong\n")
    person.sees("document.getElementById('refused').textContent")
    browser.execute_script("document.getElementById('secret').value = ''")
    person.logs_in()
    person.sees("[...document.querySelectorAll('.face img')].every(one => one.naturalWidth === 192)")
    assert person.text("total") == "87 faces, 0 decisions"

    person.chooses("blurred")
    person.sees("document.querySelectorAll('.face').length === 1")
    person.types("k")
    person.sees("document.querySelector('.said')?.textContent === 'anna'")
    person.chooses("other identity")
    person.sees("document.querySelector('.face small').textContent === 'other identity'")
    person.types("2")
    person.sees("document.querySelector('.said')?.textContent === 'bert'")
    assert "dvc repro curate" in person.text("waiting")

    person.chooses("near duplicate")
    person.sees("document.querySelector('.face small').textContent === 'near duplicate'")
    person.types("c")  # its copies
    person.sees("document.querySelectorAll('.face').length === 2")
    person.types("a")
    person.types("d")
    person.sees("document.querySelectorAll('.said.drop').length === 2")
    found = {one.sample_id: (one.verdict.value, one.identity) for one in read_decisions(root, PEOPLE)}
    assert found == {
        sha("blurred"): ("keep", "anna"),
        sha("stranger"): ("keep", "bert"),
        sha("copy"): ("drop", ""),
        sha("anna-3"): ("drop", ""),
    }
    person.types("a")
    person.types("t")
    person.sees("document.querySelectorAll('.said').length === 0")
    assert len(read_decisions(root, PEOPLE)) == 2


def test_a_whole_choice_of_faces_is_decided_at_once(served: tuple[Path, int], root: Path, browser: Any) -> None:
    person = Person(browser, served[1])
    person.sees("document.querySelectorAll('.face').length === 60")  # the tab still knows the login
    person.chooses("anna")
    person.sees("document.getElementById('place').textContent.includes('of 47')")
    person.chooses("everybody")
    person.sees("document.getElementById('place').textContent === '1–60 of 87'")
    person.types("n")
    person.sees("document.querySelectorAll('.face').length === 27")
    browser.execute_script("window.confirm = () => true; document.getElementById('everything').click()")
    assert person.text("count") == "87 faces:"
    browser.execute_script("document.getElementById('drop').click()")
    person.sees("document.querySelectorAll('.said.drop').length === 27")
    assert len(read_decisions(root, PEOPLE)) == 87


def test_nothing_that_the_data_says_becomes_a_part_of_the_page(
    served: tuple[Path, int], root: Path, browser: Any
) -> None:
    person = Person(browser, served[1])
    person.sees("document.querySelectorAll('.face').length")
    assert "https://example.org/<b>" in person.text("detail")
    assert [entry for entry in browser.get_log("browser") if "401" not in entry["message"]] == []
