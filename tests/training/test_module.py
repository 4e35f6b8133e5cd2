"""The LightningModule trains only adapter and head."""

import pytest
import torch

from project.config.compose import load_config
from project.config.schema import AdapterConfig, TextTransformerConfig
from project.data.target import Target
from project.errors import UserError
from project.training import heads
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


def test_checkpoints_omit_the_base_weights(module):
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert set(checkpoint["state_dict"]) == trained


def test_the_loss_adds_the_weighted_loss_of_the_second_view(module):
    module.eval()
    module.log = lambda *args, **options: None
    two_views = batch(4, 2)
    single_views = [{"views": [view], "labels": two_views["labels"]} for view in two_views["views"]]
    module.config.perturbation.weight = 0.5
    clean, second = (module.training_step(single_view, 0) for single_view in single_views)
    assert torch.allclose(module.training_step(two_views, 0), clean + 0.5 * second, atol=1e-5)
    assert module.forward_samples == 4 + 4 + 8


def test_dropout_follows_from_seed_and_step_alone(module):
    module.train()
    module.log = lambda *args, **options: None
    two_views = batch(4, 2)
    losses = []
    for global_seed in (0, 99):
        torch.manual_seed(global_seed)
        module.on_train_batch_start(two_views, 0)
        losses.append(module.training_step(two_views, 0).item())
    assert losses[0] == losses[1]


class TestHardestView:
    """Each row trains on its candidate with the highest loss under the current weights."""

    @pytest.fixture
    def stubbed(self, module):
        """The module with a stub model: the loss for label 0 increases with the first token of a text."""
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

    def test_each_row_gets_the_text_with_the_highest_loss_padded_to_the_longest_selected(self, stubbed):
        selected = stubbed.select_hardest_view(self.candidates(), torch.zeros(3).long())
        assert selected["input_ids"].tolist() == [[9, 9, 0, 0], [8, 8, 8, 0], [9, 9, 9, 9]]
        assert selected["attention_mask"].sum(1).tolist() == [2, 3, 4]

    def test_scoring_samples_are_counted_separately_from_forward_samples(self, stubbed):
        clean = {name: values[:, :4] for name, values in self.candidates()[0].items()}
        views = []
        forward = stubbed.forward
        stubbed.forward = lambda view: views.append(view) or forward(view)
        loss = stubbed.training_step({"views": [clean, *self.candidates()], "labels": torch.zeros(3).long()}, 0)
        assert len(views) == 3 + 2 and views[-1]["input_ids"][:, 0].tolist() == [9, 8, 9]
        assert (stubbed.forward_samples, stubbed.scoring_samples) == (2 * 3, 3 * 3)
        assert stubbed.scoring_seconds > 0 and loss.shape == ()

    def test_selection_switches_dropout_off_and_on_again(self, module):
        views = batch(4, 2)["views"]
        labels = torch.zeros(4).long()
        choices = [module.select_hardest_view(views, labels)["input_ids"].tolist() for _ in range(10)]
        assert all(choice == choices[0] for choice in choices)
        assert all(part.training for part in module.modules())
        module.eval()
        losses = torch.stack([heads.loss(module(view), labels, module.target, "class", per_row=True) for view in views])
        assert [views[index]["input_ids"][row].tolist() for row, index in enumerate(losses.argmax(0))] == choices[0]

    def test_one_candidate_needs_no_scoring(self, module):
        (view,) = batch(4, 1)["views"]
        assert module.select_hardest_view([view], torch.zeros(4).long()) is view and module.scoring_samples == 0


def test_consistency_adds_the_weighted_disagreement_of_the_views(module):
    module.eval()
    module.log = lambda *args, **options: None
    two_views = batch(4, 2)
    plain_loss = module.training_step(two_views, 0)
    module.config.perturbation.consistency = 3.0
    divergence = heads.symmetric_kl(*(module(view) for view in two_views["views"]), module.target, "class")
    assert divergence > 0
    assert torch.allclose(module.training_step(two_views, 0), plain_loss + 3 * divergence, atol=1e-6)
    equal_views = {"views": two_views["views"][:1] * 2, "labels": two_views["labels"]}
    consistent_loss = module.training_step(equal_views, 0)
    module.config.perturbation.consistency = 0.0
    assert torch.equal(consistent_loss, module.training_step(equal_views, 0))


def test_freelb_has_as_many_forward_samples_as_methods_with_two_views(tiny_args):
    config = load_config([*tiny_args, "method=freelb"])
    module = RobustModule(config, Target("class", "a", ("a", "b", "c")), total_steps=10)
    module.log = lambda *args, **options: None
    loss = module.training_step(batch(4, 1), 0)
    assert module.forward_samples == 2 * 4
    loss.backward()
    assert all(weight.grad is not None for weight in module.parameters() if weight.requires_grad)
    assert all(weight.grad is None for weight in module.parameters() if not weight.requires_grad)


@pytest.mark.parametrize(
    "method", [("method=freelb",), ("method=rules", "perturbation.num_candidates=2")], ids=" ".join
)
def test_mixed_precision_gives_every_weight_its_gradient(tiny_args, method):
    """Autocast caches cast weights, also those of a pass without gradients or with a freed graph."""
    target = Target("class", "a", ("a", "b", "c"))
    module = RobustModule(load_config([*tiny_args, *method]), target, total_steps=10)
    module.log = lambda *args, **options: None
    views, gradients = batch(4, 1 if "freelb" in method[0] else 3), []
    for mixed in (False, True):
        module.zero_grad()
        module.on_train_batch_start(views, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = module.training_step(views, 0)
        loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in module.parameters() if weight.requires_grad]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.9


def test_an_unknown_encoder_raises_an_error():
    with pytest.raises(UserError, match="no installed package of that name"):
        encoder_path("no_such_package")
    with pytest.raises(UserError, match="there is no such folder"):
        encoder_path("./no/such/folder")
    with pytest.raises(UserError, match="owner/none cannot be loaded"):
        load_tokenizer(TextTransformerConfig(encoder="owner/none"))


def test_lora_targets_that_match_no_layer_raise_an_error(tiny_args, tiny_encoder):
    config = load_config([*tiny_args, "method=plain"])
    config.model = TextTransformerConfig(encoder=str(tiny_encoder), lora=AdapterConfig(targets=["nothing"]))
    with pytest.raises(UserError, match="model.lora.targets"):
        RobustModule(config, Target("class", "a", ("a", "b")), total_steps=1)


def test_weights_missing_from_a_checkpoint_depend_on_the_seed_alone(tiny_encoder):
    def head_weight(seed):
        model = base_model(TextTransformerConfig(encoder=str(tiny_encoder)), Target("class", "a", ("a", "b")), seed)
        return model.classifier.weight

    torch.manual_seed(5)
    first = head_weight(0)
    torch.manual_seed(6)
    assert torch.equal(first, head_weight(0)) and not torch.equal(first, head_weight(1))


def test_the_packaged_encoder_reads_a_text():
    tokenizer = load_tokenizer(TextTransformerConfig())
    model = base_model(TextTransformerConfig(), Target("class", "a", ("a", "b")), seed=0)
    assert model(**tokenizer("an owl", return_tensors="pt")).logits.shape == (1, 2)
