"""validate reports the problems and warnings of a configuration without running it."""

import shutil
import zipfile
from collections import namedtuple
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from project.cli import validate
from project.cli.main import main
from project.cli.validate import max_calls
from project.config.compose import load_config
from project.config.schema import EmojiConfig
from project.data import row_checks
from project.data.images import ZippedImage
from project.data.record import Record
from project.data.row_checks import check_images, check_rows
from project.data.rows import Rows, read_rows
from project.data.target import Target
from project.errors import UserError
from project.experiments.prepare import fill
from project.llm.factory import open_llm
from project.llm.protocol import Completion, Request
from project.pipeline.pipeline import open_pipeline


@pytest.fixture
def validated(tiny_args, capsys):
    """Validate the tiny run with further arguments; return exit code, stdout and the lines of stderr."""

    def call(*args, **verb_args):
        code = validate.run(load_config([*tiny_args, *args]), verb_args)
        printed = capsys.readouterr()
        return code, printed.out, printed.err.splitlines()

    return call


def rows(train, val=(), test=(), classes=("x", "y"), modalities=("text",)):
    return Rows(list(train), list(val), list(test), Target("class", "x", classes), modalities)


def many(count, prefix, target="x"):
    return [
        Record(f"{prefix}{index}", f"{prefix}{index}", None, f"{prefix} {index} words", None, target)
        for index in range(count)
    ]


def pictured(*images):
    return rows([Record(f"r{index}", "g", image, "a text", None, "x") for index, image in enumerate(images)])


