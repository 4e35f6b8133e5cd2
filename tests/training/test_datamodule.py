"""The data module returns for each epoch the texts of its round, a pure function of row and round."""

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
    def build(*args):
        config = load_config([*tiny_args, *args])
        rows, llm = read_rows(config.data), open_llm(config)
        pipeline = open_pipeline(config, rows, llm)
        return TextDataModule(pipeline, rows, load_tokenizer(config.model))

    return build


def ids(texts):
    return [encoding["input_ids"] for encoding in texts]


def test_epochs_cycle_through_the_rounds(data):
    module = data("method=rules", "perturbation.rounds=2")
    first, second, third = (module.train_texts(epoch) for epoch in range(3))
    assert ids(first.clean) == ids(second.clean)
    assert ids(first.candidates[0]) != ids(second.candidates[0])
    assert ids(first.candidates[0]) == ids(third.candidates[0])


def test_texts_do_not_depend_on_which_epoch_was_read_first(data):
    assert ids(data("method=rules").train_texts(1).candidates[0]) == ids(_after_epoch_0(data("method=rules")))


def _after_epoch_0(module):
    module.train_texts(0)
    return module.train_texts(1).candidates[0]


def test_without_perturbation_the_second_view_is_the_clean_text(data):
    texts = data("method=plain").train_texts(0)
    assert ids(texts.candidates[0]) == ids(texts.clean)


def test_weight_zero_omits_the_second_view(data):
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


class TestHardestView:
    """If the hardest of several rounds is selected, each round is a view."""

    ARGS = ("method=rules", "perturbation.rounds=3", "perturbation.num_candidates=2")

    def test_an_epoch_has_its_round_and_the_next_ones_as_candidates(self, data):
        module, single = data(*self.ARGS), data("method=rules", "perturbation.rounds=3")
        rounds = [ids(single.train_texts(epoch).candidates[0]) for epoch in range(3)]
        for epoch in range(4):
            candidates = [ids(texts) for texts in module.train_texts(epoch).candidates]
            assert candidates == [rounds[epoch % 3], rounds[(epoch + 1) % 3]]

    def test_the_candidates_of_a_batch_have_one_length_and_belong_to_its_rows(self, data):
        module = data(*self.ARGS)
        texts = module.train_texts(0)
        batch = module._collate([texts[index] for index in (3, 0, 5)])
        clean, *candidates = batch["views"]
        assert len(candidates) == 2 and len({view["input_ids"].shape for view in candidates}) == 1
        for view, encodings in zip(batch["views"], [texts.clean, *texts.candidates], strict=True):
            unpadded = [
                [id for id, is_token in zip(*row, strict=True) if is_token]
                for row in zip(view["input_ids"].tolist(), view["attention_mask"].tolist(), strict=True)
            ]
            assert unpadded == [encodings[index]["input_ids"] for index in (3, 0, 5)]
        assert clean["attention_mask"].sum(1).max() == clean["input_ids"].shape[1]


