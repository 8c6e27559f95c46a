"""The formula for parameters against the model that training builds, as one rank of many."""

import json
from pathlib import Path

from support.built_models import DENSE_LAYOUTS, LAYOUTS, compare_parameters
from support.run_processes import start


def test_the_formula_counts_the_parameters_of_the_model_that_training_builds(tmp_path: Path) -> None:
    run = start(tmp_path, tmp_path / "equal.json", body=compare_parameters)
    assert run.wait() == [0], run.error_output()[-2000:]
    assert json.loads((tmp_path / "equal.json").read_text()) == dict.fromkeys(LAYOUTS | DENSE_LAYOUTS, True)
