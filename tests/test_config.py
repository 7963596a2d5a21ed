"""Configs: every shipped one is whole, overrides keep their types, faults are named."""

import json
import math
from pathlib import Path

import pytest

from electra_jax.config import (
    config_fields,
    finetune_config,
    finetune_defaults,
    load_config,
    pretrain_config,
    pretrain_defaults,
)
from electra_jax.config_files import FORMER_NAMES, find_config, flatten_fields, split_variant
from electra_jax.errors import UsageError
from electra_jax.run_directory import CONFIG_FILE, read_config, save_config
from electra_jax.tasks import tasks

CONFIGS = Path(__file__).parent.parent / "configs"
SHIPPED = [
    f"pretrain/{file.stem}{variant}"
    for file in sorted(CONFIGS.glob("pretrain/[a-z]*.py"))
    for variant in (("", ":mlm") if file.stem == "family" else ("", ":modern"))
    if not (file.stem == "tiny" and variant)
]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_is_whole_and_says_how_to_run_it(name, tmp_path):
    config = pretrain_config(load_config(name).to_dict())
    save_config(config, tmp_path)
    assert read_config(tmp_path) == config
    text = find_config(name.partition(":")[0]).read_text()
    assert "electra-jax pretrain --config pretrain/" in text


def test_small_is_the_published_one():
    config = pretrain_config(load_config("pretrain/small").to_dict())
    model, optimizer = config.model, config.optimizer
    assert (model.layers, model.hidden, model.heads, model.intermediate) == (12, 256, 4, 1024)
    assert (model.embedding, model.max_positions, model.dropout) == (128, 512, 0.1)
    assert (config.generator.width, config.generator.depth) == (0.25, 1.0)
    assert (config.objective.mask_rate, config.objective.discriminator_weight) == (0.15, 50.0)
    assert (optimizer.learning_rate, optimizer.warmup_steps) == (5e-4, 10_000)
    assert (optimizer.weight_decay, optimizer.epsilon, optimizer.clip) == (0.01, 1e-6, 1.0)
    assert not optimizer.bias_correction
    assert (config.train.batch_size, config.train.steps) == (128, 1_000_000)
    assert (config.data.length, config.data.layout) == (128, "pair")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=1e4", 10_000),
        ("train.steps=123456789012345678", 123456789012345678),
        ("optimizer.learning_rate=1", 1.0),
        ("objective.disallow_correct=true", True),
        ("data.store=a:0.7,b=c:0.3", "a:0.7,b=c:0.3"),
    ],
)
def test_overrides_take_the_type_of_their_field(override, expected):
    config = load_config("pretrain/small", [override])
    section, field = override.partition("=")[0].split(".")
    value = config[section][field]
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=5", r"no such field; did you mean --config.train.steps\?"),
        ("train.steps=many", "not of type int"),
        ("train.steps=1.5", "not of type int"),
        ("objective.disallow_correct=maybe", "not of type bool"),
        ("train.steps", "needs a value"),
        ("train=5", "no such field"),
    ],
)
def test_bad_overrides_are_named(override, message):
    with pytest.raises(UsageError, match=message):
        load_config("pretrain/small", [override])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py", "no config file nowhere.py; shipped with the package: .*pretrain/tiny"),
        (
            "pretrain/small:moddern",
            "no variant 'moddern'; did you mean modern\\?; there are modern",
        ),
    ],
)
def test_bad_specs_are_named(spec, message):
    with pytest.raises(UsageError, match=message):
        load_config(spec)


def test_a_broken_config_file_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config(variant):\n    return 1 / 0\n")
    with pytest.raises(UsageError, match=r"mine.py is not an usable config: ZeroDivisionError"):
        load_config(str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.train.stepz = 5", "stepz"),
        ("config.evaluation = {'every': 5}", "evaluation"),
        ("config = {'train': {'steps': 5}}", "get_config returns no ConfigDict"),
        ("config = ConfigDict({'train': {'stepz': 5}})", "config.train.stepz: there is no such"),
        ("config = ConfigDict({'trian': {'steps': 5}})", "config.trian: there is no such section"),
        ("config = ConfigDict({'train': 5})", "config.train is 5 and not a section"),
        ("config = ConfigDict({'train': {'steps': '5'}})", "train.steps must be of type int, not"),
    ],
)
def test_a_misspelt_field_of_a_config_file_is_named(tmp_path, change, message):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "from electra_jax.config import pretrain_defaults\n"
        f"def get_config(variant):\n    config = pretrain_defaults()\n    {change}\n"
        "    return config\n"
    )
    with pytest.raises(UsageError, match=message):
        pretrain_config(load_config(str(file)).to_dict())


