"""Runs lm-evaluation-harness on a task of three questions with the server at SERVER_URL.

TASKS is the folder with the task as YAML and its questions as JSON lines. Prints the results as JSON.
"""

import json
import os

import lm_eval
from lm_eval.tasks import TaskManager


def main() -> None:
    figures = {}
    for tokens in (True, False):
        arguments = {
            "model": os.environ["SERVER_MODEL"],
            "base_url": f"{os.environ['SERVER_URL']}/v1/completions",
            "tokenizer": os.environ["TOKENIZER"],
            "tokenized_requests": tokens,
            "num_concurrent": 1 if tokens else 3,
            "max_retries": 1,
        }
        ran = lm_eval.simple_evaluate(
            model="local-completions",
            model_args=arguments,
            tasks=["three_questions"],
            task_manager=TaskManager(include_path=os.environ["TASKS"], include_defaults=False),
            bootstrap_iters=0,
        )
        likelihoods = [
            [answer[0] for answer in sample["filtered_resps"]] for sample in ran["samples"]["three_questions"]
        ]
        figures["tokens" if tokens else "texts"] = {
            "results": {
                k: v for k, v in ran["results"]["three_questions"].items() if isinstance(v, (int, float))
            },
            "likelihoods": likelihoods,
        }
    print(json.dumps(figures))


main()
