"""Files that are written while training goes on: in order, as they were when they were given, and none too often."""

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from src.models.checkpoints import snapshot
from src.processes.background import Background
from src.training import state as states
from src.training.resuming import read_state
from src.training.run import TABLES
from src.training.state import STATE_FILE, Keeper, TrainingState


def test_pieces_are_done_in_their_order():
    done, background = [], Background()
    for number in range(20):
        background.give(lambda number=number: done.append(number))
    background.finish()
    assert done == list(range(20))


def test_one_in_work_and_one_that_waits_are_all_that_is_held():
    background, may_end, done = Background(), threading.Event(), []
    background.give(lambda: may_end.wait(60))  # not for ever, where an assertion below fails
    background.give(lambda: done.append("second"))
    third = threading.Thread(target=lambda: background.give(lambda: done.append("third")))
    third.start()
    third.join(0.2)
    assert third.is_alive(), "it has to wait for the first"
    assert done == []
    may_end.set()
    third.join()
    background.finish()
    assert done == ["second", "third"]


def test_what_a_piece_raises_the_next_call_raises():
    def fail():
        raise OSError("the disk is full")

    background = Background()
    background.give(fail)
    with pytest.raises(OSError, match="the disk is full"):
        background.finish()
    background.finish()  # it was told


def test_a_snapshot_is_nobodys_but_its_own():
    module = nn.Linear(2, 2)
    content = {"weights": module.state_dict(), "list": [torch.zeros(2), "word"], "random": (3, (1, None))}
    copied = snapshot(content)
    with torch.no_grad():
        module.weight.fill_(7)
    content["list"][0].fill_(7)
    assert type(copied["weights"]) is type(content["weights"])
    assert copied["weights"].keys() == content["weights"].keys()
    assert not (copied["weights"]["weight"] == 7).any()
    assert copied["list"][0].tolist() == [0, 0]
    assert (copied["list"][1], copied["random"]) == ("word", (3, (1, None)))


@pytest.fixture
def clock(monkeypatch):
    """Return the time that states go by, a second later with each look."""
    times = SimpleNamespace(now=0.0)

    def look():
        times.now += 1
        return times.now

    monkeypatch.setattr(states, "time", SimpleNamespace(monotonic=look))
    return times


@pytest.fixture
def keeper(tmp_path, clock):
    module = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    state = TrainingState(module, optimizer, torch.amp.GradScaler("cpu", enabled=False), torch.Generator(), seed=0)
    run = SimpleNamespace(
        folder=tmp_path, state=lambda: {"rows": dict.fromkeys(TABLES, ()), "best": {}, "experiment": None}
    )
    return Keeper(state, run, triplets=4, facts={}, saves=True)


def epochs_on_disk(keeper):
    keeper.finish()
    return read_state(keeper.run.folder)["next_epoch"]


def test_states_take_a_fifth_of_the_time_at_most(keeper, clock):
    """A write takes a second of this clock, so the next one begins five seconds behind it at the earliest."""
    keeper.state.next_epoch = 1
    keeper.save_state()
    assert epochs_on_disk(keeper) == 1
    began = 1
    keeper.state.next_epoch = 2
    clock.now = began + 3
    keeper.save_state()
    assert epochs_on_disk(keeper) == 1
    assert "goes on from 1 finished epoch" in keeper.last_words()
    clock.now = began + 4
    keeper.save_state()
    assert epochs_on_disk(keeper) == 2
    assert "goes on from 2 finished epochs" in keeper.last_words()


def test_the_last_state_is_written_at_once(keeper):
    for epoch in (1, 2):
        keeper.state.next_epoch = epoch
        keeper.save_state(at_once=True)
    assert epochs_on_disk(keeper) == 2


def test_a_state_is_of_the_moment_it_was_given(keeper):
    before = keeper.state.trained.weight.detach().clone()
    keeper.state.next_epoch = 1
    keeper.save_state()
    with torch.no_grad():
        keeper.state.trained.weight.add_(1)
    keeper.finish()
    assert torch.equal(read_state(keeper.run.folder)["weights"]["weight"], before)


def test_a_state_that_cannot_be_written_is_named(keeper):
    keeper.run.folder = keeper.run.folder / STATE_FILE
    keeper.run.folder.write_text("a file in the place of a folder")
    keeper.state.next_epoch = 1
    keeper.save_state()
    with pytest.raises(OSError, match=STATE_FILE):
        keeper.finish()


def test_a_fault_of_a_card_is_no_full_disk(keeper):
    """A tensor that cannot be copied stands in for a card that has failed."""
    keeper.state.trained.weight = nn.Parameter(torch.empty(2, 2, device="meta"))
    keeper.state.next_epoch = 1
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        keeper.save_state()
    keeper.finish()
    assert not (keeper.run.folder / STATE_FILE).exists()
    assert "no finished epoch" in keeper.last_words()
