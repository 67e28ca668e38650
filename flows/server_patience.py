"""Asking the Prefect server once, where another try would only hold up the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import SettingsContext, get_settings_context


@contextmanager
def asked_once() -> Iterator[None]:
    """In the block Prefect does not ask its server again that is away: by itself it tries for over a minute.

    As Prefect's `temporary_settings` would do it with PREFECT_CLIENT_MAX_RETRIES; but that reads all settings from the
    environment anew, which costs a fifth of a second, and a night asks often.
    """
    context = get_settings_context()
    client = context.settings.client.model_copy(update={"max_retries": 0})
    settings = context.settings.model_copy(update={"client": client})
    with SettingsContext(profile=context.profile, settings=settings):
        yield
