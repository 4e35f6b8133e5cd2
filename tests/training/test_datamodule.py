"""The data module gives each epoch the texts of its round, as a pure function of row and round."""

import threading
import time
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from project.config.compose import load_config
from project.data.rows import read_rows
from project.errors import UserError
from project.llm import factory as engines
from project.llm.factory import open_llm
from project.pipeline.pipeline import open_pipeline
from project.training.datamodule import TextDataModule
from project.training.encoder import load_tokenizer
from project.training.module import RobustModule
from tests.conftest import Scripted


@pytest.fixture
def data(tiny_args):
    def made(*args):
        config = load_config([*tiny_args, *args])
        rows, llm = read_rows(config.data), open_llm(config)
        pipeline = open_pipeline(config, rows, llm)
        return TextDataModule(pipeline, rows, load_tokenizer(config.model))

    return made


def ids(texts):
    return [encoding["input_ids"] for encoding in texts]


def test_epochs_take_the_rounds_in_turn(data):
    module = data("method=rules", "perturbation.rounds=2")
    first, second, third = (module.train_texts(epoch) for epoch in range(3))
    assert ids(first.clean) == ids(second.clean)
    assert ids(first.candidates[0]) != ids(second.candidates[0])
    assert ids(first.candidates[0]) == ids(third.candidates[0])


def test_texts_do_not_depend_on_which_epoch_was_asked_for_first(data):
    assert ids(data("method=rules").train_texts(1).candidates[0]) == ids(_after_epoch_0(data("method=rules")))


def _after_epoch_0(module):
    module.train_texts(0)
    return module.train_texts(1).candidates[0]


def test_without_perturbation_the_second_view_is_the_clean_text(data):
    texts = data("method=plain").train_texts(0)
    assert ids(texts.candidates[0]) == ids(texts.clean)


def test_weight_zero_leaves_the_second_view_out(data):
    module = data("method=rules", "perturbation.weight=0")
    assert module.train_texts(0).candidates == []
    batch = next(iter(module.train_dataloader()))
    assert [len(view["input_ids"]) for view in batch["views"]] == [len(batch["labels"])]


def test_a_batch_holds_both_views_of_the_same_rows_in_the_same_order(data):
    module = data("method=plain")
    batch = next(iter(module.train_dataloader()))
    clean, second = (view["input_ids"] for view in batch["views"])
    assert len(clean) == len(batch["labels"]) and torch.equal(clean, second)


def test_a_view_is_padded_to_its_own_longest_text(data):
    for batch in data("method=rules").train_dataloader():
        assert all(view["attention_mask"].sum(1).max() == view["input_ids"].shape[1] for view in batch["views"])


def test_validation_reads_the_panel_clean_first(data):
    module = data("method=plain", "robustness.val_levels=[0.3,0.9]")
    batches = list(module.val_dataloader())
    conditions = torch.cat([batch["conditions"] for batch in batches])
    assert conditions.tolist() == [index for index in range(3) for _ in module.rows.val]


class TestWorst:
    """Where the worst of several rounds is chosen, each of them is a view."""

    ARGS = ("method=rules", "perturbation.rounds=3", "perturbation.num_candidates=2")

    def test_an_epoch_has_its_round_and_the_next_ones_as_candidates(self, data):
        module, single = data(*self.ARGS), data("method=rules", "perturbation.rounds=3")
        rounds = [ids(single.train_texts(epoch).candidates[0]) for epoch in range(3)]
        for epoch in range(4):
            found = [ids(texts) for texts in module.train_texts(epoch).candidates]
            assert found == [rounds[epoch % 3], rounds[(epoch + 1) % 3]]

    def test_the_candidates_of_a_batch_have_one_length_and_are_their_rows_texts(self, data):
        module = data(*self.ARGS)
        texts = module.train_texts(0)
        batch = module._collate([texts[index] for index in (3, 0, 5)])
        clean, *candidates = batch["views"]
        assert len(candidates) == 2 and len({view["input_ids"].shape for view in candidates}) == 1
        for view, there in zip(batch["views"], [texts.clean, *texts.candidates], strict=True):
            read = [
                [id for id, there in zip(*row, strict=True) if there]
                for row in zip(view["input_ids"].tolist(), view["attention_mask"].tolist(), strict=True)
            ]
            assert read == [there[index]["input_ids"] for index in (3, 0, 5)]
        assert clean["attention_mask"].sum(1).max() == clean["input_ids"].shape[1]


