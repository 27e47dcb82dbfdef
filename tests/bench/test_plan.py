"""Plans: what they become, and one line for whatever is wrong with one."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daptune.bench.plan import KINDS, Plan, find_plan, parse_plan, ready_plans
from daptune.errors import PlanError

GOOD = 'methods = ["zero_shot", "dapt"]\ndatasets = ["demo"]\n'


def test_a_plan_is_every_combination_and_the_fewest_shots_come_first() -> None:
    plan = parse_plan(GOOD + "shots = [4, 1]\nseeds = [3, 5]", "mine")
    jobs = plan.jobs()
    assert [(job.shots, job.method, job.seed) for job in jobs] == [
        (shots, method, seed) for shots in (1, 4) for method in ("zero_shot", "dapt") for seed in (3, 5)
    ]
    assert len({job.key for job in jobs}) == len(jobs) == 8
    assert {len(job.key) for job in jobs} == {16} and {job.plan for job in jobs} == {"mine"}


def test_experiments_take_what_stands_above_them_and_say_what_differs() -> None:
    text = GOOD + 'train = { lr = 0.1 }\n[[experiments]]\nshots = [2]\n[[experiments]]\nkind = "domain"\n'
    text += 'targets = ["demo/fxemoji"]\nmethods = [{ method = "dapt", label = "own", train = { epochs = 3 } }]\n'
    first, second = parse_plan(text, "two").experiments
    assert first.kind == "fewshot" and first.shots == (2,)
    assert [row.label for row in first.methods] == ["zero_shot", "dapt"]
    assert second.kind == "domain" and second.targets == ("demo/fxemoji",) and second.shots == (16,)
    assert second.methods[0].label == "own" and second.methods[0].train == {"lr": 0.1, "epochs": 3}


def test_jobs_that_differ_in_what_is_measured_share_a_training() -> None:
    job = parse_plan(GOOD, "mine").jobs()[1]
    other = replace(job, experiment="domain", label="x", targets=("demo/fxemoji",))
    assert other.training == job.training and other.key != job.key
    assert replace(job, experiment="base2new").training != job.training
    assert replace(job, experiment="domain").training == job.training  # without a preset, nothing differs
    across = replace(job, experiment="crossdataset", preset="paper")
    assert across.settings == "cross" and across.training != replace(across, experiment="fewshot").training
    for name, value in {"seed": 2, "shots": 3, "options": {"t": 1.0}, "train": {"lr": 1.0}}.items():
        assert replace(job, **{name: value}).training != job.training


def test_jobs_keep_the_keys_that_results_of_0_1_have() -> None:
    path = Path(__file__).with_name("results-0.1.jsonl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:-1]]
    known = {row["key"]: (row["label"], row["dataset"], row["shots"], row["seed"]) for row in rows}
    options = "{ text_tokens = 2, vision_tokens = 2 }"
    dapt = f'{{ method = "dapt", options = {options} }}'
    wild = '{ method = "coop", label = "wild", train = { lr = 1e30, steps = 4 } }'
    text = f"""
