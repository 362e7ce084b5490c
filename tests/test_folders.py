"""Folders that a user names."""

import pytest

from lucibot.core.errors import UserError
from lucibot.core.folders import make_folder
from lucibot.evaluate.command import evaluate
from lucibot.evaluate.config import EvaluateConfig


def test_a_folder_is_made_with_those_above_it(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"


@pytest.mark.parametrize("below", ["", "more/below"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match=r"--out .*taken is a file\); choose another"):
        make_folder(tmp_path / "taken" / below)
    assert (tmp_path / "taken").read_text() == "mine"


def test_judging_into_a_file_is_the_users_mistake(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match="taken is a file"):
        evaluate([], ["state"], EvaluateConfig(), tmp_path / "taken")