@pytest.fixture
def torn(tmp_path):
    """A folder with a good image, a truncated one, and an archive with the good one."""
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "good.png")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(data[: len(data) // 2])
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "good.png", "good.png")
    return tmp_path


def test_a_good_configuration_gets_a_summary_and_exit_code_0(validated):
    code, out, errors = validated("method=rules")
    assert (code, errors) == (0, [])
    for text in (
        "columns of rows.csv",
        "photo",
        "image file",
        "target class",
        "train",
        "apple",
        "tokens",
        "example, row",
        "The price is",
        "at most 0 calls",
        "problems: 0",
    ):
        assert text in out


def test_with_models_false_lengths_are_in_words_and_no_model_is_checked(validated):
    code, out, _ = validated(
        "method=ours", "model.encoder=/nowhere", "experts.captioner=/nowhere", "llm.path=/nowhere", models="false"
    )
    assert code == 0 and "│ words" in out


@pytest.mark.parametrize("method", ["fusion", "boosting"])
def test_methods_on_raw_modalities_need_neither_a_captioner_nor_a_language_model(tiny_args, capsys, method):
    args = [arg for arg in tiny_args if method == "fusion" or not arg.startswith("model.")]
    config = load_config([*args, f"method={method}", "experts.captioner=/nowhere", "llm.path=/nowhere"])
    assert validate.run(config, {}) == 0
    assert ("no limit" in capsys.readouterr().out) == (method == "boosting")


def test_the_roles_of_inferred_columns_are_printed(tiny_args, capsys):
    args = [arg for arg in tiny_args if not arg.startswith(("data.image", "data.text", "data.table"))]
    assert validate.run(load_config([*args, "method=rules"]), {"models": "false"}) == 0
    lines = {line.split(" ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "inferred" in lines and "image file" in lines["photo"] and " table " in lines["price"]


def test_all_wrong_columns_and_models_are_reported_at_once(validated):
    code, out, errors = validated("method=rules", "data.text=[titel]", "data.group=seler", "model.encoder=/nowhere")
    assert code == 2 and "problems: 3" in out
    assert [what in line for line, what in zip(errors, ("'seler'", "'titel'", "/nowhere"), strict=True)] == [True] * 3
    assert all(line.startswith("error: ") for line in errors)


def test_missing_keys_are_listed_together_with_other_problems(capsys):
    assert main(["validate", "data=table", "method=plain", "model.encoder=/nowhere"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines] == ["data.path", "data.target", "model.encoder=/nowhere:"]


def test_models_is_true_or_false(validated):
    with pytest.raises(UserError, match="models=maybe: give true or false"):
        validated(models="maybe")


def test_a_missing_language_model_is_a_problem_and_nothing_is_written(validated, tmp_path):
    code, out, (line,) = validated("method=ours", "llm.path=/nowhere/model.gguf")
    assert code == 2 and "/nowhere/model.gguf" in line
    assert "has no text of" in out and not (tmp_path / "store").exists() and not (tmp_path / "outputs").exists()


def test_a_missing_language_model_is_a_warning_if_the_store_has_texts(validated, tmp_path, tiny_args):
    config = load_config([*tiny_args, "method=ours"])
    with open_llm(config).store as store:
        store.put(Request("summary", (("user", "x"),), 0.0, 5), config.llm.model, Completion("a", "stop", 1, 1, 1.0))
    code, out, errors = validated("method=ours", "llm.path=/nowhere/model.gguf")
    assert (code, errors) == (0, []) and "(needed for what the store lacks)" in out


@pytest.mark.parametrize(
    ("remove", "message"), [("config.json", "no config.json"), ("model.safetensors", "safetensors")]
)
def test_an_encoder_without_its_files_is_a_problem(validated, tiny_encoder, tmp_path, remove, message):
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    (folder / remove).unlink()
    code, _, errors = validated("method=rules", f"model.encoder={folder}")
    assert code == 2 and any(message in line for line in errors)


def test_a_missing_captioner_is_a_problem(validated):
    code, _, (line,) = validated("method=rules", "experts.captioner=./nowhere")
    assert code == 2 and "experts.captioner=./nowhere: the folder does not exist" in line


def test_a_head_that_does_not_fit_the_target_is_a_problem(validated):
    code, _, (line,) = validated("method=rules", "model.head=ordinal", models="false")
    assert code == 2 and "model.head=ordinal" in line


def test_texts_that_would_be_cut_are_a_warning(validated):
    _, out, _ = validated("method=rules", "model.max_tokens=12")
    assert "100.0% of the texts have more than 12 tokens" in out
    assert "would be cut" not in validated("method=rules", "model.max_tokens=60")[1]


def test_little_disk_space_is_a_warning(validated, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 10**9))
    code, out, _ = validated("method=rules", models="false")
    assert code == 0 and out.count("1.0 GB are free") == 2


def test_empty_or_small_splits_and_rare_classes_are_warnings():
    train = many(30, "t") + many(4, "u", "y")
    warnings = check_rows(rows(train, many(3, "v")))
    assert [line.split(" ")[0] for line in warnings] == ["val", "no", "1"]
    assert "'y' (4)" in warnings[2]
    assert check_rows(rows(train + many(1, "w", "y"), many(20, "v"), many(20, "s"))) == []


def test_near_copies_are_a_warning():
    train = many(30, "t") + many(5, "u", "y")
    copy = replace(train[3], id="copied", group="copied")
    (warning,) = check_rows(rows(train, many(20, "v"), [*many(20, "s"), copy]))
    assert "0 validation and 1 test rows" in warning and "test row copied and t3" in warning


def test_missing_and_damaged_images_are_problems(torn):
    good, zipped = torn / "good.png", ZippedImage(torn / "photos.zip", "good.png")
    missing = [
        torn / "gone.png",
        (good, torn / "torn.png"),
        ZippedImage(torn / "photos.zip", "gone.png"),
        ZippedImage(torn / "good.png", "good.png"),
        ZippedImage(torn / "gone.zip", "good.png"),
    ]
    problems, warnings = check_images(pictured(good, zipped, None, "a ready description", *missing), EmojiConfig())
    assert [problem.split(":")[0] for problem in problems] == ["row r4", "row r6", "row r7", "row r8", "row r5"]
    assert "cannot be decoded" in problems[-1] and warnings == []


def test_only_a_sample_of_many_images_is_decoded(torn, monkeypatch):
    decoded = []
    monkeypatch.setattr(row_checks, "pixels", decoded.append)
    monkeypatch.setattr(row_checks, "MAX_DECODED", 4)
    for count, expected in ((0, 0), (3, 3), (4, 4), (9, 3), (17, 4)):
        decoded.clear()
        check_images(pictured(*[torn / "good.png"] * count), EmojiConfig())
        assert len(decoded) == expected <= 4


@pytest.mark.parametrize(
    ("images", "message"),
    [([None], "missing in every row"), (["words"], "descriptions"), ([None, Image.new("RGB", (4, 4))], None)],
)
def test_expected_images_that_no_row_has_are_a_warning(images, message):
    _, warnings = check_images(pictured(*images), EmojiConfig())
    assert len(warnings) == (message is not None) and all(message in line for line in warnings)


@pytest.mark.parametrize(
    "args",
    [
        ["method=ours"],
        ["method=ours", "alignment.style=false"],
        ["method=rules"],
        ["method=tamml"],
        ["method=ours", "perturbation.stage=described"],
        ["method=rules", "perturbation.stage=described"],
        ["method=ours", "perturbation.weight=0"],
        ["method=ours_serial"],
        ["method=ours_all"],
        ["method=freelb"],
    ],
)
def test_a_run_makes_at_most_max_calls(tiny_args, args):
    config = load_config([*tiny_args, *args, "alignment.exemplar=false"])
    split = read_rows(config.data)
    llm = open_llm(config, dry=True)
    fill(open_pipeline(config, split, llm), split, 8, lambda count: None)
    upper = max_calls(config, split)
    # Rules and missing modalities leave fewer descriptions to style than a row may have.
    assert llm.usage.texts.total() <= upper <= 1.5 * llm.usage.texts.total() or upper == llm.usage.texts.total() == 0


def test_a_split_without_training_rows_is_a_warning(validated, tmp_path):
    pd.DataFrame({"t": ["some words", "other words"] * 12, "y": ["a", "b"] * 12}).to_csv(tmp_path / "t.csv")
    code, out, errors = validated(
        "method=rules",
        f"data.path={tmp_path / 't.csv'}",
        "data.image=null",
        "data.text=[t]",
        "data.table=[]",
        "data.target=y",
        "data.group=null",
        "data.split.val=0.005",
        "data.split.test=0.99",
        models="false",
    )
    assert (code, errors) == (0, [])
    assert "no rows for train" in out and "no rows for val" in out and "example, row" in out


def test_an_unreadable_file_is_reported_once(validated, tmp_path):
    pd.DataFrame({"a": []}).to_csv(tmp_path / "empty.csv", index=False)
    code, _, (line,) = validated("method=rules", f"data.path={tmp_path / 'empty.csv'}", models="false")
    assert code == 2 and "has no rows" in line and "empty.csv" in line
