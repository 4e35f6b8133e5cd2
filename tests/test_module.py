"""The LightningModule trains adapter and head, and nothing else."""

import pytest
import torch

from project.config import load_config
from project.errors import UserError
from project.module import RobustTransformer, base_model, encoder_path, load_tokenizer
from project.schema import Lora, Transformer
from project.target import Target


@pytest.fixture
def module(tiny_args):
    target = Target("class", "a", ("a", "b", "c"))
    return RobustTransformer(load_config([*tiny_args, "method=plain"]), target, total_steps=10)


def batch(rows, views):
    ids = [torch.randint(5, 50, (rows, 7)) for _ in range(views)]
    return {"views": [{"input_ids": view, "attention_mask": torch.ones_like(view)} for view in ids],
            "labels": torch.zeros(rows).long()}


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


def test_an_unknown_encoder_is_one_line():
    with pytest.raises(UserError, match="no installed package of that name"):
        encoder_path("no_such_package")
    with pytest.raises(UserError, match="there is no such folder"):
        encoder_path("./no/such/folder")
    with pytest.raises(UserError, match="owner/none cannot be loaded"):
        load_tokenizer(Transformer(encoder="owner/none"))


def test_lora_targets_that_fit_no_layer_are_one_line(tiny_args, tiny_encoder):
    config = load_config([*tiny_args, "method=plain"])
    config.model = Transformer(encoder=str(tiny_encoder), lora=Lora(targets=["nothing"]))
    with pytest.raises(UserError, match="model.lora.targets"):
        RobustTransformer(config, Target("class", "a", ("a", "b")), total_steps=1)


def test_what_a_checkpoint_lacks_is_drawn_from_the_seed_alone(tiny_encoder):
    def drawn(seed):
        model = base_model(Transformer(encoder=str(tiny_encoder)), Target("class", "a", ("a", "b")), seed)
        return model.classifier.weight

    torch.manual_seed(5)
    first = drawn(0)
    torch.manual_seed(6)
    assert torch.equal(first, drawn(0)) and not torch.equal(first, drawn(1))


def test_the_packaged_encoder_reads_a_text():
    tokenizer = load_tokenizer(Transformer())
    model = base_model(Transformer(), Target("class", "a", ("a", "b")), seed=0)
    assert model(**tokenizer("an owl", return_tensors="pt")).logits.shape == (1, 2)