# Of each field's wrong values (-1, 0, nan, inf), those that are not wrong.
RIGHT = {
    "mesh.data": (-1,),
    **dict.fromkeys(
        (
            "model.vocab_size", "model.local_window", "model.dropout", "model.attention_dropout",
            "objective.generator_weight", "objective.discriminator_weight",
            "objective.final_temperature", "optimizer.learning_rate",
            "optimizer.muon_learning_rate", "optimizer.separate_learning_rate",
            "optimizer.warmup_steps", "optimizer.weight_decay", "optimizer.b1", "optimizer.b2",
            "optimizer.clip", "eval.max_batches", "eval.minimal_pairs_per_paradigm", "train.seed",
            "train.dropout", "train.epochs", "train.warmup_share", "train.patience",
            "train.skip_non_finite", "train.average", "objective.final_mask_rate",
            "task.train_rows",
        ),
        (0,),
    ),
}  # fmt: skip
# Texts that name files, columns and whatever else may be called anything.
FREE = (
    "data.store", "eval.minimal_pairs", "init.from", "init.model", "task.train",
    "task.validation", "task.test", "task.columns", "task.text", "task.text_b",
    "task.label", "task.options", "task.words",
    "task.intent", "task.question", "task.context", "task.answers", "task.query",
    "task.positive", "task.negative", "task.source", "task.summary", "task.out_of_scope",
)  # fmt: skip


def sections():
    """(task or "", field, its default) of every section of every kind of run."""
    for name, value in flatten_fields(pretrain_defaults()):
        yield "", name, value
    for task in sorted(tasks()):
        for name, value in flatten_fields(finetune_defaults(task)):
            if name.startswith(("task.", "train.", "init.")):  # others are those of pretraining
                yield task, name, value


def typed(task, field, value):
    """The config in which one field has that value, as a config file may set it."""
    section, name = field.split(".")
    if not task:
        return pretrain_config({section: {name: value}})
    fields = {"task": {"name": task}}
    fields.setdefault(section, {})[name] = value
    return finetune_config(fields)


@pytest.mark.parametrize(
    ("task", "field", "default"), [x for x in sections() if type(x[2]) in (int, float)]
)
def test_numbers_that_make_no_sense_are_refused_in_every_section(task, field, default):
    for value in (-1, 0, math.nan, math.inf, *([2**31] if isinstance(default, int) else [])):
        value = value if math.isnan(value) else type(default)(value) if value <= 0 else value
        if value in RIGHT.get(field, ()):
            typed(task, field, value)
            continue
        with pytest.raises(UsageError, match=rf"^(mesh.*)?{field}\b") as error:
            typed(task, field, value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "field", "default"), [x for x in sections() if type(x[2]) in (str, bool)]
)
def test_unknown_names_and_wrong_types_are_refused_in_every_section(task, field, default):
    wrong = [5, None] if isinstance(default, str) else [5, None, "true"]
    if isinstance(default, str) and field not in FREE:
        wrong.append("nonsense(")
    for value in wrong:
        if (field, value) == ("init.model", None):
            continue  # the same as empty
        with pytest.raises(UsageError, match=field.replace("init.model", r"init\.from")):
            typed(task, field, value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("train.epochs=nan", "train.epochs must be a finite number, not nan"),
        ("train.evaluations=inf", "train.evaluations must be a finite number, not inf"),
        ("task.scale=0", "task.scale must be above 0, not 0"),
        ("task.metric=f2", "task.metric='f2' is unknown; use spearman"),
        ("init.checkpoint=first", "init.checkpoint='first' is unknown; use best, last or a step"),
    ],
)
def test_fields_of_fine_tuning_that_make_no_sense_are_refused(field, message):
    with pytest.raises(UsageError, match=message):
        finetune_config(load_config("finetune/classification:regression", [field]))


@pytest.mark.parametrize(("former", "name"), FORMER_NAMES.items())
def test_names_that_configs_had_before_are_read(former, name):
    assert find_config(former) == find_config(f"configs/{former}.py") == find_config(name)


def mine(folder, *lines):
    """A config file with those lines after the published defaults."""
    file = folder / "mine.py"
    body = "".join(f"    {line}\n" for line in lines)
    file.write_text(
        "from electra_jax.config import pretrain_defaults\n"
        f"def get_config(variant):\n    config = pretrain_defaults()\n{body}    return config\n"
    )
    return str(file)


