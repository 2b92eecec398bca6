"""Weighted nearest neighbours, against scikit-learn's."""

import numpy as np
import pytest
import torch
from pictures import evaluated, pictures
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from us3l.evaluation.knn import evaluate_networks, votes
from us3l.params.protocols.knn import Knn
from us3l.utils.errors import UserError


def protocol(neighbours: int, temperature: float = 0.1) -> Knn:
    return Knn(kind="knn", neighbours=neighbours, temperature=temperature)


def clouds(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features [count, 16] of any length around a direction for each class, and labels that are seldom wrong."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 16, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (count,), generator=generator)
    lengths = 10 ** torch.randn(count, 1, generator=generator)
    return lengths * (centres[labels] + 2 * torch.randn(count, 16, generator=generator)), labels


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.1), (10, 0.07), (50, 0.1), (50, 1.0), (400, 0.02)])
def test_predictions_are_those_of_scikit_learn(neighbours: int, temperature: float) -> None:
    (known, labels), (asked, _) = clouds(400, 7, 0), clouds(700, 7, 1)
    theirs = KNeighborsClassifier(
        neighbours, weights=lambda distances: np.exp((1 - distances) / temperature), metric="cosine"
    ).fit(known.numpy(), labels.numpy())
    ours = votes(known, asked, labels, 7, protocol(neighbours, temperature))
    np.testing.assert_array_equal(ours.argmax(1), theirs.predict(asked.numpy()))
    np.testing.assert_allclose(ours, theirs.predict_proba(asked.numpy()), rtol=1e-9, atol=1e-12)


def test_the_temperature_says_how_much_more_the_nearest_count() -> None:
    known = torch.tensor([[1.0, 0.1], [1.0, 0.5], [1.0, 0.5]])
    asked, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0, 1, 1])
    assert votes(known, asked, labels, 2, protocol(3, 0.05)).argmax() == 0
    assert votes(known, asked, labels, 2, protocol(3, 10.0)).argmax() == 1


def test_a_small_temperature_does_not_overflow() -> None:
    (known, labels), (asked, _) = clouds(50, 3, 0), clouds(20, 3, 1)
    sharp = votes(known, asked, labels, 3, protocol(10, 1e-4))
    assert torch.equal(sharp.argmax(1), votes(known, asked, labels, 3, protocol(1)).argmax(1))


def test_a_class_that_no_neighbour_has_gets_no_vote() -> None:
    (known, labels), (asked, _) = clouds(50, 3, 0), clouds(20, 3, 1)
    shares = votes(known, asked, labels, 5, protocol(10))
    assert shares.shape == (20, 5)
    assert not shares[:, 3:].any()


def test_fewer_training_images_than_neighbours_are_refused_before_anything_is_computed() -> None:
    with pytest.raises(UserError) as caught:
        evaluate_networks([lambda x: pytest.fail("a network has run")], evaluated(*pictures()), protocol(61))
    message = "the knn protocol's neighbours must be at most 60, the number of training images, not 61"
    assert str(caught.value) == message


def test_as_many_neighbours_as_training_images_are_not() -> None:
    (result,) = evaluate_networks([torch.nn.Flatten()], evaluated(*pictures()), protocol(60))
    torch.testing.assert_close(result.logits.sum(1), torch.ones(30))
