"""The LightningModule trains adapter and head, and nothing else."""

import pytest
import torch

from project.config.compose import load_config
from project.config.schema import AdapterConfig, TextTransformerConfig
from project.data.target import Target
from project.errors import UserError
from project.training import heads as head
from project.training.encoder import base_model, encoder_path, load_tokenizer
from project.training.module import RobustModule


@pytest.fixture
def module(tiny_args):
    target = Target("class", "a", ("a", "b", "c"))
    return RobustModule(load_config([*tiny_args, "method=plain"]), target, total_steps=10)


def batch(rows, views):
    ids = [torch.randint(5, 50, (rows, 7)) for _ in range(views)]
    return {
        "views": [{"input_ids": view, "attention_mask": torch.ones_like(view)} for view in ids],
        "labels": torch.zeros(rows).long(),
    }


def test_only_adapter_and_head_are_trained(module):
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name or "classifier" in name for name in trained)


def test_dropout_is_active_in_training(module):
    assert all(part.training for part in module.modules())


def test_checkpoints_leave_the_base_weights_out(module):
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert set(checkpoint["state_dict"]) == trained


def test_the_loss_adds_the_weighted_loss_of_the_second_view(module):
    module.eval()
    module.log = lambda *args, **options: None
    both = batch(4, 2)
    apart = [{"views": [view], "labels": both["labels"]} for view in both["views"]]
    module.config.perturbation.weight = 0.5
    clean, second = (module.training_step(part, 0) for part in apart)
    assert torch.allclose(module.training_step(both, 0), clean + 0.5 * second, atol=1e-5)
    assert module.forward_samples == 4 + 4 + 8


def test_dropout_follows_from_seed_and_step_alone(module):
    module.train()
    module.log = lambda *args, **options: None
    same = batch(4, 2)
    losses = []
    for disturbance in (0, 99):
        torch.manual_seed(disturbance)
        module.on_train_batch_start(same, 0)
        losses.append(module.training_step(same, 0).item())
    assert losses[0] == losses[1]


class TestWorst:
    """Of each row's candidates the one with the highest loss under the current weights."""

    @pytest.fixture
    def measured(self, module):
        """The module with a planted model: a text's loss for label 0 is the higher the more its first token is."""
        module.log = lambda *args, **options: None
        module.forward = lambda view: (
            torch.stack([-view["input_ids"][:, 0].float(), *2 * [torch.zeros(len(view["input_ids"]))]], -1) / 10
        )
        module.config.perturbation.num_candidates = 3
        return module

    def candidates(self):
        views = []
        for firsts, lengths in (((9, 5, 7), (2, 4, 6)), ((6, 8, 7), (3, 3, 6)), ((1, 2, 9), (6, 6, 4))):
            mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
            ids = torch.tensor(firsts)[:, None].expand(3, 6) * mask
            views.append({"input_ids": ids, "attention_mask": mask.long()})
        return views

    def test_each_row_gets_the_text_with_the_highest_loss_cut_to_the_longest_that_was_chosen(self, measured):
        picked = measured.select_hardest_view(self.candidates(), torch.zeros(3).long())
        assert picked["input_ids"].tolist() == [[9, 9, 0, 0], [8, 8, 8, 0], [9, 9, 9, 9]]
        assert picked["attention_mask"].sum(1).tolist() == [2, 3, 4]

    def test_the_choice_is_scored_apart_from_what_is_learned_from(self, measured):
        clean = {name: values[:, :4] for name, values in self.candidates()[0].items()}
        read = []
        planted = measured.forward
        measured.forward = lambda view: read.append(view) or planted(view)
        loss = measured.training_step({"views": [clean, *self.candidates()], "labels": torch.zeros(3).long()}, 0)
        assert len(read) == 3 + 2 and read[-1]["input_ids"][:, 0].tolist() == [9, 8, 9]
        assert (measured.forward_samples, measured.scoring_samples) == (2 * 3, 3 * 3)
        assert measured.scoring_seconds > 0 and loss.shape == ()

    def test_the_weights_without_dropout_decide_and_dropout_is_active_again(self, module):
        views = batch(4, 2)["views"]
        labels = torch.zeros(4).long()
        choices = [module.select_hardest_view(views, labels)["input_ids"].tolist() for _ in range(10)]
        assert all(choice == choices[0] for choice in choices)
        assert all(part.training for part in module.modules())
        module.eval()
        losses = torch.stack([head.loss(module(view), labels, module.target, "class", each=True) for view in views])
        assert [views[index]["input_ids"][row].tolist() for row, index in enumerate(losses.argmax(0))] == choices[0]

    def test_one_candidate_costs_nothing(self, module):
        (view,) = batch(4, 1)["views"]
        assert module.select_hardest_view([view], torch.zeros(4).long()) is view and module.scoring_samples == 0


