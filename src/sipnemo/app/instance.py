"""The instance URN of a gateway: made once, kept for ever (RFC 5626 §4.1)."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from sipnemo.app.config import SettingError

_URN = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def instance_in(state_dir: str) -> str:
    """The URN kept in this directory, made at the first call; raises SettingError with what to do."""
    path = Path(state_dir, "instance")
    try:
        text = path.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise SettingError(_cannot(path, error)) from error
    if not _URN.fullmatch(text):
        what = f"{path} does not hold a urn:uuid:…; restore it from a backup, or remove it to become a new gateway"
        raise SettingError(what)
    return text


def _create(path: Path) -> str:
    urn = uuid.uuid4().urn
    new = path.with_name("instance.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="ascii") as file:
            file.write(urn + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    except OSError as error:
        raise SettingError(_cannot(path, error)) from error
    return urn


def _cannot(path: Path, error: OSError) -> str:
    return f"{path} cannot be used ({error.strerror}); make its directory, writable for the service ([nms] state_dir)"
