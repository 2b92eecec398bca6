import pytest
import torch

from us3l.utils.philox import Purpose, RandomKey, permutation, philox, uniform

SAMPLES = torch.arange(1000)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    many = philox(tuple(torch.full((37,), word) for word in counter), key)
    for values, word in zip(many, words, strict=True):
        assert values.tolist() == [word] * 37


def test_numbers_have_the_moments_of_a_uniform_distribution_and_no_correlation() -> None:
    numbers = uniform(RandomKey(1, Purpose.AUGMENT, 2), torch.arange(20_000), count=5)
    assert numbers.shape == (20_000, 5)
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    assert abs(numbers.mean() - 1 / 2) < 4 / (12 * 100_000) ** 0.5
    assert abs(numbers.var() - 1 / 12) < 4 / (180 * 100_000) ** 0.5
    beside = torch.cat([numbers, numbers.roll(1, 0)], 1).T.corrcoef() - torch.eye(10)
    assert beside.abs().max() < 4.5 / 20_000**0.5


def test_every_part_of_the_address_gives_other_numbers() -> None:
    addresses = [
        ({}, {}),
        ({"seed": 1}, {}),
        ({"seed": 2**32}, {}),
        ({"seed": 2**63}, {}),
        ({"seed": -1}, {}),
        ({"purpose": Purpose.WIDTHS}, {}),
        ({"epoch": 1}, {}),
        ({"epoch": 2**31}, {}),
        ({}, {"part": 1}),
        ({}, {"address": SAMPLES + 1000}),
        ({}, {"address": SAMPLES + 2**31}),
    ]
    key, item = RandomKey(0, Purpose.ORDER, 0), {"address": SAMPLES, "part": 0}
    numbers = torch.cat(
        [uniform(key._replace(**of_key), **item | of_item, count=4).flatten() for of_key, of_item in addresses]
    )
    assert len(numbers.unique()) == len(numbers)


def test_a_number_does_not_depend_on_how_many_are_drawn_or_beside_which() -> None:
    many = uniform(RandomKey(3, Purpose.AUGMENT, 1), SAMPLES, 1, 9)
    for count in range(10):
        assert torch.equal(uniform(RandomKey(3, Purpose.AUGMENT, 1), SAMPLES, 1, count), many[:, :count])
    some = torch.tensor([7, 999, 0, 7])
    assert torch.equal(uniform(RandomKey(3, Purpose.AUGMENT, 1), some, 1, 9), many[some])
    parts = uniform(RandomKey(3, Purpose.AUGMENT, 1), torch.cat([SAMPLES, some]), torch.tensor([0] * 1000 + [1] * 4), 9)
    assert torch.equal(parts[1000:], many[some])


def test_a_permutation_has_every_number_once_and_changes_with_the_epoch() -> None:
    orders = [permutation(RandomKey(0, Purpose.ORDER, epoch), 1000, torch.device("cpu")) for epoch in (0, 0, 1)]
    assert torch.equal(orders[0].sort().values, SAMPLES)
    assert torch.equal(orders[0], orders[1])
    assert (orders[0] == orders[2]).sum() < 10


def test_all_permutations_are_equally_frequent() -> None:
    drawn = torch.stack(
        [permutation(RandomKey(5, Purpose.ORDER, epoch), 3, torch.device("cpu")) for epoch in range(1200)]
    )
    counts = (drawn @ torch.tensor([9, 3, 1])).unique(return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 200) ** 2 / 200).sum() < 20.5  # chi-squared with 5 degrees of freedom, p = 0.001


def test_an_order_shares_no_number_with_the_draws_of_its_purpose() -> None:
    order = permutation(RandomKey(0, Purpose.CALIBRATE, 0), 1000, torch.device("cpu"))
    for part in (0, 1):
        drawn = uniform(RandomKey(0, Purpose.CALIBRATE, 0), SAMPLES, part, 4)
        assert all((drawn[:, column].argsort() == order).sum() < 10 for column in range(4))
