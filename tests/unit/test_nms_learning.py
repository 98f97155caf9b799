"""Where media of a far end behind a NAT may come from (symmetric RTP)."""

from __future__ import annotations

import pytest
from nms_world import FAR, Gateway

from sipnemo.media.flow import INSIDE

PHONE_SDP = "v=0\r\no=- 1 1 IN IP4 10.7.0.11\r\ns=-\r\nc=IN IP4 10.7.0.11\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
SDP = "Content-Type: application/sdp"


@pytest.mark.req("R10")
@pytest.mark.parametrize(
    ("media", "contact", "admitted"),
    [
        ("192.168.5.5", "sip:cn@203.0.113.50:5062", {"192.168.5.5", FAR[0], "203.0.113.50"}),
        ("192.168.5.5", "sip:cn@far.example", {"192.168.5.5", FAR[0]}),
        ("1.0.0.9", "sip:cn@203.0.113.50", set()),
    ],
    ids=["the address of its NAT in its Contact", "a name in its Contact", "public media"],
)  # fmt: skip
def test_media_of_a_far_end_behind_a_nat_are_learnt_from_where_its_signalling_says(
    media: str, contact: str, admitted: set[str]
) -> None:
    gateway = Gateway()
    invite = gateway.call(SDP, body=PHONE_SDP)
    body = PHONE_SDP.replace("10.7.0.11", media)
    gateway.answer(FAR, invite, 200, f"Contact: <{contact}>", SDP, body=body)
    (session,) = gateway.node.calls.open
    assert session.media is not None
    inward = [flow for flow in session.media.flows.values() if flow.group == INSIDE]
    assert inward
    assert all(set(flow.admit) == admitted for flow in inward)
