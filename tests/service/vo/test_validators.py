"""What STILTS, the VO's own validator, says of the running server's answers: nothing. Skipped where it is not installed."""

import re

import pytest


@pytest.mark.parametrize(
    "address",
    [
        "/scs?RA=53&DEC=-28&SR=1&VERB=3",
        "/scs?RA=53&DEC=-28&SR=1&VERB=1&MAXREC=2&RESPONSEFORMAT=votable;serialization=BINARY2",
        "/scs?RA=53&DEC=-28&SR=0",
        "/scs?RA=nowhere",
        "/datalink?ID={id}&ID=x&ID=a/b/3",
        "/datalink",
    ],
)
def test_votlint_finds_nothing_wrong(server, candidate_ids, votlint, address):
    votlint(server.get(address.format(id=candidate_ids[0])).content)


def test_datalinklint_finds_nothing_wrong_and_reaches_every_link(server, candidate_ids, stilts):
    said = stilts("datalinklint", f"votable={server.url}/datalink?ID={candidate_ids[0]}&ID=x", "maxrepeat=99")
    assert [line for line in said if re.match(r"[EWF]-", line)] == []
    assert sum(line.startswith("I-IKAC-") for line in said) >= 10
    assert any("USER parameter count 4 [CIRCLE, BAND, FORMAT, STRETCH]" in line for line in said)


def test_what_the_cone_search_says_of_itself_is_valid(server, stilts, tmp_path):
    """Against the VO's own schemas, which STILTS brings along."""
    for name, root in (("capabilities", "VOSICapabilities"), ("availability", "VOSIAvailability")):
        document = tmp_path / f"{name}.xml"
        document.write_bytes(server.get(f"/scs/{name}").content)
        said = stilts(
            "xsdvalidate", "uselocals=true", f"doc={document}", f"topel={{http://www.ivoa.net/xml/{root}/v1.0}}{name}"
        )
        assert [line for line in said if re.match(r"(?i)error|warning|fatal", line)] == []
