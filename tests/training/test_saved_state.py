"""Saved states: one whose parts contradict each other is refused, so that no half of a training passes as a whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_inputs import RUN, sealed
from reader_attacks import trainer
from torch import Tensor

from us3l.params.runs import PretrainRun
from us3l.utils import checkpoint
from us3l.utils.errors import UserError

MOCO = {"name": "moco", "base_loss": "queue", "queue": 12, "projector": {"hidden": 4, "output": 4}}
RUNS = {
    "adamw": RUN,
    "sgd": RUN.model_copy(update={"optimizer": RUN.optimizer.model_copy(update={"kind": "sgd", "lr": 0.1})}),
    "moco": PretrainRun.model_validate(RUN.model_dump() | {"method": MOCO, "optimizer": {"lr": 0.1}}, strict=False),
}
Edit = Callable[[dict[str, Any], dict[str, Tensor]], Any]


def saved(path: Path, run: PretrainRun) -> None:
    """The state after an epoch and the first of two steps of the second."""
    path.unlink(missing_ok=True)
    made = trainer(path, run)
    for shards in made.stream.shards(0):
        made.advance(shards)
    made._finish_epoch()
    made.advance(next(iter(made.stream.shards(1))))
    made.save()


def edit(path: Path, change: Edit) -> None:
    """Change record and tensors, and seal them again."""
    tensors, record = checkpoint.load(path)
    about = json.loads(json.dumps({key: value for key, value in record.items() if key != "seal"}))
    change(about, tensors)
    path.write_bytes(sealed(tensors, about))


def refusal(path: Path, run: PretrainRun) -> str:
    with pytest.raises(UserError) as refused:
        trainer(path, run)
    sentence = str(refused.value)
    start, end = f"{path}: no state of this training: ", "; delete it, and the training starts from its beginning"
    assert sentence.startswith(start) and sentence.endswith(end) and "\n" not in sentence
    return sentence.removeprefix(start).removesuffix(end)


@pytest.mark.parametrize("name", RUNS)
def test_an_honest_state_continues_where_it_was(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "state", RUNS[name])
    made = trainer(tmp_path / "state", RUNS[name])
    assert (made.epoch, made.step, len(made.history)) == (1, 1, 1)
    made.run_to_the_end()
    assert [entry["epoch"] for entry in made.history] == [0, 1, 2, 3]


def later(about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Pretend that three epochs are done, with a history of as many."""
    rates = (1 + torch.linspace(0, 1, 5)[:4].mul(torch.pi).cos()) / 2
    first = about["history"][0]
    about["history"] = [{**first, "epoch": number, "lr": first["lr"] * float(rates[number])} for number in range(3)]
    about["epoch"] = 3
    for entry in about["history"][1:]:
        entry["loss"], entry["feature_std"] = [0.5] * 3, [0.5] * 3
    tensors["totals"] = torch.ones(3, 2)


@pytest.mark.parametrize("name", RUNS)
def test_a_state_that_was_sealed_again_with_another_epoch_is_refused(tmp_path: Path, name: str) -> None:
    for epoch in (0, 2, 3):
        saved(tmp_path / "state", RUNS[name])
        edit(tmp_path / "state", lambda about, tensors: about.update(epoch=epoch))  # noqa: B023
        assert refusal(tmp_path / "state", RUNS[name]) == f"its epoch is {epoch}, and it tells of others"
    saved(tmp_path / "state", RUNS[name])
    edit(tmp_path / "state", later)
    assert refusal(tmp_path / "state", RUNS[name]) == "it has taken 3 steps, and its epoch and step are those after 7"


def set_entry(**changes: Any) -> Edit:
    return lambda about, tensors: about["history"][0].update(changes)


