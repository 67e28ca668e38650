"""Asking the server once changes one setting, as Prefect's own `temporary_settings` would."""

from __future__ import annotations

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from flows.server_patience import asked_once


def test_in_the_block_one_setting_is_another() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        before = get_current_settings()
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}) as expected:
            pass
        with pytest.raises(ZeroDivisionError), asked_once():
            assert (PREFECT_CLIENT_MAX_RETRIES.value(), PREFECT_API_URL.value()) == (0, "http://127.0.0.1:1/api")
            assert get_current_settings() == expected
            raise ZeroDivisionError
        assert get_current_settings() is before
        assert PREFECT_CLIENT_MAX_RETRIES.value() > 0