def test_consistency_adds_the_weighted_disagreement_of_the_views(module):
    module.eval()
    module.log = lambda *args, **options: None
    both = batch(4, 2)
    without = module.training_step(both, 0)
    module.config.perturbation.consistency = 3.0
    apart = head.symmetric_kl(*(module(view) for view in both["views"]), module.target, "class")
    assert apart > 0 and torch.allclose(module.training_step(both, 0), without + 3 * apart, atol=1e-6)
    same = {"views": both["views"][:1] * 2, "labels": both["labels"]}
    with_it = module.training_step(same, 0)
    module.config.perturbation.consistency = 0.0
    assert torch.equal(with_it, module.training_step(same, 0))


def test_freelb_reads_the_clean_text_as_often_as_others_read_two_views(tiny_args):
    config = load_config([*tiny_args, "method=freelb"])
    module = RobustModule(config, Target("class", "a", ("a", "b", "c")), total_steps=10)
    module.log = lambda *args, **options: None
    only = batch(4, 1)
    loss = module.training_step(only, 0)
    assert module.forward_samples == 2 * 4
    loss.backward()
    assert all(weight.grad is not None for weight in module.parameters() if weight.requires_grad)
    assert all(weight.grad is None for weight in module.parameters() if not weight.requires_grad)


@pytest.mark.parametrize(
    "method", [("method=freelb",), ("method=rules", "perturbation.num_candidates=2")], ids=" ".join
)
def test_mixed_precision_leaves_every_weight_its_gradient(tiny_args, method):
    """Autocast keeps the weights it has cast, also from a pass without gradients or with a graph that is gone."""
    target = Target("class", "a", ("a", "b", "c"))
    module = RobustModule(load_config([*tiny_args, *method]), target, total_steps=10)
    module.log = lambda *args, **options: None
    views, found = batch(4, 1 if "freelb" in method[0] else 3), []
    for mixed in (False, True):
        module.zero_grad()
        module.on_train_batch_start(views, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = module.training_step(views, 0)
        loss.backward()
        found.append(torch.cat([weight.grad.flatten() for weight in module.parameters() if weight.requires_grad]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.9


def test_an_unknown_encoder_is_one_line():
    with pytest.raises(UserError, match="no installed package of that name"):
        encoder_path("no_such_package")
    with pytest.raises(UserError, match="there is no such folder"):
        encoder_path("./no/such/folder")
    with pytest.raises(UserError, match="owner/none cannot be loaded"):
        load_tokenizer(TextTransformerConfig(encoder="owner/none"))


def test_lora_targets_that_fit_no_layer_are_one_line(tiny_args, tiny_encoder):
    config = load_config([*tiny_args, "method=plain"])
    config.model = TextTransformerConfig(encoder=str(tiny_encoder), lora=AdapterConfig(targets=["nothing"]))
    with pytest.raises(UserError, match="model.lora.targets"):
        RobustModule(config, Target("class", "a", ("a", "b")), total_steps=1)


def test_what_a_checkpoint_lacks_is_drawn_from_the_seed_alone(tiny_encoder):
    def drawn(seed):
        model = base_model(TextTransformerConfig(encoder=str(tiny_encoder)), Target("class", "a", ("a", "b")), seed)
        return model.classifier.weight

    torch.manual_seed(5)
    first = drawn(0)
    torch.manual_seed(6)
    assert torch.equal(first, drawn(0)) and not torch.equal(first, drawn(1))


def test_the_packaged_encoder_reads_a_text():
    tokenizer = load_tokenizer(TextTransformerConfig())
    model = base_model(TextTransformerConfig(), Target("class", "a", ("a", "b")), seed=0)
    assert model(**tokenizer("an owl", return_tensors="pt")).logits.shape == (1, 2)
