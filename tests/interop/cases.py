"""What the interoperability tests run: a program of the guest, who connects, and with which settings on both sides."""

from dataclasses import dataclass, field
from enum import Enum

from softndk import IwarpConfig

__all__ = [
    "CRC_OFF",
    "DEFAULTS",
    "NO_P2P",
    "REVISION_1",
    "SIW_CRC",
    "SIW_CRC_P2P",
    "SIW_STRICT",
    "Active",
    "Case",
    "Variant",
]


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings of both sides. siw: module parameters that differ from the driver's defaults. ours: of the adapter."""

    name: str
    siw: dict[str, int] = field(default_factory=dict)
    ours: IwarpConfig = field(default_factory=IwarpConfig)


DEFAULTS = Variant("defaults")
"""Both as they come: softndk asks for CRC, so CRC is on."""
SIW_CRC = Variant("siw: crc", {"mpa_crc_required": 1})
SIW_CRC_P2P = Variant("siw: crc, p2p", {"mpa_crc_required": 1, "peer_to_peer": 1})
SIW_STRICT = Variant("siw: crc refused", {"mpa_crc_strict": 1})
CRC_OFF = Variant("crc off", {}, IwarpConfig(crc=False))
NO_P2P = Variant("softndk: no p2p", {}, IwarpConfig(peer_to_peer=False))
REVISION_1 = Variant("mpa 1", {"mpa_version": 1}, IwarpConfig(mpa_revision=1))
"""Whoever connects asks for revision 1; who listens answers both."""


class Active(Enum):
    """Which side connects."""

    SOFTNDK = "softndk -> siw"
    SIW = "siw -> softndk"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. detail: what else tells it from the others of its program. smoke: .ci/run runs it."""

    program: str
    active: Active
    variant: Variant = DEFAULTS
    detail: str = ""
    smoke: bool = False

    def __str__(self) -> str:
        """The test's name."""
        parts = (self.program, self.active.name.lower(), self.variant.name, self.detail)
        return "-".join(part.replace(":", "").replace(",", "").replace(" ", "_") for part in parts if part)
