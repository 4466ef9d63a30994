"""The checksum against published values."""

import pytest

from softndk.wire.crc32c import CRC_OCTETS, RESIDUE, crc32c
from tests.vectors.iwarp_vectors import CHECKSUMS, FPDUS, Checksum, Frame


@pytest.mark.parametrize("vector", CHECKSUMS, ids=str)
def test_published_value_and_its_octets_on_the_wire(vector: Checksum) -> None:
    assert crc32c(vector.data) == vector.value
    assert CRC_OCTETS.pack(crc32c(vector.data)) == vector.sent


@pytest.mark.parametrize("vector", CHECKSUMS, ids=str)
def test_continues_from_an_earlier_value(vector: Checksum) -> None:
    for cut in range(len(vector.data) + 1):
        assert crc32c(vector.data[cut:], crc32c(vector.data[:cut])) == vector.value


@pytest.mark.parametrize("vector", CHECKSUMS, ids=str)
def test_data_with_its_own_checksum_leaves_the_residue(vector: Checksum) -> None:
    assert crc32c(vector.data + vector.sent) == RESIDUE


@pytest.mark.parametrize("fpdu", FPDUS, ids=str)
def test_covers_a_whole_fpdu_before_it(fpdu: Frame) -> None:
    assert CRC_OCTETS.pack(crc32c(fpdu.octets[:-4])) == fpdu.octets[-4:]


def test_takes_any_bytes_like_object_and_changes_nothing() -> None:
    data = bytearray(b"123456789")
    assert crc32c(data) == crc32c(memoryview(data)) == crc32c(bytes(data)) == 0xE3069283
    assert data == b"123456789"


def test_of_nothing_is_the_start_value() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"", 0x12345678) == 0x12345678
