"""Philox4x32-10 against the known answers published with Random123 (kat_vectors of Salmon et al. 2011)."""

import plain
import pytest
import torch

from advkernels.backends import native
from advkernels.backends.reference.philox import philox_bits

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_plain_philox(counter: tuple, key: tuple, words: tuple) -> None:
    assert plain.philox4x32_10(list(counter), list(key)) == list(words)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_native_philox(counter: tuple, key: tuple, words: tuple) -> None:
    bindings = native.bindings()
    if bindings is None:
        pytest.skip("no compiled bindings for this Python")
    assert bindings.philox4x32_10(counter, key) == list(words)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_reference_philox(counter: tuple, key: tuple, words: tuple) -> None:
    def signed(low: int, high: int) -> int:
        value = low | high << 32
        return value - 2**64 if value >= 2**63 else value

    state = torch.tensor([signed(*key), signed(*counter[2:])])
    group = counter[0] | counter[1] << 32
    if group >= 2**61:
        pytest.skip("no int64 element index reaches this group; the plain and native tests cover it")
    index = 4 * group + torch.arange(4)
    assert philox_bits(state, index).tolist() == list(words)


def test_reference_philox_equals_plain_beyond_32_bits() -> None:
    seed, draw = 2**62 + 12345, 2**40 + 3
    index = torch.tensor([0, 1, 2**31, 2**32 + 5, 2**34 - 1, 2**34, 2**52 + 7, 2**62 + 2])
    bits = philox_bits(torch.tensor([seed, draw]), index).tolist()
    for i, word in zip(index.tolist(), bits, strict=True):
        counter = [i // 4 % 2**32, i // 4 // 2**32, draw % 2**32, draw // 2**32]
        assert word == plain.philox4x32_10(counter, [seed % 2**32, seed // 2**32])[i % 4]