@pytest.mark.parametrize(
    ("lines", "overrides", "expected"),
    [
        (["config.init.model = 'a'"], [], "a"),
        (["config.init['from'] = 'a'"], [], "a"),
        (["config.init.model = 'a'", "config.init['from'] = 'a'"], [], "a"),
        ([], ["init.model=b"], "b"),
        ([], ["init.model=b", "init.from=b"], "b"),
        (["config.init.model = 'a'"], ["init.from=b"], "b"),
        (["config.init['from'] = 'a'"], ["init.model=b"], "b"),
        (["config.init.model = 'a'"], ["init.model="], ""),
    ],
)
def test_init_model_is_another_name_of_init_from(tmp_path, lines, overrides, expected):
    config = pretrain_config(load_config(mine(tmp_path, *lines), overrides))
    assert config.init.from_ == expected
    assert config_fields(config)["init"] == {"from": expected}
    save_config(config, tmp_path)
    assert json.loads((tmp_path / CONFIG_FILE).read_text())["init"] == {"from": expected}
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("lines", "overrides"),
    [
        (["config.init.model = 'a'", "config.init['from'] = 'b'"], []),
        ([], ["init.model=a", "init.from=b"]),
    ],
)
def test_two_names_with_two_values_are_refused(tmp_path, lines, overrides):
    with pytest.raises(UsageError, match="init.model='a' and init.from='b' are two names of one"):
        load_config(mine(tmp_path, *lines), overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.name=mlm"], "generator.kind=none, not transformer"),
        (["objective.name=electric"], "generator.kind=two_tower or"),
        (["objective.name=replace_mlm", "generator.share=disentangled"], "nothing, not disentang"),
        (
            ["objective.name=all_tokens_mlm", "generator.width=1", "generator.share=all"],
            "generator.share=embeddings or nothing, not all",
        ),
        (["data.length=7"], "data.length must be at least 8, not 7"),
        (["data.layout=foo"], "data.layout='foo' is unknown; use pair, packed"),
        (["data.store=a:0.5,b:0"], "data.store='a:0.5,b:0': weights must be positive, not 0"),
        (["mesh.fsdp=-1"], "mesh.data=-1, mesh.fsdp=-1, mesh.tensor=1: at most one may be -1"),
        (["generator.width=0.001"], "generator.width=0.001 and .* its model.hidden must be at le"),
        (["data.length=1024"], "exceeds model.max_positions=512"),
        (["model.architecture=modern", "model.embedding=256"], "generator.width=1.0"),
        (["train.time_budget=soon"], "not a duration"),
        (["train.batch_size=0"], "train.batch_size"),
        (["eval.every_steps=0"], "eval.every_steps"),
        (["checkpoint.keep=0"], "checkpoint.keep"),
        (["model.heads=3"], "not a multiple of model.heads"),
        (["model.dtype=float8"], "model.dtype"),
        (["model.attention=cudnn"], "set model.attention_dropout=0"),
        (["model.local_window=-1"], "model.local_window must be at least 0"),
        (["model.local_window=64", "model.global_every=0"], "model.global_every"),
        (["model.token_types=1"], "data.layout=pair needs model.token_types=2"),
        (["optimizer.frozen=("], "optimizer.frozen='.' is not a regular expression"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay must be at least 0, not -1"),
        (["optimizer.clip=nan"], "optimizer.clip must be a finite number, not nan"),
        (["optimizer.b2=1"], "optimizer.b2 must be in"),
        (["optimizer.name=muon", "optimizer.learning_rate=0"], "above 0 with optimizer.name=muon"),
    ],
)
def test_fields_that_make_no_sense_together_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        pretrain_config(load_config("pretrain/small", overrides).to_dict())


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ('{"version": 99}', "upgrade"), ("[]", "it holds a list")],
)
def test_a_damaged_run_config_is_refused(tmp_path, content, message):
    with pytest.raises(UsageError, match="not a run directory"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path)


def test_a_config_file_may_have_colons_in_its_path(tmp_path):
    file = tmp_path / "run_14:43" / "config.py"
    file.parent.mkdir()
    file.write_text("def get_config(variant):\n    return 1\n")
    assert split_variant(str(file)) == (str(file), "")
    assert split_variant(f"{file}:small") == (str(file), "small")
    assert split_variant("pretrain/small:modern") == ("pretrain/small", "modern")


def test_steps_that_are_given_drop_the_time_budget_of_a_config(caplog):
    caplog.set_level("INFO")
    config = load_config("pretrain/tiny", ["train.steps=100"])
    assert (config.train.steps, config.train.time_budget) == (100, "")
    assert "train.time_budget=20m is dropped" in caplog.text
    both = load_config("pretrain/tiny", ["train.steps=100", "train.time_budget=3m"])
    assert both.train.time_budget == "3m"
