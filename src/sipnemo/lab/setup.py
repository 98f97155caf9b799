"""The configuration of a run's two servers, written as an operator would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sipnemo.lab.processes import secret, toml

HOME = "192.0.2.10"
GATEWAY = "10.7.0.1"
PHONES_PASSWORD = "demo"

Tables = Sequence[tuple[str, Mapping[str, Any]]]


def write_configuration(
    directory: Path, accounts: int, efaces: Sequence[Mapping[str, Any]], overrides: Tables = ()
) -> dict[str, Path]:
    """hs.toml and nms.toml into a directory, for so many phones on either side; `overrides` are the gateway's."""
    phones = secret(directory, "phones", PHONES_PASSWORD)
    gateway = secret(directory, "gateway", "demo-gateway")
    users = [f"{side}{number}" for side in ("in", "out") for number in range(1, accounts + 1)]
    home: Tables = [
        ("[hs]", {"domain": HOME, "listen": [f"udp:{HOME}:5060"], "store": f"sqlite:{directory}/home.db"}),
        ("[[account]]", {"name": "gateway", "password_file": str(gateway)}),
        *(("[[user]]", {"name": name, "password_file": str(phones)}) for name in users),
    ]
    nms = {
        "home": f"sip:{HOME}:5060",
        "account": "gateway",
        "password_file": str(gateway),
        "state_dir": str(directory / "nms"),
        "manage_routes": True,
    }
    (directory / "nms").mkdir()
    written = {}
    gateways: Tables = [("[nms]", nms), ("[iface]", {"address": GATEWAY}), *(("[[eface]]", e) for e in efaces)]
    for name, tables in (("hs", home), ("nms", [*gateways, *overrides])):
        written[name] = directory / f"{name}.toml"
        written[name].write_text(toml(tables))
    return written


def phones_password(directory: Path) -> Path:
    """The file that holds every phone's password."""
    return secret(directory, "phones", PHONES_PASSWORD)
