"""Composition of conf/, overrides, names of runs, and the one line that a mistake gets."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from project.config import compose as module
from project.config.compose import CONF, GROUPS, check_complete, from_dict, load_config, run_config, to_dict, to_yaml
from project.config.run_identity import RENAMED, config_digest, differences, flatten_keys, run_folder
from project.config.schema import (
    PARTS,
    AlignmentConfig,
    Config,
    EmojiConfig,
    ExpertsConfig,
    FusionConfig,
    LlamaCppConfig,
    RobustnessConfig,
    TableConfig,
    TextTransformerConfig,
    TrainerConfig,
)
from project.errors import UserError

FILES = {
    "config": """
defaults:
  - data: emoji
  - llm: small
  - alignment: default
  - perturbation: none
  - model: small
  - trainer: default
experiment: default
method: ours
store: {path: there}
""",
    "data/emoji": "kind: emoji",
    "data/table": "kind: table\npath: ???\ntarget: ???",
    "llm/small": "kind: llamacpp\nmodel: small",
    "llm/large": "kind: llamacpp\nmodel: large",
    "alignment/default": "style: true",
    "alignment/none": "style: false\nsummary: false\nreasoning: false",
    "perturbation/none": "kind: none",
    "perturbation/rules": "kind: rules\nrounds: 3",
    "model/small": "kind: transformer",
    "trainer/default": "lr: 1e-3\nepochs: 10",
    "trainer/cpu": "accelerator: cpu",
    "method/ours": "defaults:\n  - perturbation: rules\nperturbation: {rounds: 4}",
    "method/plain": "defaults:\n  - alignment: none\n  - perturbation: none",
    "experiment/demo": """
defaults:
  - llm: large
  - method: plain
  - trainer: cpu
