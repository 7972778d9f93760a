"""Settings of runs and of the service among the chart's values: those that `scanner` has, and no others."""

import importlib.util
import json
from pathlib import Path

from scanner.config import RunConfig

SOURCE = Path(__file__).parents[3] / "deploy" / "helm" / "settings_schema.py"


def source():
    spec = importlib.util.spec_from_file_location("settings_schema", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_charts_schema_has_the_settings_as_they_are():
    made = source()
    schema = json.loads(made.SCHEMA.read_text())
    assert made.with_settings(schema) == schema, f"run {SOURCE}"


def test_every_setting_of_a_run_is_a_value_or_has_a_place_of_its_own():
    made = source()
    assert made.RUN.keys() == RunConfig.model_fields.keys()
    for section, elsewhere in made.RUN.items():
        assert elsewhere <= type(getattr(RunConfig(), section)).model_fields.keys()
