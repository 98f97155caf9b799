from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sdp.multipart import find_sdp

SDP = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"
PIDF = "--b1\r\nContent-Type: application/pidf+xml\r\nContent-ID: <a@b>\r\n\r\n<presence/>\r\n"


@pytest.mark.parametrize(
    ("content_type", "body", "found"),
    [
        pytest.param("application/sdp", SDP, SDP, id="alone"),
        pytest.param("Application/SDP ; charset=utf-8", SDP, SDP, id="alone, case and parameter"),
        pytest.param("application/sdp", "", None, id="empty"),
        pytest.param("text/plain", SDP, None, id="other type"),
        pytest.param(
            "multipart/mixed; boundary=b1",
            PIDF + f"--b1\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n--b1--\r\n",
            SDP,
            id="second part",
        ),
        pytest.param(
            'multipart/mixed;boundary="b 1"',
            f"preamble\r\n--b 1 \r\ncontent-type:application/sdp\r\n\r\n{SDP}\r\n--b 1\r\n\r\nrest\r\n--b 1--",
            SDP,
            id="quoted boundary, preamble, padding",
        ),
        pytest.param(
            "multipart/mixed; boundary=b1",
            f"--b1\nContent-Type:\n application/sdp\n\n{SDP}\n--b1--\n",
            SDP,
            id="LF and folding",
        ),
        pytest.param(
            "multipart/mixed; boundary=out",
            "--out\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n"
            f"--in\r\n\r\nplain\r\n--in\r\nc: application/sdp\r\n\r\n{SDP}\r\n--in--\r\n--out--\r\n",
            SDP,
            id="nested, compact header",
        ),
        pytest.param(
            "multipart/mixed; boundary=b1",
            "--b1\r\nContent-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\ndj0w\r\n--b1--",
            None,
            id="base64",
        ),
        pytest.param("multipart/mixed", f"--b1\r\n\r\n{SDP}\r\n--b1--", None, id="no boundary"),
        pytest.param("multipart/mixed; boundary=b1", PIDF + "--b1--\r\n", None, id="no SDP part"),
        pytest.param(
            "multipart/mixed; boundary=b1",
            f"--b1\r\nContent-Type: application/sdp\r\n\r\n{SDP}",
            None,
            id="cut off",
        ),
        pytest.param(
            "multipart/mixed; boundary=b1",
            f"--b12\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n--b12--\r\n",
            None,
            id="a longer boundary is another one",
        ),
    ],
)
def test_find_sdp(content_type: str, body: str, found: str | None) -> None:
    span = find_sdp(content_type, body)
    assert (None if span is None else body[span[0] : span[1]]) == found


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="-b1\r\n:C ", max_size=80))
def test_noise_never_crashes(noise: str) -> None:
    span = find_sdp("multipart/mixed; boundary=b1", noise)
    assert span is None or 0 <= span[0] <= span[1] <= len(noise)