name = "small"
backbone = "tiny"
precision = "fp32"
datasets = ["demo"]
shots = [1, 2]
seeds = [1, 2]
train = {{ steps = 2 }}
methods = ["zero_shot", "linear_probe", {wild}, {dapt}]
[[experiments]]
[[experiments]]
kind = "domain"
targets = ["demo/fxemoji"]
"""
    jobs = {job.key: (job.label, job.dataset, job.shots, job.seed) for job in parse_plan(text, "small").jobs()}
    assert len(known) == 5 and known.items() <= jobs.items()
    assert replace(parse_plan(text, "small").jobs()[0], score="val").key not in jobs


SEVERAL = 'methods = ["zero_shot", "dapt"]\ndatasets = ["."]\nmulti_label = true\n'


def test_several_labels_are_for_a_plan_or_an_experiment() -> None:
    for text in (SEVERAL, SEVERAL.replace("multi_label", "[[experiments]]\nmulti_label")):
        assert all(job.multi_label for job in parse_plan(text, "mine").jobs())
    several, one = (parse_plan(SEVERAL.replace("true", value), "mine").jobs()[1] for value in ("true", "false"))
    assert several.key != one.key and several.training != one.training
    assert one.key == parse_plan(SEVERAL.replace("multi_label = true", ""), "mine").jobs()[1].key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "shotss = [1]", "unknown key 'shotss'. Did you mean 'shots'?"),
        (GOOD + "[[experiments]]\nkindd = 1", "experiment 1 has an unknown key 'kindd'. Did you mean 'kind'?"),
        (GOOD + 'kind = "fewshoot"', "'fewshoot' is not known. Did you mean 'fewshot'?"),
        ('methods = ["dabt"]\ndatasets = ["demo"]', "There is no method 'dabt'. Did you mean 'dapt'?"),
        ('methods = ["dapt"]\ndatasets = ["eurosatt"]', "no data set 'eurosatt'. Did you mean 'eurosat'?"),
        ('methods = ["dapt"]\ndatasets = ["demo/fxemojis"]', "no data set at 'demo/fxemojis'"),
        ('methods = ["dapt"]\ndatasets = ["./nowhere"]', "no data set at './nowhere'"),
        ('methods = [{ method = "dapt", options = { tt = 1 } }]\ndatasets = ["demo"]', "tt"),
        ('methods = [{ method = "dapt", option = {} }]\ndatasets = ["demo"]', "Did you mean 'options'?"),
        (GOOD + "train = { eposchs = 3 }", "train has an unknown key 'eposchs'. Did you mean 'epochs'?"),
        (GOOD + 'train = { select = "best_val" }', "both selections are measured"),
        (GOOD + "train = { steps = 9, epochs = 3 }", "has both steps and epochs"),
        (GOOD + "train = { lr = -1.0 }", "lr must be a number above 0"),
        (GOOD + "shots = [0]", "shots: expected whole numbers of at least 1, found 0"),
        (GOOD + "shots = 4", "shots: expected a list"),
        (GOOD + "seeds = []", "seeds: expected a list"),
        (GOOD + 'preset = "papers"', "preset 'papers' is not known. Did you mean 'paper'?"),
        (GOOD + 'precision = "fp8"', "precision 'fp8' is not known"),
        (GOOD + 'score = "vall"', "score 'vall' is not known. Did you mean 'val'?"),
        (GOOD + 'score = "val"\ntargets = ["demo/fxemoji"]', "leave out targets and base2new"),
        (GOOD + "multi_label = 1", "multi_label: expected true or false, found 1"),
        (GOOD + "multi_label = true", "tables of your own, such as ./labels.csv; demo has one label"),
        (SEVERAL + 'kind = "base2new"', "measures the classes that were learned; leave out targets"),
        (SEVERAL + 'targets = ["demo/fxemoji"]', "measures the classes that were learned; leave out targets"),
        (SEVERAL.replace("dapt", "gda"), "gda cannot learn several labels; leave it out, or multi_label"),
        (
            SEVERAL.replace('"dapt"', '{ method = "coop", ensemble = "auto" }'),
            "no ensemble with multi_label; leave it out of coop",
        ),
        (GOOD + "experiments = 3", "expected experiments as tables"),
        ('methods = ["dapt", "dapt"]\ndatasets = ["demo"]', "two methods have the label 'dapt'"),
        ('datasets = ["demo"]', "names no methods"),
        ("name = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PlanError) as error:
        parse_plan(text, "mine")
    assert message in str(error.value) and "mine" in str(error.value) and "\n" not in str(error.value)


def test_a_plan_is_found_by_name_or_file(tmp_path: Path) -> None:
    assert find_plan("fewshot").name == "fewshot"
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    assert find_plan(str(file)).name == "mine" and find_plan(str(file)).text == GOOD
    with pytest.raises(PlanError, match=r"no plan 'fewshoot'\. Did you mean 'fewshot'"):
        find_plan("fewshoot")
    with pytest.raises(PlanError, match=r"none.toml cannot be read \(No such file"):
        find_plan(str(tmp_path / "none.toml"))


def plans() -> Iterator[Plan]:
    return (find_plan(name) for name in ready_plans())


def test_the_ready_plans_are_those_of_the_paper_and_of_the_embedded_backbones() -> None:
    found = {plan.name: plan for plan in plans()}
    own = {"demo": "tiny", "photographs": "photo"}
    assert set(found) - set(own) == {"fewshot", "comparison16", "domain", "ablation", "base2new", "crossdataset"}
    assert len(found["fewshot"].jobs()) == 5 * 11 * 5 * 3
    assert found["domain"].jobs()[0].targets == ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    assert [row.label for row in found["ablation"].experiments[0].methods] == ["coop_vpt", "+inter", "+intra", "dapt"]
    assert [part.kind for part in found["demo"].experiments] == ["fewshot", "comparison", "domain", "ablation"]
    assert {part.kind for plan in found.values() for part in plan.experiments} == set(KINDS)
    for name, plan in found.items():
        assert (plan.preset, plan.backbone) == ((None, own[name]) if name in own else ("paper", "ViT-B-16/openai"))