data: {image_size: 64, split: {max_train: 160}}
llm: {context: 512}
trainer: {epochs: 8}
perturbation: {rounds: 5}
""",
    "debug/fast": "data: {limit: 24}\ntrainer: {epochs: 1}",
}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "conf"
    for name, text in FILES.items():
        write(folder, name, text)
    return folder


def write(root: Path, name: str, text: str) -> None:
    path = root / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def mistake(args: list[str], root: Path = CONF) -> str:
    with pytest.raises(UserError) as caught:
        load_config(args, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Composition


def test_the_configuration_is_made_of_dataclasses(root):
    config = load_config([], root)
    assert isinstance(config, Config)
    assert isinstance(config.data, EmojiConfig)
    assert isinstance(config.llm, LlamaCppConfig)
    assert config.llm.model == "small"
    assert config.store.path == "there"
    assert config.trainer.lr == 0.001


def test_an_experiment_chooses_options_a_method_and_values(root):
    config = load_config(["experiment=demo"], root)
    assert (config.experiment, config.method) == ("demo", "plain")
    assert (config.llm.model, config.llm.context) == ("large", 512)
    assert (config.trainer.accelerator, config.trainer.epochs) == ("cpu", 8)
    assert (config.data.image_size, config.data.split.max_train) == (64, 160)


def test_the_command_line_chooses_over_the_experiment(root):
    config = load_config(["experiment=demo", "method=ours", "trainer=default", "trainer.epochs=2"], root)
    assert config.method == "ours"
    assert config.perturbation.kind == "rules"
    assert (config.trainer.accelerator, config.trainer.epochs) == ("auto", 2)


def test_an_experiments_values_come_over_a_methods_and_debugs_over_both(root):
    assert load_config([], root).perturbation.rounds == 4
    assert load_config(["experiment=demo", "method=ours"], root).perturbation.rounds == 5
    assert load_config(["experiment=demo", "debug=fast"], root).trainer.epochs == 1
    assert load_config(["experiment=demo", "debug=fast", "trainer.epochs=3"], root).trainer.epochs == 3


def test_a_methods_options_come_over_an_experiments(root):
    write(root, "experiment/other", "defaults:\n  - perturbation: none\n  - method: ours")
    assert load_config(["experiment=other"], root).perturbation.kind == "rules"


def test_the_order_of_arguments_does_not_matter_and_the_last_of_one_key_wins(root):
    args = ["trainer.epochs=3", "trainer=cpu"]
    assert load_config(args, root) == load_config(args[::-1], root)
    assert load_config(["seed=1", "seed=2"], root).seed == 2


def test_values_for_another_option_of_a_union_are_dropped(root):
    config = load_config(["experiment=demo", "data=table", "llm=small"], root)
    assert isinstance(config.data, TableConfig)
    assert config.data.split.max_train is None
    assert config.llm.context == LlamaCppConfig.context
    assert config.trainer.epochs == 8


def test_debug_values_fit_any_option_of_a_union(root):
    assert load_config(["data=table", "debug=fast"], root).data.limit == 24


def test_a_section_without_lines_is_empty(root):
    write(root, "experiment/empty", "trainer:\n  # epochs: 3\n")
    assert load_config(["experiment=empty"], root).trainer.epochs == 10


@pytest.mark.parametrize("arg", ["experiment=null", "experiment=default", "debug=null"])
def test_null_chooses_no_experiment_and_no_debug(arg, root):
    write(root, "config", FILES["config"].replace("experiment: default", "experiment: null"))
    assert load_config([arg], root) == load_config([], root)
    assert load_config([], root).experiment == "default"


def test_values_may_refer_to_the_environment(root, monkeypatch):
    monkeypatch.setenv("ROWS", "/somewhere")
    assert load_config(["data=table", "data.path=${oc.env:ROWS}/rows.csv"], root).data.path == "/somewhere/rows.csv"


# A model that a method defines itself

INLINE = "defaults:\n  - perturbation: rules\nmodel: {kind: fusion, width: 64}"


def test_a_method_may_define_its_model_without_a_file_of_its_own(root):
    write(root, "method/inline", INLINE)
    config = load_config(["method=inline"], root)
    assert isinstance(config.model, FusionConfig)
    assert (config.model.width, config.model.max_tokens, config.name) == (64, FusionConfig.max_tokens, "inline")
    assert load_config(["method=inline", "model.width=32"], root).model.width == 32


def test_values_for_the_default_model_do_not_reach_an_inline_model(root):
    write(root, "method/inline", INLINE)
    write(root, "experiment/long", "defaults:\n  - model: small\nmodel: {max_tokens: 300}")
    assert load_config(["experiment=long"], root).model.max_tokens == 300
    assert load_config(["experiment=long", "method=inline"], root).model.max_tokens == FusionConfig.max_tokens


def test_another_choice_of_model_drops_the_inline_model(root):
    write(root, "method/inline", INLINE)
    assert load_config(["method=inline", "model=small"], root).model == TextTransformerConfig()


# Overrides


@pytest.mark.parametrize("args", [["trainer.lr=1e-4"], ["--trainer.lr=1e-4"], ["trainer.lr=0.0001"]])
def test_dashes_before_a_key_are_optional(args, root):
    assert load_config(args, root).trainer.lr == 0.0001


@pytest.mark.parametrize(
    ("arg", "key", "value"),
    [
        ("name=123", "name", "123"),
        ("name=1e-4", "name", "1e-4"),
        ("name=null", "name", "ours"),
        ("name=True", "name", "True"),
        ("data.limit=None", "data.limit", None),
        ("data.limit=null", "data.limit", None),
        ("data.question=which: this=that", "data.question", "which: this=that"),
        ("data.question=", "data.question", ""),
        ("alignment.style=False", "alignment.style", False),
        ("trainer.lr=1e-05", "trainer.lr", 1e-5),
        ("trainer.devices=2", "trainer.devices", 2),
        ("trainer.devices=[0, 1]", "trainer.devices", [0, 1]),
        ("trainer.devices=auto", "trainer.devices", "auto"),
        ("trainer.devices=a: b", "trainer.devices", "a: b"),
        ("robustness.levels=[0.1,0.5]", "robustness.levels", [0.1, 0.5]),
        ("robustness.levels=[1e-4, 1]", "robustness.levels", [0.0001, 1.0]),
        ("model.lora.targets=['a', 'b']", "model.lora.targets", ["a", "b"]),
        ("model.lora.targets=[query,007,on]", "model.lora.targets", ["query", "007", "on"]),
        ("model.lora.targets=[]", "model.lora.targets", []),
        ("trainer.extra.limit_train_batches=0.5", "trainer.extra.limit_train_batches", 0.5),
        ("trainer.extra.detect_anomaly=true", "trainer.extra.detect_anomaly", True),
        ("trainer.extra.profiler=simple", "trainer.extra.profiler", "simple"),
    ],
)
def test_a_value_is_read_as_its_fields_type(arg, key, value):
    assert flatten_keys(to_dict(load_config([arg])))[key] == value


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# On the command line the first three words stand for something else, and ${ begins a reference.
TEXT = ANY_TEXT.filter(lambda text: text not in ("null", "None", "???") and "${" not in text)
BASE = load_config([])
VALUES = st.one_of(
    st.tuples(st.just("data.question"), TEXT),
    st.tuples(st.just("wandb.entity"), st.none() | TEXT),
    st.tuples(st.just("trainer.epochs"), st.integers(0, 10**9)),
    st.tuples(st.just("data.limit"), st.none() | st.integers(1, 10**9)),
    st.tuples(st.just("trainer.lr"), st.floats(0, allow_infinity=False)),
    st.tuples(st.just("alignment.style"), st.booleans()),
    st.tuples(st.just("robustness.levels"), st.lists(st.floats(0, 1), unique=True)),
    st.tuples(st.just("model.lora.targets"), st.lists(TEXT)),
    st.tuples(st.just("trainer.devices"), st.integers() | st.lists(st.integers())),
)


@settings(max_examples=40)
@given(VALUES)
def test_every_value_round_trips_through_the_command_line(pair):
    key, value = pair
    again = from_dict(to_dict(BASE), args=[f"{key}={value}"])
    assert flatten_keys(to_dict(again))[key] == value


@settings(max_examples=40)
@given(TEXT)
def test_an_argument_is_split_at_its_first_equals_sign(value):
    assert from_dict(to_dict(BASE), args=[f"data.question=x={value}"]).data.question == f"x={value}"


@settings(max_examples=40)
@example(question="a\x85b", targets=[], lr=0.0, limit=None)
@given(
    question=ANY_TEXT,
    targets=st.lists(ANY_TEXT),
    lr=st.floats(0, allow_infinity=False),
    limit=st.none() | st.integers(1),
)
def test_from_dict_inverts_to_dict_and_yaml(question, targets, lr, limit):
    mapping = to_dict(BASE)
    mapping["data"] |= {"question": question, "limit": limit}
    mapping["model"]["lora"]["targets"] = targets
    mapping["trainer"]["lr"] = lr
    config = from_dict(mapping)
    assert to_dict(config) == mapping
    assert from_dict(to_dict(config)) == config
    assert from_dict(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize(
    "args", [[], ["data=table"], ["method=plain", "debug=fast", "name=007"], ["trainer.extra.profiler=simple"]]
)
def test_every_configuration_survives_its_run_folder(args, tmp_path):
    config = load_config(args)
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert run_config(tmp_path) == config


# Mistakes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["seed"], "command line: seed is not of the form key=value"),
        (["=1"], "command line: =1 is not of the form key=value"),
        (["trainer.epocs=3"], "command line: unknown key trainer.epocs; did you mean trainer.epochs?"),
        (["lr=3"], "command line: unknown key lr; did you mean trainer.lr?"),
        (["data.path=rows.csv"], "command line: unknown key data.path; only data of kind table has it"),
        (["trainer.epochs.x=3"], "command line: unknown key trainer.epochs.x; did you mean trainer.epochs?"),
        (["trainer.epochs=few"], "command line: trainer.epochs=few must be int"),
        (["trainer.epochs=1.5"], "command line: trainer.epochs=1.5 must be int"),
        (["trainer.epochs=null"], "command line: trainer.epochs=null must be int"),
        (["data.limit=few"], "command line: data.limit=few must be int or null"),
        (["robustness.levels=0.5"], "command line: robustness.levels=0.5 must be list of float"),
        (["robustness.missing=singel"], "command line: robustness.missing=singel must be one of none, single, pairs"),
        (["data.kind=table"], "command line: data.kind=table cannot change a kind; choose another option: data=..."),
        (["data.split=3"], "command line: data.split is a section; set one of its keys, such as data.split.max_test"),
        (["data.name=${nothing}"], "data.name: Interpolation key 'nothing' not found"),
        (["trainer.extra=1"], "command line: trainer.extra is a section; set one of its keys: trainer.extra.<key>=..."),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(args, message):
    assert mistake(args) == message


@pytest.mark.parametrize("group", [*GROUPS, "experiment", "method", "debug"])
@pytest.mark.parametrize("option", ["nothing", "../config", "a/b", "."])
def test_an_option_that_does_not_exist_is_refused_with_those_that_do(group, option, root):
    message = mistake([f"{group}={option}"], root)
    assert message.startswith(f"{group}={option}: ")
    assert all(path.stem in message for path in (root / group).glob("*.yaml"))


def test_an_option_close_to_another_is_suggested(root):
    assert mistake(["llm=smal"], root).endswith("llm has large, small; did you mean small?")
    assert mistake(["experiment=dmo"], root).endswith("experiment has demo; did you mean demo?")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainer/default", "epocs: 3", "unknown key trainer.epocs; did you mean trainer.epochs?"),
        ("trainer/default", "epochs: few", "trainer.epochs=few must be int"),
        ("trainer/default", "epochs: 1\nepochs: 2", "line 2: found duplicate key epochs"),
        ("trainer/default", "epochs: [1", "expected ',' or ']'"),
        ("trainer/default", "- epochs", "must be keys and values"),
        ("data/emoji", "kind: emoji\nname: 007", "data.name=7 must be text; put it in quotes"),
        ("data/emoji", "kind: emoji\nname: on", "data.name=true must be text; put it in quotes"),
        ("data/emoji", "limit: 3", f"data.kind=null must be one of {', '.join(PARTS['data'])}"),
        ("method/ours", "data: {kind: table}", "data.kind=table cannot change a kind; choose another option: data=..."),
        ("method/ours", "data: table", "data is a section; set one of its keys, such as data."),
        ("method/ours", "defaults:\n  - method: plain", "method cannot be chosen here"),
        ("method/ours", "defaults:\n  - dat: table", "dat cannot be chosen here; did you mean data?"),
        ("method/ours", "defaults: {data: table}", "defaults must be a list of lines such as `- data: emoji`"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(name, text, message, root):
    write(root, name, text)
    said = mistake([], root)
    assert message in said
    assert said.startswith(str(root / f"{name}.yaml"))


def test_a_folder_without_a_configuration_is_one_line(tmp_path):
    assert "TCR_CONF" in mistake([], tmp_path)


@pytest.mark.parametrize(
    "arg",
    [
        "robustness.val_seed=1",
        "robustness.levels=[0.5, 1.5]",
        "robustness.val_levels=[-0.1]",
        "data.split.test=1.2",
        "data.split.test=0.9",
        "data.split.val=nan",
        "perturbation.rounds=0",
        "trainer.batch_size=0",
        "trainer.epochs=-1",
        "trainer.warmup=2",
        "seed=-1",
        "data.limit=0",
    ],
)
def test_a_value_that_makes_no_sense_is_refused(arg):
    assert arg.split("=")[0].split(".")[-1] in mistake([arg])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["alignment.serial=true", "alignment.summary=false"],
            "alignment.serial=true makes the reasoning read the summary",
        ),
        (["alignment.serial=true", "alignment.reasoning=false"], "alignment.reasoning=true"),
        (["method=freelb", "perturbation.weight=1"], "perturbation.weight=1.0 must be 0 with perturbation.kind=freelb"),
        (["method=freelb", "trainer.strategy=fsdp"], "choose trainer.strategy=ddp"),
        (["method=ours_worst", "perturbation.rounds=1"], "num_candidates=2 must be at most perturbation.rounds=1"),
        (["method=ours_worst", "perturbation.weight=0"], "perturbation.num_candidates=2 needs a perturbed text"),
        (["method=ours_consistency", "perturbation.weight=0"], "perturbation.consistency=1.0 needs a perturbed text"),
        (["method=freelb", "trainer.compile=true"], "set trainer.compile=false"),
        (["trainer.precision=bf16-true"], "set trainer.precision=bf16-mixed, and model.dtype=bfloat16"),
        (["method=fusion", "trainer.precision=16-true"], "trainer.precision=16-true trains adapters and head"),
        (["trainer.strategy=fsdp", "model.dtype=bfloat16"], "model.dtype=float32"),
        (["perturbation.prompts=0"], "perturbation.prompts=0 must be at least 1"),
        (["perturbation.ascent.steps=0"], "perturbation.ascent.steps=0 must be at least 1"),
        (["model.lora.dropout=1.5"], "model.lora.dropout=1.5 must be in [0, 1]"),
        (["robustness.levels=[0.5, 1.5]"], "robustness.levels=[0.5, 1.5] must be in [0, 1]"),
        (["robustness.levels=[0.5, 0.1, 0.5]"], "robustness.levels=[0.5, 0.1, 0.5] lists a level twice"),
        (["robustness.natural_levels=[1, 1.0]"], "robustness.natural_levels=[1.0, 1.0] lists a level twice"),
        (["robustness.val_levels=[0.5, 0.5]"], "robustness.val_levels=[0.5, 0.5] lists a level twice"),
        (["trainer.checkpoint_minutes=0"], "trainer.checkpoint_minutes=0.0 must be at least 0.001"),
    ],
)
def test_values_that_do_not_go_together_are_refused(args, told):
    assert told in mistake(args)


@pytest.mark.parametrize("method", ["ours_worst", "freelb"])
def test_a_whole_method_survives_the_choice_of_another_model_and_the_quick_look(method):
    config = load_config(["experiment=demo", f"method={method}", "model=deberta-v3"])
    assert (config.perturbation.kind == "freelb") == (method == "freelb")
    assert load_config(["debug=fast", f"method={method}"]).perturbation.num_candidates == 1


def test_what_must_be_given_is_asked_for_by_require_alone():
    config = load_config(["data=table"])
    with pytest.raises(UserError) as caught:
        check_complete(config)
    assert str(caught.value) == "data.path is not set; give data.path=...\ndata.target is not set; give data.target=..."
    check_complete(load_config(["data=table", "data.path=rows.csv", "data.target=label"]))


@pytest.mark.parametrize("change", [{"sed": 1}, {"data": {"kind": "emoji", "path": "x"}}, {"llm": None}, {"seed": "x"}])
def test_from_dict_refuses_what_the_schema_does_not_have(change):
    with pytest.raises(UserError):
        from_dict({**to_dict(BASE), **change})


# Renamed keys

OLD_ARGS = [
    "perturbation.place=described",
    "perturbation.worst=2",
    "perturbation.wording=terse",
    "alignment.facts=0.7",
    "store.patience=60",
]


@pytest.fixture
def notices(capsys):
    """What is printed on stderr, in a process that has not yet printed a notice of a renamed key."""
    module._notify_renamed.cache_clear()
    return lambda: capsys.readouterr().err.splitlines()


def test_an_old_name_on_the_command_line_sets_the_new_key_with_one_notice(notices):
    config = load_config(OLD_ARGS)
    assert config == load_config([arg.replace(*pair) for arg in OLD_ARGS for pair in RENAMED.items() if pair[0] in arg])
    assert (config.perturbation.stage, config.perturbation.num_candidates) == ("described", 2)
    assert (config.perturbation.instruction_set, config.alignment.min_fact_recall) == ("terse", 0.7)
    assert config.store.takeover_seconds == 60
    assert sorted(notices()) == sorted(f"{old} is now {new}; use the new name" for old, new in RENAMED.items())


def test_an_old_name_in_a_file_of_conf_sets_the_new_key_with_a_notice(root, notices):
    write(root, "method/ours", "perturbation: {place: described}")
    write(root, "alignment/default", "facts: 0.6")
    config = load_config([], root)
    assert (config.perturbation.stage, config.alignment.min_fact_recall) == ("described", 0.6)
    assert len(notices()) == 2


def test_a_run_folder_with_old_names_opens_without_a_notice(tmp_path, notices):
    config = load_config(OLD_ARGS)
    notices()
    text = to_yaml(config)
    for old, new in RENAMED.items():
        assert text.count(f"  {new.split('.')[1]}: ") == 1
        text = text.replace(f"  {new.split('.')[1]}: ", f"  {old.split('.')[1]}: ")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    module._notify_renamed.cache_clear()
    assert run_config(tmp_path) == config
    assert run_config(tmp_path, ["llm=openai", "llm.model=m"]).perturbation == config.perturbation
    assert notices() == []


@pytest.mark.parametrize(
    ("args", "name", "digest"),
    [
        (OLD_ARGS, "ours-5ebec1", "e4a186eaaa96100880ad81c06f5b56a2114423106793608e251bf3e4510ee983"),
        (
            ["experiment=demo", "method=ours_worst"],
            "ours_worst",
            "d2b0415b233bb79a81af270cc1dbff8c4cb9cae18ae982ded2cc43aa9f5c5f58",
        ),
        ([], "ours", "5d76e1a5f23372d18749d455238f34d5fb5680a7817e5eb281898a066f79b71d"),
        (
            ["perturbation.stage=described"],
            "ours-f45a0c",
            "a05f15b9b43c76007e7aa5a8919c549bb7b201987ce7551bdb648631f784b734",
        ),
    ],
)
def test_names_and_digests_are_those_from_before_the_renaming_of_keys(args, name, digest):
    config = load_config(args)
    mapping = to_dict(config)
    for section, key in ("model", "dtype"), ("model", "quantize"), ("trainer", "matmul"), ("trainer", "compile"):
        del mapping[section][key]  # keys that were added after the digests were computed
    assert (config.name, config_digest(mapping)) == (name, digest)


# Names and folders


@pytest.mark.parametrize(
    "arg",
    [
        "seed=3",
        "output=x",
        "store.path=x",
        "wandb.mode=disabled",
        "trainer.devices=2",
        "trainer.accelerator=cpu",
        "robustness.resamples=9",
        "logger=csv",
    ],
)
def test_what_does_not_bear_on_results_leaves_the_name_and_shows_no_difference(arg, root):
    config = load_config([arg], root)
    assert config.name == "ours"
    if not arg.startswith("seed"):
        assert differences(to_dict(load_config([], root)), to_dict(config)) == {}


def test_the_name_is_the_methods_and_a_digest_of_what_bears_on_results(root):
    assert load_config(["experiment=demo"], root).name == "plain"
    assert load_config(["experiment=demo", "trainer.epochs=8"], root).name == "plain"
    names = [
        load_config(args, root).name
        for args in (["trainer.lr=0.1"], ["trainer.lr=0.2"], ["llm=large"], ["data=table"], ["debug=fast"])
    ]
    assert all(re.fullmatch("ours-[0-9a-f]{6}", name) for name in names)
    assert len(set(names)) == len(names)
    assert load_config(["trainer.lr=1e-1", "seed=4"], root).name == names[0]


def test_a_given_name_is_kept(root):
    config = load_config(["name=mine", "trainer.lr=0.1", "seed=2", "experiment=demo", "output=runs"], root)
    assert run_folder(config) == Path("runs/demo/mine/seed-2")


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "/", ""])
def test_a_name_that_cannot_name_a_folder_is_refused(name, root):
    config = load_config([f"name={name}"], root)
    with pytest.raises(UserError, match="cannot name a folder"):
        run_folder(config)


def test_differences_tell_old_and_new_by_key(root):
    old, new = (to_dict(load_config(args, root)) for args in ([], ["trainer.lr=0.01", "seed=1", "data.limit=5"]))
    assert differences(old, new) == {"trainer.lr": "0.001 -> 0.01", "seed": "0 -> 1", "data.limit": "null -> 5"}
    assert differences(old, to_dict(load_config(["data=table"], root)))["data.path"] == "absent -> ???"


def test_a_runs_configuration_yields_to_the_environment_alone(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(BASE), encoding="utf-8")
    assert run_config(tmp_path, ["store.path=x"]).store.path == "x"
    with pytest.raises(UserError, match="trainer.lr cannot be given"):
        run_config(tmp_path, ["trainer.lr=1"])
    with pytest.raises(UserError, match="is not a run folder"):
        run_config(tmp_path / "nothing")


def test_a_run_may_be_read_with_another_language_model(tmp_path):
    trained = load_config(["method=ours", "llm=smollm2", "llm.threads=3", "seed=4"])
    (tmp_path / "config.yaml").write_text(to_yaml(trained), encoding="utf-8")
    other = run_config(tmp_path, ["llm=openai", "llm.model=m", "store.engine=false"])
    assert (other.llm.kind, other.llm.model, other.store.engine) == ("openai", "m", False)
    kept = to_dict(trained) | {key: to_dict(other)[key] for key in ("llm", "store")}
    assert to_dict(other) == kept
    with pytest.raises(UserError, match="llm.model cannot be given"):
        run_config(tmp_path, ["llm.model=m"])
    with pytest.raises(UserError, match="alignment cannot be given"):
        run_config(tmp_path, ["llm=openai", "alignment=none"])


# The files of the project


@pytest.mark.parametrize("path", sorted(CONF.glob("*/**/*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_option_of_the_project_loads_and_says_what_it_is(path):
    group, option = path.relative_to(CONF).with_suffix("").as_posix().split("/", 1)
    if group in (*GROUPS, "experiment", "method", "debug"):
        load_config([f"{group}={option}"])
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_default_options_say_what_the_schema_says():
    config = load_config(["alignment=default", "perturbation=none"])
    assert (config.experts, config.alignment, config.model) == (
        ExpertsConfig(),
        AlignmentConfig(),
        TextTransformerConfig(),
    )
    assert (config.trainer, config.robustness) == (TrainerConfig(), RobustnessConfig())


@pytest.mark.parametrize(
    ("method", "aligned", "kind"),
    [
        ("ours", True, "instructions"),
        ("plain", False, "none"),
        ("tamml", True, "none"),
        ("rules", False, "rules"),
        ("paraphrase", True, "paraphrase"),
        ("freelb", False, "freelb"),
        ("perturb_only", False, "instructions"),
        *((f"ours_{name}", True, "instructions") for name in ("worst", "consistency", "serial", "described")),
        ("ours_all", True, "all"),
    ],
)
def test_a_method_is_an_alignment_and_a_perturbation(method, aligned, kind):
    config = load_config([f"method={method}"])
    alignment = config.alignment
    assert (alignment.style, alignment.summary, alignment.reasoning) == (aligned,) * 3
    assert config.perturbation.kind == kind
    assert config.name == method
