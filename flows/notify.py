"""Notices about nights that did not come: automations of Prefect's, from a file, and the address where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from pydantic import TypeAdapter, ValidationError

from facemill.errors import FacemillError

BLOCK = "facemill-nights"
"""The name of Prefect's block that holds the address."""
_SENT = {"text": "{{subject}}\n\n{{body}}", "title": "{{subject}}", "message": "{{body}}"}
"""JSON that chats (Slack, Mattermost, Teams: `text`) and notifiers (Gotify and others: `title`, `message`) read."""
_AUTOMATION = TypeAdapter(AutomationCore)


def notify_at(url: str, path: Path) -> list[str]:
    """Makes the automations of a file in the server that Prefect uses here, or renews them; returns their names.

    Args:
        url: where notices are posted as JSON.
        path: the file.

    Raises:
        FacemillError: no http(s) address, or a file that holds no automations.
    """
    automations = _read(path)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise FacemillError(f"{url!r} is no address to which notices can be posted: it begins with https:// or http://")
    block = CustomWebhookNotificationBlock(name=BLOCK, url=url, json_data=_SENT, headers=None, cookies=None)
    address = block.save(BLOCK, overwrite=True)
    names = []
    with get_client(sync_client=True) as client:
        for each in automations:
            for action in each.get("actions", []):
                if isinstance(action, dict) and action.get("type") == "send-notification":
                    action["block_document_id"] = str(address)
            names.append(_put(client, _checked(path, each)))
    return names


def send_test(body: str) -> None:
    """Posts a notice now, as an automation would. Raises FacemillError: it was not taken."""
    block: Any = CustomWebhookNotificationBlock.load(BLOCK)
    try:
        with block.raise_on_failure():
            block.notify(subject="facemill: a test", body=body)
    except Exception as error:  # whatever a foreign server and the network to it do
        raise FacemillError(f"the test notice was not taken: {error}") from error


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FacemillError(f"{path} cannot be read ({error}): name a file like deploy/automations.yaml") from error
    listed = found.get("automations") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        raise FacemillError(f"{path} holds no list `automations`: deploy/automations.yaml shows how it looks")
    return listed


def _checked(path: Path, values: dict[str, Any]) -> AutomationCore:
    try:
        return _AUTOMATION.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise FacemillError(f"{path}: the automation {values.get('name')!r}: {key}: {first['msg']}") from error


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """By its name, so that the command can be given again."""
    named = {"automations": {"name": {"any_": [wanted.name]}}}
    there = client.request("POST", "/automations/filter", json=named).json()
    if there:
        client.update_automation(UUID(there[0]["id"]), wanted)
    else:
        client.create_automation(wanted)
    return wanted.name
