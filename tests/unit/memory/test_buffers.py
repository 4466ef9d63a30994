"""Buffers as flat ranges of octets: what is one, chains, pieces, and whose memory it is."""

import array
import ctypes
import mmap

import numpy as np
import pytest

from softndk.errors import InvalidParameter
from softndk.memory.buffers import ByteRange, Mdl, address_of, byte_view

TOP = 1 << 64


class TestByteView:
    @pytest.mark.parametrize(
        "buffer",
        [
            b"\1\2\3\4",
            bytearray(b"\1\2\3\4"),
            memoryview(b"\1\2\3\4"),
            array.array("H", [0x0201, 0x0403]),
            np.array([0x04030201], dtype="<u4"),
            np.array([[1, 2], [3, 4]], dtype="u1"),
            (ctypes.c_ubyte * 4)(1, 2, 3, 4),
        ],
        ids=lambda buffer: type(buffer).__name__,
    )
    def test_every_kind_of_buffer(self, buffer: object) -> None:
        view = byte_view(buffer)  # type: ignore[arg-type]
        assert (view.ndim, view.format, view.itemsize) == (1, "B", 1)
        assert bytes(view) == b"\1\2\3\4"

    def test_anonymous_mapping(self) -> None:
        with mmap.mmap(-1, 4096) as mapping:
            view = byte_view(mapping)
            view[0] = 7
            view.release()
            assert mapping[0] == 7

    @pytest.mark.parametrize("buffer", [b"", bytearray(), np.zeros((0, 4)), np.zeros((4, 0))])
    def test_empty(self, buffer: bytes) -> None:
        assert byte_view(buffer).nbytes == 0

    @pytest.mark.parametrize("buffer", [1, None, "text", [1, 2], object()])
    def test_no_buffer(self, buffer: object) -> None:
        with pytest.raises(InvalidParameter, match="what I gave"):
            byte_view(buffer, "what I gave")  # type: ignore[arg-type]

    @pytest.mark.rules("R-REGMR-1")
    @pytest.mark.parametrize(
        "buffer",
        [np.zeros(8)[::2], np.zeros((4, 4)).T, np.zeros((4, 4))[:, 1], memoryview(bytearray(8))[::2]],
        ids=["step", "transposed", "column", "memoryview"],
    )
    def test_not_contiguous(self, buffer: memoryview) -> None:
        """R-REGMR-1."""
        with pytest.raises(InvalidParameter, match="contiguous"):
            byte_view(buffer)

    def test_numpy_types_without_a_buffer(self) -> None:
        with pytest.raises(InvalidParameter):
            byte_view(np.zeros(4, dtype="datetime64[s]"))


class TestByteRange:
    def make(self) -> tuple[ByteRange, list[bytearray]]:
        parts = [bytearray(b"abc"), bytearray(), bytearray(b"d"), bytearray(b"efghij")]
        return ByteRange([memoryview(part) for part in parts]), parts

    def test_length(self) -> None:
        assert self.make()[0].length == 10
        assert ByteRange([]).length == 0

    @pytest.mark.parametrize("offset", range(11))
    @pytest.mark.parametrize("length", range(11))
    def test_every_slice(self, offset: int, length: int) -> None:
        if offset + length <= 10:
            memory, _ = self.make()
            views = memory.slices(offset, length)
            assert b"".join(views) == b"abcdefghij"[offset : offset + length]
            assert all(view.nbytes for view in views)

    def test_one_part(self) -> None:
        memory = ByteRange([memoryview(b"0123456789")])
        assert [bytes(view) for view in memory.slices(3, 4)] == [b"3456"]
        assert memory.slices(3, 0) == []

    def test_slices_are_the_memory_itself(self) -> None:
        memory, parts = self.make()
        for view in memory.slices(2, 3):
            view[:] = b"X" * view.nbytes
        assert parts == [bytearray(b"abX"), bytearray(), bytearray(b"X"), bytearray(b"Xfghij")]

    def test_read_only_if_any_part_is(self) -> None:
        assert not self.make()[0].readonly
        assert ByteRange([memoryview(bytearray(b"a")), memoryview(b"b")]).readonly

    def test_release_gives_the_buffers_back(self) -> None:
        memory, parts = self.make()
        with pytest.raises(BufferError):
            parts[0].append(1)
        memory.release()
        parts[0].append(1)
        assert memory.length == 0

    def test_a_view_handed_out_earlier_outlives_the_release(self) -> None:
        memory, parts = self.make()
        (view,) = memory.slices(4, 6)
        memory.release()
        assert bytes(view) == b"efghij"
        with pytest.raises(BufferError):
            parts[3].append(1)
        view.release()
        parts[3].append(1)


class TestMdl:
    def test_the_address_of_one_buffer_is_its_real_one(self) -> None:
        buffer = np.zeros(16, dtype="u1")
        mdl = Mdl(buffer)
        assert mdl.address == buffer.ctypes.data
        assert mdl.length == 16

    def test_a_slice_has_its_own_address(self) -> None:
        buffer = bytearray(100)
        whole = Mdl(buffer).address
        assert Mdl(memoryview(buffer)[10:20]).address == whole + 10
        assert address_of(memoryview(buffer)[10:]) == whole + 10

    @pytest.mark.rules("R-LAM-5")
    def test_a_given_address_is_only_a_number(self) -> None:
        """R-LAM-5."""
        mdl = Mdl(bytearray(8), address=0x1234)
        assert mdl.address == 0x1234

    @pytest.mark.parametrize("sequence", [list, tuple])
    def test_a_chain(self, sequence: type[list[bytearray]] | type[tuple[bytearray, ...]]) -> None:
        parts = [bytearray(b"abc"), bytearray(b"defg")]
        mdl = Mdl(sequence(parts), address=0x1000)
        assert mdl.length == 7
        memory = mdl.byte_range(7)
        assert b"".join(memory.slices(0, 7)) == b"abcdefg"

    def test_a_chain_has_no_address_of_its_own(self) -> None:
        with pytest.raises(InvalidParameter, match="address="):
            Mdl([bytearray(1), bytearray(1)])

    @pytest.mark.parametrize("length", range(8))
    def test_the_first_octets_of_a_chain(self, length: int) -> None:
        mdl = Mdl([b"abc", b"", b"defg"], address=0)
        memory = mdl.byte_range(length)
        assert memory.length == length
        assert b"".join(memory.slices(0, length)) == b"abcdefg"[:length]

    def test_a_chain_of_one_keeps_its_real_address(self) -> None:
        buffer = bytearray(4)
        assert Mdl([buffer]).address == Mdl(buffer).address

    @pytest.mark.rules("R-LAM-1")
    @pytest.mark.parametrize("address", [-1, TOP, TOP - 3])
    def test_it_must_not_pass_the_top(self, address: int) -> None:
        """R-LAM-1."""
        with pytest.raises(InvalidParameter, match="2\\^64"):
            Mdl(bytearray(4), address=address)

    def test_up_to_the_top(self) -> None:
        assert Mdl(bytearray(4), address=TOP - 4).length == 4

    def test_not_contiguous(self) -> None:
        with pytest.raises(InvalidParameter):
            Mdl([b"ok", np.zeros(8)[::2]], address=0)

    def test_nothing_is_held_before_a_range_is_made(self) -> None:
        buffer = bytearray(4)
        mdl = Mdl(buffer)
        buffer.append(1)
        buffer.pop()
        memory = mdl.byte_range(4)
        with pytest.raises(BufferError):
            buffer.append(1)
        memory.release()
        buffer.append(1)