def steps(number: int) -> Edit:
    return lambda about, tensors: (about.update(step=2), tensors.update(steps=torch.tensor([number])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about, tensors: about.update(epoch=4), "its epoch is 4 of 4"),
        (lambda about, tensors: about.update(epoch=-1), "its epoch is -1 of 4"),
        (lambda about, tensors: about.update(epoch=1.0), "its epoch is 1.0 of 4"),
        (lambda about, tensors: about.update(epoch=True), "its epoch is True of 4"),
        (lambda about, tensors: about.update(step=0), "its step is 0 of 2"),
        (lambda about, tensors: about.update(step=3), "its step is 3 of 2"),
        (lambda about, tensors: about.update(step="1"), "its step is '1' of 2"),
        (lambda about, tensors: about.update(step=2), "it has taken 3 steps, and its epoch and step are those after 4"),
        (steps(4), "its optimizer has counted 5 steps instead of 8"),
        (lambda about, tensors: about.update(seed=1), "its seed is 1, and that of the training is 0"),
        (lambda about, tensors: about.update(history=[]), "its epoch is 1, and it tells of others"),
        (lambda about, tensors: about.update(history=about["history"] * 2), "its epoch is 1, and it tells of others"),
        (lambda about, tensors: about.update(history="x"), "its epoch is 1, and it tells of others"),
        (lambda about, tensors: about.update(history=[3]), "epoch 0 in it is not as the run has it"),
        (set_entry(epoch=1), "epoch 0 in it is not as the run has it"),
        (set_entry(lr=0.002), "epoch 0 in it is not as the run has it"),
        (set_entry(seconds=10**4000), "epoch 0 in it is not as the run has it"),
        (set_entry(lr="x"), "epoch 0 in it is not as the run has it"),
        (set_entry(loss=[0.1, 0.1]), "epoch 0 in it is not as the run has it"),
        (set_entry(loss=["x"]), "epoch 0 in it is not as the run has it"),
        (set_entry(feature_std=[]), "epoch 0 in it is not as the run has it"),
        (set_entry(seconds=-1.0), "epoch 0 in it is not as the run has it"),
        (lambda about, tensors: about.update(seconds=-1.0), "its times are (-1.0, "),
        (lambda about, tensors: about.update(core_seconds=None), "its times are ("),
        (lambda about, tensors: tensors.pop("values"), "its values is absent instead of torch.float32 ["),
        (lambda about, tensors: tensors.update(more=torch.ones(1)), "its more is torch.float32 [1] instead of absent"),
        (
            lambda about, tensors: tensors.update(values=tensors["values"][:1]),
            "its values is torch.float32 [1] instead",
        ),
        (lambda about, tensors: tensors.update(values=tensors["values"].half()), "its values is torch.float16 ["),
        (lambda about, tensors: tensors["exp_avg"].fill_(torch.inf), "its exp_avg is not finite"),
        (lambda about, tensors: tensors.update(totals=torch.ones(1)), "its totals is torch.float32 [1] instead of"),
    ],
)
def test_whatever_contradicts_the_rest_is_refused(tmp_path: Path, change: Edit, said: str) -> None:
    saved(tmp_path / "state", RUN)
    edit(tmp_path / "state", change)
    assert refusal(tmp_path / "state", RUN).startswith(said)


def test_a_queue_that_is_not_where_the_steps_have_left_it_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "state", RUNS["moco"])
    edit(tmp_path / "state", lambda about, tensors: tensors["queue_position"].fill_(4))
    assert refusal(tmp_path / "state", RUNS["moco"]) == "its queue is at 4 instead of 0"


@pytest.mark.parametrize("key", ["epoch", "step", "seed", "history", "seconds", "core_seconds"])
def test_a_state_that_lacks_an_entry_is_refused(tmp_path: Path, key: str) -> None:
    saved(tmp_path / "state", RUN)
    edit(tmp_path / "state", lambda about, tensors: about.pop(key))
    with pytest.raises(UserError, match=f"{tmp_path}/state: has no entry {key}: another version"):
        trainer(tmp_path / "state", RUN)
