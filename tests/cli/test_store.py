"""The verb `store`: one action, one folder, and a one-line error if either is wrong."""

import pytest

from project.cli.main import main
from project.llm.protocol import Completion, Request
from project.llm.store.store import Store


@pytest.fixture
def folder(tmp_path):
    with Store(tmp_path / "store") as store:
        for number in range(3):
            store.put(Request("summary", (("user", str(number)),), 0.0, 8), "m", Completion("t", "stop", 5, 7, 0.5))
    return tmp_path / "store"


def told(capsys, *words):
    code = main(["store", *map(str, words)])
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def test_each_action_prints_its_result(folder, capsys, tmp_path):
    assert "1 files, 3 rows" in told(capsys, "ls", folder)[1]
    assert "summary" in told(capsys, "stats", folder)[1]
    assert told(capsys, "verify", folder) == (0, f"{folder}: sound")
    assert "0 journals sealed" in told(capsys, "seal", folder)[1]
    assert "1 shards became 1" in told(capsys, "compact", folder)[1]
    assert "3 rows added" in told(capsys, "merge", folder, f"into={tmp_path / 'all'}")[1]
    assert "3 generations" in told(capsys, "export", folder, f"output={tmp_path / 'out'}")[1]


def test_the_default_folder_is_that_of_the_configuration(folder, capsys):
    assert f"{folder}: sound" in told(capsys, "verify", f"store.path={folder}")[1]


def test_damage_is_exit_code_1(folder, capsys):
    (shard,) = folder.glob("*.parquet")
    shard.write_bytes(b"PAR1")
    code, said = told(capsys, "verify", folder)
    assert code == 1 and shard.name in said and "1 damaged places" in said


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["lss"], "store lss: give one of"),
        ([], "give one of ls, stats"),
        (["ls", "a", "b"], "takes one folder"),
        (["ls", "/no/such"], "/no/such does not exist"),
        (["merge"], "into=outputs/store"),
        (["export", "."], "give output=FOLDER"),
        (["seal", ".", "idle=soon"], "idle=soon: give minutes"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, error, capsys):
    code, said = told(capsys, *words)
    assert code == 2 and said.startswith("error: ") and error in said


def test_other_verbs_refuse_a_word(capsys):
    assert main(["train", "verify"]) == 2
    assert "verify is not of the form key=value" in capsys.readouterr().err
