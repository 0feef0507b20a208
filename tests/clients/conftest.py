"""The browser is that of the console's tests."""

from tests.browser.conftest import browser

__all__ = ("browser",)