class TestPrefetching:
    """With a model on a server, round e+1 is generated during epoch e."""

    OURS = ("method=ours", "alignment.style=false", "perturbation.rounds=3", "trainer.epochs=3")
    REMOTE = (*OURS, "llm=openai", "llm.model=m", "llm.base_url=http://127.0.0.1:9/v1")

    @pytest.fixture
    def fitted(self, data, scripted, monkeypatch):
        """Fit with the scripted engine as the server; return the data module and the generating threads by round."""
        monkeypatch.setattr(engines, "_engine", lambda config: scripted)
        reply, threads = scripted.reply, {}

        def record_thread(request):
            if request.stage == "perturb":
                threads.setdefault(request.round, set()).add(threading.current_thread().name)
            return reply(request)

        scripted.reply = record_thread

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
                module.stop_prefetching()
            return module, threads

        return run

    def test_each_later_round_is_generated_in_a_separate_thread(self, fitted):
        _, threads = fitted()
        assert threads == {0: {threading.current_thread().name}, 1: {"round 1"}, 2: {"round 2"}}

    def test_the_candidates_of_the_next_epoch_are_generated_in_separate_threads(self, fitted):
        _, threads = fitted((*self.REMOTE, "perturbation.num_candidates=2"))
        main_thread = {threading.current_thread().name}
        assert threads == {0: main_thread, 1: main_thread, 2: {"round 2"}}

    def test_prefetching_does_not_change_the_texts(self, fitted, data):
        module, _ = fitted()
        plain = data(*self.REMOTE, "store.engine=false")
        for epoch in range(3):
            assert ids(plain.train_texts(epoch).candidates[0]) == ids(module.train_texts(epoch).candidates[0])

    def test_a_model_that_shares_the_processor_generates_before_the_epoch(self, fitted):
        _, threads = fitted((*self.OURS, "llm=smollm2"))
        assert set().union(*threads.values()) == {threading.current_thread().name}

    def test_a_prefetching_error_is_raised_when_its_round_is_read(self, fitted, scripted):
        reply = scripted.reply

        def failing(request):
            if request.round == 1:
                raise UserError("the server is gone")
            return reply(request)

        scripted.reply = failing
        with pytest.raises(UserError, match="the server is gone"):
            fitted()

    def test_stopping_cancels_prefetching_and_stores_the_answered_requests(self, fitted, data, scripted):
        reply, started = scripted.reply, threading.Event()

        def slow(request):
            if request.round == 1:
                started.set()
                time.sleep(0.05)
            return reply(request)

        scripted.reply = slow
        module = data(*self.REMOTE)
        module.train_texts(0)
        module.validation_texts()
        module._prefetch(1)
        assert started.wait(10)
        module.stop_prefetching()
        requests = [request for request in scripted.asked if request.round == 1]
        assert 0 < len(requests) < len(module.rows.train)
        assert all(module.pipeline.store.get(request.key("m")) for request in requests)
        module.pipeline.perturbed(module.clean_traces(), 1)  # the other texts can be generated later


class TestSeveralRanks:
    """Two ranks, as threads that share only the store."""

    OURS = ("method=ours", "alignment.style=false", "llm=smollm2", "store.takeover_seconds=60", "trainer.batch_size=8")

    @pytest.fixture
    def ranks(self, data, monkeypatch):
        """Return a function that calls `read` on each rank's data module in parallel.

        It returns the results and the requests of each rank.
        """

        def run(read, *args):
            engine_by_thread = {f"rank {rank}": Scripted() for rank in range(2)}
            monkeypatch.setattr(engines, "_engine", lambda config: engine_by_thread[threading.current_thread().name])
            results = {}

            def work(rank):
                module = data(*self.OURS, *args)
                module.trainer = SimpleNamespace(
                    global_rank=rank, world_size=2, accumulate_grad_batches=1, current_epoch=0, max_epochs=1
                )
                module.setup("fit")
                results[rank] = read(module)

            threads = [threading.Thread(target=work, args=(rank,), name=f"rank {rank}") for rank in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
            return [results[rank] for rank in range(2)], [engine.asked for engine in engine_by_thread.values()]

        return run

    def test_each_missing_text_is_generated_by_the_rank_of_its_key(self, ranks):
        (first, second), requests = ranks(lambda module: module.train_texts(0))
        keys = [{request.key("smollm2-135m-instruct-q4_1") for request in of_rank} for of_rank in requests]
        assert not keys[0] & keys[1] and sum(map(len, requests)) == len(keys[0] | keys[1])
        assert all(int(key[:8], 16) % 2 == rank for rank, of_rank in enumerate(keys) for key in of_rank)
        assert ids(first.clean) == ids(second.clean) and [*map(ids, first.candidates)] == [*map(ids, second.candidates)]

    def test_two_ranks_read_the_steps_of_one_process(self, ranks, data, scripted, monkeypatch):
        by_rank, _ = ranks(lambda module: list(module.train_dataloader()))
        single = list(data(*self.OURS, "store.engine=false").train_dataloader())
        assert len(by_rank[0]) == len(by_rank[1]) == len(single)
        for first, second, step in zip(*by_rank, single, strict=True):
            assert first["targets"] + second["targets"] == step["targets"]
            assert first["weight"] + second["weight"] == pytest.approx(2)

    def test_each_validation_row_is_counted_once(self, ranks, data):
        """36 texts in batches of 16: one rank reads a batch that is not counted."""
        levels = "robustness.val_levels=[0.1,0.3,0.5,0.7,0.9]"
        by_rank, _ = ranks(lambda module: list(module.val_dataloader()), levels)
        conditions = torch.cat([batch["conditions"] for batches in by_rank for batch in batches])
        assert len(by_rank[0]) == len(by_rank[1]) and (conditions < 0).any()
        rows = len(data(*self.OURS).rows.val)
        assert torch.bincount(conditions[conditions >= 0]).tolist() == [rows] * 6
