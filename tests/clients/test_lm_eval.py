"""lm-evaluation-harness evaluates the tiny model on three questions with the correct results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mlxk_tui.demo import tiny_model
from tests.clients.conftest import HERE, RunProgram, last_json
from tests.engine.conftest import needs_mlx

pytestmark = [needs_mlx, pytest.mark.clients]

QUESTIONS = HERE / "tasks" / "questions.jsonl"


def test_evaluation_of_three_questions_gives_the_models_own_figures(
    run_program: RunProgram, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    task = (HERE / "tasks" / "three_questions.yaml").read_text()
    (tasks / "three_questions.yaml").write_text(task.replace("questions.jsonl", str(QUESTIONS)))
    figures = last_json(
        run_program(
            "lm-eval",
            str(HERE / "programs" / "lm_eval_program.py"),
            TOKENIZER=str(tiny_model.folder()),
            TASKS=str(tasks),
            HF_HOME=str(tmp_path),
        )
    )
    questions = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    for run in figures.values():
        likelihoods = run["likelihoods"]
        assert [len(each) for each in likelihoods] == [len(question["choices"]) for question in questions]
        assert all(value < 0 for each in likelihoods for value in each)
        right = [
            each.index(max(each)) == question["answer"]
            for each, question in zip(likelihoods, questions, strict=True)
        ]
        assert math.isclose(run["results"]["acc,none"], sum(right) / 3)
    for ids, texts in zip(figures["tokens"]["likelihoods"], figures["texts"]["likelihoods"], strict=True):
        assert all(math.isclose(one, other, abs_tol=0.01) for one, other in zip(ids, texts, strict=True))
