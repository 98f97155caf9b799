from __future__ import annotations

import json
from dataclasses import replace

from sipnemo.nemo.binding_list import BindingEntry
from sipnemo.nemo.egress_list import EgressEntry, Status
from sipnemo.nemo.session_list import SessionEntry, SessionStatus

ON, OFF = Status.ON, Status.OFF
US, THEM = "urn:uuid:us", "urn:uuid:them"


def path(eface_id: int, host: str = "192.0.2.1", status: Status = ON, host_id: str = US) -> EgressEntry:
    return EgressEntry(host_id, eface_id, (host, 5060), status)


def test_rows_for_operators_are_json() -> None:
    binding = BindingEntry("sip:a@x", "sip:a@10.0.0.1", None, 70.4)
    session = SessionEntry("sip:a@x", "", "sip:b@y", "", SessionStatus.SUCCESS, 1, started_at=10.0)
    assert binding.as_row(10.0)["expires_in"] == 60
    assert binding.as_row(100.0)["expires_in"] == 0
    assert (session.as_row(70.0)["status"], session.as_row(70.0)["seconds"]) == ("SUCCESS", 60)
    assert replace(session, started_at=None).as_row(1.0)["seconds"] is None
    assert json.dumps([path(1).as_row(), binding.as_row(0.0), session.as_row(0.0)])
