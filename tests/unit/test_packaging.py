"""The systemd units against what they start."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from sipnemo.app.cli import main
from sipnemo.app.schema import NMS

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"


def unit(command: str) -> configparser.SectionProxy:
    """The [Service] section of a server's unit."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / f"sipnemo-{command}.service")
    return parser["Service"]


@pytest.mark.parametrize("command", ["nms", "hs"])
def test_a_unit_starts_a_server_that_may_write_where_it_must(command: str) -> None:
    service = unit(command)
    program, *arguments = service["ExecStart"].split()
    assert (program, arguments) == ("/usr/bin/sipnemo", [command, "--config", f"/etc/sipnemo/{command}.toml"])
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    state = next(key.default for table in NMS.tables for key in table.keys if key.name == "state_dir")
    assert state == f"/var/lib/{service['StateDirectory']}"
    assert service["ConfigurationDirectory"] == "sipnemo"
    # ProtectSystem=strict: the socket file that docs/operations.md names needs its directory.
    assert service["RuntimeDirectory"] == "sipnemo"
    assert service["RestartPreventExitStatus"] == "78"


def test_a_gateway_without_any_uplink_is_not_started_again_and_again() -> None:
    """It is ready when its first path is ON, and that may take days."""
    assert unit("nms")["TimeoutStartSec"] == "infinity"


def test_a_gateway_has_the_rights_it_needs_and_no_others() -> None:
    wanted = {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"}
    assert set(unit("nms")["AmbientCapabilities"].split()) == wanted
    assert set(unit("nms")["CapabilityBoundingSet"].split()) == wanted
    assert unit("hs")["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
