"""Bits of the FLAG mosaics, and what RMS says where there are no data.

In a tile, pixels without data are 0 in the image, :data:`NO_DATA_RMS` in RMS, and have :data:`NO_DATA` beside the bit of the
cause in FLAG: as in Euclid's mosaics. All other bits warn; the pixels' values are what was observed. What the flags of a real
survey miss is missed here too: some tracks, clumps and hot pixels have no bit.
"""

from __future__ import annotations

from scanner.simulation.telescope.artefacts import ArtefactKind

NO_DATA = 1  #: no exposure left: the pixel's value is 0 and its RMS 1e16
SATURATED = 2  #: VIS full well or NISP ramp exceeded in a star or a galaxy's core, bleeding trails included
COSMIC_RAY = 4  #: at least one exposure lost to a particle's track: fewer exposures, larger RMS
BAD_PIXEL = 8  #: a dead, hot or noisy pixel of the detector in at least one exposure
BAD_COLUMN = 16  #: a detector column or row that is a little off
GHOST = 32  #: an out-of-focus image of a bright star, brighter than the sky's noise
PERSISTENCE = 64  #: the after-image of a star in NISP, brighter than the sky's noise
TRAIL = 128  #: a satellite's trail, brighter than the sky's noise
STRAY_LIGHT = 256  #: a patch of stray light, brighter than the sky's noise
FEWER_EXPOSURES = 512  #: beyond the edge of a detector in at least one exposure: larger RMS

NO_DATA_RMS = 1.0e16

#: Bits of artefacts that stay in the image; what is not named here has escaped the flags.
OF_ARTEFACT: dict[ArtefactKind, int] = {
    ArtefactKind.GHOST: GHOST,
    ArtefactKind.GRADIENT: STRAY_LIGHT,
    ArtefactKind.BAD_COLUMN: BAD_COLUMN,
    ArtefactKind.PERSISTENCE: PERSISTENCE,
    ArtefactKind.TRAIL: TRAIL,
}