class TestGeneratingAhead:
    """With a model on a server, round e+1 is generated behind epoch e."""

    OURS = ("method=ours", "alignment.style=false", "perturbation.rounds=3", "trainer.epochs=3")
    REMOTE = (*OURS, "llm=openai", "llm.model=m", "llm.base_url=http://127.0.0.1:9/v1")

    @pytest.fixture
    def fitted(self, data, scripted, monkeypatch):
        """Fits with the scripted engine as the server; returns the data module and who generated which round."""
        monkeypatch.setattr(engines, "_engine", lambda config: scripted)
        reply, whose = scripted.reply, {}

        def watched(request):
            if request.stage == "perturb":
                whose.setdefault(request.round, set()).add(threading.current_thread().name)
            return reply(request)

        scripted.reply = watched

        def run(args=self.REMOTE):
            module = data(*args)
            trainer = L.Trainer(
                max_epochs=3,
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                reload_dataloaders_every_n_epochs=1,
            )
            try:
                trainer.fit(RobustModule(module.config, module.rows.target, 9), module)
            finally:
                module.stop_ahead()
            return module, whose

        return run

    def test_each_later_round_comes_from_a_thread_of_its_own(self, fitted):
        _, whose = fitted()
        assert whose == {0: {threading.current_thread().name}, 1: {"round 1"}, 2: {"round 2"}}

    def test_the_candidates_of_the_next_epoch_come_from_threads_of_their_own(self, fitted):
        _, whose = fitted((*self.REMOTE, "perturbation.num_candidates=2"))
        here = {threading.current_thread().name}
        assert whose == {0: here, 1: here, 2: {"round 2"}}

    def test_the_texts_are_the_same_as_without(self, fitted, data):
        module, _ = fitted()
        plain = data(*self.REMOTE, "store.engine=false")
        for epoch in range(3):
            assert ids(plain.train_texts(epoch).candidates[0]) == ids(module.train_texts(epoch).candidates[0])

    def test_a_model_that_shares_the_processor_generates_before_the_epoch(self, fitted):
        _, whose = fitted((*self.OURS, "llm=smollm2"))
        assert set().union(*whose.values()) == {threading.current_thread().name}

    def test_an_error_behind_an_epoch_is_raised_where_its_round_is_due(self, fitted, scripted):
        reply = scripted.reply

        def failing(request):
            if request.round == 1:
                raise UserError("the server is gone")
            return reply(request)

        scripted.reply = failing
        with pytest.raises(UserError, match="the server is gone"):
            fitted()

    def test_stopping_gives_up_what_nobody_waits_for_and_keeps_what_was_answered(self, fitted, data, scripted):
        reply, begun = scripted.reply, threading.Event()

        def slow(request):
            if request.round == 1:
                begun.set()
                time.sleep(0.05)
            return reply(request)

        scripted.reply = slow
        module = data(*self.REMOTE)
        module.train_texts(0)
        module.validation_texts()
        module._generate_ahead(1)
        assert begun.wait(10)
        module.stop_ahead()
        asked = [request for request in scripted.asked if request.round == 1]
        assert 0 < len(asked) < len(module.rows.train)
        assert all(module.pipeline.store.get(request.key("m")) for request in asked)
        module.pipeline.perturbed(module.clean_traces(), 1)  # and the rest can be had later


class TestSeveralRanks:
    """Two ranks, as threads that share nothing but the store."""

    OURS = ("method=ours", "alignment.style=false", "llm=smollm2", "store.takeover_seconds=60", "trainer.batch_size=8")

    @pytest.fixture
    def ranks(self, data, monkeypatch):
        """Runs `what` on the data module of each rank, side by side; returns what came out and what each generated."""

        def run(what, *args):
            engines_of = {f"rank {rank}": Scripted() for rank in range(2)}
            monkeypatch.setattr(engines, "_engine", lambda config: engines_of[threading.current_thread().name])
            found = {}

            def work(rank):
                module = data(*self.OURS, *args)
                module.trainer = SimpleNamespace(
                    global_rank=rank, world_size=2, accumulate_grad_batches=1, current_epoch=0, max_epochs=1
                )
                module.setup("fit")
                found[rank] = what(module)

            threads = [threading.Thread(target=work, args=(rank,), name=f"rank {rank}") for rank in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
            return [found[rank] for rank in range(2)], [engine.asked for engine in engines_of.values()]

        return run

    def test_each_missing_text_is_generated_by_the_rank_that_its_key_falls_to(self, ranks):
        (first, second), asked = ranks(lambda module: module.train_texts(0))
        keys = [{request.key("smollm2-135m-instruct-q4_1") for request in mine} for mine in asked]
        assert not keys[0] & keys[1] and sum(map(len, asked)) == len(keys[0] | keys[1])
        assert all(int(key[:8], 16) % 2 == rank for rank, mine in enumerate(keys) for key in mine)
        assert ids(first.clean) == ids(second.clean) and [*map(ids, first.candidates)] == [*map(ids, second.candidates)]

    def test_together_they_read_what_one_reads_step_by_step(self, ranks, data, scripted, monkeypatch):
        both, _ = ranks(lambda module: list(module.train_dataloader()))
        alone = list(data(*self.OURS, "store.engine=false").train_dataloader())
        assert len(both[0]) == len(both[1]) == len(alone)
        for first, second, whole in zip(*both, alone, strict=True):
            assert first["targets"] + second["targets"] == whole["targets"]
            assert first["weight"] + second["weight"] == pytest.approx(2)

    def test_each_validation_row_is_counted_once(self, ranks, data):
        """36 texts in batches of 16: one rank reads a batch that is not counted."""
        both, _ = ranks(lambda module: list(module.val_dataloader()), "robustness.val_levels=[0.1,0.3,0.5,0.7,0.9]")
        conditions = torch.cat([batch["conditions"] for mine in both for batch in mine])
        assert len(both[0]) == len(both[1]) and (conditions < 0).any()
        rows = len(data(*self.OURS).rows.val)
        assert torch.bincount(conditions[conditions >= 0]).tolist() == [rows] * 6
