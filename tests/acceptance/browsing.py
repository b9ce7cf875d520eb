"""The browser that the tests of the pages use, where there is one."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1600,1100",
)


def visible(browser):
    """The text that a person sees."""
    return browser.execute_script("return document.body ? document.body.innerText : ''")
