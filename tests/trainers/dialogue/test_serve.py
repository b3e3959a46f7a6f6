"""The page of `modalign serve`, in a real browser without a screen: a picture, a question, an answer, a second question."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from modalign import zoo
from modalign.trainers.cli import main
from modalign.zoo.errors import RecipeError
from modalign.zoo.stack.generate import Decoding
from modalign.zoo.stack.talk import Talk

from ...zoo.stack import written


def test_without_gradio_it_says_what_to_install(run, monkeypatch):
    from modalign.trainers.commands.serve import build_page

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(RecipeError, match=r"pip install 'modalign\[demo\]'"):
        build_page(zoo.load(run), "runs/x", Decoding())


@pytest.mark.parametrize(
    ("words", "said"), [(["--port", "0"], "--port 0 must be from 1"), (["--upload_mb", "0"], "--upload_mb 0 above 0")]
)
def test_numbers_that_make_no_sense(run, capsys, words, said):
    assert main(["serve", str(run), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """The page, served by a process of its own."""
    pytest.importorskip("gradio", reason="Gradio is not installed (pip install 'modalign[demo]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "modalign.trainers.cli", "serve", str(run), "--port", str(port), "--max_new_tokens", "5"]
    log = (tmp_path_factory.mktemp("served") / "log").open("w")
    process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait(url, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the page did not come up")


@pytest.fixture
def browser():
    """A headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("there is no chromium with chromedriver on this machine (Debian: apt-get install chromium-driver)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1100"):
        options.add_argument(option)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.timeout(280)
def test_a_conversation_in_a_browser(run, address, browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    picture = tmp_path / "x.png"
    written.photo(60, 40, 3).save(picture)
    talk = Talk(zoo.load(run), Decoding(5))
    talk.show(written.photo(60, 40, 3))
    wanted = [talk.ask("What is it?"), talk.ask("Why?")]

    browser.get(address)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "input[type=file]"))
    browser.find_elements(By.CSS_SELECTOR, "input[type=file]")[0].send_keys(str(picture))
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "img[src*='x.png'], img[alt*='']"))
    time.sleep(2)  # the upload ends without a mark on the page
    for number, question in enumerate(("What is it?", "Why?")):
        box = browser.find_element(By.CSS_SELECTOR, "textarea[placeholder='What is in the picture?']")
        box.send_keys(question, Keys.ENTER)
        wait.until(lambda page, text=wanted[number]: text in page.find_element(By.TAG_NAME, "body").text)
    shot = Path(os.environ.get("MODALIGN_SCREENSHOTS", tmp_path)) / "serve.png"
    browser.save_screenshot(str(shot))
    assert shot.stat().st_size > 10_000
    assert "runs" in browser.title or "modalign" in browser.title


@pytest.mark.timeout(120)
def test_the_page_is_for_this_machine_alone(address):
    with pytest.raises(OSError):
        own = socket.gethostbyname(socket.gethostname())
        if own.startswith("127."):
            raise OSError("this machine has no other address")
        urllib.request.urlopen(address.replace("127.0.0.1", own), timeout=5)
