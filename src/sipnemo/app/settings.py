"""From checked values to the settings of the roles."""

from __future__ import annotations

from typing import Any

from sipnemo.app.config import Config, Row
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.nms.settings import (
    DampingSettings,
    EfaceSettings,
    IfaceSettings,
    MediaSettings,
    MoveSettings,
    NmsSettings,
    PolicySettings,
    ProbeSettings,
    SessionSettings,
    TrunkCredentials,
)
from sipnemo.sip.parser import Limits


def nms_settings(config: Config, instance: str) -> NmsSettings:
    """The settings of a SIP-NMS; `instance` is its urn:uuid."""
    nms, limits = dict(config.table("nms")), config.table("limits")
    return NmsSettings(
        **_renamed(nms, "password_file", "password"),
        instance=instance,
        iface=IfaceSettings(**config.table("iface")),
        efaces=tuple(EfaceSettings(**row) for row in sorted(config.tables["eface"], key=lambda row: int(row["id"]))),
        media=MediaSettings(**config.table("media")),
        policy=PolicySettings(**_renamed(config.table("policy"), "return", "returning")),
        damping=DampingSettings(**config.table("damping")),
        probe=ProbeSettings(**config.table("probe")),
        move=MoveSettings(**config.table("move")),
        session=SessionSettings(**{key: limits[key] for key in ("calls", "suspend_for", "silent_after")}),
        trunk=tuple(TrunkCredentials(**_renamed(row, "password_file", "password")) for row in config.tables["trunk"]),
        limits=message_limits(limits),
    )


def hs_settings(config: Config) -> HsSettings:
    """The settings of a SIP-HS; where its store is belongs to the shell."""
    return HsSettings(
        **{key: value for key, value in config.table("hs").items() if key != "store"},
        accounts={row["name"]: row["password_file"] for row in config.tables["account"]},
        users={row["name"]: row["password_file"] for row in config.tables["user"]},
        limits=message_limits(config.table("limits")),
    )


def message_limits(limits: Row) -> Limits:
    """What is too much of one message."""
    return Limits(message=limits["message"], headers=limits["headers"], body=limits["body"])


def _renamed(row: Row, old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in row.items()}
