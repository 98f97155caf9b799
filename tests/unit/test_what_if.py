"""`sipnemo what-if`: where calls would go, and whether there is room; nothing happens."""

from __future__ import annotations

from typing import Any

import pytest
from nms_world import Gateway

from sipnemo.app.tables import print_answer
from sipnemo.nemo.egress_list import EgressEntry, Status
from sipnemo.nemo.policy import Policy, least_load, priority
from sipnemo.roles.nms.what_if import Call, Uplink, what_if
from sipnemo.roles.node import Command, Reply


def uplink(eface: int, then: bool, *, on: bool = True, rate: float = 0.0, address: str = "", **entry: Any) -> Uplink:
    status = Status.ON if then else Status.OFF
    address = address or f"198.51.100.{eface}"
    made = EgressEntry("host", eface, (address, 5060), status, priority=eface, **entry)
    return Uplink(f"{eface}/{address}", made, on, rate)


def calls(count: int, eface: int, **more: Any) -> list[Call]:
    path = f"{eface}/198.51.100.{eface}"
    return [Call(f"{eface}-{n}", f"sip:a{n}@x", f"sip:b{n}@x", path, **more) for n in range(count)]


ROOMY: dict[str, Any] = {"capacity_bps": 1_000_000.0}


@pytest.mark.parametrize(
    ("uplinks", "living", "expected"),
    [
        pytest.param(
            [uplink(1, False, rate=400e3), uplink(2, True, rate=100e3, **ROOMY)],
            calls(4, 1) + calls(1, 2),
            {"moved": 4, "stranded": 0, "room": True, "new_calls": "2/198.51.100.2"},
            id="room",
        ),
        pytest.param(
            [uplink(1, False, rate=950e3), uplink(2, True, rate=100e3, **ROOMY)],
            calls(4, 1) + calls(1, 2),
            {"moved": 4, "room": False},
            id="no room",
        ),
        pytest.param(
            [uplink(1, False, rate=1.0), uplink(2, True)], calls(1, 1), {"moved": 1, "room": None}, id="who knows"
        ),
        pytest.param(
            [uplink(1, False), uplink(2, False, on=False)],
            calls(2, 1),
            {"moved": 0, "stranded": 2, "room": False, "new_calls": ""},
            id="nowhere to go",
        ),
        pytest.param(
            [uplink(1, False), uplink(2, True, address="2001:db8::2", **ROOMY)],
            calls(1, 1, signalling=(4,)),
            {"stranded": 1, "room": False},
            id="of another family",
        ),
        pytest.param(
            [uplink(1, True, on=False), uplink(2, True)],
            calls(2, 2),
            {"moved": 0, "room": True, "new_calls": "1/198.51.100.1"},
            id="calls stay where they are well",
        ),
        pytest.param(
            [uplink(1, True, on=False, **ROOMY), uplink(2, False, on=False, rate=50e3)],
            calls(2, 2),
            {"moved": 2, "room": True},
            id="stranded calls find one",
        ),
    ],
)
def test_what_would_be(uplinks: list[Uplink], living: list[Call], expected: dict[str, Any]) -> None:
    found = what_if(uplinks, living, priority)
    assert {key: found[key] for key in expected} == expected
    assert sum(row["sessions_then"] for row in found["paths"]) == len(living) - found["stranded"]


def test_media_of_the_far_end_decide_between_families() -> None:
    uplinks = [uplink(1, False), uplink(2, True, address="2001:db8::2"), uplink(3, True)]
    living = [*calls(1, 1, media=(4,)), *calls(1, 1, media=(4, 6))]
    assert [row["to_path"] for row in what_if(uplinks, living, priority)["each"]] == [
        "3/198.51.100.3",
        "2/2001:db8::2",
    ]


@pytest.mark.parametrize(("policy", "to"), [(priority, "2/198.51.100.2"), (least_load, "3/198.51.100.3")])
def test_the_gateways_own_policy_chooses(policy: Policy, to: str) -> None:
    uplinks = [uplink(1, False), uplink(2, True, load=50.0), uplink(3, True, load=10.0)]
    assert what_if(uplinks, calls(1, 1), policy)["each"][0]["to_path"] == to


def test_the_media_of_a_face_are_shared_among_its_calls() -> None:
    uplinks = [uplink(1, False, rate=300e3, **ROOMY), uplink(2, True, rate=100e3, **ROOMY)]
    left, right = what_if(uplinks, calls(3, 1) + calls(1, 2), priority)["paths"]
    assert (left["load"], left["load_then"], left["sessions_then"]) == (30.0, 0.0, 0)
    assert (right["load"], right["load_then"], right["sessions_then"]) == (10.0, 40.0, 4)


def asked(gateway: Gateway, **arguments: Any) -> Any:
    actions = gateway.node.handle(Command(1, "what-if", arguments), gateway.now)
    (reply,) = (action for action in actions if isinstance(action, Reply))
    return reply.result


def test_a_gateway_is_asked_and_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = Gateway()
    before = [path.on for path in gateway.node.paths.all]
    found = asked(gateway, eface_id="1", state="off")
    assert found["changed"] == ["1/198.51.100.7"]
    assert found["new_calls"] == "2/203.0.113.7"
    assert [path.on for path in gateway.node.paths.all] == before
    print_answer("what-if", found)
    told = capsys.readouterr().out
    assert "ON → OFF" in told
    assert "0 of 0 calls would move; new calls would take 2/203.0.113.7" in told
    assert asked(gateway, path="203.0.113.7", state="auto")["changed"] == ["2/203.0.113.7"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"eface_id": "1"}, "state must be off, on or auto"),
        ({"eface_id": "1", "path": "x", "state": "off"}, "name either an E-face or a path"),
        ({"state": "off"}, "name either an E-face or a path"),
        ({"eface_id": "9", "state": "off"}, "no path of E-face 9; paths: 1/198.51.100.7, 2/203.0.113.7"),
        ({"path": "192.0.2.77", "state": "off"}, "no path 192.0.2.77; paths: 1/198.51.100.7, 2/203.0.113.7"),
    ],
)
def test_an_unclear_question_is_answered_with_what_to_do(arguments: dict[str, str], error: str) -> None:
    assert asked(Gateway(), **arguments) == {"error": error}
