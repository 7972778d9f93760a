"""The service's own services, as answers describe them: whoever has a row can ask them about it.

In: the service's root, and the column that has the name of each row's object (``run/tile_id/target_id``). Out: service
descriptors for :class:`~scanner.service.vo.votable.Heading`. Refused: nothing.

Source: DataLink 1.1, section 4; SODA 1.0, section 4.1.
"""

from __future__ import annotations

from typing import get_args

from scanner.report.colour import CURVES
from scanner.service.cutouts.request import MEDIA_TYPES, Picture
from scanner.service.vo.votable import Parameter, ServiceDescriptor

LINKS_STANDARD = "ivo://ivoa.net/std/DataLink#links-1.1"
SODA_STANDARD = "ivo://ivoa.net/std/SODA#sync-1.0"
LINKS_MEDIA_TYPE = "application/x-votable+xml;content=datalink"
#: Identifiers of the descriptors in a document.
LINKS, SODA = "links", "soda"


def links_descriptor(base_url: str, column: str = "candidate_id") -> ServiceDescriptor:
    """All that there is of each row's object: cutouts, pictures, its page.

    Parameters
    ----------
    base_url
        The service's root as clients reach it, without a slash at its end.
    column
        Name of the answer's column that names the objects.
    """
    return ServiceDescriptor(
        identifier=LINKS,
        access_url=f"{base_url}/datalink",
        standard_id=LINKS_STANDARD,
        inputs=(Parameter("ID", column=column, ucd="meta.id;meta.main"),),
        description="Cutouts, pictures and pages of each object",
        content_type=LINKS_MEDIA_TYPE,
    )


def cutout_descriptor(base_url: str, column: str = "candidate_id") -> ServiceDescriptor:
    """The cutout of each row's object; the parameters are those of :func:`links_descriptor`."""
    return ServiceDescriptor(
        identifier=SODA,
        access_url=f"{base_url}/cutout",
        standard_id=SODA_STANDARD,
        inputs=(
            Parameter("ID", column=column, ucd="meta.ref.url;meta.curation"),
            Parameter(
                "CIRCLE", ucd="pos.outline;obs", datatype="double", arraysize="3", unit="deg", xtype="circle",
                description="Only the part that holds this circle",
            ),
            Parameter("BAND", ucd="instr.bandpass", options=get_args(Picture), description="What is cut out or drawn"),
            Parameter("FORMAT", ucd="meta.code.mime", options=tuple(MEDIA_TYPES), description="Pixels or a picture"),
            Parameter("STRETCH", ucd="meta.code", options=CURVES, description="From pixels to brightness"),
        ),
        description="Cutouts of each object",
    )  # fmt: skip
